"""``nrfs bench compare``."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nrfs.arguments import OneLineParser
from workloads.command import Command, check_directories, check_file
from workloads.commands import ON_DIRECTORIES
from workloads.commands.report import optional_packages
from workloads.failure import WorkloadError
from workloads.options import ROUNDS_COMPARED, add_json, positive

if TYPE_CHECKING:
    from workloads.compared import Results, Side, Workload
    from workloads.mounts import Mount

BY_NAME = {workload.name: workload for workload in ON_DIRECTORIES}

MOUNT = r"(?:[\w.-]+=)?(?:nrfs\b|tmpfs\b|pyfuse3\b|libfuse\b|cmd:)"
"""How a mount begins; it may have a name of its own before that."""

DEFAULT_MOUNTS = "nrfs --nodes 1,nrfs --nodes 2,tmpfs"


def _split(beginning: str, text: str) -> list[str]:
    """Splits at each comma that is followed by ``beginning``, a pattern. Other commas belong to options."""
    return re.split(rf",\s*(?={beginning})", text)


def _mounts(text: str) -> list[Mount]:
    from workloads import mounts

    try:
        return [mounts.parse(line) for line in _split(MOUNT, text)]
    except WorkloadError as failure:
        raise argparse.ArgumentTypeError(str(failure)) from None


def _workloads(text: str) -> list[Workload]:
    made = []
    for line in _split(rf"(?:{'|'.join(BY_NAME)})\b", text):
        name, *words = shlex.split(line) or [""]
        if name not in BY_NAME:
            raise argparse.ArgumentTypeError(f"unknown workload {name!r}; there are {', '.join(BY_NAME)}")
        known = BY_NAME[name]
        parser = OneLineParser(prog=f"nrfs bench compare: {name}")
        known.add_options(parser)
        options = parser.parse_args(words or known.brief)
        if known.without_directory is not None and known.without_directory(options):
            raise argparse.ArgumentTypeError(f"{line}: is not done in directories")
        try:
            made.append(known.make(options))
        except WorkloadError as failure:
            raise argparse.ArgumentTypeError(f"{name}: {failure}") from None
    return made


def _add_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--mounts",
        type=_mounts,
        metavar="MOUNT,...",
        help="what to mount: 'nrfs OPTION...' as for nrfs mount, 'tmpfs OPTION...', 'cmd: COMMAND {mountpoint}', or "
        f"the in-memory examples 'pyfuse3 [PATH]' and 'libfuse [PATH]'; NAME=MOUNT gives it a name ({DEFAULT_MOUNTS})",
    )
    where.add_argument("--dirs", metavar="DIR,...", help="instead compare these directories")
    every = ",".join(BY_NAME)
    parser.add_argument(
        "--workloads",
        type=_workloads,
        metavar="WORKLOAD,...",
        help=f"in this order; each may have options of its own, as in 'leveldb --num 1000'; without, it is "
        f"brief ({every})",
    )
    parser.add_argument("--rounds", type=positive, default=ROUNDS_COMPARED, metavar="R", help=f"({ROUNDS_COMPARED})")
    add_json(parser)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of 'nrfs report' there")


def _work(options: argparse.Namespace) -> None:
    from workloads import mounts, results
    from workloads.compared import Side
    from workloads.progress import ProgressBar
    from workloads.report import as_text

    if options.page is not None:
        check_file(options.page)
        with optional_packages():
            from workloads.reporting import page, read
    workloads = options.workloads if options.workloads is not None else _workloads(",".join(BY_NAME))
    measured: list[Results] = []
    try:
        with ExitStack() as stack:
            if options.dirs is not None:
                directories = [Path(name) for name in options.dirs.split(",")]
                check_directories(directories)
                sides = [Side(str(path), path, mounts.description(path)) for path in directories]
            else:
                wanted = options.mounts if options.mounts is not None else _mounts(DEFAULT_MOUNTS)
                with ProgressBar(1) as bar:
                    places = stack.enter_context(mounts.mounted(wanted, bar.begin))
                sides = [
                    Side(mount.name, place, mounts.description(place))
                    for mount, place in zip(wanted, places, strict=True)
                ]
            _measure(workloads, sides, options.rounds, measured)
    finally:
        done = [each for each in measured if each.rounds or each.failures]
        if done:
            results.write(options.json, done)
            for each in done:
                results.show(each)
            if options.page is not None:
                page.write(options.page, [read.document(as_text(results.as_json(done)))])
    failures = sum(len(each.failures) for each in measured)
    if failures:
        raise WorkloadError(f"{failures} of {len(measured) * len(sides)} figures are missing: FAILED above says why")


def _measure(workloads: Sequence[Workload], sides: Sequence[Side], rounds: int, measured: list[Results]) -> None:
    """Measures each workload. Appends to ``measured`` its results, which after an exception are incomplete."""
    from workloads.compared import Failure, Results
    from workloads.progress import ProgressBar

    for number, workload in enumerate(workloads):
        each = Results(workload, sides, baseline=0 if len(sides) > 1 else None)
        measured.append(each)
        with ProgressBar(
            workload.steps * len(sides) * rounds, f"{workload.name} ({number + 1}/{len(workloads)})  "
        ) as bar:
            try:
                each.measure(rounds, bar, go_on=True)
            except WorkloadError as failure:  # It failed before the first round: a tool is missing, for example.
                each.failures = [Failure(side, 0, str(failure)) for side in range(len(sides))]


COMMAND = Command(
    "compare",
    help="workloads on several file systems, mounted for it",
    description="Mounts file systems, runs workloads on them in turn, in rounds, and unmounts them. Ratios are to "
    "the first. What fails on one of them (wrong data, no room, a daemon that died) is told, and it has no "
    "figure of the workload.",
    add_options=_add_options,
    work=_work,
)
