"""Runs the benchmarks in order, in a new database in a directory.

Every directory gets the same operations in a round. Only one database is open at a time: LevelDB compacts in the
background, which must not affect the figures of another directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import final

import plyvel

from workloads import measure
from workloads.compared import Measure
from workloads.figures import Figure
from workloads.leveldb import benchmarks, db_bench
from workloads.leveldb.configuration import Configuration
from workloads.leveldb.contents import Entries
from workloads.leveldb.database import temporary_database
from workloads.measure import Figures
from workloads.progress import ProgressBar

SEED = 1000


@final
@dataclass(frozen=True)
class LevelDB(Configuration):
    """The workload. Its ``threads`` are the most that there are."""

    thread_counts: tuple[int, ...]
    """Numbers of threads to measure with, each in new databases."""
    db_bench: Path | None
    """LevelDB's own program, to run too."""

    @property
    def name(self) -> str:
        return "leveldb"

    @property
    def title(self) -> str:
        counts = ",".join(map(str, self.thread_counts))
        threads = f"{counts} thread{'s' if self.threads > 1 else ''}"
        if self.databases > 1:
            threads += f" on {self.databases} databases"
        if self.keys != "uniform":
            threads += f", {self.keys} keys"
        return (
            f"LevelDB {plyvel.__leveldb_version__}: {self.num} keys, values of {self.value_size} bytes, "
            f"compression {self.compression}, {threads}"
        )

    @property
    def notes(self) -> Sequence[str]:
        lines = [f"Timing itself is {measure.clock_cost():.2f} us of each call. All values read were right."]
        if self.batch_size > 1:
            lines.append(f"p50 and p99 are of one call: writes carry up to {self.batch_size} entries.")
        if self.db_bench is not None:
            lines.append(f"db_bench: {self.db_bench}, which checks no values, and tells no latencies.")
        return lines

    @property
    def steps(self) -> int:
        configurations = map(self._with_threads, self.thread_counts)
        return sum(_planned(each, name) for each in configurations for name in self.benchmarks)

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        entries = Entries(self.num, self.value_size)

        def one_pass(directory: Path, where: str, number: int) -> Iterator[Figure]:
            for threads in self.thread_counts:
                configuration = self._with_threads(threads)
                yield from self._measure(configuration, directory, entries, where, number, bar)
                if self.db_bench is not None:
                    bar.begin(f"{where}  db_bench")
                    yield from db_bench.run(self.db_bench, configuration, directory)

        yield one_pass

    def _with_threads(self, threads: int) -> Configuration:
        return Configuration(
            **{each.name: getattr(self, each.name) for each in fields(Configuration)} | {"threads": threads}
        )

    def _measure(
        self,
        configuration: Configuration,
        directory: Path,
        entries: Entries,
        where: str,
        number: int,
        bar: ProgressBar,
    ) -> Iterator[Figure]:
        with ExitStack() as stack:
            databases = [
                stack.enter_context(temporary_database(directory, entries, self.compression))
                for _ in range(min(self.databases, configuration.threads))
            ]
            if benchmarks.needs_filled_database(self.benchmarks[0]):
                bar.begin(f"{where}  filling")
                for database in databases:
                    benchmarks.fill(database, lambda _: bar.show(0))
            for place, name in enumerate(self.benchmarks):
                bar.begin(f"{where}  {name}  {configuration.threads} threads")
                measured = benchmarks.run(name, databases, configuration, (SEED, number, place), bar.show)
                yield _figure(configuration, name, measured)
                bar.end(_planned(configuration, name))


def _planned(configuration: Configuration, benchmark: str) -> int:
    """Operations of all threads together."""
    return configuration.operations(benchmark) * _threads(configuration, benchmark)


def _threads(configuration: Configuration, benchmark: str) -> int:
    threads = configuration.threads
    return min(configuration.databases, threads) if benchmark == "compact" else threads


def _figure(configuration: Configuration, benchmark: str, measured: Figures) -> Figure:
    return Figure(
        benchmark,
        measured.operations_per_second,
        "op/s",
        _threads(configuration, benchmark),
        measured.latency,
        "" if measured.found is None else f"{measured.found:,} of {measured.operations:,} found",
        {
            "operations": measured.operations,
            "microseconds_per_operation": measured.microseconds_per_operation,
            "mebibytes_per_second": measured.mebibytes_per_second,
            "wall_seconds": measured.wall_seconds,
            "found": measured.found,
        },
    )
