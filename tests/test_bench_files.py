"""``nrfs bench files``, as a user runs it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Mounts, nrfs_command, run_nrfs, wait_until
from support.results import only_run

from workloads.files import PHASES


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_nrfs("bench", "files", *arguments, seconds=120)


@pytest.mark.parametrize("size", ["0", "4096"])
def test_every_count_is_measured_on_both_directories_and_nothing_is_left(
    size: str, mountpoint: Path, tmpfs: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    directories = ("--dir", str(mountpoint), "--against", str(tmpfs))
    done = bench(*directories, "--counts", "100,200", "--size", size, "--rounds", "3", "--json", str(report))
    assert (done.returncode, done.stderr) == (0, "")
    run = only_run(report)
    run.check()
    assert run.orders == [[0, 1], [1, 0], [0, 1]]
    assert run.names == [f"{count}: {phase}" for count in (100, 200) for phase in (*PHASES, "total")]
    for count in (100, 200):
        phases = [run.values(f"{count}: {phase}") for phase in PHASES]
        assert all(each > 0 for values in phases for each in values)
        assert run.values(f"{count}: total") == pytest.approx([sum(each) for each in zip(*phases, strict=True)])
    assert f"how many times as fast as {tmpfs}" in done.stdout
    assert [*mountpoint.iterdir(), *tmpfs.iterdir()] == []


def test_one_directory_alone_has_no_ratio(tmpfs: Path) -> None:
    done = bench("--dir", str(tmpfs), "--counts", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ratio" not in done.stdout.lower()


def test_files_that_were_not_wholly_written_are_no_figure(mount_nrfs: Mounts) -> None:
    mountpoint = mount_nrfs(size="64K")
    done = bench("--dir", str(mountpoint), "--counts", "10", "--size", "10000")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert list(mountpoint.iterdir()) == []


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments, status in [
        (("--dir", str(tmp_path / "missing")), 1),
        (("--dir", str(tmp_path), "--json", str(tmp_path)), 1),
        (("--dir", str(tmp_path), "--counts", "10,0"), 2),
        (("--dir", str(tmp_path), "--size", "-1"), 2),
        (("--dir", str(tmp_path), "--size", "4K"), 2),
        ((), 2),
    ]:
        done = bench(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1)


def test_a_signal_ends_it_and_leaves_nothing(tmpfs: Path) -> None:
    command = nrfs_command("bench", "files", "--dir", tmpfs, "--counts", "1000000")
    with subprocess.Popen(command) as process:
        wait_until(lambda: any(tmpfs.glob("*/file-00000500")), "files")
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmpfs.iterdir()) == []
