"""Separates a daemon from the shell that started it: from its directory, limits, signals and descriptors."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

from mount.failure import MountError
from mount.signals import ENDING_SIGNALS

_LIFTED = (
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_MEMLOCK,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_SIGPENDING,
    resource.RLIMIT_MSGQUEUE,
)
"""Limits that would restrict all users of the file system. Limits of addresses and data also apply to the daemon."""

OPEN_FILES = 1 << 16
"""The limit of open files that a daemon asks for, unless it has a higher one. It is more than its workers need."""


def leave_the_caller(*kept: int) -> None:
    """Replaces what this process inherited: directory, umask, limits, signal mask, and descriptors.

    All descriptors are closed but ``kept`` and 0 to 2: otherwise others might wait for the end of a pipe, or for
    a lock, that the caller had.

    Raises:
        MountError: a limit would end the daemon, and cannot be lifted.

    """
    os.chdir("/")
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ENDING_SIGNALS)
    # Not by numbers up to the limit of open files: a descriptor may have been opened before the limit was lowered.
    for link in tuple(Path("/proc/self/fd").iterdir()):
        descriptor = int(link.name)
        if descriptor > 2 and descriptor not in kept:
            _close(descriptor)
    for limit in _LIFTED:
        _lift(limit, resource.RLIM_INFINITY)
    _lift(resource.RLIMIT_CPU, resource.RLIM_INFINITY)
    _lift(resource.RLIMIT_NOFILE, max(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    _, seconds = resource.getrlimit(resource.RLIMIT_CPU)
    if seconds != resource.RLIM_INFINITY:
        raise MountError(
            f"the limit of CPU time (ulimit -t {seconds}) would end the daemon, and root alone can lift it"
        )


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # The descriptor that was used to read the directory.
        return


def _lift(limit: int, most: int) -> None:
    """Raises a limit to ``most`` if this user may, or else to the hard limit."""
    _, hard = resource.getrlimit(limit)
    for wanted in (most, hard):
        try:
            resource.setrlimit(limit, (wanted, wanted))
        except (ValueError, OSError):
            continue
        return
