"""A program that writes into a file system until it is full, by all calls that write, and records their results.

Run as ``python -m support.writers DIRECTORY SEED WRITES WAYS``. It prints one line of JSON: what each of its files must
contain according to the results of the calls.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LONGEST = 600_000
"""The highest offset at which a write begins."""

_CLOSED = 0.05

_PIECE = 60_000
"""Bytes: more than a few pages, and less than a pipe holds."""


@dataclass(frozen=True)
class Way:
    """A way to write bytes at an offset, or at the end of a file that was opened for appending."""

    write: Callable[[int, bytes, int], int]
    appends: bool = False
    flags: int = 0


def _write(descriptor: int, data: bytes, offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


def _writev(descriptor: int, data: bytes, offset: int) -> int:
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.writev(descriptor, _parts(data))


def _splice(descriptor: int, data: bytes, offset: int) -> int:
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        return os.splice(reading, descriptor, len(data), offset_dst=offset)
    finally:
        os.close(reading)
        os.close(writing)


def _sendfile(descriptor: int, data: bytes, offset: int) -> int:
    source = os.memfd_create("source")
    try:
        os.write(source, data)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.sendfile(descriptor, source, 0, len(data))
    finally:
        os.close(source)


def _copy(descriptor: int, data: bytes, offset: int) -> int:
    """Copies by the kernel, within the file system."""
    source = os.open(".", os.O_TMPFILE | os.O_RDWR)
    try:
        written = os.write(source, data)
        return os.copy_file_range(source, descriptor, written, 0, offset)
    finally:
        os.close(source)


def _store(descriptor: int, data: bytes, offset: int) -> int:
    """Writes by a mapping and msync(2). If msync fails, nothing counts as written."""
    page = mmap.PAGESIZE
    start = offset // page * page
    end = offset + len(data)
    os.posix_fallocate(descriptor, start, end - start)
    with mmap.mmap(descriptor, end - start, offset=start) as mapping:
        mapping[offset - start :] = data
        mapping.flush()
    return len(data)


def _parts(data: bytes) -> list[bytes]:
    return [data[: len(data) // 3], data[len(data) // 3 :]]


WAYS = {
    "write": Way(_write),
    "append": Way(lambda descriptor, data, _: os.write(descriptor, data), appends=True, flags=os.O_APPEND),
    "pwrite": Way(os.pwrite),
    "writev": Way(_writev),
    "pwritev": Way(lambda descriptor, data, offset: os.pwritev(descriptor, _parts(data), offset)),
    "splice": Way(_splice),
    "sendfile": Way(_sendfile),
    "copy_file_range": Way(_copy),
    "mapping": Way(_store),
}


def fill(directory: Path, seed: int, writes: int, ways: list[str]) -> dict[str, str]:
    """Writes into files of its own; returns what they must contain: hexadecimal bytes by name.

    It does not sync, and ignores errors of close(2), as a shell's built-in commands do.
    """
    os.chdir(directory)
    choose = random.Random(seed)
    contents: dict[str, bytearray] = {}
    opened: dict[str, int] = {}
    for _ in range(writes):
        name = choose.choice(ways)
        way = WAYS[name]
        file = f"{seed}-{choose.randrange(4)}{'-appended' if way.appends else ''}"
        content = contents.setdefault(file, bytearray())
        offset = len(content) if way.appends else choose.randrange(_LONGEST)
        data = bytes([choose.randrange(1, 256)]) * choose.choice([1, 100, 5000, mmap.PAGESIZE, _PIECE])
        try:
            if file not in opened:
                opened[file] = os.open(file, os.O_RDWR | os.O_CREAT | way.flags)
            descriptor = opened[file]
        except OSError:
            continue
        try:
            written = way.write(descriptor, data, offset)
        except OSError:
            written = 0
        if written:
            content.extend(bytes(max(0, offset + written - len(content))))
            content[offset : offset + written] = data[:written]
        # close(2) writes a file's data back: so most files stay open for a while.
        if choose.random() < _CLOSED:
            _close(opened.pop(file))
    for descriptor in opened.values():
        _close(descriptor)
    return {name: content.hex() for name, content in contents.items()}


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return


if __name__ == "__main__":
    print(json.dumps(fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(","))))
