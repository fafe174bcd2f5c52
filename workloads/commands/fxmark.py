"""``nrfs bench fxmark``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from workloads.commands.directories import OnDirectories
from workloads.failure import UsageError
from workloads.options import add_nodes, names, percentages, positive, positives

if TYPE_CHECKING:
    from workloads.compared import Workload

WORKLOADS: Final = {
    "DRBL": "read a block of 4 KiB of its own file",
    "DRBM": "read its own block of a shared file",
    "DRBH": "read the same block as all others",
    "DWAL": "append a block to its own file",
    "DWOL": "overwrite a block of its own file",
    "DWOM": "overwrite its own block of a shared file",
    "DWSL": "overwrite a block of its own file, and fsync",
    "DWTL": "truncate its own file by a block",
    "MRPL": "stat its own file, five names deep",
    "MRPM": "stat any file of a shared tree, five names deep",
    "MRPH": "stat the same file as all others, five names deep",
    "MRDL": "read an entry of its own directory",
    "MRDM": "read an entry of a shared directory",
    "MWCL": "create a file in its own directory",
    "MWCM": "create a file in a shared directory",
    "MWUL": "unlink a file of its own directory",
    "MWUM": "unlink a file of a shared directory",
    "MWRL": "rename a file in its own directory",
    "MWRM": "move a file from its own directory to a shared one",
    "mix": "NrOS's: read or write 1008 bytes anywhere in a large file",
}
"""What one core does again and again."""

NODE: Final = 0
"""Stands for as many open files as a node has cores, if it is among numbers of open files."""

APART: Final = "apart"
"""The name of threads that share nothing."""


def _open_files(text: str) -> tuple[int, ...]:
    return tuple(NODE if number == "node" else positive(number) for number in text.split(","))


def _add_options(parser: argparse.ArgumentParser) -> None:
    every_core = tuple(range(1, len(os.sched_getaffinity(0)) + 1))
    parser.add_argument(
        "--service",
        action="store_true",
        help="instead of a directory: the file system service itself, and threads that share nothing",
    )
    add_nodes(parser)
    parser.add_argument("--logs", type=positive, default=4, metavar="K", help="parallel logs of --service (4)")
    workloads = names("workload", tuple(WORKLOADS))
    parser.add_argument(
        "--workloads", type=workloads, default=tuple(WORKLOADS), metavar="NAME,...", help="which (all, see below)"
    )
    parser.add_argument(
        "--cores", type=positives, default=every_core, metavar="C,...", help="always 1 too (every number of cores)"
    )
    parser.add_argument(
        "--write-ratio", type=percentages, default=(0, 10, 60, 100), metavar="P,...", help="of mix (0,10,60,100)"
    )
    parser.add_argument(
        "--open-files",
        type=_open_files,
        default=(1, NODE),
        metavar="N,...",
        help="of mix: files that cores share in turn; node: as many as cores in a node (1,node)",
    )
    parser.add_argument(
        "--file-size", type=positive, default=256 << 20, metavar="B", help="of mix, in whole pages (256 MiB)"
    )
    parser.add_argument("--milliseconds", type=positive, default=10_000, metavar="MS", help="of each figure (10000)")


def _make(options: argparse.Namespace) -> Workload:
    from workloads.fxmark import FxMark

    if options.file_size % 4096:
        raise UsageError(f"--file-size: {options.file_size} is not a multiple of 4096")
    return FxMark(
        service=options.service,
        logs=options.logs,
        workloads=options.workloads,
        cores=tuple(sorted({1, *options.cores})),
        write_ratios=options.write_ratio,
        open_files=options.open_files,
        file_size=options.file_size,
        milliseconds=options.milliseconds,
    )


def _without_directory(options: argparse.Namespace) -> Sequence[str]:
    return [*(f"{nodes} replicas" for nodes in options.nodes), APART] if options.service else []


WORKLOAD = OnDirectories(
    "fxmark",
    help="FxMark's data and metadata workloads and NrOS's mix, by number of cores, on directories or on the service",
    description="Builds what measures (needs the source and cargo), and measures how many operations of each workload "
    "cores do together: in DIR each is a process that makes system calls, by --service a thread that calls the file "
    "system service, on replicas as NrOS's system calls do. What is read is checked, and so is what was written.",
    where="where to make files",
    add_options=_add_options,
    make=_make,
    brief=("--workloads", "DRBL,DWOL,MRPL,MWCL,MWUL,MWRL", "--milliseconds", "300"),
    epilog="\n".join(
        [
            "workloads, each of one core:",
            *(f"  {name:<5} {meaning}" for name, meaning in WORKLOADS.items()),
            "",
            "The names are those of FxMark (Min et al., USENIX ATC '16): D data, M metadata; R reads, W writes; the",
            "last letter is how much is shared: Low, Medium, High.",
        ]
    ),
    without_directory=_without_directory,
)
