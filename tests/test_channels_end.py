"""The native channels where things come to an end or change under them: the daemon in the midst of requests, a worker,
the CPUs. Nobody is left hanging, the mount point is free, and a new mount works.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import (
    PATIENCE_SECONDS,
    REPOSITORY,
    Mounts,
    alone,
    daemon_of,
    entry_at,
    exit_status,
    nrfs_command,
    run_nrfs,
    wait_until,
)
from support.without_call import IO_URING_ENTER, without_call

from mount import channel

NO_RING = channel.choose(channel.Channel.AUTO).reason
needs_ring = pytest.mark.skipif(NO_RING is not None, reason=str(NO_RING))
native = pytest.mark.parametrize("how", ["device", pytest.param("ring", marks=needs_ring)])

CALLERS = {
    "stat": "os.stat('file', dir_fd=place)",
    "write": "os.pwrite(file, bytes(300_000), 0), os.fsync(file)",
    "names": "os.rename('one', 'other', src_dir_fd=place, dst_dir_fd=place), os.rename('other', 'one', "
    "src_dir_fd=place, dst_dir_fd=place)",
}
"""What processes do over and over, each on its own, in a directory and with a file that they have opened."""

CALLER = """
import os, sys
place = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
file = os.open("file", os.O_RDWR, dir_fd=place)
print("begun", flush=True)
while True:
    {}
"""


@contextlib.contextmanager
def callers(path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that keep a mount busy until a call of theirs fails."""
    for name in ("file", "one"):
        (path / name).touch()
    begun = []
    try:
        for call in CALLERS.values():
            command = [sys.executable, "-c", CALLER.format(call), str(path)]
            begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        for process in begun:
            assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        yield begun
    finally:
        for process in begun:
            process.kill()
            process.communicate()


def lazily(path: Path) -> None:
    """Takes the mount out of the tree, where its users go on, and then ends its daemon."""
    process = daemon_of(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    assert entry_at(path) is None
    os.kill(process, signal.SIGTERM)


def by(number: signal.Signals) -> Callable[[Path], None]:
    return lambda path: os.kill(daemon_of(path), number)


@native
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (by(signal.SIGTERM), 0),
        (by(signal.SIGKILL), -signal.SIGKILL),
        (by(signal.SIGSEGV), -signal.SIGSEGV),
        (lazily, 0),
    ],
    ids=["SIGTERM", "SIGKILL", "SIGSEGV", "umount --lazy"],
)
def test_an_end_in_the_midst_of_requests_hangs_nobody(
    mount_nrfs: Mounts, as_reaper: None, how: str, end: Callable[[Path], None], status: int
) -> None:
    path = mount_nrfs(channel=how, cache="none")
    daemon = daemon_of(path)
    with callers(path) as begun:
        seen = mount_nrfs.requests(path)
        wait_until(
            lambda: all(mount_nrfs.requests(path)[kind] > seen[kind] + 20 for kind in ("getattr", "write", "rename")),
            "requests of all callers",
        )
        end(path)
        assert exit_status(daemon) == status
        for process in begun:
            _, said = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode == 1 and b"Error: [Errno " in said
    if entry_at(path) is not None:
        mount_nrfs.unmount(path)
    assert list(path.iterdir()) == []
    mount_nrfs(path, channel=how)
    (path / "file").write_text("here")
    assert mount_nrfs.status(path)["channel"] == how


# A worker that fails


