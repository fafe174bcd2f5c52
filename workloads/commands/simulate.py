"""``nrfs simulate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from workloads.command import Command, check_file
from workloads.failure import UsageError, WorkloadError
from workloads.options import add_json, names, percentages, positive, positives, whole

if TYPE_CHECKING:
    from workloads.simulation.costs import Costs

WAYS = ("nr", "mutex", "rwlock", "sharded", "multikernel")
"""The ways to share a structure that are simulated."""

MOST_CORES = 4096
"""Of a simulated machine: so many that a simulation of all ways ends within minutes."""

COSTS = {
    "local": "a transfer of a cache line within a node",
    "remote": "a transfer of a cache line between nodes",
    "message": "a message within a node",
    "wake": "to wake a thread",
}
"""Costs that have an option, which holds instead of the file's."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=positive, default=4, metavar="N", help="(4)")
    parser.add_argument("--cores", type=positive, default=24, metavar="M", help="of each node (24)")
    ratios = (0, 10, 100)
    parser.add_argument("--write-ratio", type=percentages, default=ratios, metavar="P,...", help="percent (0,10,100)")
    ways = names("way", WAYS)
    parser.add_argument("--way", type=ways, default=WAYS, metavar="NAME,...", help=f"({','.join(WAYS)})")
    parser.add_argument("--logs", type=positives, default=(1,), metavar="K,...", help="parallel logs of nr (1)")
    parser.add_argument("--batch", type=positive, metavar="B", help="the most that a combiner takes (all there is)")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="costs that 'nrfs bench calibrate' has written")
    for name, meaning in COSTS.items():
        parser.add_argument(f"--{name}-ns", type=positive, metavar="NS", help=f"{meaning}, instead of the file's")
    parser.add_argument("--operations", type=positive, default=20_000, metavar="N", help="of each figure (20000)")
    parser.add_argument("--seed", type=whole, default=1, metavar="S", help="of random numbers (1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the throughput there, as SVG")
    parser.add_argument(
        "--check",
        action="store_true",
        help="instead calibrate and measure here, with one thread and two, and compare; exit status 1 if the "
        "simulation is more than 15%% off (needs the source, cargo and two idle CPUs)",
    )
    parser.add_argument("--rounds", type=positive, default=25, metavar="R", help="of --check (25)")
    parser.add_argument("--milliseconds", type=positive, default=5, metavar="MS", help="of a figure of --check (5)")
    add_json(parser)


def _work(options: argparse.Namespace) -> None:
    if options.check:
        _check(options)
    else:
        _sweep(options)


def _check(options: argparse.Namespace) -> None:
    from workloads.simulation import check

    if options.plot is not None or options.costs is not None:
        raise UsageError("--check makes no plot and measures the costs itself")
    configuration = check.Configuration(
        options.rounds, options.milliseconds, options.operations, options.seed, options.json
    )
    if not check.show(configuration, *check.run(configuration)):
        raise WorkloadError("the simulation deviates from what was measured")


def _sweep(options: argparse.Namespace) -> None:
    from workloads.simulation import report

    if options.nodes * options.cores > MOST_CORES:
        raise UsageError(f"--nodes, --cores: {options.nodes * options.cores} cores are more than {MOST_CORES}")
    if options.plot is not None:
        check_file(options.plot)
    configuration = report.Configuration(
        nodes=options.nodes,
        cores=options.cores,
        write_ratios=options.write_ratio,
        ways=options.way,
        logs=options.logs,
        batch=options.batch,
        operations=options.operations,
        seed=options.seed,
        costs=_costs(options),
        plot=options.plot,
        json=options.json,
    )
    report.show(configuration, report.run(configuration))


def _costs(options: argparse.Namespace) -> Costs:
    """The costs of the options."""
    from dataclasses import replace

    from workloads import calibrate
    from workloads.simulation.costs import DEFAULT, Costs

    costs = DEFAULT if options.costs is None else Costs.measured(calibrate.read(options.costs))
    named = {name: getattr(options, f"{name}_ns") for name in COSTS}
    return replace(costs, **{name: value for name, value in named.items() if value is not None})


COMMAND = Command(
    "simulate",
    help="how ways to share a structure scale on a machine that is not here",
    description="Simulates threads that share a hash map on a machine with N nodes of M cores, filled node by "
    "node: throughput and latency by node replication, behind locks, sharded, and in a multikernel. The costs come "
    "from 'nrfs bench calibrate --json', or are those of a common server.",
    add_options=_add_options,
    work=_work,
)
