"""Runs the benchmarks in order, in a new database in a directory.

Every directory gets the same operations in a round. Only one database is open at a time: LevelDB compacts in the
background, which must not affect the figures of another directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import plyvel

from workloads import measure
from workloads.compared import Measure
from workloads.figures import Figure
from workloads.leveldb import benchmarks
from workloads.leveldb.configuration import Configuration
from workloads.leveldb.contents import Entries
from workloads.leveldb.database import temporary_database
from workloads.measure import Figures
from workloads.progress import ProgressBar

SEED = 1000


@final
@dataclass(frozen=True)
class LevelDB(Configuration):
    """The workload."""

    @property
    def name(self) -> str:
        return "leveldb"

    @property
    def title(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"LevelDB {plyvel.__leveldb_version__}: {self.num} keys, values of {self.value_size} bytes, "
            f"compression {self.compression}, {threads}"
        )

    @property
    def notes(self) -> Sequence[str]:
        lines = [f"Timing itself is {measure.clock_cost():.2f} us of each call. All values read were right."]
        if self.batch_size > 1:
            lines.append(f"p50 and p99 are of one call: writes carry up to {self.batch_size} entries.")
        return lines

    @property
    def steps(self) -> int:
        return sum(map(self._planned, self.benchmarks))

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        entries = Entries(self.num, self.value_size)

        def one_pass(directory: Path, where: str, number: int) -> list[Figure]:
            figures = []
            with temporary_database(directory, entries, self.compression) as database:
                if benchmarks.needs_filled_database(self.benchmarks[0]):
                    bar.begin(f"{where}  filling")
                    benchmarks.fill(database, lambda _: bar.show(0))
                for place, name in enumerate(self.benchmarks):
                    bar.begin(f"{where}  {name}")
                    measured = benchmarks.run(name, database, self, (SEED, number, place), bar.show)
                    figures.append(self._figure(name, measured))
                    bar.end(self._planned(name))
            return figures

        yield one_pass

    def _planned(self, benchmark: str) -> int:
        """Operations of all threads together."""
        return self.operations(benchmark) * self._threads(benchmark)

    def _threads(self, benchmark: str) -> int:
        return 1 if benchmark == "compact" else self.threads

    def _figure(self, benchmark: str, measured: Figures) -> Figure:
        return Figure(
            benchmark,
            measured.operations_per_second,
            "op/s",
            self._threads(benchmark),
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
