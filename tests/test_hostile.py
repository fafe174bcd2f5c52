"""What other users of the machine choose: names, what lies at a path, and what answers in place of a daemon."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import (
    REPOSITORY,
    Mounts,
    User,
    daemon_of,
    entry_at,
    exit_status,
    nrfs_command,
    run_nrfs,
    take_away,
)

import nrfs
from mount import mountinfo, mounting, places, processes, replies, wording
from mount.failure import MountError
from mount.options import MountOptions
from nrfs.terminal import plain

ODD = ["carriage\rreturn", "line\nfeed", "\x1b[31mred\x1b]0;title\x07", "form\x0cfeed\x0b\x1c\x85", "\u2028\u202egnp"]


# Names


@pytest.mark.parametrize("name", ODD, ids=plain)
def test_a_mount_point_of_any_name_harms_no_command(mount_nrfs: Mounts, user: User, as_reaper: None, name: str) -> None:
    other = mount_nrfs()
    odd = user.home / name
    odd.mkdir()
    os.chown(odd, user.home.stat().st_uid, user.home.stat().st_gid)
    try:
        assert run_nrfs("mount", odd, "--size", "64M", before=user.before).returncode == 0
        assert entry_at(odd) is not None
        shown = run_nrfs("status")
        assert shown.stderr == ""
        assert {plain(str(odd)), str(other)} <= set(shown.stdout.split("\n"))
        listed = json.loads(run_nrfs("status", "--json").stdout)
        assert str(odd) in {status["mountpoint"] for status in listed}
        refused = run_nrfs("mount", odd)
        assert refused.stderr == f"nrfs mount: {plain(str(odd))}: nrfs is mounted here already (nrfs umount ends it)\n"
        process = daemon_of(odd)
        os.kill(process, signal.SIGKILL)
        exit_status(process)
        for result in (run_nrfs("status", odd), run_nrfs("doctor", before=user.before)):
            assert result.stdout.isascii()
            assert all(line.isprintable() for line in result.stdout.split("\n"))
        # The command that is advised can be copied into a shell as it is.
        advised = run_nrfs("status", odd).stdout.partition("(nrfs ")[2].partition(" takes the mount")[0]
        command = f"{' '.join(nrfs_command())} {advised}"
        assert subprocess.run(["bash", "-c", command], cwd=REPOSITORY, check=False).returncode == 0
        assert entry_at(odd) is None
        mount_nrfs.unmount(other)
    finally:
        take_away(odd)


def test_text_from_outside_is_one_line_of_what_can_be_shown() -> None:
    assert plain("ordinary ünicode 日本 text") == "ordinary ünicode 日本 text"
    assert plain("a\r\n\x1b[0m\x7f\x9b") == r"a\r\n\x1b[0m\x7f\x9b"
    assert plain(os.fsdecode(b"\xff")) == r"\xff"
    assert plain("\ud800\u202e") == r"\ud800\u202e"


@pytest.mark.parametrize("name", [*ODD, "a b", "it's", os.fsdecode(b"\xff$'\\"), "plain", "a\nb'c\\d"], ids=plain)
def test_a_path_in_a_command_is_the_same_path_to_a_shell(name: str) -> None:
    echoed = subprocess.run(["bash", "-c", f"printf %s {wording.argument(name)}"], capture_output=True, check=True)
    assert echoed.stdout == os.fsencode(name)


# What lies at a path


@contextlib.contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Exchanges two names as fast as it goes, by another process."""
    script = """
import ctypes, os, sys
libc, one, other = ctypes.CDLL(None), *map(os.fsencode, sys.argv[1:])
print("ready", flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""
    command = [sys.executable, "-c", script, str(one), str(other)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("swapped", ["the mount point", "a directory above"])
def test_root_mounts_where_it_looked_or_nowhere(mount_nrfs: Mounts, swapped: str) -> None:
    """The path is resolved once; then it leads to a symlink of the attacker's, or a directory that he moves away."""
    place, precious = mount_nrfs.directory(), mount_nrfs.directory()
    above = swapped != "the mount point"
    attacked = place / "m"
    target = attacked / "sub" if above else attacked
    target.mkdir(parents=True)
    (precious / "sub").mkdir()
    (place / "l").symlink_to(precious)
    runtime = places.make_runtime_directory(str(target))
    came_about: set[str] = set()
    with swapping(attacked, place / "l"):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                mount = mounting.attach(MountOptions(mountpoint=str(target)), runtime)
            except MountError as failure:
                came_about.add(str(failure).partition(": ")[2])
            else:
                came_about.add("mounted")
                os.close(mount.descriptor)
                mount.detach()
                assert not mount.entry.mountpoint.startswith(str(precious))
            assert not [entry for entry in mountinfo.entries() if entry.mountpoint.startswith(str(precious))]
    assert "mounted" in came_about and len(came_about) > 1


def test_a_mount_that_two_take_away_at_once_is_gone_for_both(mount_nrfs: Mounts) -> None:
    path = mount_nrfs.directory()
    runtime = places.make_runtime_directory(str(path))
    with ThreadPoolExecutor() as both:
        for _ in range(50):
            mount = mounting.attach(MountOptions(mountpoint=str(path)), runtime)
            os.close(mount.descriptor)
            list(both.map(lambda mount: mount.detach(), [mount, mount]))
            assert entry_at(path) is None


