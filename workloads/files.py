"""Many files in one directory: what making, listing, asking for and deleting one costs, as they become more.

Per file and by this process's clock, so the interpreter's loop, a few microseconds, is part of every figure. What is to
be read from it is how the figure grows with the number of files, and that beside another file system in the same run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import final

from rich.table import Table

from workloads.failure import WorkloadError, said_plainly
from workloads.progress import ProgressBar
from workloads.report import print_table, write_json

PHASES = ("create", "list", "stat", "delete")


@final
@dataclass(frozen=True)
class Configuration:
    """What to measure."""

    directory: Path
    against: Path | None
    counts: Sequence[int]
    """Files in a directory, in the order of the measurements."""
    json: Path | None

    @property
    def directories(self) -> list[Path]:
        return [self.directory, *([self.against] if self.against is not None else [])]


@final
@dataclass(frozen=True)
class Figures:
    """Of one directory with so many files: microseconds for each."""

    directory: Path
    count: int
    create: float
    """Open a new name and close it."""
    list: float
    """All names, once."""
    stat: float
    delete: float

    @property
    def total(self) -> float:
        return self.create + self.list + self.stat + self.delete


def run(configuration: Configuration) -> list[Figures]:
    """Measures every count on every directory; what was made is deleted again.

    Raises:
        WorkloadError: a file could not be made, or a name was not listed.

    """
    rounds = [(count, directory) for count in configuration.counts for directory in configuration.directories]
    with ProgressBar(sum(3 * count for count, _ in rounds)) as bar, said_plainly():
        return [_measure(directory, count, bar) for count, directory in rounds]


def show(configuration: Configuration, figures: Sequence[Figures]) -> None:
    """Prints the figures, and writes them to the JSON file if there is to be one."""
    table = Table("directory", "files", *PHASES, "total", "growth", title="Files in one directory, us for each")
    for column in table.columns[1:]:
        column.justify = "right"
    first = {each.directory: each for each in reversed(figures)}
    for each in figures:
        cells = [f"{getattr(each, phase):,.2f}" for phase in (*PHASES, "total")]
        growth = f"{each.total / first[each.directory].total:.2f}"
        table.add_row(str(each.directory), f"{each.count:,}", *cells, growth)
    print_table(table, "Growth: the total over that of the first count in the same directory.")
    if configuration.json is not None:
        document = {
            "workload": "files",
            "configuration": asdict(configuration),
            "figures": [{**asdict(each), "total": each.total} for each in figures],
        }
        write_json(document, configuration.json)


def _measure(directory: Path, count: int, bar: ProgressBar) -> Figures:
    place = Path(tempfile.mkdtemp(dir=directory, prefix="nrfs-bench-files-"))
    handle = os.open(place, os.O_RDONLY)
    try:
        begin = perf_counter_ns()
        for name in _names(bar, f"{directory}: making {count:,} files", count):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=handle))
        made = perf_counter_ns()
        listed = len(os.listdir(place))  # noqa: PTH208 (names alone)
        seen = perf_counter_ns()
        if listed != count:
            raise WorkloadError(f"{directory}: {listed:,} of {count:,} files are listed")
        for name in _names(bar, f"{directory}: asking for them", count):
            os.stat(name, dir_fd=handle)
        asked = perf_counter_ns()
        for name in _names(bar, f"{directory}: deleting them", count):
            os.unlink(name, dir_fd=handle)
        end = perf_counter_ns()
    finally:
        os.close(handle)
        shutil.rmtree(place, ignore_errors=True)
    moments = (begin, made, seen, asked, end)
    create, names, stat, delete = ((after - before) / count / 1e3 for before, after in pairwise(moments))
    return Figures(directory, count, create, names, stat, delete)


def _names(bar: ProgressBar, description: str, count: int) -> Iterator[str]:
    return (f"file-{number:08d}" for number in bar.count(description, count))
