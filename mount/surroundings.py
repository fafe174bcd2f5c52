"""A daemon's own surroundings: it belongs to its mount, and not to the shell that started it."""

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
"""What would bind others through their file system. How much memory a shell's programs may take is meant for us too."""

OPEN_FILES = 1 << 16
"""What is asked for where fewer are allowed; more than any machine's workers need."""


def leave_the_caller(*kept: int) -> None:
    """Gives up what the caller lent: directory, mask, limits, blocked signals, and descriptors but ``kept`` and 0 to 2.

    A daemon that keeps what its caller had open, a lock or a pipe, keeps the caller's peers waiting.

    Raises:
        MountError: a limit would end the daemon, and cannot be lifted.

    """
    os.chdir("/")
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ENDING_SIGNALS)
    # The limit of open files says nothing of those that were opened before it was set.
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
    except OSError:  # The one by which the directory was read.
        return


def _lift(limit: int, most: int) -> None:
    """Raises a limit to ``most`` where this user may, else as far as he may."""
    _, hard = resource.getrlimit(limit)
    for wanted in (most, hard):
        try:
            resource.setrlimit(limit, (wanted, wanted))
        except (ValueError, OSError):
            continue
        return
