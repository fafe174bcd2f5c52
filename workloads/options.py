"""Values that options take, and options that several commands have. A wrong value is said in one line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

_LARGEST = (1 << 63) - 1

ROUNDS_COMPARED = 5
"""So many that two disturbed rounds do not move the median."""


def whole(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    if number > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is too large")
    return number


def positive(text: str) -> int:
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number


def positives(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))


def percentages(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        numbers = (-1,)
    if not all(0 <= number <= 100 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} are not percentages from 0 to 100")
    return numbers


def names(kind: str, known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Returns a function that parses a list of names, for argparse. ``kind`` says in errors what the names are of."""

    def parse(text: str) -> tuple[str, ...]:
        wanted = tuple(text.split(","))
        for name in wanted:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {kind} {name!r}; there are {', '.join(known)}")
        return wanted

    return parse


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")


def add_nodes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nodes", type=positives, default=(1, 2), metavar="N,...", help="replicas (1,2)")


def add_threads(parser: argparse.ArgumentParser, meaning: str, name: str = "--threads") -> None:
    """Adds a list of numbers of threads: by default 1, and as many as there are CPUs."""
    initial = name.removeprefix("--")[0].upper()
    parser.add_argument(
        name,
        type=positives,
        default=one_and_all_cpus(),
        metavar=f"{initial},...",
        help=f"{meaning} (1, and one a CPU)".lstrip(),
    )


def add_milliseconds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--milliseconds", type=positive, default=200, metavar="MS", help="of each figure (200)")


def add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=positive, default=ROUNDS_COMPARED, metavar="R", help=f"({ROUNDS_COMPARED})")


def add_contenders(parser: argparse.ArgumentParser, against: Sequence[str]) -> None:
    """Adds the options of all workloads with structures that threads share."""
    add_nodes(parser)
    contenders = names("contender", against)
    parser.add_argument(
        "--against", type=contenders, default=against, metavar="NAME,...", help=f"({','.join(against)})"
    )
    add_rounds(parser)
    add_json(parser)


def one_and_all_cpus() -> tuple[int, ...]:
    return tuple(sorted({1, len(os.sched_getaffinity(0))}))
