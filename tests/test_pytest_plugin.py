"""The fixtures for other projects' tests, in runs of pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import daemon_of, entry_at, hear_interrupts, in_namespace, is_alive, take_away, wait_until

from mount import mountinfo


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where such a run has its temporary files; nothing may be left there."""
    place = tmp_path / "with a space"
    place.mkdir()
    yield place
    left = [entry.mountpoint for entry in mountinfo.entries() if entry.mountpoint.startswith(str(place))]
    for path in left:
        take_away(Path(path))
    assert (left, list(place.iterdir())) == ([], [])


def command_of(place: Path, test: str, *before: str) -> list[str]:
    file = place.parent / "test_of_a_project.py"
    file.write_text(test)
    return [*before, sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]


def run(place: Path, test: str, *before: str) -> str:
    """What pytest says of a file of tests."""
    done = subprocess.run(
        command_of(place, test, *before),
        cwd=place.parent,
        env={**os.environ, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_a_mount_is_real_small_and_new_for_each_test_and_full_at_will(place: Path) -> None:
    (place.parent / "mount").mkdir()
    (place.parent / "mount" / "__init__.py").write_text("raise KeyError('a package of the tested project')")
    said = run(
        place,
        """
import errno, os, subprocess
import pytest

@pytest.mark.parametrize("time", [1, 2])
def test_real(nrfs_mount, time):
    assert os.path.ismount(nrfs_mount) and os.listdir(nrfs_mount) == []
    subprocess.run(["sh", "-c", "echo text > file && ln file other"], cwd=nrfs_mount, check=True)
    assert (nrfs_mount / "other").read_text() == "text\\n"
    assert os.statvfs(nrfs_mount).f_blocks * 4096 == 64 << 20

@pytest.mark.nrfs_mount(size="1M", inodes=5)
def test_full(nrfs_mount):
    with pytest.raises(OSError) as caught:
        (nrfs_mount / "file").write_bytes(bytes(2 << 20))
    assert caught.value.errno == errno.ENOSPC

@pytest.mark.nrfs_mount(o="ro")
def test_read_only(nrfs_mount):
    with pytest.raises(OSError) as caught:
        (nrfs_mount / "file").touch()
    assert caught.value.errno == errno.EROFS

made = []

def test_factory(nrfs_mount_factory):
    made.extend([nrfs_mount_factory(size="1M"), nrfs_mount_factory(nodes=2, size="2M")])
    (made[0] / "file").touch()

def test_factory_again():
    assert (made[0] / "file").exists() and os.listdir(made[1]) == []
""",
    )
    assert "6 passed" in said, said


def test_what_fails_or_stays_in_use_is_cleaned_up_all_the_same(place: Path) -> None:
    """``place`` looks that nothing is left."""
    said = run(
        place,
        """
import os, signal, subprocess
import pytest

def test_fails(nrfs_mount):
    (nrfs_mount / "file").touch()
    raise KeyError

def test_leaves_a_file_open(nrfs_mount):
    global file
    file = (nrfs_mount / "file").open("w")

def test_unmounts(nrfs_mount):
    subprocess.run(["umount", nrfs_mount], check=True)

def test_kills_the_daemon(nrfs_mount):
    for process in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            words = open(f"/proc/{process}/cmdline").read().split("\\0")
        except OSError:
            continue
        if str(nrfs_mount) in words:
            os.kill(process, signal.SIGKILL)
    with pytest.raises(OSError):
        for _ in range(1000):
            os.listdir(nrfs_mount)

@pytest.mark.nrfs_mount(size="nonsense")
def test_has_a_wrong_option(nrfs_mount):
    pass
""",
    )
    assert "1 failed, 3 passed, 1 error" in said, said
    assert "nonsense" in said


def test_where_nothing_can_be_mounted_tests_are_skipped_and_the_reason_is_said(place: Path) -> None:
    hidden = in_namespace("mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3")
    test = "def test(nrfs_mount): pass\ndef test_other(nrfs_mount_factory): nrfs_mount_factory()"
    said = run(place, test, *hidden)
    assert "2 skipped" in said, said
    assert "/dev/fuse is missing" in said


def test_what_a_killed_session_left_is_taken_away_by_the_next(place: Path) -> None:
    test = """
import time

def test(nrfs_mount):
    print("MOUNT", nrfs_mount, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [*command_of(place, test), "-s"], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(place)}
    ) as killed:
        assert killed.stdout is not None
        line = next(line for line in killed.stdout if "MOUNT" in line)
        path = Path(line.partition("MOUNT ")[2].strip())
        daemon = daemon_of(path)
        killed.kill()
    assert entry_at(path) is not None
    assert "1 passed" in run(place, "def test(nrfs_mount): pass")
    wait_until(lambda: not is_alive(daemon), "the daemon's end")


def test_an_interrupted_session_leaves_nothing(place: Path) -> None:
    test = """
import os, signal, time

def test(nrfs_mount):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)
"""
    done = subprocess.run(
        command_of(place, test),
        cwd=place.parent,
        env={**os.environ, "TMPDIR": str(place)},
        preexec_fn=hear_interrupts,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done


def test_pytest_starts_without_the_rest_of_nrfs(place: Path) -> None:
    test = """
import sys

def test():
    assert "nrfs.pytest_plugin" in sys.modules
    assert not {"numpy", "fsspec", "mount", "nrfs.files"} & set(sys.modules)
"""
    assert "1 passed" in run(place, test)
