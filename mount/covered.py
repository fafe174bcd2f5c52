"""Takes away a mount that is covered by another one, which stays where it is.

No path leads to a covered mount, and keeping it open would make it busy for everybody. But an unmount
propagates to the peers of the parent mount: the copy of the mount is unmounted there, too, and what
covers that copy moves down by one (Documentation/filesystems/sharedsubtree.rst, "umount"). So a thread
makes a private copy of the mount table, uncovers the mount in that copy, makes the copy's parent a
peer of the real parent, and unmounts in the copy. No other process sees an intermediate state.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mount import kernel, mountinfo

_log = logging.getLogger("nrfs")


def take_away(entry: mountinfo.MountEntry) -> None:
    """Takes away a covered mount, if this process has root's rights.

    If that fails, as it does for an ordinary user, logs a warning, and the mount stays until what covers
    it is gone.
    """
    failure: list[OSError] = []

    def work() -> None:
        try:
            _take_away(entry)
        except OSError as error:
            failure.append(error)

    # Only the thread has the other mount table, which is dropped when it ends.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failure:
        _log.warning(
            "%s is covered by another mount, and cannot be unmounted (%s): nrfs umount can, once that is gone",
            entry.mountpoint,
            failure[0].strerror,
        )


def _take_away(entry: mountinfo.MountEntry) -> None:
    parent = mountinfo.by_id(entry.parent_id)
    if parent is None:
        raise OSError(errno.EINVAL, "it is mounted on nothing that is seen here")
    with _root_of(parent.mountpoint) as real:
        if mountinfo.id_of(real) != parent.mount_id:
            raise OSError(errno.EINVAL, "what it is mounted on is covered itself")
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.change_propagation(b"/", kernel.MS_REC | kernel.MS_PRIVATE)
        with _root_of(parent.mountpoint) as copy:
            directory, name = os.path.split(os.fsencode(entry.mountpoint))
            os.chdir(directory)
            _uncover(name, mountinfo.id_of(copy))
            _unmount_with(real, copy, name, parent)


@contextmanager
def _root_of(mountpoint: str) -> Iterator[int]:
    descriptor = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _uncover(name: bytes, parent_id: int) -> None:
    """Unmounts what covers the mount in this thread's table: all mounts there whose parent is not ``parent_id``."""
    while (top := _mounted_at(name)) is not None and top.parent_id != parent_id:
        kernel.umount(name, kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)


def _mounted_at(name: bytes) -> mountinfo.MountEntry | None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return mountinfo.by_id(mountinfo.id_of(descriptor))
    finally:
        os.close(descriptor)


def _unmount_with(real: int, copy: int, name: bytes, parent: mountinfo.MountEntry) -> None:
    """Unmounts in the parent and in its copy, by making them peers for that moment."""
    is_shared = any(group.startswith("shared:") for group in parent.propagation)
    is_slave = any(group.startswith("master:") for group in parent.propagation)
    if not is_shared:
        kernel.change_propagation(kernel.path_of(real), kernel.MS_SHARED)
    try:
        kernel.join_group(real, copy)
        kernel.umount(name, kernel.MNT_DETACH | kernel.UMOUNT_NOFOLLOW)
    finally:
        if not is_shared:
            kernel.change_propagation(kernel.path_of(real), kernel.MS_SLAVE if is_slave else kernel.MS_PRIVATE)
