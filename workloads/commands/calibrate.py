"""``nrfs bench calibrate``."""

from __future__ import annotations

import argparse

from workloads.command import Command
from workloads.options import add_json, positive


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--milliseconds", type=positive, default=20, metavar="MS", help="of each figure (20)")
    parser.add_argument("--rounds", type=positive, default=11, metavar="R", help="(11)")
    add_json(parser)


def _work(options: argparse.Namespace) -> None:
    from workloads import calibrate

    configuration = calibrate.Configuration(options.rounds, options.milliseconds, options.json)
    calibrate.show(configuration, calibrate.run(configuration))


COMMAND = Command(
    "calibrate",
    help="what the parts of an operation cost on this machine, for nrfs simulate",
    description="Builds what measures (needs the source and cargo), and measures what transfers of cache lines, "
    "messages, locks and operations on a hash map cost, in nanoseconds.",
    add_options=_add_options,
    work=_work,
)
