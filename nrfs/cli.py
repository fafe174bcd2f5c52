"""The ``nrfs`` command: parses the command line, and calls the package of the subcommand."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from nrfs import terminal
from nrfs.arguments import OneLineParser


def parser(command: str | None = None) -> OneLineParser:
    """The parser of all commands; of ``mount``'s alone if this command is one, so that it starts sooner."""
    from mount import cli as mount
    from nrfs import __version__

    top = OneLineParser(prog="nrfs", description="A node-replicated in-memory file system.")
    top.add_argument("--version", action="version", version=f"nrfs {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    mount.add_commands(commands)
    if command not in commands.choices:
        from workloads import cli as workloads

        workloads.add_commands(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 done, 1 failed (a line on stderr), 2 bad usage, 130 interrupted."""
    terminal.prepare()
    command = "nrfs"
    try:
        words = sys.argv[1:] if arguments is None else arguments
        options = parser(words[0] if words else None).parse_args(words)
        command = f"nrfs {options.command}"
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("nrfs: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # The reader of standard output has gone.
        terminal.silence()
        return 128 + signal.SIGPIPE
    except terminal.OutputError as error:
        terminal.complain(command, str(error))
        terminal.silence()
        return 1
    except Exception as error:  # A fault of nrfs. The user sees one line; the traceback goes into a file.
        terminal.complain(command, terminal.unforeseen(error))
        terminal.silence()
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
