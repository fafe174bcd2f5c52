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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from types import MappingProxyType
from typing import Any, Final, final

from workloads.compared import Measure
from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.figures import PERCENTILES, Figure
from workloads.progress import ProgressBar

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

_PERCENTILES: Final = f"--percentile_list={':'.join(map(str, PERCENTILES))}"

CHECKED: Final = ("--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")


@final
@dataclass(frozen=True)
class Fio:
    """The workload."""

    jobs: tuple[str, ...]
    size: int
    """Bytes of the file, whole MiB."""
    seconds: int
    """Of each job."""

    @property
    def name(self) -> str:
        return "fio"

    @property
    def title(self) -> str:
        return f"fio: a file of {self.size / _MEBIBYTE:g} MiB, {self.seconds} s a job"

    @property
    def notes(self) -> Sequence[str]:
        return ["p50, p99: of one call; of fdatasync where there is one. All data was right."]

    @property
    def steps(self) -> int:
        return len(self.jobs)

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        """Raises a WorkloadError if there is no fio."""
        fio = which("fio")
        if fio is None:
            raise WorkloadError("needs fio, which is not installed: apt install fio")

        def one_pass(directory: Path, where: str, number: int) -> Iterator[Figure]:
            with temporary_directory(directory, "fio") as place:
                for name in self.jobs:
                    yield _Job(fio, name, place / name, self, where, bar).do()

        yield one_pass


@final
class _Job:
    """A job on a new file."""

    def __init__(self, fio: str, name: str, file: Path, options: Fio, where: str, bar: ProgressBar) -> None:
        self._fio = fio
        self._name = name
        self._file = file
        self._options = options
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
        timed = self._run(*job, "--time_based", f"--runtime={self._options.seconds}")
        self._bar.begin(f"{self._where}: checking")
        self._run(*job, *CHECKED)
        self._file.unlink()
        self._bar.end(1)
        return _figure(name, timed)

    def _run(self, *arguments: str) -> dict[str, Any]:
        """Runs fio to its end; returns the job's part of its report."""
        command = (
            *(self._fio, f"--name={self._name}", f"--filename={self._file}", f"--size={self._options.size}"),
            # One process, which an exception kills.
            *("--thread", "--output-format=json", _PERCENTILES, *arguments),
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
    calls = job["sync"]["lat_ns"] if name == "fdatasync" else every["clat_ns"]
    kept = {float(percent): nanoseconds / 1e3 for percent, nanoseconds in calls["percentile"].items()}
    latency = {percent: kept[percent] for percent in PERCENTILES}
    if name in SEQUENTIAL:
        return Figure(name, every["bw_bytes"] / _MEBIBYTE, "MiB/s", latency=latency)
    return Figure(name, every["iops"], "op/s", latency=latency)
