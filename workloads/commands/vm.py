"""``nrfs bench vm``."""

from __future__ import annotations

import argparse
from dataclasses import replace

from workloads.command import Command
from workloads.options import add_contenders, add_threads, positive

AGAINST = ("linux", "mutex", "rwlock", "multikernel")
"""The contenders of our address space."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_threads(parser, "threads", name="--cores")
    add_contenders(parser, AGAINST)
    parser.add_argument("--logs", type=positive, default=2, metavar="K", help="parallel logs (2)")
    operations = ["map", "unmap", "protect", "resolve", "mix"]
    parser.add_argument("--op", choices=operations, help="show this operation only (all)")


def _work(options: argparse.Namespace) -> None:
    from workloads import native, vm

    configuration = vm.Configuration(
        threads=options.cores,
        nodes=options.nodes,
        logs=options.logs,
        against=options.against,
        operation=options.op,
        rounds=options.rounds,
        json=options.json,
    )
    summaries, done = vm.run(configuration)
    vm.show(replace(configuration, rounds=done), summaries)
    native.check_interrupted(options.rounds, done)


COMMAND = Command(
    "vm",
    help="the replicated address space against Linux, locks and a multikernel",
    description="Builds what is compared (needs the source and cargo), and measures how many pages threads map, "
    "protect, resolve and unmap, and how long one map and one unmap with shootdown take.",
    add_options=_add_options,
    work=_work,
)
