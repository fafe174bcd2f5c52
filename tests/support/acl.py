"""Access control lists in the binary form of setxattr(2) (Linux's ``posix_acl_xattr.h``)."""

from __future__ import annotations

import struct
from typing import TypeAlias

Entry: TypeAlias = tuple[int, int, int]
"""A tag, rights as the three bits of a mode, and an id."""

_NOBODY = 0xFFFFFFFF


def owner(rights: int) -> Entry:
    return 0x01, rights, _NOBODY


def user(uid: int, rights: int) -> Entry:
    return 0x02, rights, uid


def group(rights: int) -> Entry:
    """The entry of the owning group."""
    return 0x04, rights, _NOBODY


def named_group(gid: int, rights: int) -> Entry:
    return 0x08, rights, gid


def mask(rights: int) -> Entry:
    return 0x10, rights, _NOBODY


def other(rights: int) -> Entry:
    return 0x20, rights, _NOBODY


def packed(*entries: Entry) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
