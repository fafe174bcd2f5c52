"""fio's jobs on a file: reads and writes of one size, one after the other or at random, by system calls or a mapping.

A job reads or overwrites a file that is there, for some seconds. That is timed by fio, and fio makes nothing for
checks meanwhile: to compute checksums between the calls takes longer than the calls do on tmpfs, and gives a file
system that works in the background time to catch up. Then, untimed, what a job read is read again and compared with
the checksums (crc32c) that are in it; and a job that writes is done once more, over the whole file, with a checksum and
a number in each block, which fio then reads and compares.

fio's defaults hold: before each pass over the file the kernel is told that cached pages are not needed, so that reads
reach the file system.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from types import MappingProxyType
from typing import Any, Final, final

from workloads import figures
from workloads.compared import Compared
from workloads.directories import temporary_directory
from workloads.failure import UsageError, WorkloadError, said_plainly
from workloads.figures import Figure
from workloads.progress import ProgressBar
from workloads.report import write_json

_MEBIBYTE: Final = 1 << 20

_RANDOM: Final = ("--ioengine=psync", "--bs=4k")
_SEQUENTIAL: Final = ("--ioengine=psync", "--bs=1M")

ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "randwrite": (*_RANDOM, "--rw=randwrite"),
        "randread": (*_RANDOM, "--rw=randread"),
        "fdatasync": (*_RANDOM, "--rw=randwrite", "--fdatasync=1"),
        "mmap": ("--ioengine=mmap", "--bs=4k", "--rw=randrw", "--unified_rw_reporting=1"),
        "write": (*_SEQUENTIAL, "--rw=write"),
        "read": (*_SEQUENTIAL, "--rw=read"),
    }
)
"""What makes each job, for fio."""

SEQUENTIAL: Final = frozenset({"write", "read"})
"""Jobs whose figure is in bytes, not in operations."""

READS: Final = frozenset({"randread", "read"})
"""Jobs that only read."""

CHECKED: Final = ("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")


@final
@dataclass(frozen=True)
class Configuration(Compared):
    """What to measure."""

    jobs: tuple[str, ...]
    size: int
    """Bytes of the file."""
    seconds: int
    """Of each job."""


Rounds = list[tuple[tuple[Figure, ...], ...]]
"""By round and directory, the figure of each job."""


def run(configuration: Configuration) -> Rounds:
    """Does every job on every directory. Removes the files.

    Raises:
        UsageError: the size is not in whole MiB.
        WorkloadError: fio is missing, or fails, or finds wrong data.

    """
    if configuration.size % _MEBIBYTE:
        raise UsageError(f"--size: {configuration.size} bytes are not whole MiB")
    fio = which("fio")
    if fio is None:
        raise WorkloadError("needs fio, which is not installed: apt install fio")
    steps = len(configuration.jobs) * len(configuration.directories) * configuration.rounds
    with said_plainly(), ProgressBar(steps) as bar:

        def once(number: int, side: int) -> tuple[Figure, ...]:
            where = configuration.where(number, side)
            with temporary_directory(configuration.directories[side], "fio") as place:
                return tuple(
                    _Job(fio, name, place / name, configuration, where, bar).do() for name in configuration.jobs
                )

        return configuration.in_turn(once)


def show(configuration: Configuration, rounds: Rounds) -> None:
    """Prints the table, and writes the JSON file if there is to be one."""
    write_json("fio", configuration, **figures.as_json(configuration, rounds))
    title = (
        f"fio: a file of {configuration.size / _MEBIBYTE:g} MiB, {configuration.seconds} s a job{configuration.medians}"
    )
    latencies = "p50, p99: of one call; of fdatasync where there is one. All data was right."
    figures.show(configuration, rounds, title, latencies)


@final
class _Job:
    """A job on a new file."""

    def __init__(
        self, fio: str, name: str, file: Path, configuration: Configuration, where: str, bar: ProgressBar
    ) -> None:
        self._fio = fio
        self._name = name
        self._file = file
        self._configuration = configuration
        self._where = f"{where}  {name}"
        self._bar = bar

    def do(self) -> Figure:
        """Makes the file, times the job, checks the data, and removes the file."""
        name, job = self._name, ARGUMENTS[self._name]
        self._bar.begin(f"{self._where}: making the file")
        # Each block of a job has a checksum of its own.
        block = next(argument for argument in job if argument.startswith("--bs="))
        self._run("--ioengine=psync", "--rw=write", block, *CHECKED, "--do_verify=0")
        self._bar.begin(self._where)
        timed = self._run(*job, "--time_based", f"--runtime={self._configuration.seconds}")
        self._bar.begin(f"{self._where}: checking")
        self._run(*job, *CHECKED)
        self._file.unlink()
        self._bar.end(1)
        return _figure(name, timed)

    def _run(self, *arguments: str) -> dict[str, Any]:
        """Runs fio to its end; returns the job's part of its report."""
        command = (
            *(self._fio, f"--name={self._name}", f"--filename={self._file}", f"--size={self._configuration.size}"),
            # One process, which an exception kills.
            *("--thread", "--output-format=json", *arguments),
        )
        done = subprocess.run(
            command, cwd=self._file.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        said = done.stderr.strip().splitlines()
        if done.returncode != 0 or said:
            raise WorkloadError(f"{self._where}: {said[0] if said else f'fio ended with {done.returncode}'}")
        # Notes may stand before the report.
        job: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{\n") :])["jobs"][0]
        return job


def _figure(name: str, job: Mapping[str, Any]) -> Figure:
    every = job["mixed" if name == "mmap" else "read" if name in READS else "write"]
    call = job["sync"]["lat_ns"] if name == "fdatasync" else every["clat_ns"]
    p50, p99 = (call["percentile"][f"{percent}.000000"] / 1e3 for percent in (50, 99))
    if name in SEQUENTIAL:
        return Figure(name, every["bw_bytes"] / _MEBIBYTE, "MiB/s", p50, p99)
    return Figure(name, every["iops"], "op/s", p50, p99)
