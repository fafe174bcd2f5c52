"""SQLite in a directory, by Python's sqlite3: inserts one by one and in transactions, and reads by key.

A call is timed from the statement to its result, so Python's part of a few microseconds is in every figure. Reads have
no cache of pages but the kernel's: SQLite's own is as small as it can be.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import final

import numpy as np

from workloads.compared import Measure
from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.figures import PERCENTILES, Figure
from workloads.progress import ProgressBar

_ROWS_A_TRANSACTION = 1000
_PRAGMA = {"wal": "wal", "rollback": "delete"}
"""SQLite's names of the journals."""


@final
@dataclass(frozen=True)
class SQLite:
    """The workload."""

    journals: tuple[str, ...]
    rows: int
    inserts: int
    reads: int
    value_size: int
    synchronous: str

    @property
    def name(self) -> str:
        return "sqlite"

    @property
    def title(self) -> str:
        return (
            f"SQLite {sqlite3.sqlite_version}: {self.inserts} rows one by one, {self.rows} in transactions, "
            f"values of {self.value_size} bytes, synchronous={self.synchronous}"
        )

    @property
    def notes(self) -> Sequence[str]:
        return [
            f"insert: each row a transaction; transaction: {_ROWS_A_TRANSACTION} rows a transaction, its p50 and p99 "
            "of a whole one. All rows read were right, and SQLite found the databases whole."
        ]

    @property
    def steps(self) -> int:
        return len(self.journals) * (self.inserts + self.rows + self.reads)

    @contextmanager
    def measuring(self, bar: ProgressBar) -> Iterator[Measure]:
        def one_pass(directory: Path, where: str, number: int) -> Iterator[Figure]:
            with temporary_directory(directory, "sqlite") as place:
                for journal in self.journals:
                    try:
                        yield from _Pass(self, place / journal, journal, f"{where}  {journal}", number, bar).run()
                    except sqlite3.Error as failure:
                        raise WorkloadError(f"{where}  {journal}: {failure}") from failure

        yield one_pass


@final
class _Pass:
    """One journal in one database."""

    def __init__(self, options: SQLite, path: Path, journal: str, where: str, seed: int, bar: ProgressBar) -> None:
        self._options = options
        self._path = path
        self._journal = journal
        self._where = where
        self._random = np.random.default_rng(seed)
        self._bar = bar

    def run(self) -> Iterator[Figure]:
        options = self._options
        # In autocommit mode a statement by itself is a transaction.
        with closing(sqlite3.connect(self._path, isolation_level=None)) as database:
            database.execute("PRAGMA page_size = 4096")
            (journal,) = database.execute(f"PRAGMA journal_mode = {_PRAGMA[self._journal]}").fetchone()
            if journal != _PRAGMA[self._journal]:
                raise WorkloadError(f"{self._where}: SQLite does not use this journal here, but {journal}")
            database.execute(f"PRAGMA synchronous = {options.synchronous}")
            database.execute("PRAGMA cache_size = 10")
            database.execute("CREATE TABLE entries (key INTEGER PRIMARY KEY, value BLOB NOT NULL)")
            one_by_one = ((key,) for key in range(options.inserts))
            yield self._timed("insert", one_by_one, lambda keys: self._insert(database, keys))
            rest = range(options.inserts, options.inserts + options.rows)
            together = (rest[first : first + _ROWS_A_TRANSACTION] for first in range(0, len(rest), _ROWS_A_TRANSACTION))
            yield self._timed("transaction", together, lambda keys: self._insert(database, keys))
            keys = self._random.integers(0, options.inserts + options.rows, options.reads).tolist()
            yield self._timed("read", ((key,) for key in keys), lambda keys: self._read(database, keys))
            (rows,) = database.execute("SELECT count(*) FROM entries").fetchone()
            (whole,) = database.execute("PRAGMA integrity_check").fetchone()
            if whole != "ok" or rows != options.inserts + options.rows:
                raise WorkloadError(f"{self._where}: the database is damaged: {rows} rows, {whole}")

    def _value(self, key: int) -> bytes:
        """The value of a key. Each key has a different one, so that a wrong row is noticed."""
        return (b"%020d" % key * (self._options.value_size // 20 + 1))[: self._options.value_size]

    def _insert(self, database: sqlite3.Connection, keys: Sequence[int]) -> int:
        rows = [(key, self._value(key)) for key in keys]
        began = perf_counter_ns()
        if len(rows) == 1:
            database.execute("INSERT INTO entries VALUES (?, ?)", rows[0])
        else:
            database.execute("BEGIN")
            database.executemany("INSERT INTO entries VALUES (?, ?)", rows)
            database.execute("COMMIT")
        return perf_counter_ns() - began

    def _read(self, database: sqlite3.Connection, keys: Sequence[int]) -> int:
        (key,) = keys
        began = perf_counter_ns()
        row = database.execute("SELECT value FROM entries WHERE key = ?", keys).fetchone()
        took = perf_counter_ns() - began
        if row != (self._value(key),):
            raise WorkloadError(f"{self._where}: row {key} is not the one that was inserted")
        return took

    def _timed(self, phase: str, calls: Iterator[Sequence[int]], call: Callable[[Sequence[int]], int]) -> Figure:
        self._bar.begin(f"{self._where}  {phase}")
        latencies, done = array("q"), 0
        for keys in calls:
            latencies.append(max(1, call(keys)))
            done += len(keys)
            if len(latencies) % _ROWS_A_TRANSACTION == 0:
                self._bar.show(done)
        self._bar.end(done)
        percentiles = np.percentile(np.frombuffer(latencies, dtype=np.int64), PERCENTILES) / 1e3
        latency = dict(zip(PERCENTILES, percentiles.tolist(), strict=True))
        return Figure(f"{phase}, {self._journal}", done * 1e9 / sum(latencies), "op/s", latency=latency)
