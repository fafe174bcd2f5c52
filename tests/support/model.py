"""A simple model of the content of files: a bytearray and a set of page numbers for each file.

It models the capacity, the holes and the life of inodes, for which the Python API cannot be compared with tmpfs. An
error is an ``OSError`` with the errno that fallocate(2), lseek(2) and write(2) document.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

from .syscalls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE

PAGE = 4096


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def touched(offset: int, length: int) -> range:
    """The pages that a range of bytes touches."""
    return range(offset // PAGE, -(-(offset + length) // PAGE)) if length else range(0)


@dataclass
class ModelFile:
    """One file: its bytes, and which of its pages take space (some may lie behind its end)."""

    data: bytearray = field(default_factory=bytearray)
    pages: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    """The pages with data; the others in ``pages`` are only reserved, and are holes for lseek(2)."""
    named: bool = True
    holds: int = 0
    linkable: bool = False
    """Whether it was made without a name and can be given one."""

    def grow(self, size: int) -> None:
        self.data.extend(bytes(max(size - len(self.data), 0)))

    def seek(self, offset: int, whence: int) -> int:
        size = len(self.data)
        if offset >= size or offset < 0:
            raise _error(errno.ENXIO)
        for page in range(offset // PAGE, -(-size // PAGE)):
            if (page in self.written) == (whence == os.SEEK_DATA):
                return max(offset, page * PAGE)
        if whence == os.SEEK_DATA:
            raise _error(errno.ENXIO)
        return size


@dataclass
class Model:
    """Files by inode number under a common limit of pages and inodes; the root directory is one inode."""

    page_limit: int
    inode_limit: int
    files: dict[int, ModelFile] = field(default_factory=dict)

    @property
    def pages_free(self) -> int:
        return self.page_limit - sum(len(file.pages) for file in self.files.values())

    @property
    def inodes_free(self) -> int:
        return self.inode_limit - 1 - len(self.files)

    def write(self, ino: int, offset: int, data: bytes) -> int:
        """Writes page by page, until one is missing and none is free. The rest is not written, even if it has pages."""
        file, written = self.files[ino], 0
        for page in touched(offset, len(data)):
            if page not in file.pages:
                if not self.pages_free:
                    break
                file.pages.add(page)
            file.written.add(page)
            end = min((page + 1) * PAGE, offset + len(data))
            file.grow(end)
            start = max(page * PAGE, offset)
            file.data[start:end] = data[start - offset : end - offset]
            written = end - offset
        if data and not written:
            raise _error(errno.ENOSPC)
        return written

    def read(self, ino: int, offset: int, size: int) -> bytes:
        return bytes(self.files[ino].data[offset : offset + size])

    def truncate(self, ino: int, size: int) -> None:
        file = self.files[ino]
        if size <= len(file.data):
            del file.data[size:]
            file.pages = {page for page in file.pages if page * PAGE < size}
            file.written &= file.pages
        file.grow(size)

    def fallocate(self, ino: int, offset: int, length: int, mode: int) -> None:
        file = self.files[ino]
        keep, action = mode & FALLOC_FL_KEEP_SIZE, mode & ~FALLOC_FL_KEEP_SIZE
        if length <= 0:
            raise _error(errno.EINVAL)
        if action not in (0, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE) or (
            action == FALLOC_FL_PUNCH_HOLE and not keep
        ):
            raise _error(errno.EOPNOTSUPP)
        end = offset + length
        missing = set(touched(offset, length)) - file.pages
        if action != FALLOC_FL_PUNCH_HOLE:
            if len(missing) > self.pages_free:
                raise _error(errno.ENOSPC)
            file.pages |= missing
        if action:
            inside = slice(min(offset, len(file.data)), min(end, len(file.data)))
            file.data[inside] = bytes(inside.stop - inside.start)
        if action == FALLOC_FL_PUNCH_HOLE:
            file.pages -= set(range(-(-offset // PAGE), end // PAGE))
            file.written &= file.pages
        if not keep:
            file.grow(end)

    def drop_if_dead(self, ino: int) -> None:
        if not self.files[ino].named and not self.files[ino].holds:
            del self.files[ino]
