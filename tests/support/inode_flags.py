"""The system calls that set and show the flags of chattr(1)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Any, TypeAlias

from .syscalls import opened, syscall

IMMUTABLE = 0x10
APPEND_ONLY = 0x20
NO_DUMP = 0x40
NO_ACCESS_TIME = 0x80

GET = 0x80086601
SET = 0x40086602
GET_EXTENDED = 0x801C581F
SET_EXTENDED = 0x401C5820

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_FILE_GETATTR = 468
_FILE_SETATTR = 469
_STATX = {"x86_64": 332}.get(os.uname().machine, 291)

PathLike: TypeAlias = bytes | str | Path


def get_flags(path: PathLike) -> int:
    """FS_IOC_GETFLAGS."""
    with opened(path) as descriptor:
        flags: int = struct.unpack("i", fcntl.ioctl(descriptor, GET, bytes(4)))[0]
        return flags


def set_flags(path: PathLike, flags: int) -> None:
    """FS_IOC_SETFLAGS."""
    with opened(path) as descriptor:
        fcntl.ioctl(descriptor, SET, struct.pack("I", flags))


def get_extended(path: PathLike) -> tuple[Any, ...]:
    """FS_IOC_FSGETXATTR: the flags, with different bits, and numbers that tmpfs does not have."""
    with opened(path) as descriptor:
        return struct.unpack("IIIII8x", fcntl.ioctl(descriptor, GET_EXTENDED, bytes(28)))


def set_extended(path: PathLike, *values: int) -> None:
    """FS_IOC_FSSETXATTR."""
    with opened(path) as descriptor:
        fcntl.ioctl(descriptor, SET_EXTENDED, struct.pack("IIIII8x", *values))


def file_getattr(path: PathLike) -> tuple[Any, ...]:
    """The flags by a system call that needs no open file (Linux 6.17)."""
    told = ctypes.create_string_buffer(24)
    syscall(_FILE_GETATTR, _AT_FDCWD, os.fsencode(path), told, len(told), _AT_SYMLINK_NOFOLLOW)
    return struct.unpack("QIIII", told.raw)


def file_setattr(path: PathLike, *values: int) -> None:
    """Sets flags by a system call that needs no open file (Linux 6.17)."""
    given = struct.pack("QIIII", *values)
    syscall(_FILE_SETATTR, _AT_FDCWD, os.fsencode(path), given, len(given), _AT_SYMLINK_NOFOLLOW)


def statx_attributes(path: PathLike) -> int:
    """The flags that statx(2) shows, with the same bits."""
    told = ctypes.create_string_buffer(256)
    syscall(_STATX, _AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, 0xFFF, told)
    attributes: int = struct.unpack_from("Q", told.raw, 8)[0]
    return attributes


def has_file_getattr() -> bool:
    """Whether the kernel has these two calls."""
    try:
        file_getattr("/")
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def clear_flags(root: Path) -> None:
    """Clears all flags in a tree, so that it can be removed."""
    top = os.fsencode(root)
    for directory, _, files in os.walk(top):
        set_flags(directory, 0)
        for path in (directory + b"/" + name for name in files):
            if stat.S_ISREG(os.lstat(path).st_mode):
                set_flags(path, 0)
