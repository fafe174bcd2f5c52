"""A daemon that ends takes away its own mount and no other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Mounts, User, daemon_of, entry_at, exit_status, run_nrfs

from mount import mountinfo


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def stack_at(path: Path) -> list[mountinfo.MountEntry]:
    return [entry for entry in mountinfo.entries() if entry.mountpoint == str(path)]


@pytest.fixture(params=["private", "shared", "slave"])
def place(request: pytest.FixtureRequest, mount_nrfs: Mounts) -> Iterator[Path]:
    """A directory to mount at, on a file system where mounts propagate so."""
    top = mount_nrfs.directory()
    origin = mount_nrfs.directory()
    mount("-t", "tmpfs", "tmpfs", origin)
    mount("--make-shared" if request.param == "slave" else f"--make-{request.param}", origin)
    mount("--bind", origin, top)
    if request.param == "slave":
        mount("--make-slave", top)
    (top / "here").mkdir()
    try:
        yield top / "here"
    finally:
        for path in (top / "here", top, origin):
            while stack_at(path):
                subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_mounted_on_top_stays_and_the_own_mount_goes(
    mount_nrfs: Mounts, as_reaper: None, place: Path, number: signal.Signals
) -> None:
    mount_nrfs(place, size="64M")
    process = daemon_of(place)
    below = mountinfo.topmost_at(str(place.parent))
    for name in ("first", "second"):
        mount("-t", "tmpfs", name, place)
        (place / name).write_text("precious")
    before = stack_at(place)
    os.kill(process, number)
    assert exit_status(process) == 0
    assert (place / "second").read_text() == "precious"
    after = stack_at(place)
    # The same mounts, of which the lower one lies where ours lay.
    assert [entry.mount_id for entry in after] == [entry.mount_id for entry in before[-2:]]
    assert below is not None and after[0].parent_id == below.mount_id
    assert mountinfo.topmost_at(str(place.parent)) == below
    subprocess.run(["umount", place], check=True)
    assert (place / "first").read_text() == "precious"
    subprocess.run(["umount", place], check=True)
    assert list(place.iterdir()) == []


def test_an_aborted_mount_goes_from_beneath_as_well(mount_nrfs: Mounts, as_reaper: None) -> None:
    path = mount_nrfs()
    process = daemon_of(path)
    entry = entry_at(path)
    assert entry is not None
    mount("-t", "tmpfs", "tmpfs", path)
    connections = mount_nrfs.directory()
    mount("-t", "fusectl", "fusectl", connections)
    try:
        (connections / entry.device.partition("-")[2] / "abort").write_text("1")
    finally:
        subprocess.run(["umount", connections], check=True)
    assert exit_status(process) == 0
    assert [entry.filesystem_type for entry in stack_at(path)] == ["tmpfs"]
    subprocess.run(["umount", path], check=True)


def test_nrfs_umount_takes_away_what_is_nrfs_alone(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    mount("-t", "tmpfs", "tmpfs", path)
    assert run_nrfs("umount", path).stderr == f"nrfs umount: {path}: not an nrfs mount but tmpfs\n"
    assert len(stack_at(path)) == 2
    subprocess.run(["umount", path], check=True)


def test_of_an_ordinary_users_mounts_too_what_is_on_top_stays(
    mount_nrfs: Mounts, user: User, as_reaper: None, tmp_path: Path
) -> None:
    log = user.home.parent / f"{user.home.name}.log"
    assert run_nrfs("mount", user.home, "--size", "64M", "--log", log, before=user.before).returncode == 0
    try:
        process = daemon_of(user.home)
        mount("-t", "tmpfs", "tmpfs", user.home)
        os.kill(process, signal.SIGTERM)
        exit_status(process)
        assert [entry.filesystem_type for entry in stack_at(user.home)][-1] == "tmpfs"
        assert "is covered by another mount" in log.read_text()
        subprocess.run(["umount", user.home], check=True)
        # Dead by now; only root could have taken it away from beneath.
        assert run_nrfs("umount", user.home, before=user.before).returncode == 0
    finally:
        log.unlink(missing_ok=True)