def test_a_mount_that_another_daemon_serves_is_not_touched(mountpoint: Path, mount_nrfs: Mounts) -> None:
    """By a daemon whose own mount had the same numbers."""
    entry = entry_at(mountpoint)
    assert entry is not None
    if processes.daemon_of(entry.device) is None:
        pytest.skip("the kernel does not show whose connection it is: Linux 6.18 does")
    before = mount_nrfs.requests(mountpoint)
    mounting.Mount(-1, entry).detach_if_dead()
    assert mount_nrfs.requests(mountpoint) == before
    assert entry_at(mountpoint) == entry


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_unmounted_is_the_mount_that_was_meant(mount_nrfs: Mounts, lazy: bool) -> None:
    """Though its path leads to another by now."""
    path = mount_nrfs.directory()
    mount = mounting.attach(MountOptions(mountpoint=str(path)), places.make_runtime_directory(str(path)))
    os.close(mount.descriptor)
    moved = mount_nrfs.directory()
    subprocess.run(["mount", "--move", path, moved], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    try:
        mounting.unmount(mount.entry, lazy=lazy)
        assert [entry.filesystem_type for entry in mountinfo.entries() if entry.mountpoint == str(path)] == ["tmpfs"]
        assert entry_at(moved) is None
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_lock_on_the_mount_point_stops_nobody(mount_nrfs: Mounts) -> None:
    path = mount_nrfs.directory()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        mount_nrfs(path)
    finally:
        os.close(descriptor)


# What answers


def listening(path: Path, serve: Callable[[socket.socket], None]) -> Callable[[], None]:
    """Answers in place of a daemon, until the returned function is called."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(50)

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(4096)
                    serve(client)

    thread = threading.Thread(target=run)
    thread.start()

    def end() -> None:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()

    return end


def saying(line: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(line)


def forever(part: bytes, pause: float) -> Callable[[socket.socket], None]:
    def serve(client: socket.socket) -> None:
        while True:
            client.sendall(part)
            time.sleep(pause)

    return serve


VERSION = nrfs.__version__.encode()
STRANGE = {
    "a list": (saying(b"[]\n"), "no object"),
    "deep": (saying(b"[" * 200_000 + b"\n"), "too deep"),
    "no JSON": (saying(b"\xff\xfe\n"), "no JSON"),
    "no status": (saying(b'{"version": "' + VERSION + b'"}\n'), "status without pid"),
    "escapes": (saying(b'{"version": "\\u001b[2J\\n"}\n'), r"the daemon is of nrfs \x1b[2J\n"),
    "an error": (saying(b'{"error": "\\u001b[2J\\nnrfs status: run this"}\n'), r"\x1b[2J\nnrfs status: run this"),
    "other fields": (saying(b'{"version": "0", "mountpoint": "/", "alive": false}\n'), "the daemon is of nrfs 0"),
    "slow": (forever(b" ", 0.5), "the daemon does not answer"),
    "endless": (forever(b" " * (1 << 20), 0), "no JSON"),
    "nothing": (lambda client: None, "the daemon is alive, and cannot be reached from here"),
}


@pytest.fixture(scope="module")
def good_and_bad() -> Iterator[tuple[Path, Path]]:
    """A mount, and one in place of whose daemon something else answers."""
    mounts = Mounts()
    try:
        yield mounts(), mounts()
    finally:
        mounts.clean_up()


@pytest.mark.parametrize(("serve", "problem"), STRANGE.values(), ids=STRANGE.keys())
def test_what_answers_in_place_of_a_daemon_hides_no_other_and_is_shown_as_text(
    good_and_bad: tuple[Path, Path], serve: Callable[[socket.socket], None], problem: str
) -> None:
    good, bad = good_and_bad
    process = daemon_of(good)
    entry = entry_at(bad)
    assert entry is not None
    path = next(place for place in places.runtime_directories(0) if place.exists()) / f"{entry.device}.sock"
    end = listening(path, serve)
    try:
        began = time.monotonic()
        shown = run_nrfs("status")
        listed = json.loads(run_nrfs("status", "--json").stdout)
        assert time.monotonic() - began < 30
    finally:
        end()
    assert (shown.returncode, shown.stderr) == (1, "")
    assert all(line.isprintable() for line in shown.stdout.split("\n"))
    lines = shown.stdout.split("\n")
    assert problem in lines[lines.index(str(bad)) + 1]
    assert f"process {process}, up" in lines[lines.index(str(good)) + 1]
    by_place = {status["mountpoint"]: status for status in listed}
    assert by_place[str(good)]["pid"] == process
    assert by_place[str(bad)]["alive"] is not False


def spoilt(value: object, shape: object) -> Iterator[object]:
    """The same with one part of it of another kind, missing, or out of all bounds."""
    match shape:
        case dict():
            assert isinstance(value, dict)
            for key, part in shape.items():
                yield {other: value[other] for other in value if other != key}
                yield from ({**value, key: other} for other in spoilt(value[key], part))
        case list():
            assert isinstance(value, list)
            yield from ([other, *value[1:]] for other in spoilt(value[0], shape[0]))
        case replies.Mapping():
            assert isinstance(value, dict)
            for key in list(value)[:1]:
                yield from ({**value, key: other} for other in spoilt(value[key], shape.shape))
        case _:
            yield from (1 << 70, -1 << 70, float("inf"), "x" * 5000)
    yield {} if isinstance(value, list) else []


def test_every_part_of_a_status_is_looked_at(mountpoint: Path, mount_nrfs: Mounts) -> None:
    status = mount_nrfs.status(mountpoint)
    replies.check_status(status)
    for bad in spoilt(status, replies.STATUS):
        if isinstance(bad, dict):
            with pytest.raises(replies.NonsenseError):
                replies.check_status(bad)
    for key in ("replicas", "logs", "workers"):
        with pytest.raises(replies.NonsenseError):
            replies.check_status({**status, key: []})
