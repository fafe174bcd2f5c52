"""``nrfs bench memory``."""

from __future__ import annotations

import argparse

from workloads.command import Command
from workloads.failure import UsageError
from workloads.options import add_json, positive


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=positive, default=1, metavar="N", help="replicas (1)")
    parser.add_argument("--files", type=positive, default=1_000_000, metavar="N", help="empty files (1000000)")
    parser.add_argument("--data", type=positive, default=2**30, metavar="B", help="bytes of content (1 GiB)")
    parser.add_argument("--file-size", type=positive, default=2**16, metavar="B", help="bytes in a file (65536)")
    add_json(parser)


def _work(options: argparse.Namespace) -> None:
    from workloads import memory

    if options.data < options.file_size:
        raise UsageError("--data is less than one file of --file-size")
    configuration = memory.Configuration(options.nodes, options.files, options.data, options.file_size, options.json)
    memory.show(configuration, memory.run(configuration))


COMMAND = Command(
    "memory",
    help="how much memory files take",
    description="Makes files through the service itself, without a mount, and measures what is resident.",
    add_options=_add_options,
    work=_work,
)
