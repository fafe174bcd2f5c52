"""A whole tree as a value, to compare two file systems."""

# Names are arbitrary bytes, which pathlib does not support.
# ruff: noqa: PTH115, PTH118, PTH208

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from .operations import HOLES_SEEN_BELOW, Shown, shown

_WHOLE = 1 << 24
"""Files up to this size are compared as a whole; of larger ones, only data and the edges of holes."""

_PAGE = 4096


@dataclass(frozen=True)
class Entry:
    """One name in a tree.

    ``same_file`` is the first name, in order, of the same inode: it shows hard links.
    """

    status: Shown
    same_file: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    target: bytes | None
    content: str | None


Tree = dict[bytes, Entry]


def snapshot(root: Path) -> Tree:
    """Everything below ``root`` and the root itself (as "."), by path relative to it."""
    tree: Tree = {}
    first: dict[int, bytes] = {}
    for path in _walk(os.fsencode(root), b"."):
        absolute = os.path.join(os.fsencode(root), path)
        status = os.lstat(absolute)
        kind = stat.S_IFMT(status.st_mode)
        tree[path] = Entry(
            status=shown(status),
            same_file=first.setdefault(status.st_ino, path),
            xattrs=tuple(
                (name, _xattr(absolute, name)) for name in sorted(os.listxattr(absolute, follow_symlinks=False))
            ),
            target=os.readlink(absolute) if kind == stat.S_IFLNK else None,
            content=_content(absolute, status.st_size) if kind == stat.S_IFREG else None,
        )
    return tree


def _walk(root: bytes, path: bytes) -> Iterator[bytes]:
    yield path
    absolute = os.path.join(root, path)
    if stat.S_ISDIR(os.lstat(absolute).st_mode):
        for name in sorted(os.listdir(absolute)):
            yield from _walk(root, name if path == b"." else path + b"/" + name)


def _xattr(path: bytes, name: str) -> bytes:
    return os.getxattr(path, name, follow_symlinks=False)


def _content(path: bytes, size: int) -> str:
    """A digest of a file's bytes. Large holes are only read where they begin and end."""
    digest = hashlib.md5(usedforsecurity=False)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if size <= _WHOLE:
            digest.update(os.read(descriptor, size + 1))
            return digest.hexdigest()
        for offset, length in _worth_reading(descriptor, size):
            data = os.pread(descriptor, length, offset)
            if data.strip(b"\0"):
                digest.update(offset.to_bytes(8, "little") + data)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _worth_reading(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The ranges to read: pages that the file system says have data, and a page where holes begin or end.

    A file system without SEEK_HOLE says that everything is data: then the first MiB, the last page, and the pages
    around powers of two, where the generated programs write.
    """
    limit = (1 << 20) // _PAGE
    pages = {0, (size - 1) // _PAGE}
    at = 0
    while len(pages) < limit and size < HOLES_SEEN_BELOW:
        try:
            data = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        at = os.lseek(descriptor, data, os.SEEK_HOLE)
        if at - data > _WHOLE:
            break
        pages.update(range(max(data // _PAGE - 1, 0), min(at // _PAGE + 2, (size - 1) // _PAGE + 1)))
    pages.update(range(min(limit, (size - 1) // _PAGE)))
    for power in range(20, 63):
        page = (1 << power) // _PAGE
        pages.update(near for near in range(page - 2, page + 8) if near * _PAGE < size)
    for page in sorted(pages):
        yield page * _PAGE, min(_PAGE, size - page * _PAGE)


def differences(expected: Tree, actual: Tree) -> list[str]:
    """One line for every name and field in which ``actual`` differs from ``expected``; none if they are equal."""
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        if path not in actual:
            lines.append(f"{path!r} is missing: {expected[path]}")
        elif path not in expected:
            lines.append(f"{path!r} should not be there: {actual[path]}")
        elif expected[path] != actual[path]:
            lines += _fields_that_differ(path, expected[path], actual[path])
    return lines


def _fields_that_differ(path: bytes, expected: Entry, actual: Entry) -> Iterator[str]:
    for subject, one, other in ((Entry, expected, actual), (Shown, expected.status, actual.status)):
        for field in fields(subject):
            want, have = getattr(one, field.name), getattr(other, field.name)
            if want != have and field.name != "status":
                yield f"{path!r} {field.name}: expected {want!r}, is {have!r}"
