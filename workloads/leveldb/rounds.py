"""Runs the benchmarks in order, on both directories in turn, for all rounds; then computes the medians.

In each round, all benchmarks run in a new database in each directory, with the same operations. Only one database is
open at a time: LevelDB compacts in the background, which must not affect the figures of the other directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import final

from workloads import measure
from workloads.leveldb import benchmarks
from workloads.leveldb.configuration import Configuration
from workloads.leveldb.contents import Entries
from workloads.leveldb.database import temporary_database
from workloads.measure import Figures
from workloads.progress import ProgressBar
from workloads.ratio import Ratio

SEED = 1000


@final
@dataclass(frozen=True)
class Round:
    """The figures of one round."""

    order: tuple[int, ...]
    """The directories in the order of the round: 0 is the one under test, 1 the one it is compared with."""
    figures: tuple[tuple[Figures, ...], ...]
    """By directory (0, 1), the figures of each benchmark."""


@final
@dataclass(frozen=True)
class Medians:
    """The median of each figure over all rounds, for one benchmark on one directory."""

    operations: float
    operations_per_second: float
    microseconds_per_operation: float
    mebibytes_per_second: float | None
    p50_microseconds: float
    p99_microseconds: float
    found: float | None


@final
@dataclass(frozen=True)
class Summary:
    """One benchmark over all rounds."""

    benchmark: str
    medians: tuple[Medians, ...]
    """For each directory."""
    ratio: Ratio | None
    """The operations per second in the directory under test, divided by those in the other. This includes rare calls
    that take long. None if there is no second directory, or if nothing was measured."""
    p50_ratio: Ratio | None
    """The median latency in the other directory, divided by that in the one under test. Other load on the machine
    hardly affects it: so it shows differences where the ratio of rates is too noisy."""


@final
@dataclass(frozen=True)
class Results:
    """The results of a run."""

    configuration: Configuration
    rounds: tuple[Round, ...]
    clock_microseconds: float
    """Microseconds that reading the clock adds to each call's latency."""

    def summaries(self) -> list[Summary]:
        """One for each benchmark, in the order in which they ran."""
        return [self._summary(place, name) for place, name in enumerate(self.configuration.benchmarks)]

    def _summary(self, place: int, benchmark: str) -> Summary:
        sides = range(len(self.configuration.directories))
        columns = [[each.figures[side][place] for each in self.rounds] for side in sides]
        pairs = (
            [(a, b) for a, b in zip(*columns, strict=True) if a.operations and b.operations] if len(sides) > 1 else []
        )
        return Summary(
            benchmark,
            tuple(map(_medians, columns)),
            Ratio.over([a.operations_per_second / b.operations_per_second for a, b in pairs]),
            Ratio.over([b.p50_microseconds / a.p50_microseconds for a, b in pairs]),
        )


def run(configuration: Configuration) -> Results:
    """Runs everything. Raises WorkloadError at the first failure; removes the databases in every case."""
    entries = Entries(configuration.num, configuration.value_size)
    steps = sum(_planned(configuration, name) for name in configuration.benchmarks)
    with ProgressBar(steps * len(configuration.directories) * configuration.rounds) as progress:
        figures = configuration.in_turn(lambda number, side: _run_side(configuration, number, side, entries, progress))
    rounds = tuple(Round(configuration.order(number), each) for number, each in enumerate(figures))
    return Results(configuration, rounds, measure.clock_cost())


def _run_side(
    configuration: Configuration, number: int, side: int, entries: Entries, progress: ProgressBar
) -> tuple[Figures, ...]:
    where = configuration.where(number, side)
    figures = []
    with temporary_database(configuration.directories[side], entries, configuration.compression) as database:
        if benchmarks.needs_filled_database(configuration.benchmarks[0]):
            progress.begin(f"{where}  filling")
            benchmarks.fill(database, lambda _: progress.show(0))
        for place, name in enumerate(configuration.benchmarks):
            progress.begin(f"{where}  {name}")
            seed = (SEED, number, place)
            figures.append(benchmarks.run(name, database, configuration, seed, progress.show))
            progress.end(_planned(configuration, name))
    return tuple(figures)


def _planned(configuration: Configuration, benchmark: str) -> int:
    """Operations of all threads together."""
    return configuration.operations(benchmark) * (1 if benchmark == "compact" else configuration.threads)


def _medians(column: Sequence[Figures]) -> Medians:
    throughput = [each.mebibytes_per_second for each in column if each.mebibytes_per_second is not None]
    found = [each.found for each in column if each.found is not None]
    return Medians(
        operations=median(each.operations for each in column),
        operations_per_second=median(each.operations_per_second for each in column),
        microseconds_per_operation=median(each.microseconds_per_operation for each in column),
        mebibytes_per_second=median(throughput) if throughput else None,
        p50_microseconds=median(each.p50_microseconds for each in column),
        p99_microseconds=median(each.p99_microseconds for each in column),
        found=median(found) if found else None,
    )
