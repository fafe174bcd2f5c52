"""What all commands need at the terminal: standard streams, text without control characters, error messages.

Every command imports this, so modules that are rarely needed are imported where they are used.
"""

from __future__ import annotations

import io
import os
import signal
import sys


class OutputError(Exception):
    """Standard output takes no more text: a disk is full, say."""


class _StandardOutput(io.TextIOWrapper):
    """Tells failures to write apart from other OSErrors. A broken pipe stays one."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error


def prepare() -> None:
    """Prepares the process; to be called first.

    Opens standard streams that are closed, as the next file to be opened would get their numbers. Makes
    standard streams write characters that their encoding does not have as escapes. Undoes a caller's
    setting to ignore SIGCHLD, by which the exit status of child processes would be lost.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number, which is this one.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        old = sys.stdout
        encoding, errors, line_buffering = old.encoding, old.errors, old.line_buffering
        sys.stdout = _StandardOutput(old.detach(), encoding, errors, line_buffering=line_buffering)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def plain(text: str) -> str:
    """Text from outside in one safe line: control characters, line ends and undecodable bytes become escapes."""
    try:
        raw = text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raw = text.encode(errors="backslashreplace")
    readable = raw.decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in readable)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def complain(command: str, reason: str) -> None:
    """Prints one line that says why a command could not do its work."""
    print(f"{command}: {plain(reason)}", file=sys.stderr)


def unforeseen(error: BaseException) -> str:
    """A line about a fault of nrfs, with the path of a new file that has the traceback."""
    import traceback

    said = f"unforeseen: {type(error).__name__}: {error}"
    place = keep("".join(traceback.format_exception(error)))
    return said if place is None else f"{said} (the traceback is in {place})"


def keep(text: str) -> str | None:
    """Writes a text into a new temporary file; returns its path, or None if that fails."""
    import tempfile

    try:
        descriptor, path = tempfile.mkstemp(prefix="nrfs-", suffix=".traceback")
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return path


def silence() -> None:
    """Redirects standard output to /dev/null, so that flushing what is left does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
