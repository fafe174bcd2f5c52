"""A daemon is found from its mount: from any session, namespace and user that may know; and never called dead alive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import (
    NOBODY,
    PATIENCE_SECONDS,
    Mounts,
    User,
    alone,
    daemon_of,
    entry_at,
    exit_status,
    in_namespace,
    is_alive,
    run_nrfs,
    stopped,
    wait_until,
)

from mount import control, kernel, liveness, places
from mount.mountinfo import MountEntry

PID_NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")
"""Of the processes outside, nothing is seen in it."""
NETWORK_NAMESPACE = ("unshare", "--net")
"""Abstract sockets outside do not reach into it."""


def entry_of(path: Path) -> MountEntry:
    entry = entry_at(path)
    assert entry is not None
    return entry


def socket_of(path: Path) -> Path:
    entry = entry_of(path)
    candidates = (place / f"{entry.device}.sock" for place in places.runtime_directories(entry.owner))
    return next(candidate for candidate in candidates if candidate.exists())


def status_of(path: Path, *before: str) -> dict[str, object]:
    result = run_nrfs("status", "--json", path, before=before)
    assert result.stderr == ""
    status: dict[str, object] = json.loads(result.stdout)
    return status


def advice(path: Path, *before: str) -> str:
    """What status and doctor say of a mount, all together."""
    said = run_nrfs("status", path, before=before).stdout
    findings = json.loads(run_nrfs("doctor", "--json", before=before).stdout)["findings"]
    mounts = next(finding for finding in findings if finding["name"] == "mounts")
    return said + (str(mounts) if str(path) in str(mounts) else "")


SESSIONS = {
    "another runtime directory": ("env", "XDG_RUNTIME_DIR=/nowhere/at/all"),
    "no environment": ("env", "-i"),
    "another PID namespace": PID_NAMESPACE,
    "another network namespace": NETWORK_NAMESPACE,
    "another temporary directory": ("env", "TMPDIR=/nowhere"),
}


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS.keys())
def test_a_daemon_is_found_from_every_session(mount_nrfs: Mounts, session: tuple[str, ...]) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    assert status_of(path, *session)["pid"] == process
    assert "dead" not in advice(path, *session)
    result = run_nrfs("umount", path, before=session)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    # One that has a mount table of its own takes the mount out of that alone.
    assert is_alive(process) == ("--mount-proc" in session) == (entry_at(path) is not None)


def test_a_daemon_of_one_session_is_found_from_another(mount_nrfs: Mounts, user: User) -> None:
    place = mount_nrfs.directory()
    os.chown(place, NOBODY, NOBODY)
    place.chmod(0o700)
    session = (*user.before, "env", f"XDG_RUNTIME_DIR={place}")
    assert run_nrfs("mount", user.home, "--size", "64M", before=session).returncode == 0
    assert list(place.iterdir()) == []
    process = daemon_of(user.home)
    assert status_of(user.home, *user.before)["pid"] == process
    assert status_of(user.home)["pid"] == process  # By root.
    assert "dead" not in advice(user.home)
    assert run_nrfs("umount", user.home).returncode == 0
    assert not is_alive(process)


def test_a_socket_that_was_swept_away_is_not_missed(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    socket_of(path).unlink()
    assert status_of(path)["pid"] == daemon_of(path)
    assert "dead" not in advice(path)
    mount_nrfs.unmount(path)


def test_a_daemon_that_nobody_reaches_is_known_to_live(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    socket_of(path).unlink()
    for outside in (NETWORK_NAMESPACE, (*NETWORK_NAMESPACE, *PID_NAMESPACE)):
        status = status_of(path, *outside)
        assert (status["alive"], status["problem"]) == (True, "the daemon is alive, and cannot be reached from here")
        said = advice(path, *outside)
        assert "dead" not in said and "umount" not in said
    # As umount(8) would: what the user asks for is done, though nobody is waited for.
    result = run_nrfs("umount", path, before=NETWORK_NAMESPACE)
    assert (result.returncode, result.stderr) == (0, "")
    wait_until(lambda: not is_alive(process), "the daemon's end")


def test_a_daemon_that_nobody_reaches_and_that_is_stuck_may_be_alive(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    socket_of(path).unlink()
    process = daemon_of(path)
    outside = (*NETWORK_NAMESPACE, *in_namespace(f"mount -t tmpfs tmpfs /proc/{process}"))
    with stopped(process):
        status = status_of(path, *outside)
        said = advice(path, *outside)
    assert (status["alive"], status["problem"]) == (None, "the daemon cannot be reached, and may be alive")
    assert "dead" not in said and "umount" not in said


def test_where_the_kernel_cannot_be_asked_nothing_is_known(mountpoint: Path) -> None:
    entry = entry_of(mountpoint)
    for other in (replace(entry, mountpoint="/nowhere"), replace(entry, mountpoint="/"), replace(entry, group=-5)):
        assert liveness.of(replace(other, device="0-1048575")) is liveness.Life.UNKNOWN


def test_a_user_who_may_not_ask_is_told_so_and_nothing_else(mount_nrfs: Mounts, user: User) -> None:
    path = mount_nrfs(allow_other=True)
    assert "no right to ask" in run_nrfs("status", path, before=user.before).stderr
    socket_of(path).unlink()
    assert "no right to ask" in run_nrfs("status", path, before=user.before).stderr


def test_a_user_whom_root_let_in_hears_of_a_death(mount_nrfs: Mounts, user: User, as_reaper: None) -> None:
    path = mount_nrfs(allow_other=True)
    process = daemon_of(path)
    os.kill(process, signal.SIGKILL)
    exit_status(process)
    socket_of(path).unlink()
    assert "the daemon is dead" in run_nrfs("status", path, before=user.before).stdout


def test_root_knows_of_the_death_of_a_users_daemon(mount_nrfs: Mounts, user: User, as_reaper: None) -> None:
    assert run_nrfs("mount", user.home, "--size", "64M", before=user.before).returncode == 0
    process = daemon_of(user.home)
    os.kill(process, signal.SIGKILL)
    exit_status(process)
    left = socket_of(user.home)
    assert "the daemon is dead" in run_nrfs("status", user.home).stdout
    assert run_nrfs("umount", user.home).returncode == 0
    assert left.exists()  # In a directory of the user's, root removes nothing.
    run_nrfs("status", before=user.before)
    assert not left.exists()


@alone  # Others would take the number.
def test_a_daemon_that_ends_late_takes_nothing_of_the_next_mount_with_its_number(
    mount_nrfs: Mounts, as_reaper: None
) -> None:
    first = mount_nrfs()
    process, number = daemon_of(first), entry_of(first).device
    with stopped(process):
        kernel.umount(bytes(first), kernel.MNT_DETACH)  # As umount(8), which would first ask the daemon.
        second = next(path for path in (mount_nrfs() for _ in range(5)) if entry_of(path).device == number)
        listens = socket_of(second)
    assert exit_status(process) == 0
    assert listens.exists() and listens.with_suffix(".log").exists()
    assert status_of(second)["pid"] == daemon_of(second)


def test_the_socket_has_its_final_name_where_cleaners_look(mountpoint: Path) -> None:
    bound = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    assert str(socket_of(mountpoint)) in bound


@pytest.fixture
def taken_places() -> Iterator[None]:
    """The fixed places of NOBODY's sockets, which somebody else has taken."""
    places = [Path(f"/tmp/nrfs-{NOBODY}"), Path(f"/var/tmp/nrfs-{NOBODY}")]
    for place in places:
        with contextlib.suppress(FileNotFoundError):
            place.rmdir()
        place.mkdir()
    yield
    for place in places:
        place.rmdir()


