"""``nrfs bench nr`` and ``nrfs bench sched``, which measure different structures in the same way."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from workloads.command import Command
from workloads.options import add_contenders, add_milliseconds, add_threads, percentages

AGAINST_ALL = ("mutex", "rwlock", "sharded", "multikernel", "node-replication")
"""The contenders of a hash map."""

AGAINST = tuple(name for name in AGAINST_ALL if name != "sharded")
"""The contenders of any structure."""


def _add_structure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--structure", choices=["hashmap", "stack", "queue"], default="hashmap", help="(hashmap)")
    _add_shared(parser, AGAINST_ALL)
    parser.set_defaults(against=None)


def _add_scheduler(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(structure="scheduler")
    _add_shared(parser, AGAINST)


def _add_shared(parser: argparse.ArgumentParser, against: Sequence[str]) -> None:
    parser.add_argument(
        "--write-ratio", type=percentages, default=(0, 10, 60, 100), metavar="P,...", help="(0,10,60,100)"
    )
    add_threads(parser, "")
    add_contenders(parser, against)
    add_milliseconds(parser)


def _work(options: argparse.Namespace) -> None:
    from workloads import native, structures

    configuration = structures.Configuration(
        structure=options.structure,
        write_ratios=options.write_ratio,
        threads=options.threads,
        nodes=options.nodes,
        against=options.against or (AGAINST_ALL if options.structure == "hashmap" else AGAINST),
        rounds=options.rounds,
        milliseconds=options.milliseconds,
        json=options.json,
    )
    summaries, done = structures.run(configuration)
    structures.show(replace(configuration, rounds=done), summaries)
    native.check_interrupted(options.rounds, done)


NR = Command(
    "nr",
    help="node replication against locks, a sharded map, a multikernel and the node-replication crate",
    description="Builds what is compared (needs the source and cargo), and measures how many operations threads "
    "do together on a structure that they share.",
    add_options=_add_structure,
    work=_work,
)

SCHED = Command(
    "sched",
    help="the replicated scheduler against the same machine behind locks and in a multikernel",
    description="As 'nrfs bench nr', of the scheduler: writes ask for cores, reads ask whose a core is.",
    add_options=_add_scheduler,
    work=_work,
)
