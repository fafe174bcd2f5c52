"""How requests reach the daemon, and which ways this machine has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from mount.failure import MountError

RING_PARAMETER = Path("/sys/module/fuse/parameters/enable_uring")
ENABLE_RING = f"echo Y > {RING_PARAMETER}"
"""What root says to have rings."""


class Channel(StrEnum):
    """What can be asked for."""

    AUTO = "auto"
    """The ring if there is one, else the device."""
    RING = "ring"
    """An io_uring for each CPU, served natively on that CPU."""
    DEVICE = "device"
    """/dev/fuse, read by a native worker for each CPU."""
    PYFUSE3 = "pyfuse3"
    """/dev/fuse, served by Python alone."""


@dataclass(frozen=True)
class Choice:
    """What it came to."""

    channel: Literal["ring", "device", "pyfuse3"]
    reason: str | None = None
    """Why it is not the ring, where that might have been expected."""


def choose(wanted: Channel) -> Choice:
    """The channel to use.

    Raises:
        MountError: the ring was asked for and cannot be had.

    """
    match wanted:
        case Channel.DEVICE:
            return Choice("device")
        case Channel.PYFUSE3:
            return Choice("pyfuse3")
    problem = ring_problem()
    if problem is None:
        return Choice("ring")
    if wanted is Channel.RING:
        raise MountError(f"--channel ring: {problem}")
    return Choice("device", reason=problem)


def ring_problem() -> str | None:
    """Why requests cannot come over io_uring, in one line; None if they can."""
    from nrfs import probe_ring

    try:
        enabled = RING_PARAMETER.read_text().strip()
    except OSError:
        return "this kernel has no FUSE over io_uring (Linux 6.14 or later has)"
    if enabled != "Y":
        return f"FUSE over io_uring is off; as root: {ENABLE_RING}"
    try:
        probe_ring()
    except OSError as error:
        return f"no io_uring for this process: {(error.strerror or str(error)).lower()}"
    return None