def test_a_place_that_somebody_took_stops_nobody(
    mount_nrfs: Mounts, user: User, as_reaper: None, taken_places: None
) -> None:
    assert run_nrfs("mount", user.home, "--size", "64M", before=user.before).returncode == 0
    process = daemon_of(user.home)
    found = socket_of(user.home)
    assert found.parent.stat().st_uid == NOBODY and found.parent.name.startswith(f"nrfs-{NOBODY}-")
    assert status_of(user.home, *user.before)["pid"] == process
    assert run_nrfs("umount", user.home, before=user.before).returncode == 0
    assert exit_status(process) == 0
    found.parent.rmdir()


def test_a_name_that_somebody_took_answers_for_no_daemon(mount_nrfs: Mounts, user: User, as_reaper: None) -> None:
    path = mount_nrfs()
    entry = entry_of(path)
    process = daemon_of(path)
    os.kill(process, signal.SIGKILL)
    exit_status(process)
    squatter = subprocess.Popen(
        [
            *user.before,
            sys.executable,
            "-c",
            "import socket, sys; listener = socket.socket(socket.AF_UNIX)\n"
            f"listener.bind({control.abstract_name(0, entry.device)!r}); listener.listen()\n"
            "print('ready', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert squatter.stdout is not None and squatter.stdout.readline() == b"ready\n"
        assert "the daemon is dead" in run_nrfs("status", path).stdout
    finally:
        squatter.communicate(timeout=PATIENCE_SECONDS)


def test_root_is_not_led_to_another_socket_by_a_symlink(mount_nrfs: Mounts, user: User, tmp_path: Path) -> None:
    assert run_nrfs("mount", user.home, "--size", "64M", before=user.before).returncode == 0
    process = daemon_of(user.home)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        theirs = socket_of(user.home)
        theirs.unlink()
        theirs.symlink_to(tmp_path / "socket")
        assert status_of(user.home)["pid"] == process
        theirs.unlink()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
