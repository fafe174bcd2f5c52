"""The system calls for mounts that Python does not have. Each raises ``OSError``."""

from __future__ import annotations

import ctypes
import os
from functools import cache

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
CLONE_NEWNS = 0x20000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_REC = 1 << 14

MOUNT_ATTRIBUTES = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x10, "nosymfollow": 0x200000}
"""Flags of a mount, as fsmount(2) takes them."""

MOUNT_FLAGS = {
    **{"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "dirsync": 128, "nosymfollow": 256, "noatime": 1024}
}
"""Flags of a mount and of its file system, as mount(2) takes them."""

_MS_REMOUNT = 32

# The numbers are the same on every architecture that nrfs can be built for.
_MOVE_MOUNT = 429
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_CLOSE_ON_EXEC = 1
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_FROM_DESCRIPTOR, _TO_DESCRIPTOR, _SET_GROUP = 0x4, 0x40, 0x100


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    return _checked(_libc().syscall(ctypes.c_long(number), *words))


def new_filesystem(filesystem_type: str) -> int:
    """A descriptor of a file system that is to be configured (fsopen(2))."""
    return _system_call(_FSOPEN, filesystem_type.encode(), _CLOSE_ON_EXEC)


def configure(filesystem: int, key: str, value: str | None = None) -> None:
    """Sets a parameter, or a flag that has no value (fsconfig(2))."""
    if value is None:
        _system_call(_FSCONFIG, filesystem, _SET_FLAG, key.encode(), None, 0)
    else:
        _system_call(_FSCONFIG, filesystem, _SET_STRING, key.encode(), value.encode(), 0)


def create(filesystem: int) -> None:
    """Creates the file system as it was configured (fsconfig(2))."""
    _system_call(_FSCONFIG, filesystem, _CREATE, None, None, 0)


def mount_of(filesystem: int, attributes: int) -> int:
    """A descriptor of a new mount that is not attached yet, and ends with the descriptor (fsmount(2))."""
    return _system_call(_FSMOUNT, filesystem, _CLOSE_ON_EXEC, attributes)


def put_mount(mount: int, directory: int) -> None:
    """Attaches a mount at an open directory, on top of what is mounted there (move_mount(2))."""
    _system_call(_MOVE_MOUNT, mount, b"", directory, b"", _FROM_DESCRIPTOR | _TO_DESCRIPTOR)


def join_group(member: int, mount: int) -> None:
    """Makes a private mount a peer of ``member``: mounts and unmounts in one propagate to the other (move_mount(2))."""
    _system_call(_MOVE_MOUNT, member, b"", mount, b"", _FROM_DESCRIPTOR | _TO_DESCRIPTOR | _SET_GROUP)


def change_propagation(path: bytes, flags: int) -> None:
    """mount(2) with one of ``MS_SHARED``, ``MS_SLAVE`` and ``MS_PRIVATE``."""
    _checked(_libc().mount(None, path, None, ctypes.c_ulong(flags), None))


def remount(path: bytes, flags: int) -> None:
    """Gives a mount, and its file system, these flags and no others (mount(2), MS_REMOUNT)."""
    _checked(_libc().mount(None, path, None, ctypes.c_ulong(_MS_REMOUNT | flags), None))


def enter(namespace: int) -> None:
    """Moves the calling thread into a mount namespace (setns(2))."""
    _checked(_libc().setns(namespace, CLONE_NEWNS))


def umount(path: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc().umount2(path, flags))


def unshare(flags: int) -> None:
    """Gives the calling thread namespaces of its own (unshare(2))."""
    _checked(_libc().unshare(flags))


def path_of(descriptor: int) -> bytes:
    """A path that leads to an open file, even if the file is renamed. Valid in this thread."""
    return b"/proc/thread-self/fd/%d" % descriptor
