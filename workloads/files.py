"""Many files in one directory: how long it takes to make, list, stat and delete one, for growing numbers of files.

Times are per file, and include the interpreter's loop, a few microseconds. So ratios are nearer to 1 than those of the
calls alone. The figures are meant to show how the time grows with the number of files, compared with another file
system in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import final

from rich.table import Table

from workloads.compared import Compared
from workloads.directories import temporary_directory
from workloads.failure import WorkloadError, said_plainly
from workloads.progress import ProgressBar
from workloads.ratio import Times, explained
from workloads.report import print_table, write_json

PHASES = ("create", "list", "stat", "delete")


@final
@dataclass(frozen=True)
class Configuration(Compared):
    """What to measure."""

    counts: Sequence[int]
    """Files in a directory, in the order of the measurements."""
    size: int
    """Bytes written to each file when it is made."""


@final
@dataclass(frozen=True)
class Figures:
    """Microseconds per file, of one directory in one round."""

    create: float
    """To make a file, write to it if a size is given, and close it."""
    list: float
    """To list all names once, divided by their number."""
    stat: float
    delete: float

    @property
    def total(self) -> float:
        return self.create + self.list + self.stat + self.delete


@final
@dataclass(frozen=True)
class Measurement:
    """The figures for one number of files."""

    count: int
    rounds: Sequence[Sequence[Figures]]
    """By round, the figures of each directory."""

    def times(self) -> dict[str, Times]:
        """The times of each phase, and of all together."""
        return {
            name: Times.over([[getattr(figures, name) for figures in sides] for sides in self.rounds])
            for name in (*PHASES, "total")
        }


def run(configuration: Configuration) -> list[Measurement]:
    """Measures every count on every directory; what was made is deleted again.

    Raises:
        WorkloadError: a file could not be made, was not listed, or has another size.

    """
    turns = len(configuration.directories) * configuration.rounds
    with ProgressBar(3 * sum(configuration.counts) * turns) as bar, said_plainly():
        return [Measurement(count, _rounds(configuration, count, bar)) for count in configuration.counts]


def show(configuration: Configuration, measurements: Sequence[Measurement]) -> None:
    """Prints the figures, and writes them to the JSON file if there is to be one."""
    every = [(each.count, each.times()) for each in measurements]
    write_json(
        "files",
        configuration,
        rounds=[
            {"count": each.count, "order": configuration.order(number), "figures": list(map(asdict, sides))}
            for each in measurements
            for number, sides in enumerate(each.rounds)
        ],
        summary=[{"count": count, **{name: asdict(each) for name, each in times.items()}} for count, times in every],
    )
    content = f" of {configuration.size:,} bytes" if configuration.size else ""
    title = f"Files{content} in one directory, us for each{configuration.medians}"
    table = Table("directory", "files", *PHASES, "total", "growth", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    _, first = every[0]
    for count, times in every:
        for side, directory in enumerate(configuration.directories):
            cells = [f"{each.medians[side]:,.2f}" for each in times.values()]
            before = first["total"].medians[side]
            growth = f"{times['total'].medians[side] / before:.2f}" if before else "-"
            table.add_row(str(directory), f"{count:,}", *cells, growth)
        ratios = [f"{each.ratio.median:.2f}" for each in times.values() if each.ratio is not None]
        if ratios:
            table.add_row("ratio", "", *ratios)
    lines = [
        "Growth: the total over that of the first count in the same directory.",
        *explained(configuration.directories),
        "The interpreter's loop, a few microseconds, is in every figure.",
    ]
    print_table(table, "\n".join(lines))


def _rounds(configuration: Configuration, count: int, bar: ProgressBar) -> list[tuple[Figures, ...]]:
    def once(number: int, side: int) -> Figures:
        where = f"{configuration.where(number, side)}  {count:,} files"
        with temporary_directory(configuration.directories[side], "files") as place:
            return _measure(place, where, count, b"\xa5" * configuration.size, bar)

    return configuration.in_turn(once)


def _measure(place: Path, where: str, count: int, content: bytes, bar: ProgressBar) -> Figures:
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
    return Figures(*((after - before) / count / 1e3 for before, after in pairwise(moments)))


def _names(bar: ProgressBar, description: str, count: int) -> Iterator[str]:
    return (f"file-{number:08d}" for number in bar.count(description, count))
