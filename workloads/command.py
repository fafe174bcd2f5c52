"""A command of the workloads: how it is declared, and how it ends. Imports little, as every ``nrfs`` does it."""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, final

from nrfs import terminal
from nrfs.arguments import OneLineParser
from workloads.failure import WorkloadError

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[OneLineParser]


@final
@dataclass(frozen=True)
class Command:
    """A command of ``nrfs bench``, or of ``nrfs`` itself."""

    name: str
    help: str
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    work: Callable[[argparse.Namespace], None]
    """Runs the command, and prints its results. Imports what the command needs."""
    epilog: str | None = None
    """Text below the options in the help, whose lines stay as they are."""

    def add_to(self, commands: Subcommands) -> None:
        """Adds the command's parser to ``commands``."""
        parser = commands.add_parser(
            self.name,
            help=self.help,
            description=self.description,
            epilog=self.epilog,
            formatter_class=argparse.HelpFormatter if self.epilog is None else argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        parser.set_defaults(run=lambda options: self._run(parser.prog, options))

    def _run(self, said_by: str, options: argparse.Namespace) -> int:
        """Runs the command; if it fails, prints one line that says why. Returns the exit status."""
        signal.signal(signal.SIGTERM, _exit_on_signal)
        try:
            if getattr(options, "json", None) is not None:
                check_results(options.json)
            self.work(options)
        except WorkloadError as failure:
            terminal.complain(said_by, str(failure))
            return failure.status
        except KeyboardInterrupt:
            print(f"{said_by}: interrupted", file=sys.stderr)
            return 128 + signal.SIGINT
        return 0


def check_directories(directories: Sequence[Path]) -> None:
    """Checks that these are directories, as otherwise a command might fail only after hours of work.

    Raises:
        WorkloadError: one is not.

    """
    for directory in directories:
        try:
            status = directory.stat()
        except OSError as failure:
            missing = isinstance(failure, FileNotFoundError)
            reason = "no such directory" if missing else str(failure.strerror).lower()
            raise WorkloadError(f"{directory}: {reason}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise WorkloadError(f"{directory}: not a directory")


def check_results(path: Path) -> None:
    """Checks that results can be written to a path: a new file, or something that is no regular file, like a pipe.

    Raises:
        WorkloadError: they cannot.

    """
    try:
        is_file = path.is_file()
    except OSError:
        is_file = False
    if is_file:
        raise WorkloadError(f"{path}: is there already, and results are never overwritten")
    check_file(path)


def check_file(path: Path) -> None:
    """Checks that a file can be written, whether or not it exists.

    Raises:
        WorkloadError: it cannot.

    """
    try:
        target = path if path.exists() else path.absolute().parent
        can_write = not path.is_dir() and os.access(target, os.W_OK)
    except OSError:  # For example, the current directory is gone, or the name is too long.
        can_write = False
    if not can_write:
        raise WorkloadError(f"{path}: cannot write the results there")


def _exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """Ends the command by an exception, so that its temporary files are removed and its mounts unmounted."""
    sys.exit(128 + number)
