"""``nrfs bench fio``, as a user runs it; and that no wrong data gets past it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from shutil import which

from conftest import Mounts, daemon_of, nrfs_command, wait_until
from support.results import only_run

from workloads.commands.fio import JOBS
from workloads.fio import ARGUMENTS

SMALL = ("--size", 1 << 20, "--seconds", 1)


def bench(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {name: str(value) for name, value in environment.items()}
    command = nrfs_command("bench", "fio", *SMALL, *arguments)
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=120)


def complaint(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, "", 1), done
    return done.stderr


def a_fio_that(then: str, place: Path) -> str:
    """A PATH with a fio that runs a shell command after each run; ``$file`` is the job's file."""
    program = place / "fio"
    find = "for word; do case $word in --filename=*) file=${word#--filename=};; esac; done"
    program.write_text(f'#!/bin/sh\n{find}\n{which("fio")} "$@"\nstatus=$?\n{then}\nexit $status\n')
    program.chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


def test_every_job_runs_on_both_directories_and_nothing_is_left(
    mount_nrfs: Mounts, tmpfs: Path, tmp_path: Path
) -> None:
    mountpoint, report = mount_nrfs(nodes=2), tmp_path / "report.json"
    done = bench("--dir", mountpoint, "--against", tmpfs, "--rounds", 1, "--json", report)
    assert (done.returncode, done.stderr) == (0, "")
    assert tuple(ARGUMENTS) == JOBS
    run = only_run(report)
    run.check()
    assert run.names == [*JOBS]
    for job in JOBS:
        for side in (0, 1):
            figure = run.figure(job, side)
            assert figure["unit"] == ("MiB/s" if job in ("write", "read") else "op/s")
            assert 0 < figure["latency"]["50"] <= figure["latency"]["99"]
        assert f"\n{job} " in done.stdout
    assert [*mountpoint.iterdir(), *tmpfs.iterdir()] == []


def test_wrong_data_is_no_figure(tmpfs: Path, tmp_path: Path) -> None:
    path = a_fio_that('printf x | dd of="$file" bs=1 seek=5000 conv=notrunc status=none', tmp_path)
    said = complaint(bench("--dir", tmpfs, "--jobs", "randread", PATH=path))
    assert "randread: crc32c: verify failed" in said
    assert list(tmpfs.iterdir()) == []


def test_a_failure_of_fio_is_said_in_one_line(mount_nrfs: Mounts, tmpfs: Path, tmp_path: Path) -> None:
    assert "No space left on device" in complaint(bench("--dir", mount_nrfs(size="256K"), "--jobs", "write"))
    path = a_fio_that("exit 3", tmp_path)
    assert "randwrite: fio ended with 3" in complaint(bench("--dir", tmpfs, PATH=path))
    assert "needs fio" in complaint(bench("--dir", tmpfs, PATH=tmp_path / "nowhere"))
    assert list(tmpfs.iterdir()) == []


def test_what_cannot_be_measured_is_said_in_one_line(tmpfs: Path) -> None:
    for arguments, status, said in [
        (("--dir", tmpfs, "--jobs", "frobnicate"), 2, "unknown job 'frobnicate'; there are randwrite, randread"),
        (("--dir", tmpfs, "--size", (1 << 20) + 1), 2, "--size: 1048577 bytes are not whole MiB"),
        (("--dir", tmpfs / "missing"), 1, "no such directory"),
    ]:
        assert said in complaint(bench(*arguments), status)


def test_a_daemon_that_dies_is_told(mountpoint: Path) -> None:
    command = nrfs_command("bench", "fio", "--dir", mountpoint, "--seconds", 20, "--jobs", "randwrite")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(mountpoint.glob("*/randwrite")), "the job")
        os.kill(daemon_of(mountpoint), 9)
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed, said.count("\n")) == (1, "", 1), said
