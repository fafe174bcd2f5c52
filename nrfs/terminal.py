"""What every command owes to its caller: streams that are there, text that is only text, a line where it fails.

Every command imports this: what is seldom needed is imported where it is.
"""

from __future__ import annotations

import os
import signal
import sys


def prepare() -> None:
    """Makes up for what the caller left out, before anything else is done.

    A standard stream that is closed would lend its number to the next file that is opened. Characters
    that the output cannot have are written as escapes. A caller that ignores its children's ends would
    hide how ours end.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number: this one.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def plain(text: str) -> str:
    """Text from outside as it can be shown: what would end a line, move a cursor or is no text becomes an escape."""
    try:
        raw = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raw = text.encode(errors="backslashreplace")
    readable = raw.decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in readable)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def complain(command: str, reason: str) -> None:
    """Says in one line why a command could not do its work."""
    print(f"{command}: {plain(reason)}", file=sys.stderr)


def unforeseen(error: BaseException) -> str:
    """A line about a fault of ours; the traceback is put into a new file, which is named."""
    import traceback

    said = f"unforeseen: {type(error).__name__}: {error}"
    place = keep("".join(traceback.format_exception(error)))
    return said if place is None else f"{said} (the traceback is in {place})"


def keep(text: str) -> str | None:
    """The path of a new file of this user's with this text; None where there is no place for one."""
    import tempfile

    try:
        descriptor, path = tempfile.mkstemp(prefix="nrfs-", suffix=".traceback")
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return path


def silence() -> None:
    """Lets what was not written yet go nowhere: whoever would read it cannot."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
