"""The life of a mount, as a user sees it: how it begins, how it ends, what it says when it cannot."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import (
    NOBODY,
    PATIENCE_SECONDS,
    REPOSITORY,
    Mounts,
    User,
    daemon_of,
    entry_at,
    exit_status,
    in_namespace,
    is_alive,
    nrfs_command,
    ownerless_control_files,
    run_nrfs,
    stopped,
    take_away,
    wait_until,
)


def only_line(result: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one line in which a command that failed says why."""
    assert (result.returncode, result.stdout) == (status, ""), result
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def succeeded(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.fixture
def nothing_left(mount_nrfs: Mounts) -> Iterator[None]:
    """Fails where a test leaves a file in the runtime directory that was not there before."""
    before = ownerless_control_files()
    yield
    mount_nrfs.clean_up()
    # A mount of somebody else may just be on its way to its end.
    wait_until(lambda: ownerless_control_files() <= before, "the end of what belongs to no mount", seconds=5)


# How it begins


def test_a_mount_can_be_used_when_the_command_returns(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    assert list(path.iterdir()) == []
    (path / "file").write_bytes(b"content")
    assert (path / "file").read_bytes() == b"content"


def test_the_root_directory_is_the_users_like_a_fresh_one(mountpoint: Path) -> None:
    status = mountpoint.stat()
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert stat.S_IMODE(status.st_mode) == 0o755
    assert abs(status.st_mtime - time.time()) < PATIENCE_SECONDS


def test_the_mount_names_itself(mountpoint: Path) -> None:
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {mountpoint} " in line)
    source, _, kind, options, *_ = line.split()
    assert (source, kind) == ("nrfs", "fuse.nrfs")
    assert {"rw", "nosuid", "nodev", "noatime", "default_permissions"} <= set(options.split(","))


def test_mount_options_can_come_as_in_fstab(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(
        o="defaults,nofail,x-systemd.automount,ro,noexec,dev,size=64M,inodes=1000,nodes=2,logs=3,cache=none"
    )
    status = mount_nrfs.status(path)
    assert status["capacity"]["inodes"] == 1000
    assert [replica["node"] for replica in status["replicas"]] == [0, 1]
    assert [log["name"] for log in status["logs"]] == ["namespace", "content 0", "content 1", "content 2"]
    assert status["cache"] == "none"
    line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {path} " in line)
    shown = set(line.split()[3].split(","))
    assert {"ro", "noexec", "nosuid"} <= shown and "nodev" not in shown
    with pytest.raises(OSError, match="Read-only"):
        (path / "file").touch()


def test_a_long_option_holds_against_a_mount_option(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(inodes=500, o="inodes=1000")
    assert mount_nrfs.status(path)["capacity"]["inodes"] == 500


def test_a_mount_point_may_be_relative_and_a_symlink_and_have_odd_characters(mount_nrfs: Mounts) -> None:
    place = mount_nrfs.directory()
    odd = place / "with space, tab\tand \\ backslash ünd\nline"
    odd.mkdir()
    link = place / "link"
    link.symlink_to(odd)
    path = os.path.relpath(link, REPOSITORY)
    try:
        succeeded(run_nrfs("mount", path, "--size", "64M"))
        (odd / "file").write_text("here")
        assert run_nrfs("status", link).returncode == 0
        succeeded(run_nrfs("umount", path))
        assert list(odd.iterdir()) == []
    finally:
        take_away(odd)


def test_mounts_live_beside_each_other(mount_nrfs: Mounts) -> None:
    first, second = mount_nrfs(), mount_nrfs()
    (first / "only here").touch()
    assert list(second.iterdir()) == []
    mount_nrfs.unmount(second)
    assert (first / "only here").exists()


def test_the_daemon_keeps_nothing_open_of_its_caller(mount_nrfs: Mounts, tmp_path: Path) -> None:
    path = mount_nrfs.directory()
    with (tmp_path / "lock").open("w") as lock:
        command = nrfs_command("mount", path, "--size", "64M")
        subprocess.run(command, cwd=REPOSITORY, pass_fds=[lock.fileno()], check=True)
        process = daemon_of(path)
        targets = [str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir()]
    assert not [target for target in targets if str(tmp_path) in target]
    assert Path(f"/proc/{process}/cwd").readlink() == Path("/")
    assert os.getsid(process) == process


def test_a_mount_may_cover_the_place_of_control_sockets(mount_nrfs: Mounts) -> None:
    """In a mount namespace of its own, where it covers nothing that others use."""
    script = '"$0" -m nrfs.cli mount /run --size 64M && touch /run/file && "$0" -m nrfs.cli status /run'
    script += ' && "$0" -m nrfs.cli umount /run'
    command = ["unshare", "--mount", "sh", "-c", script, nrfs_command()[0]]
    result = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("/run\n")


def test_messages_go_to_the_log_that_was_asked_for(mount_nrfs: Mounts, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("kept\n")
    path = mount_nrfs(log=log)
    assert Path(f"/proc/{daemon_of(path)}/fd/2").readlink() == log
    mount_nrfs.unmount(path)
    assert log.read_text() == "kept\n"


def test_a_caller_that_is_killed_in_a_request_leaves_no_trace(mount_nrfs: Mounts, nothing_left: None) -> None:
    path = mount_nrfs(cache="none")
    with stopped(daemon_of(path)):
        caller = subprocess.Popen(["stat", path / "file"], stderr=subprocess.DEVNULL)
        time.sleep(0.1)
        caller.kill()
    caller.wait()  # A request on the ring cannot be taken back: it ends with the daemon's answer.
    (path / "file").touch()
    mount_nrfs.unmount(path)


# How it ends


def signalled(number: signal.Signals) -> Callable[[Path], None]:
    return lambda path: os.kill(daemon_of(path), number)


def commanded(*command: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        succeeded(subprocess.run([*command, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=False))

    return run


ENDS = {
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGINT": signalled(signal.SIGINT),
    "SIGHUP": signalled(signal.SIGHUP),
    "nrfs umount": commanded(*nrfs_command("umount")),
    "nrfs umount --lazy": commanded(*nrfs_command("umount", "--lazy")),
    "fusermount3 -u": commanded("fusermount3", "-u"),
    "umount": commanded("umount"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_every_end_is_an_orderly_one(
    mount_nrfs: Mounts, as_reaper: None, nothing_left: None, end: Callable[[Path], None]
) -> None:
    path = mount_nrfs()
    (path / "file").write_bytes(bytes(100_000))
    process = daemon_of(path)
    end(path)
    assert exit_status(process) == 0
    assert entry_at(path) is None
    assert list(path.iterdir()) == []
    path.rmdir()
    path.mkdir()


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_in_the_foreground_the_process_itself_ends_orderly(
    mount_nrfs: Mounts, nothing_left: None, end: Callable[[Path], None]
) -> None:
    path = mount_nrfs.directory()
    command = nrfs_command("mount", path, "--foreground", "--size", "64M")
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: entry_at(path), "the mount")
        wait_until(lambda: process.pid == daemon_of_or_none(path), "the control socket")
        (path / "file").touch()
        end(path)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, said) == (0, "")
    assert entry_at(path) is None


def daemon_of_or_none(path: Path) -> int | None:
    with contextlib.suppress(Exception):
        return daemon_of(path)
    return None


def test_nrfs_umount_returns_when_the_daemon_has_ended(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    mount_nrfs.unmount(path)
    assert not is_alive(process)


def test_a_mount_in_use_is_busy_and_a_lazy_end_lets_its_users_go_on(mount_nrfs: Mounts, as_reaper: None) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    with (path / "file").open("w+") as file:
        said = only_line(run_nrfs("umount", path))
        assert said.startswith(f"nrfs umount: {path}: target is busy: process {os.getpid()} (")
        assert said.endswith(f") has {path}/file")
        assert is_alive(process)
        succeeded(run_nrfs("umount", "-l", path))
        assert entry_at(path) is None
        file.write("still here")
        file.seek(0)
        assert file.read() == "still here"
    assert exit_status(process) == 0


def test_dirty_pages_do_not_keep_an_unmount_waiting_for_itself(mount_nrfs: Mounts, as_reaper: None) -> None:
    for end in (signalled(signal.SIGTERM), commanded("umount")):
        path = mount_nrfs()
        process = daemon_of(path)
        with (path / "file").open("wb") as file:
            file.write(bytes(64 << 20))
        end(path)
        assert exit_status(process) == 0


WRITER = """
import os, sys
print("begun", flush=True)
while True:
    for number in range(50):
        with open(f"{sys.argv[1]}/{number}", "wb") as file:
            file.write(os.urandom(100_000))
    for name in os.listdir(sys.argv[1]):
        os.stat(f"{sys.argv[1]}/{name}")
        os.unlink(f"{sys.argv[1]}/{name}")
"""


@pytest.mark.parametrize("cache", ["writeback", "none"])
def test_a_signal_ends_a_mount_that_works_hard_and_hangs_nobody(
    mount_nrfs: Mounts, as_reaper: None, nothing_left: None, cache: str
) -> None:
    path = mount_nrfs(cache=cache)
    process = daemon_of(path)
    writers = []
    for number in range(3):
        place = path / f"writer {number}"
        place.mkdir()
        command = [nrfs_command()[0], "-c", WRITER, str(place)]
        writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    try:
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == b"begun\n"
        time.sleep(0.3)
        os.kill(process, signal.SIGTERM)
        assert exit_status(process) == 0
        for writer in writers:
            assert writer.wait(timeout=PATIENCE_SECONDS) == 1  # An OSError of Python's.
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_the_mount_ends_when_its_mount_point_is_removed_elsewhere(mount_nrfs: Mounts, as_reaper: None) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    # In a mount namespace without the mount the directory can be removed, and the kernel then unmounts.
    script = f"umount {path} && rmdir {path}"
    subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], check=True)
    assert exit_status(process) == 0
    assert entry_at(path) is None


def test_an_aborted_connection_ends_the_mount(mount_nrfs: Mounts, as_reaper: None, nothing_left: None) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    entry = entry_at(path)
    assert entry is not None
    connections = mount_nrfs.directory()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", str(connections)], check=True)
    try:
        (connections / entry.device.partition("-")[2] / "abort").write_text("1")
    finally:
        subprocess.run(["umount", str(connections)], check=True)
    assert exit_status(process) == 0
    assert entry_at(path) is None


def test_a_daemon_that_is_killed_leaves_a_mount_that_nrfs_umount_takes_away(
    mount_nrfs: Mounts, as_reaper: None, nothing_left: None
) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    os.kill(process, signal.SIGKILL)
    assert exit_status(process) == -signal.SIGKILL
    said = only_line(run_nrfs("mount", path))
    assert said == f"nrfs mount: {path}: nrfs is mounted here already (nrfs umount ends it)"
    succeeded(run_nrfs("umount", path))
    assert entry_at(path) is None
    mount_nrfs(path)
    (path / "file").touch()


def test_what_a_killed_daemon_left_is_cleared_by_the_next_command(
    mount_nrfs: Mounts, as_reaper: None, nothing_left: None
) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    os.kill(process, signal.SIGKILL)
    exit_status(process)
    subprocess.run(["umount", str(path)], check=True)
    run_nrfs("status")  # The fixture sees that nothing is left.


def test_unmounting_what_is_not_mounted_says_so(mount_nrfs: Mounts, tmpfs: Path) -> None:
    path = mount_nrfs.directory()
    assert only_line(run_nrfs("umount", path)) == f"nrfs umount: {path}: not mounted"
    assert only_line(run_nrfs("umount", path / "missing")) == f"nrfs umount: {path}/missing: not mounted"
    assert only_line(run_nrfs("umount", "/proc")) == "nrfs umount: /proc: not an nrfs mount but proc"


# What it says when it cannot be


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--size", "lots"], 2, "bad size 'lots'"),
        (["--size", "-1"], 2, "bad size '-1'"),
        (["--size", "8Q"], 2, "bad size '8Q'"),
        (["--size", "0"], 2, "at least 4096 bytes"),
        (["--size", "0%"], 2, "size"),
        (["--size="], 2, "--size : a size like 8G or 50% is wanted"),
        (["--nodes", "0"], 2, "--nodes 0: a positive whole number is wanted"),
        (["--nodes", "two"], 2, "--nodes two: a positive whole number is wanted"),
        (["--logs", "-3"], 2, "--logs -3: a positive whole number is wanted"),
        (["--inodes", "1.5"], 2, "--inodes 1.5: a positive whole number is wanted"),
        (["--cache", "some"], 2, "--cache some: it is one of writeback, none"),
        (["-o", "size=lots"], 2, "bad size 'lots'"),
        (["-o", "nodes=x"], 2, "-o nodes=x: a positive whole number is wanted"),
        (["-o", "ro,frobnicate"], 2, "-o frobnicate: unknown option"),
        (["-o", "frobnicate=1"], 2, "-o frobnicate=1: unknown option"),
        (["-o", "size"], 2, "-o size: unknown option"),
        (["--log", "/nowhere/log"], 1, "/nowhere/log: no such file or directory"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(
    mount_nrfs: Mounts, nothing_left: None, arguments: list[str], status: int, reason: str
) -> None:
    path = mount_nrfs.directory()
    for more in ([], ["--foreground"]):
        line = only_line(run_nrfs("mount", path, *arguments, *more), status)
        assert line.startswith("nrfs mount: ") and reason in line
        assert entry_at(path) is None


def test_a_mount_point_must_be_a_directory(mount_nrfs: Mounts, nothing_left: None) -> None:
    place = mount_nrfs.directory()
    (place / "file").touch()
    (place / "dangling").symlink_to("nowhere")
    assert only_line(run_nrfs("mount", place / "missing")).endswith("/missing: no such directory")
    assert only_line(run_nrfs("mount", place / "file")).endswith("/file: not a directory")
    assert only_line(run_nrfs("mount", place / "dangling")).endswith("/nowhere: no such directory")


def test_a_second_mount_on_one_point_is_refused_and_harms_nothing(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    (path / "file").write_text("first")
    said = only_line(run_nrfs("mount", path))
    assert said == f"nrfs mount: {path}: nrfs is mounted here already (nrfs umount ends it)"
    assert (path / "file").read_text() == "first"


def test_of_mounts_begun_at_once_on_one_point_one_succeeds(mount_nrfs: Mounts, nothing_left: None) -> None:
    path = mount_nrfs.directory()
    command = nrfs_command("mount", path, "--size", "64M")
    begun = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) for _ in range(4)]
    for process in begun:
        process.communicate(timeout=PATIENCE_SECONDS)
    assert sorted(process.returncode for process in begun) == [0, 1, 1, 1]
    (path / "file").touch()
    mount_nrfs.unmount(path)
    assert entry_at(path) is None


def test_without_the_device_it_says_what_to_do(mount_nrfs: Mounts, nothing_left: None) -> None:
    path = mount_nrfs.directory()
    before = in_namespace("mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3")
    assert "/dev/fuse is missing: the kernel needs FUSE" in only_line(run_nrfs("mount", path, before=before))


def test_without_the_right_to_mount_it_says_so(mount_nrfs: Mounts, nothing_left: None) -> None:
    path = mount_nrfs.directory()
    powerless = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    line = only_line(run_nrfs("mount", path, before=powerless))
    assert line == f"nrfs mount: {path}: no right to mount (CAP_SYS_ADMIN is missing)"
    mount_nrfs(path)
    line = only_line(run_nrfs("umount", path, before=powerless))
    assert line == f"nrfs umount: {path}: no right to unmount (CAP_SYS_ADMIN is missing)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_while_mounting_leaves_nothing_or_a_mount(
    mount_nrfs: Mounts, nothing_left: None, number: signal.Signals
) -> None:
    """At whatever moment it comes; SIGKILL leaves the daemon alone with a command that is gone."""
    moments = random.Random(5)
    for _ in range(8):
        path = mount_nrfs.directory()
        command = nrfs_command("mount", path, "--size", "64M")
        with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(moments.uniform(0.0, 0.4))
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode == 0:
            (path / "file").touch()
        elif number == signal.SIGKILL:
            wait_until(partial(is_settled, path), "the daemon's decision")
        elif process.returncode == 128 + number:
            assert "interrupted" in said or "KeyboardInterrupt" in said
            assert entry_at(path) is None
        else:  # It came before the command knew about signals.
            assert process.returncode in (-number, 1)
            assert entry_at(path) is None


def is_settled(path: Path) -> bool:
    """Whether no mount is there, or one that is served."""
    return entry_at(path) is None or daemon_of_or_none(path) is not None


# Users other than root


def as_user(user: User, *command: object) -> subprocess.CompletedProcess[str]:
    plain = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
    return subprocess.run([*plain, *map(str, command)], capture_output=True, text=True, check=False)


def test_an_ordinary_user_mounts_and_unmounts(mount_nrfs: Mounts, user: User, as_reaper: None) -> None:
    path = user.home
    succeeded(run_nrfs("mount", path, "--size", "64M", before=user.before))
    process = daemon_of(path)
    succeeded(as_user(user, "touch", path / "file"))
    assert as_user(user, "stat", "-c", "%U", path / "file").stdout == "nobody\n"
    shown = run_nrfs("status", before=user.before)
    assert shown.returncode == 0 and shown.stdout.startswith(f"{path}\n")
    assert only_line(run_nrfs("mount", path, before=user.before)).endswith("(nrfs umount ends it)")
    succeeded(run_nrfs("umount", path, before=user.before))
    assert exit_status(process) == 0
    assert entry_at(path) is None


@pytest.mark.parametrize("end", ["SIGTERM", "fusermount3"])
def test_an_ordinary_users_mount_ends_in_every_way(mount_nrfs: Mounts, user: User, as_reaper: None, end: str) -> None:
    succeeded(run_nrfs("mount", user.home, "--size", "64M", before=user.before))
    process = daemon_of(user.home)
    if end == "SIGTERM":
        os.kill(process, signal.SIGTERM)
    else:
        succeeded(as_user(user, "fusermount3", "-u", user.home))
    assert exit_status(process) == 0
    assert entry_at(user.home) is None
    assert list(Path(f"/tmp/nrfs-{NOBODY}").iterdir()) == []


def test_an_ordinary_user_takes_a_dead_mount_away(mount_nrfs: Mounts, user: User, as_reaper: None) -> None:
    succeeded(run_nrfs("mount", user.home, "--size", "64M", before=user.before))
    process = daemon_of(user.home)
    os.kill(process, signal.SIGKILL)
    exit_status(process)
    assert "the daemon is dead" in run_nrfs("status", user.home, before=user.before).stdout
    succeeded(run_nrfs("umount", user.home, before=user.before))
    assert entry_at(user.home) is None


def test_an_ordinary_user_is_told_why_not(mount_nrfs: Mounts, user: User) -> None:
    others = mount_nrfs.directory()
    line = only_line(run_nrfs("mount", others, before=user.before))
    assert line == f"nrfs mount: {others}: user has no write access to mountpoint {others}"
    assert (
        only_line(run_nrfs("mount", user.home, "-o", "dev", before=user.before)) == "nrfs mount: -o dev: only root may"
    )
    Path("/dev/fuse").chmod(0o600)
    assert "/dev/fuse: no right to open it" in only_line(run_nrfs("mount", user.home, before=user.before))


def test_an_ordinary_user_does_not_reach_roots_mount(mount_nrfs: Mounts, user: User) -> None:
    path = mount_nrfs()
    line = only_line(run_nrfs("umount", path, before=user.before))
    assert line == f"nrfs umount: {path}: no right to unmount what another user (id 0) mounted"
    line = only_line(run_nrfs("status", path, before=user.before))
    assert line == f"nrfs status: {path}: no right to ask the daemon of another user"
    assert run_nrfs("status", before=user.before).stdout == "nothing is mounted\n"
    assert "Permission denied" in as_user(user, "ls", path).stderr


def test_other_users_come_in_where_they_are_allowed(mount_nrfs: Mounts, user: User) -> None:
    path = mount_nrfs(allow_other=True)
    (path / "public").write_text("read me")
    (path / "private").write_text("not me")
    (path / "private").chmod(0o600)
    assert as_user(user, "cat", path / "public").stdout == "read me"
    assert "Permission denied" in as_user(user, "cat", path / "private").stderr
    assert "Permission denied" in as_user(user, "touch", path / "new").stderr


@pytest.mark.parametrize("permitted", [False, True])
def test_an_ordinary_user_lets_others_in_only_with_roots_consent(
    mount_nrfs: Mounts, user: User, tmp_path: Path, permitted: bool
) -> None:
    configuration = tmp_path / "fuse.conf"
    configuration.write_text("user_allow_other\n" if permitted else "# nothing\n")
    # In a namespace of their own, so that the machine's configuration stays; the mount ends with it.
    script = f'mount --bind {configuration} /etc/fuse.conf && "$@" && ls {user.home} && umount {user.home}'
    namespace = ("unshare", "--mount", "sh", "-c", script, "sh")
    result = run_nrfs("mount", user.home, "--allow-other", "--size", "64M", before=(*namespace, *user.before))
    if permitted:
        succeeded(result)
    else:
        line = only_line(result)
        assert line.endswith("option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf")
