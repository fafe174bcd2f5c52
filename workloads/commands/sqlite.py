"""``nrfs bench sqlite``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from workloads.commands.directories import OnDirectories
from workloads.options import names, positive

if TYPE_CHECKING:
    from workloads.compared import Workload

JOURNALS: Final = ("wal", "rollback")

PHASES: Final = {
    "insert": "insert rows one by one, each a transaction",
    "transaction": "insert rows, 1000 a transaction",
    "read": "read rows by random keys",
}


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--journal", type=names("journal", JOURNALS), default=JOURNALS, metavar="NAME,...", help="(wal,rollback)"
    )
    parser.add_argument("--rows", type=positive, default=100_000, metavar="N", help="in transactions (100000)")
    parser.add_argument("--inserts", type=positive, default=2000, metavar="N", help="rows one by one (2000)")
    parser.add_argument("--reads", type=positive, default=50_000, metavar="N", help="rows read (50000)")
    parser.add_argument("--value-size", type=positive, default=100, metavar="B", help="bytes of a row's value (100)")
    parser.add_argument(
        "--synchronous",
        choices=["off", "normal", "full"],
        default="full",
        help="when SQLite syncs, as its pragma says (full, SQLite's default)",
    )


def _make(options: argparse.Namespace) -> Workload:
    from workloads.sqlite import SQLite

    return SQLite(
        journals=options.journal,
        rows=options.rows,
        inserts=options.inserts,
        reads=options.reads,
        value_size=options.value_size,
        synchronous=options.synchronous,
    )


WORKLOAD = OnDirectories(
    "sqlite",
    help="SQLite: inserts one by one and in transactions, and reads by key, with a WAL and a rollback journal",
    description="Makes a database of SQLite in DIR with each journal, and times inserts and reads by key, by Python's "
    "sqlite3. What is read is checked, and at the end so is the database.",
    where="where to make the database",
    add_options=_add_options,
    make=_make,
    brief=("--rows", "20000", "--inserts", "500", "--reads", "10000"),
)
