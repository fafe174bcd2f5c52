"""``nrfs bench service``."""

from __future__ import annotations

import argparse
from dataclasses import replace

from workloads.command import Command
from workloads.options import add_json, add_milliseconds, add_nodes, add_rounds, add_threads, names, positive

OPERATIONS = ("read-shared", "read-apart", "write-shared", "write-apart", "create", "stat-shared", "stat-apart")
"""What threads do with the file system service: on one file, or on files apart, each in a log of its own."""


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_threads(parser, "always 1 too")
    add_nodes(parser)
    parser.add_argument("--size", type=positive, default=4096, metavar="B", help="bytes of one read (4096)")
    parser.add_argument(
        "--file-size", type=positive, default=1 << 20, metavar="B", help="bytes of a file, in whole pages (1 MiB)"
    )
    operations = names("operation", OPERATIONS)
    parser.add_argument(
        "--op", type=operations, default=OPERATIONS, metavar="NAME,...", help=f"({','.join(OPERATIONS)})"
    )
    add_milliseconds(parser)
    add_rounds(parser)
    add_json(parser)


def _work(options: argparse.Namespace) -> None:
    from workloads import native, service

    configuration = service.Configuration(
        operations=options.op,
        threads=tuple(sorted({1, *options.threads})),
        nodes=options.nodes,
        size=options.size,
        file_size=options.file_size,
        rounds=options.rounds,
        milliseconds=options.milliseconds,
        json=options.json,
    )
    summaries, done = service.run(configuration)
    service.show(replace(configuration, rounds=done), summaries)
    native.check_interrupted(options.rounds, done)


COMMAND = Command(
    "service",
    help="the file system service without a mount: how its throughput grows with threads",
    description="Builds what measures (needs the source and cargo), and measures how many reads, writes, creates "
    "and stats threads do together, on one file and on files apart, and how many times as much that is as one "
    "thread does. Checks what is read, and that all replicas agree.",
    add_options=_add_options,
    work=_work,
)
