"""``nrfs umount``: takes a mount away and waits until its daemon has ended."""

from __future__ import annotations

import os
import select
import time

from mount import control, mountinfo, mounting
from mount.failure import MountError

_PATIENCE_SECONDS = 30.0


def end(path: str, *, lazy: bool) -> None:
    """Ends the mount at ``path``, whether its daemon is alive, dead or unreachable.

    A lazy end takes the mount out of the tree even if it is in use. The daemon then serves its users
    until they have finished, and this does not wait for it.

    Raises:
        MountError: why the mount is still there.

    """
    mountpoint = mountinfo.locate(path)
    entry = mountinfo.topmost_at(mountpoint)
    if entry is None:
        raise MountError(f"{path}: not mounted")
    if not entry.is_ours:
        raise MountError(f"{path}: not an nrfs mount but {entry.filesystem_type}")
    daemon = _open_process(entry)
    try:
        mounting.unmount(entry, lazy=lazy)
        if daemon is not None and not lazy and not _is_over(entry, daemon):
            raise MountError(f"{path}: unmounted, but its daemon has not ended")
    finally:
        if daemon is not None:
            os.close(daemon)
    control.clear_stale()


def _open_process(entry: mountinfo.MountEntry) -> int | None:
    """A pidfd of the mount's daemon, which becomes readable when the daemon ends; None if it cannot be reached.

    In that case the mount is taken away without waiting for the daemon, as umount(8) does.
    """
    try:
        return control.descriptor_of_daemon(entry)
    except (control.DaemonUnreachableError, MountError):
        return None


def _is_over(entry: mountinfo.MountEntry, daemon: int) -> bool:
    """Waits until the daemon has ended, or turns out to serve another mount of its file system, in any namespace.

    Returns False if neither happens in time.
    """
    if mounting.is_mounted(entry.device):
        return True
    end = time.monotonic() + _PATIENCE_SECONDS
    while not _has_ended(daemon, seconds=1.0):
        if time.monotonic() > end:
            return False
        try:
            if control.ask(entry, "mounted").get("mounted"):
                return True
        except (control.DaemonUnreachableError, MountError):
            continue
    return True


def _has_ended(daemon: int, *, seconds: float) -> bool:
    ending = select.poll()
    ending.register(daemon, select.POLLIN)
    return bool(ending.poll(seconds * 1000))
