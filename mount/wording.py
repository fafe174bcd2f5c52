"""Formats names and numbers for people."""

from __future__ import annotations

import os
import shlex
import string
from collections.abc import Iterable

from nrfs.terminal import plain

_KIBI = 1024.0
_HARMLESS = frozenset(f"{string.ascii_letters}{string.digits}/._-".encode())


def argument(name: str) -> str:
    """A path, with any bytes, as a word that can be copied into a shell's command line."""
    if plain(name) == name:
        return shlex.quote(name)
    letters = (chr(byte) if byte in _HARMLESS else f"\\x{byte:02x}" for byte in os.fsencode(name))
    return f"$'{''.join(letters)}'"


def ranges(numbers: Iterable[int]) -> str:
    """A list of numbers in the format of cpuset(7): "0-3,8"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def amount(count: int) -> str:
    """A number of bytes in the largest unit that it reaches: "1.5 GiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < _KIBI or unit == "TiB":
            break
        size /= _KIBI
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """A duration in whole seconds, without units that are zero: "2 h 5 s"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"
