"""Where a daemon's messages go."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mount.failure import MountError

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def redirect_to(log: Path) -> None:
    """Redirects standard error to the end of a plain file that belongs to this user; a new one has mode 0600.

    Anything else with that name is not opened: a FIFO would block, and a device might have side effects.

    Raises:
        MountError: it is not such a file, or cannot be written.

    """
    try:
        descriptor = _open(log)
    except OSError as error:
        raise MountError(f"{log}: {(error.strerror or str(error)).lower()}") from None
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _open(log: Path) -> int:
    try:
        return os.open(log, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    place = os.open(log, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode):
            raise MountError(f"{log}: the log must be a plain file")
        if status.st_uid != os.geteuid():
            raise MountError(f"{log}: the log must be a file of one's own (this one is of user {status.st_uid})")
        return os.open(f"/proc/self/fd/{place}", _FLAGS)
    finally:
        os.close(place)


def begin_anew(log: Path) -> None:
    """Redirects standard error to a new file, which begins with the messages that were held back.

    Args:
        log: its path, in a directory that only this user can enter. A file that is there is removed.

    Raises:
        MountError: it cannot be written.

    """
    said = held_back(2)
    try:
        log.unlink(missing_ok=True)
    except OSError as error:
        raise MountError(f"{log}: {(error.strerror or str(error)).lower()}") from None
    redirect_to(log)
    os.write(2, said)


def hold_back() -> int:
    """A descriptor of a file in memory, for messages until the place of the log is known."""
    return os.memfd_create("nrfs messages", os.MFD_CLOEXEC)


def held_back(descriptor: int) -> bytes:
    """The messages in a file of ``hold_back``, at most 1 MiB."""
    return os.pread(descriptor, 1 << 20, 0)
