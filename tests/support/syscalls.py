"""System calls that Python's ``os`` lacks, by libc. They raise ``OSError`` on failure."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
FALLOC_FL_COLLAPSE_RANGE = 8
FALLOC_FL_ZERO_RANGE = 16
FALLOC_FL_INSERT_RANGE = 32

_AT_FDCWD = -100
_AT_SYMLINK_FOLLOW = 0x400
_SYS_GETDENTS64 = {"x86_64": 217}.get(os.uname().machine, 61)
_SYS_SETFSUID = {"x86_64": 122}.get(os.uname().machine, 151)
_SYS_SETFSGID = {"x86_64": 123}.get(os.uname().machine, 152)

_CAPABILITY_HEADER = struct.pack("Ii", 0x20080522, 0)
_CAPABILITY_DATA = struct.Struct("III")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_libc.linkat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.getxattr.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
_libc.getxattr.restype = ctypes.c_ssize_t
_libc.syscall.restype = ctypes.c_long


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def syscall(number: int, *arguments: object) -> int:
    """A system call that libc has no name for."""
    return _checked(_libc.syscall(number, *arguments))


@contextmanager
def opened(path: bytes | str | os.PathLike[str], flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of ``path``, as long as the context lasts. Opening a fifo does not wait for its other end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def renameat2(old: bytes, new: bytes, flags: int) -> None:
    """rename(2) with ``RENAME_*`` flags; both paths relative to the working directory."""
    _checked(_libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, flags))


def linkat(path: bytes, new: bytes, *, follow: bool) -> None:
    """Makes a hard link. It follows a symlink only with ``follow``; ``os.link`` has no such choice."""
    _checked(_libc.linkat(_AT_FDCWD, path, _AT_FDCWD, new, _AT_SYMLINK_FOLLOW if follow else 0))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Like ``os.posix_fallocate``, which has no flags, and may emulate an allocation that was refused."""
    _checked(_libc.fallocate(descriptor, mode, offset, length))


@dataclass(frozen=True)
class RawEntry:
    """One record of getdents64(2)."""

    ino: int
    cookie: int
    kind: int
    name: bytes


def getdents(descriptor: int, size: int = 1024) -> list[RawEntry]:
    """The next entries of an open directory that fit into ``size`` bytes; none at its end."""
    buffer = ctypes.create_string_buffer(size)
    filled = _checked(_libc.syscall(_SYS_GETDENTS64, ctypes.c_int(descriptor), buffer, ctypes.c_size_t(size)))
    entries, at = [], 0
    while at < filled:
        ino, cookie, length, kind = struct.unpack_from("=QqHB", buffer.raw, at)
        name = buffer.raw[at + 19 : at + length].split(b"\0", 1)[0]
        entries.append(RawEntry(ino, cookie, kind, name))
        at += length
    return entries


def getxattr(path: bytes, name: bytes, size: int) -> bytes:
    """The value of an xattr in a buffer of ``size`` bytes; with 0, as many zeros as the value has bytes."""
    buffer = ctypes.create_string_buffer(size)
    length: int = _libc.getxattr(path, name, buffer if size else None, size)
    return buffer.raw[: _checked(length)] if size else bytes(_checked(length))


@contextmanager
def acting_as(user: int, umask: int) -> Iterator[None]:
    """Makes file operations of this thread run as ``user``, and as the group with the same number.

    Only the file system ids change, so that the thread can become root again. Root's effective capabilities are
    dropped meanwhile (capabilities(7)).
    """
    before = os.umask(umask)
    capabilities = _capabilities()
    if user:
        _libc.syscall(_SYS_SETFSGID, ctypes.c_uint(user))
        _libc.syscall(_SYS_SETFSUID, ctypes.c_uint(user))
        _set_capabilities([(0, permitted, inheritable) for _, permitted, inheritable in capabilities])
    try:
        yield
    finally:
        if user:
            _libc.syscall(_SYS_SETFSUID, ctypes.c_uint(0))
            _libc.syscall(_SYS_SETFSGID, ctypes.c_uint(0))
            _set_capabilities(capabilities)
        os.umask(before)


def _capabilities() -> list[tuple[int, int, int]]:
    """The thread's effective, permitted and inheritable capabilities, 32 of each in a tuple."""
    data = ctypes.create_string_buffer(_CAPABILITY_DATA.size * 2)
    _checked(_libc.capget(_CAPABILITY_HEADER, data))
    return list(_CAPABILITY_DATA.iter_unpack(data.raw))


def _set_capabilities(capabilities: list[tuple[int, int, int]]) -> None:
    _checked(_libc.capset(_CAPABILITY_HEADER, b"".join(_CAPABILITY_DATA.pack(*part) for part in capabilities)))
