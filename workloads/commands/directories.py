"""What the commands of all workloads on directories have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from workloads.command import Command, check_directories
from workloads.failure import UsageError
from workloads.options import ROUNDS_COMPARED, add_json, positive

if TYPE_CHECKING:
    from workloads.compared import Workload


@final
@dataclass(frozen=True)
class OnDirectories:
    """A workload on a directory, or on several that take turns."""

    name: str
    help: str
    description: str
    where: str
    """What the workload makes in its directory, for the help."""
    add_options: Callable[[argparse.ArgumentParser], None]
    """Adds the options that only this command has."""
    make: Callable[[argparse.Namespace], Workload]
    """Makes the workload from the options."""
    brief: tuple[str, ...]
    """Options with which ``nrfs bench compare`` runs it unless told others, so that it takes seconds."""
    epilog: str | None = None
    without_directory: Callable[[argparse.Namespace], Sequence[str]] | None = None
    """The names of what the options ask to measure instead of directories; the last is what others are compared with.
    None if it can only be done in directories."""

    @property
    def command(self) -> Command:
        """The workload as a command of its own."""
        return Command(self.name, self.help, self.description, self._add_options, self._work, self.epilog)

    def _add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dir", type=Path, required=self.without_directory is None, metavar="DIR", help=self.where)
        parser.add_argument("--against", type=Path, metavar="DIR2", help="compare with this directory, in turn")
        parser.add_argument(
            "--rounds", type=positive, metavar="R", help=f"repetitions (1; with --against {ROUNDS_COMPARED})"
        )
        add_json(parser)
        self.add_options(parser)

    def _work(self, options: argparse.Namespace) -> None:
        workload = self.make(options)
        others = () if self.without_directory is None else self.without_directory(options)
        directories = [path for path in (options.dir, options.against) if path is not None]
        if (options.dir is None) == (not others) or (others and options.against is not None):
            raise UsageError("give either --dir, or what to measure instead")
        check_directories(directories)

        from workloads import results
        from workloads.compared import Results, Side
        from workloads.progress import ProgressBar

        sides = [Side(str(each), Path(each)) for each in others or directories]
        measured = Results(workload, sides, baseline=len(sides) - 1 if len(sides) > 1 else None)
        rounds = options.rounds or (ROUNDS_COMPARED if len(sides) > 1 else 1)
        try:
            with ProgressBar(workload.steps * len(sides) * rounds) as bar:
                measured.measure(rounds, bar)
        except KeyboardInterrupt:
            if measured.rounds:
                results.write(options.json, [measured])
                results.show(measured)
            raise
        results.write(options.json, [measured])
        results.show(measured)
