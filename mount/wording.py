"""How names and numbers are written for people."""

from __future__ import annotations

import os
import shlex
import string
from collections.abc import Iterable

from nrfs.terminal import plain

_KIBI = 1024.0
_HARMLESS = frozenset(f"{string.ascii_letters}{string.digits}/._-".encode())


def argument(name: str) -> str:
    """A path as a word of a command line that can be copied, whatever bytes it has."""
    if plain(name) == name:
        return shlex.quote(name)
    letters = (chr(byte) if byte in _HARMLESS else f"\\x{byte:02x}" for byte in os.fsencode(name))
    return f"$'{''.join(letters)}'"


def ranges(numbers: Iterable[int]) -> str:
    """The way cpuset(7) writes lists: "0-3,8"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def amount(count: int) -> str:
    """Bytes, in the largest unit of which there is at least one: "1.5 GiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < _KIBI or unit == "TiB":
            break
        size /= _KIBI
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """Whole seconds, in all units that it has any of: "2 h 5 s"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
