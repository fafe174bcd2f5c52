"""Many files in one directory: how long it takes to make, list, stat and delete one, for growing numbers of files.

Times are per file, and include the interpreter's loop, a few microseconds. So ratios are nearer to 1 than those of the
calls alone. The figures are meant to show how the time grows with the number of files, compared with another file
system in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import Final, final

from workloads.compared import Measure
from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.figures import Figure
from workloads.progress import ProgressBar

PHASES: Final = ("create", "list", "stat", "delete")
"""To make a file, write to it if a size is given, and close it; to list all names once; to stat one; to delete one."""


@final
@dataclass(frozen=True)
class Files:
    """The workload."""

    counts: Sequence[int]
    """Files in a directory, in the order of the measurements."""
    size: int
    """Bytes written to each file when it is made."""

    @property
    def name(self) -> str:
        return "files"

    @property
    def title(self) -> str:
        content = f" of {self.size:,} bytes" if self.size else ""
        return f"Files{content} in one directory: microseconds for each file"

    @property
    def notes(self) -> Sequence[str]:
        return [
            "Growth: the total over that of the first count in the same directory.",
            "The interpreter's loop, a few microseconds, is in every figure.",
        ]

    @property
    def steps(self) -> int:
        return 3 * sum(self.counts)

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        def one_pass(directory: Path, where: str, number: int) -> Iterator[Figure]:
            first = None
            for count in self.counts:
                with temporary_directory(directory, "files") as place:
                    spent = _measure(place, f"{where}  {count:,} files", count, b"\xa5" * self.size, bar)
                total = sum(spent.values())
                first = first or total
                yield from (Figure(f"{count:,}: {phase}", each, "us") for phase, each in spent.items())
                yield Figure(f"{count:,}: total", total, "us", note=f"growth {total / first:.2f}")

        yield one_pass


def _measure(place: Path, where: str, count: int, content: bytes, bar: ProgressBar) -> dict[str, float]:
    """Microseconds of each phase, per file."""
    handle = os.open(place, os.O_RDONLY)
    try:
        begin = perf_counter_ns()
        for name in _names(bar, f"{where}: making them", count):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=handle)
            if content:
                os.write(file, content)
            os.close(file)
        made = perf_counter_ns()
        listed = len(os.listdir(place))  # noqa: PTH208 (names alone)
        seen = perf_counter_ns()
        if listed != count:
            raise WorkloadError(f"{where}: {listed:,} are listed")
        for name in _names(bar, f"{where}: asking for them", count):
            if (size := os.stat(name, dir_fd=handle).st_size) != len(content):
                raise WorkloadError(f"{where}: {name} has {size:,} of {len(content):,} bytes")
        asked = perf_counter_ns()
        for name in _names(bar, f"{where}: deleting them", count):
            os.unlink(name, dir_fd=handle)
        end = perf_counter_ns()
    finally:
        os.close(handle)
    moments = (begin, made, seen, asked, end)
    spent = ((after - before) / count / 1e3 for before, after in pairwise(moments))
    return dict(zip(PHASES, spent, strict=True))


def _names(bar: ProgressBar, description: str, count: int) -> Iterator[str]:
    return (f"file-{number:08d}" for number in bar.count(description, count))
