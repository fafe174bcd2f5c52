"""The channels by which requests reach the daemon, and which of them this machine supports."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from mount.failure import MountError

RING_PARAMETER = Path("/sys/module/fuse/parameters/enable_uring")
IO_URING_SWITCH = Path("/proc/sys/kernel/io_uring_disabled")


class Channel(StrEnum):
    """The values of ``--channel``."""

    AUTO = "auto"
    """The ring if this machine supports it, else the device."""
    RING = "ring"
    """An io_uring for each CPU, served natively on that CPU."""
    DEVICE = "device"
    """/dev/fuse, read by a native worker for each CPU."""
    PYFUSE3 = "pyfuse3"
    """/dev/fuse, served by Python alone."""


@dataclass(frozen=True)
class Choice:
    """The channel that was chosen."""

    channel: Literal["ring", "device", "pyfuse3"]
    reason: str | None = None
    """With ``AUTO``: why it is not the ring; None if it is."""


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
    problem = ring_problem() or io_uring_problem()
    if problem is None:
        return Choice("ring")
    if wanted is Channel.RING:
        raise MountError(f"--channel ring: {problem}")
    return Choice("device", reason=str(problem))


@dataclass(frozen=True)
class Problem:
    """Why the ring channel cannot be used."""

    reason: str
    command: str | None = None
    """The command by which root can change that, if there is one."""

    def __str__(self) -> str:
        return f"{self.reason}; as root: {self.command}" if self.command else self.reason


def ring_problem() -> Problem | None:
    """Why FUSE does not offer the ring; None if it does."""
    try:
        enabled = RING_PARAMETER.read_text().strip()
    except OSError:
        return Problem("this kernel has no FUSE over io_uring (Linux 6.14 or later has)")
    if enabled == "Y":
        return None
    reason = "FUSE over io_uring is off"
    if os.statvfs(RING_PARAMETER).f_flag & os.ST_RDONLY:
        return Problem(f"{reason}, and {RING_PARAMETER} cannot be written from in here, a container perhaps")
    return Problem(reason, f"echo Y > {RING_PARAMETER}")


def io_uring_problem() -> Problem | None:
    """Why this process cannot have an io_uring, whether or not FUSE offers the ring; None if it can."""
    from nrfs import probe_ring

    try:
        probe_ring()
    except OSError as error:
        reason = f"no io_uring for this process: {(error.strerror or str(error)).lower()}"
        try:
            is_switched_off = IO_URING_SWITCH.read_text().strip() != "0"
        except OSError:
            is_switched_off = False
        if is_switched_off:
            return Problem(reason, "sysctl kernel.io_uring_disabled=0")
        if isinstance(error, PermissionError):
            return Problem(f"{reason}, by a seccomp filter as containers have")
        return Problem(reason)
    return None
