"""``nrfs bench tree``."""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from workloads.command import check_directories
from workloads.commands.directories import OnDirectories
from workloads.options import positive

if TYPE_CHECKING:
    from workloads.compared import Workload


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="the tree, without .git and what is built (the standard library of the running Python)",
    )
    parser.add_argument(
        "--files", type=positive, default=5000, metavar="N", help="repeat it until it has about so many (5000)"
    )


def _make(options: argparse.Namespace) -> Workload:
    from workloads.tree import Tree

    check_directories([] if options.source is None else [options.source])
    return Tree(options.source, options.files)


WORKLOAD = OnDirectories(
    "tree",
    help="a source tree: tar x, find, grep -r, cp -r, diff -r, git, rm -rf",
    description="Unpacks a source tree, searches, copies, compares, commits and removes it by the ordinary tools, "
    "and tells how long each takes. Every result is checked.",
    where="where to unpack the tree",
    add_options=_add_options,
    make=_make,
    brief=("--source", str(Path(sysconfig.get_path("stdlib"), "email")), "--files", "150"),
)
