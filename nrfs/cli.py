"""The ``nrfs`` command: finds the subcommand and hands over to the package that owns it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from nrfs import terminal
from nrfs.arguments import OneLineParser


def parser() -> OneLineParser:
    from mount import cli as mount
    from nrfs import __version__
    from workloads import cli as workloads

    top = OneLineParser(prog="nrfs", description="A node-replicated in-memory file system.")
    top.add_argument("--version", action="version", version=f"nrfs {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    mount.add_commands(commands)
    workloads.add_commands(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status: 0 done, 1 failed with one line on stderr, 2 bad usage, 130 interrupted."""
    terminal.prepare()
    command = "nrfs"
    try:
        options = parser().parse_args(arguments)
        command = f"nrfs {options.command}"
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("nrfs: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # Who reads along has had enough; nothing more can be said there.
        terminal.silence()
        return 128 + signal.SIGPIPE
    except Exception as error:  # A fault of ours, and no reason to show anybody our insides.
        terminal.complain(command, terminal.unforeseen(error))
        terminal.silence()
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
