"""What the user asked for: sizes, counts, and which of db_bench's benchmarks, in which order.

The names mean what they mean in LevelDB's own ``benchmarks/db_bench.cc``. This module imports nothing
heavy: the command line needs it before it knows that a benchmark is to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, final

Compression = Literal["none", "snappy"]
Keys = Literal["uniform", "zipfian"]

BENCHMARKS: Mapping[str, str] = MappingProxyType(
    {
        "fillseq": "write NUM entries in key order into a new database",
        "fillrandom": "write NUM entries at random keys into a new database",
        "overwrite": "write NUM entries at random keys into the database as it is",
        "fillsync": "write NUM/1000 entries at random keys into a new database, each one synced",
        "readrandom": "read READS random keys",
        "readseq": "read READS entries from the first on",
        "readreverse": "read READS entries from the last one back",
        "readhot": "read READS random keys of the first hundredth of the range",
        "seekrandom": "place a new iterator at READS random keys",
        "deleteseq": "delete NUM keys in key order",
        "readwhilewriting": "readrandom, while one more thread overwrites random keys",
        "compact": "compact the whole database",
    }
)

DEFAULT_BENCHMARKS = (
    "fillseq",
    "fillsync",
    "fillrandom",
    "overwrite",
    "readrandom",
    "readseq",
    "readreverse",
    "readhot",
    "seekrandom",
    "readwhilewriting",
    "compact",
    "deleteseq",
)

SYNC_DIVISOR = 1000
"""fillsync writes this many times fewer entries, as db_bench's does."""


@final
@dataclass(frozen=True)
class Sizes:
    """The counts that a preset fixes together."""

    benchmarks: tuple[str, ...]
    num: int
    value_size: int
    reads: int | None
    """None: as many as ``num``."""
    every_core: bool = False
    """Whether it is measured with 1 thread, 2, and so on, up to one for each CPU."""


DB_BENCH = Sizes(DEFAULT_BENCHMARKS, num=100_000, value_size=100, reads=None)
"""db_bench's value size; a tenth of its entries, since each call passes through Python."""

PRESETS: Mapping[str, Sizes] = MappingProxyType(
    {"nros": Sizes(("fillseq", "readrandom"), num=50_000, value_size=65_535, reads=100_000, every_core=True)}
)
"""``nros``: the LevelDB figure of "NrOS: Effective Replication and Sharing in an Operating System", OSDI '21, with the
sizes of its artifact."""


@dataclass(frozen=True)
class Configuration:
    """What to measure, with all defaults filled in."""

    benchmarks: tuple[str, ...]
    num: int
    """Entries of the key range."""
    value_size: int
    """Bytes."""
    reads: int
    """Per thread, as in db_bench."""
    threads: int
    """Each does the whole benchmark, as in db_bench: four threads write four times NUM entries."""
    databases: int
    """Threads use them in turn."""
    keys: Keys
    """How random keys are drawn: each alike, or a few often (Zipf's law, as YCSB draws them)."""
    batch_size: int
    """Entries per write; fillsync always writes one."""
    compression: Compression
    """None by default: compressing is work of the processor, the same on every file system, and shrinks
    what reaches the one under test."""

    def operations(self, benchmark: str) -> int:
        """How many operations one thread does; a sequential read ends earlier if the database does."""
        match benchmark:
            case "compact":
                return 1
            case "fillsync":
                return max(1, self.num // SYNC_DIVISOR)
            case "fillseq" | "fillrandom" | "overwrite" | "deleteseq":
                return self.num
            case _:
                return self.reads
