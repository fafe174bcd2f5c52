"""``nrfs bench leveldb``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workloads.commands.directories import OnDirectories
from workloads.leveldb.configuration import BENCHMARKS, DB_BENCH, PRESETS
from workloads.options import names, positive, positives

if TYPE_CHECKING:
    from workloads.compared import Workload


def _add_options(parser: argparse.ArgumentParser) -> None:
    benchmarks = names("benchmark", tuple(BENCHMARKS))
    parser.add_argument("--benchmarks", type=benchmarks, metavar="NAME,...", help="which, in this order")
    parser.add_argument("--num", type=positive, metavar="N", help=f"keys of the range ({DB_BENCH.num})")
    parser.add_argument("--value-size", type=positive, metavar="B", help=f"bytes ({DB_BENCH.value_size})")
    parser.add_argument("--reads", type=positive, metavar="N", help="reads of each thread (as many as --num)")
    parser.add_argument(
        "--threads", type=positives, metavar="T,...", help="each does the whole benchmark, as in db_bench (1)"
    )
    parser.add_argument("--databases", type=positive, default=1, metavar="D", help="threads use them in turn (1)")
    parser.add_argument(
        "--keys", choices=["uniform", "zipfian"], default="uniform", help="how random keys are drawn (uniform)"
    )
    parser.add_argument("--batch-size", type=positive, default=1, metavar="B", help="entries per write (1)")
    parser.add_argument("--compression", choices=["none", "snappy"], default="none", help="LevelDB's (none)")
    parser.add_argument(
        "--db-bench",
        type=Path,
        metavar="PATH",
        help="run LevelDB's own db_bench, which is there, with the same sizes too",
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="a published configuration; other options override")


def _make(options: argparse.Namespace) -> Workload:
    from workloads.leveldb.workload import LevelDB

    sizes = PRESETS[options.preset] if options.preset else DB_BENCH
    num = options.num or sizes.num
    every_core = tuple(range(1, len(os.sched_getaffinity(0)) + 1))
    counts = options.threads or (every_core if sizes.every_core else (1,))
    return LevelDB(
        benchmarks=options.benchmarks or sizes.benchmarks,
        num=num,
        value_size=options.value_size or sizes.value_size,
        reads=options.reads or sizes.reads or num,
        threads=max(counts),
        thread_counts=counts,
        databases=options.databases,
        keys=options.keys,
        db_bench=options.db_bench,
        batch_size=options.batch_size,
        compression=options.compression,
    )


def _epilog() -> str:
    lines = ["benchmarks:", *(f"  {name:<17} {meaning}" for name, meaning in BENCHMARKS.items())]
    lines += ["", "A benchmark that needs a filled database and comes first gets one, untimed.", "", "presets:"]
    for name, sizes in PRESETS.items():
        numbers = f"--num {sizes.num} --value-size {sizes.value_size} --reads {sizes.reads or sizes.num}"
        threads = " --threads 1,2,... one a CPU" if sizes.every_core else ""
        lines.append(f"  {name:<17} --benchmarks {','.join(sizes.benchmarks)} {numbers}{threads}")
    return "\n".join(lines)


WORKLOAD = OnDirectories(
    "leveldb",
    help="LevelDB's db_bench benchmarks on a directory, or on two compared",
    description="Runs LevelDB's db_bench benchmarks in a new database in DIR and prints their figures. "
    "Every value read is checked.",
    where="where to make the database",
    add_options=_add_options,
    make=_make,
    brief=("--num", "20000"),
    epilog=_epilog(),
)
