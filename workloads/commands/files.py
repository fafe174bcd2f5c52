"""``nrfs bench files``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workloads.commands.directories import OnDirectories
from workloads.options import positives, whole

if TYPE_CHECKING:
    from workloads.compared import Workload


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--counts", type=positives, default=(10_000, 1_000_000), metavar="N,...", help="files (10000,1000000)"
    )
    parser.add_argument("--size", type=whole, default=0, metavar="B", help="bytes written to each when made (0)")


def _make(options: argparse.Namespace) -> Workload:
    from workloads.files import Files

    return Files(options.counts, options.size)


WORKLOAD = OnDirectories(
    "files",
    help="many files in one directory",
    description="Makes, lists, stats and deletes many files in one directory, and tells what each costs.",
    where="where to make the files",
    add_options=_add_options,
    make=_make,
    brief=("--counts", "10000"),
)
