"""``nrfs bench fio``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workloads.commands.directories import OnDirectories
from workloads.failure import UsageError
from workloads.options import names, positive

if TYPE_CHECKING:
    from workloads.compared import Workload

JOBS = ("randwrite", "randread", "fdatasync", "mmap", "write", "read")


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=names("job", JOBS), default=JOBS, metavar="NAME,...", help=f"({','.join(JOBS)})")
    parser.add_argument(
        "--size", type=positive, default=64 << 20, metavar="B", help="bytes of the file, in whole MiB (64 MiB)"
    )
    parser.add_argument("--seconds", type=positive, default=2, metavar="S", help="of each job (2)")


def _make(options: argparse.Namespace) -> Workload:
    from workloads.fio import Fio

    if options.size % (1 << 20):
        raise UsageError(f"--size: {options.size} bytes are not whole MiB")
    return Fio(options.jobs, options.size, options.seconds)


WORKLOAD = OnDirectories(
    "fio",
    help="fio's random and sequential reads and writes, by system calls and by a mapping",
    description="Runs jobs of fio, which must be installed, on a file in DIR: random reads and writes of 4 KiB, "
    "the writes also with fdatasync after each, both by a mapping, and sequential reads and writes of 1 MiB. The "
    "data is checked by checksums, untimed.",
    where="where to make the file",
    add_options=_add_options,
    make=_make,
    brief=("--jobs", "randwrite,randread,write,read", "--size", str(16 << 20), "--seconds", "1"),
)
