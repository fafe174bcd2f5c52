"""``nrfs umount`` of what is in use says who uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Mounts, User, run_nrfs, stopped
from conftest import daemon_of as daemon_at

from mount import mountinfo, processes

USES: dict[str, Callable[[Path], str]] = {
    "an open file": lambda path: f"file = open({str(path / 'file')!r})",
    "a working directory": lambda path: f"import os; os.chdir({str(path / 'directory')!r})",
    "a mapped file": lambda path: (
        f"import mmap; file = open({str(path / 'file')!r})\n"
        "mapped = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ); file.close()"
    ),
}


@contextmanager
def using(code: str, *before: str) -> Iterator[int]:
    command = [*before, sys.executable, "-c", f"{code}\nprint('ready', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate(b"\n")


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_the_process_and_its_path_are_named(mount_nrfs: Mounts, use: Callable[[Path], str]) -> None:
    path = mount_nrfs()
    (path / "file").write_bytes(bytes(4096))
    (path / "directory").mkdir()
    with using(use(path)) as process:
        said = run_nrfs("umount", path)
    assert said.returncode == 1
    assert re.fullmatch(
        rf"nrfs umount: {path}: target is busy: process {process} \(python\S*\) has {path}/(file|directory)\n",
        said.stderr,
    )
    mount_nrfs.unmount(path)


def test_what_is_mounted_within_is_named(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    (path / "within").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path / "within"], check=True)
    try:
        said = run_nrfs("umount", path).stderr
    finally:
        subprocess.run(["umount", path / "within"], check=True)
    assert said == f"nrfs umount: {path}: target is busy: something is mounted at {path}/within\n"


def test_of_many_some_are_named(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    (path / "file").touch()
    use = USES["an open file"](path)
    with using(use), using(use), using(use), using(use):
        said = run_nrfs("umount", path).stderr
    assert said.count("process") == 3 and said.endswith(", 1 more\n")


def test_an_ordinary_user_is_told_of_his_own(mount_nrfs: Mounts, user: User) -> None:
    assert run_nrfs("mount", user.home, "--size", "64M", before=user.before).returncode == 0
    with using(f"import os; os.chdir({str(user.home)!r})", *user.before) as process:
        said = run_nrfs("umount", user.home, before=user.before).stderr
    assert said.startswith(f"nrfs umount: {user.home}: target is busy: process {process} (")


def test_who_uses_a_mount_is_found_without_touching_it(mount_nrfs: Mounts) -> None:
    path = mount_nrfs()
    (path / "file").touch()
    entry = mountinfo.topmost_at(str(path))
    assert entry is not None
    with using(USES["an open file"](path)) as process, stopped(daemon_at(path)):
        assert [found.process for found in processes.users_of(entry)] == [process]


def test_what_only_bears_the_name_does_not_use_the_mount(mount_nrfs: Mounts, tmp_path: Path) -> None:
    """A file of the same path on what the mount covers."""
    path = mount_nrfs.directory()
    (path / "file").touch()
    with using(USES["an open file"](path)):
        mount_nrfs(path)
        entry = mountinfo.topmost_at(str(path))
        assert entry is not None
        assert processes.users_of(entry) == []
        assert list(path.iterdir()) == []
        mount_nrfs.unmount(path)
