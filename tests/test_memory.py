"""Memory that runs out: of a limit of the process, or of a cgroup. It is ENOSPC to who asks, and nobody's end.

What was accepted is there, can be read, changed and deleted, and what is deleted makes room.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import wait_until

PREPARE = """
import errno, os, resource, sys, nrfs
nodes, limit = int(sys.argv[1]), int(sys.argv[2])
filesystem = nrfs.Filesystem(nodes=nodes, logs=2, size="64G", inodes=10**8)
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

def until_full(step):
    for number in range(10**7):
        try:
            step(number)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            return number
    raise AssertionError("it is never full")

def check():
    for log in filesystem.verify():
        assert len(set(log["digests"])) == 1
"""

CONTENT = """
PIECE = 256 << 10
piece = bytes(range(256)) * (PIECE // 256)
files = [filesystem.mknod(nrfs.ROOT, b"file %d" % number, 0o100644).ino for number in range(4)]

def write(number):
    written = filesystem.write(files[number % 4], number // 4 * PIECE, piece)
    if written < PIECE:
        raise OSError(errno.ENOSPC, "cut short")

full = until_full(write)
assert full > 100, full
# What a cgroup has of cached files, the program's own among them, may have made room meanwhile.
assert until_full(write) < full + 400
for number in range(full):
    assert filesystem.read(files[number % 4], number // 4 * PIECE, PIECE) == piece
assert filesystem.write(files[0], 5, b"what is there can be changed") == 28
check()
# The pages of this file lie between those of others.
filesystem.set_attributes(files[3], size=0)
again = until_full(lambda number: write(4 * number + 3))
assert again > full // 5, (again, full)
for number in range(full // 4):
    assert filesystem.read(files[2], number * PIECE, PIECE) == piece
for number in range(4):
    filesystem.unlink(nrfs.ROOT, b"file %d" % number)
files = [filesystem.mknod(nrfs.ROOT, b"file %d" % number, 0o100644).ino for number in range(4)]
assert until_full(write) > full // 2
check()
"""

NAMES = """
from itertools import cycle
directory = filesystem.mkdir(nrfs.ROOT, b"directory", 0o755).ino
made = []

def make(number):
    name = b"%0250d" % number
    if number % 4 == 0:
        made.append(filesystem.mknod(directory, name, 0o100644).ino)
    elif number % 4 == 1:
        filesystem.symlink(directory, name, bytes([120]) * 4000)
    elif number % 4 == 2:
        filesystem.link(made[-1], directory, name)
    else:
        filesystem.setxattr(made[-1], b"user.a", bytes(30000))

full = until_full(make)
assert full > 1000, full
for ino in made[::16]:
    try:
        filesystem.set_attributes(ino, mtime_ns=5)
    except OSError as error:
        assert error.errno == errno.ENOSPC
cookie = listed = 0
while entries := filesystem.readdir(directory, cookie):
    cookie, listed = entries[-1].cookie, listed + len(entries)
assert listed == 2 + sum(number % 4 != 3 for number in range(full))
check()
for number in range(full):
    if number % 4 != 3:
        filesystem.unlink(directory, b"%0250d" % number)
filesystem.release_memory()
assert until_full(make) > full // 8
check()
"""

RESERVED = """
MIB = 1 << 20
file = filesystem.mknod(nrfs.ROOT, b"file", 0o100644).ino
filesystem.fallocate(file, 0, 2000 * MIB)
piece = bytes(range(256)) * (MIB // 256)

def write(number):
    assert number < 2000, "there are not so many addresses"
    if filesystem.write(file, number * MIB, piece) < MIB:
        raise OSError(errno.ENOSPC, "cut short")

written = until_full(write)
assert written > 100, written
for number in range(written):
    assert filesystem.read(file, number * MIB, MIB) == piece
assert filesystem.read(file, 1999 * MIB, MIB) == bytes(MIB)
filesystem.fallocate(file, MIB, 2000 * MIB, 3)
assert filesystem.attributes(file).blocks == MIB // 512
assert until_full(lambda number: write(number)) > written // 2
check()
"""


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("what", [CONTENT, NAMES], ids=["content", "names"])
def test_a_process_that_may_have_no_more_addresses_says_that_there_is_no_space(nodes: int, what: str) -> None:
    limit = (1200 << 20) + nodes * (100 << 20)
    command = [sys.executable, "-c", PREPARE + what, str(nodes), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup that allows 300 MiB."""
    version_1, version_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    group = (version_1 if version_1.is_dir() else version_2) / f"nrfs-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if version_1.is_dir() else "memory.max"
    try:
        group.mkdir(exist_ok=True)
        (group / limit).write_text(str(300 << 20))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no cgroup that limits memory can be had here: {error}")
    yield group
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the cgroup to be empty")
    group.rmdir()


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("what", [CONTENT, NAMES], ids=["content", "names"])
def test_a_cgroup_that_gives_no_more_memory_ends_no_file_system(cgroup: Path, nodes: int, what: str) -> None:
    program = f"""
    import os
    from pathlib import Path
    Path({str(cgroup / "cgroup.procs")!r}).write_text(str(os.getpid()))
    """
    command = [sys.executable, "-c", textwrap.dedent(program) + PREPARE + what, str(nodes), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_what_was_reserved_gets_no_memory_where_there_is_none() -> None:
    command = [sys.executable, "-c", PREPARE + RESERVED, "1", str(1400 << 20)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
