"""``nrfs bench``, ``nrfs report`` and ``nrfs simulate``. Each workload is imported only when it runs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workloads.commands import ON_DIRECTORIES, calibrate, compare, memory, report, service, simulate, structures, vm

if TYPE_CHECKING:
    from nrfs.arguments import OneLineParser

    Subcommands = argparse._SubParsersAction[OneLineParser]

BENCHMARKS = (
    *(workload.command for workload in ON_DIRECTORIES),
    compare.COMMAND,
    memory.COMMAND,
    structures.NR,
    structures.SCHED,
    vm.COMMAND,
    service.COMMAND,
    calibrate.COMMAND,
)


def add_commands(subparsers: Subcommands) -> None:
    """Adds ``bench`` with the workloads below it, ``report`` and ``simulate``."""
    bench = subparsers.add_parser("bench", help="run a workload and report its figures")
    workloads = bench.add_subparsers(dest="workload", metavar="WORKLOAD", required=True)
    for command in BENCHMARKS:
        command.add_to(workloads)
    report.COMMAND.add_to(subparsers)
    simulate.COMMAND.add_to(subparsers)