@needs_ring
def test_a_worker_that_fails_ends_the_mount_and_is_named(mount_nrfs: Mounts) -> None:
    """The ring is there, but no worker can enter it."""
    path = mount_nrfs.directory()
    command = nrfs_command("mount", path, "--size", "64M", "--channel", "ring", "--foreground")
    before = without_call(IO_URING_ENTER, errno.EIO)
    result = subprocess.run(
        [*before, *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"nrfs mount: {path}: serving the mount failed: worker nrfs-ring-")
    assert "Input/output error" in last
    assert entry_at(path) is None
    mount_nrfs(path)


# CPUs that are not there, or go


def work_on(cpu: int, path: Path) -> None:
    """Makes, changes and reads a file on this CPU."""
    name = path / f"of CPU {cpu}"
    script = f"cp {sys.executable} '{name}' && mv '{name}' '{name}.moved' && cmp {sys.executable} '{name}.moved'"
    result = subprocess.run(["taskset", "--cpu-list", str(cpu), "sh", "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def workers_of(mounts: Mounts, path: Path) -> dict[int, int]:
    """The requests of those that have a CPU."""
    workers = mounts.status(path)["workers"]
    return {worker["cpu"]: sum(worker["requests"].values()) for worker in workers if worker["cpu"] is not None}


@native
def test_a_mount_that_may_use_one_cpu_serves_them_all(mount_nrfs: Mounts, how: str) -> None:
    path = mount_nrfs.directory()
    first = min(os.sched_getaffinity(0))
    before = ("taskset", "--cpu-list", str(first))
    result = run_nrfs("mount", path, "--size", "256M", "--channel", how, "--cache", "none", before=before)
    assert (result.returncode, result.stderr) == (0, "")
    for cpu in os.sched_getaffinity(0):
        served = workers_of(mount_nrfs, path)[first]
        work_on(cpu, path)
        assert set(workers_of(mount_nrfs, path)) == {first}
        assert workers_of(mount_nrfs, path)[first] > served
    mount_nrfs.unmount(path)


@native
def test_a_daemon_whose_threads_are_put_elsewhere_goes_on(mount_nrfs: Mounts, as_reaper: None, how: str) -> None:
    path = mount_nrfs(channel=how, cache="none")
    daemon = daemon_of(path)
    for place in os.sched_getaffinity(0):
        for thread in Path(f"/proc/{daemon}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {place})
        for cpu in os.sched_getaffinity(0):
            work_on(cpu, path)
    mount_nrfs.unmount(path)
    assert exit_status(daemon) == 0


def pinned(daemon: int) -> dict[int, set[int]]:
    """The CPUs on which each worker of the ring may run, by its own."""
    threads = list(Path(f"/proc/{daemon}/task").iterdir())
    workers = [(thread, re.fullmatch("nrfs-ring-([0-9]+)\n", (thread / "comm").read_text())) for thread in threads]
    return {int(worker[1]): os.sched_getaffinity(int(thread.name)) for thread, worker in workers if worker}


def is_pinned_again(daemon: int, cpu: int, path: Path) -> bool:
    work_on(cpu, path)
    return pinned(daemon)[cpu] == {cpu}


@contextlib.contextmanager
def offline(cpu: int) -> Iterator[None]:
    switch = Path(f"/sys/devices/system/cpu/cpu{cpu}/online")
    switch.write_text("0")
    try:
        yield
    finally:
        switch.write_text("1")


@alone
@native
def test_cpus_may_go_and_come_back(mount_nrfs: Mounts, as_reaper: None, how: str) -> None:
    """What else is pinned to a CPU that goes may stay unpinned: so this is done only where it is allowed."""
    *others, last = sorted(os.sched_getaffinity(0))
    switch = Path(f"/sys/devices/system/cpu/cpu{last}/online")
    if "NRFS_TEST_HOTPLUG" not in os.environ:
        pytest.skip("takes a CPU away from the whole machine for a moment: NRFS_TEST_HOTPLUG=1 allows it")
    if not others or not os.access(switch, os.W_OK):
        pytest.skip("this machine has no CPU that can be taken away")
    path = mount_nrfs(channel=how, cache="none")
    with offline(last):
        work_on(others[0], path)
        beside = mount_nrfs(channel=how, cache="none")
        work_on(others[0], beside)
    for mounted in (path, beside):
        daemon = daemon_of(mounted)
        work_on(last, mounted)
        if how == "ring" and mounted == path:
            wait_until(partial(is_pinned_again, daemon, last, mounted), "the worker to be pinned again")
        mount_nrfs.unmount(mounted)
        assert exit_status(daemon) == 0
