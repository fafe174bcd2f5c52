"""Open files: a raw file over an inode, in the buffers and the text layer of :mod:`io`, as ``open`` makes them."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, final

from nrfs._core import Filesystem
from nrfs.files.lookup import fail, find

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LARGEST_OFFSET: Final = 2**63 - 1
_appending = threading.Lock()
"""Held from looking where a file ends until the data is there: the file system has no call that does both."""


@final
class RawFile(io.RawIOBase):
    """An open file without buffers. It holds its inode, which so outlives its last name.

    Args:
        filesystem: where it is.
        ino: a regular file.
        name: what ``name`` shows.
        mode: as for ``open``; binary.

    """

    def __init__(self, filesystem: Filesystem, ino: int, name: str, mode: str) -> None:
        filesystem.hold(ino)
        super().__init__()
        self._filesystem = filesystem
        self._ino = ino
        self._offset = 0
        self._appends = "a" in mode
        self._reads = "r" in mode or "+" in mode
        self._writes = "r" not in mode or "+" in mode
        self.name = name
        self.mode = mode

    def readable(self) -> bool:
        self._check()
        return self._reads

    def writable(self) -> bool:
        self._check()
        return self._writes

    def seekable(self) -> bool:
        self._check()
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        self._check(self._reads, "reading")
        with memoryview(buffer).cast("B") as room:
            data = self._filesystem.read(self._ino, self._offset, len(room))
            room[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def readall(self) -> bytes:
        self._check(self._reads, "reading")
        size = self._filesystem.attributes(self._ino).size
        data = self._filesystem.read(self._ino, self._offset, max(0, size - self._offset))
        self._offset += len(data)
        return data

    def write(self, data: Buffer, /) -> int:
        self._check(self._writes, "writing")
        at = self._offset
        if not self._appends:
            written = self._filesystem.write(self._ino, at, data)
        else:
            self._filesystem.attributes(self._ino)  # Fails in a forked process, whose lock nobody may ever release.
            with _appending:
                at = self._filesystem.attributes(self._ino).size
                written = self._filesystem.write(self._ino, at, data)
        self._offset = at + written
        return written

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check()
        if whence == os.SEEK_CUR:
            offset += self._offset
        elif whence == os.SEEK_END:
            offset += self._filesystem.attributes(self._ino).size
        elif whence in (os.SEEK_DATA, os.SEEK_HOLE):
            offset = self._filesystem.seek(self._ino, offset, whence)
        elif whence != os.SEEK_SET:
            fail(errno.EINVAL)
        if not 0 <= offset <= _LARGEST_OFFSET:
            fail(errno.EINVAL)
        self._offset = offset
        return offset

    def tell(self) -> int:
        self._check()
        return self._offset

    def truncate(self, size: int | None = None, /) -> int:
        self._check(self._writes, "writing")
        size = self._offset if size is None else size
        if size < 0:
            fail(errno.EINVAL)
        self._filesystem.set_attributes(self._ino, size=size)
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._filesystem.forget(self._ino)

    def _check(self, is_possible: bool = True, what: str = "") -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not is_possible:
            raise io.UnsupportedOperation(f"File not open for {what}")


def open_file(
    filesystem: Filesystem,
    path: PurePosixPath,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> io.IOBase:
    """Opens a file, with the arguments and errors of the builtin ``open``."""
    letters = set(mode)
    if letters - set("rwxa+bt") or len(letters) < len(mode):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"b", "t"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    if len(letters & set("rwxa")) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    if "b" in letters:
        for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
            if value is not None:
                raise ValueError(f"binary mode doesn't take {'an ' if name != 'newline' else 'a '}{name} argument")
    raw = _open_raw(filesystem, path, f"{(letters & set('rwxa')).pop()}b{'+' * ('+' in letters)}")
    if buffering == 0:
        if "b" not in letters:
            raw.close()
            raise ValueError("can't have unbuffered text I/O")
        return raw
    kind = io.BufferedRandom if "+" in letters else io.BufferedReader if "r" in letters else io.BufferedWriter
    buffered = kind(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
    if "b" in letters:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text


def _open_raw(filesystem: Filesystem, path: PurePosixPath, mode: str) -> RawFile:
    """Opens what is there, or makes it. If another thread makes or unlinks it meanwhile, it looks again."""
    while True:
        place = find(filesystem, path, follow="x" not in mode)
        if place.found is not None:
            if "x" in mode:
                fail(errno.EEXIST)
            kind = stat.S_IFMT(place.found.mode)
            if kind != stat.S_IFREG:
                fail(errno.EISDIR if kind == stat.S_IFDIR else errno.ENXIO)
        try:
            there = (
                place.existing()
                if place.found is not None or "r" in mode
                else filesystem.mknod(place.parent, place.own_name(errno.EISDIR), stat.S_IFREG | 0o666, umask=umask())
            )
            file = RawFile(filesystem, there.ino, str(path), mode)
            break
        except FileExistsError:
            if "x" in mode:
                raise
        except FileNotFoundError:
            if "r" in mode:
                raise
    if "w" in mode:
        file.truncate(0)
    if "a" in mode:
        file.seek(0, os.SEEK_END)
    return file


def umask() -> int:
    """The process's umask. os.umask could only tell it by changing it, for a moment, for all threads."""
    status = Path("/proc/self/status").read_bytes()
    return int(status.partition(b"\nUmask:")[2].split(None, 1)[0], 8)
