"""nrfs does what tmpfs does: generated programs of file operations run on both, step by step.

Equal must be every result and errno, and at the end the whole tree: names, types, modes, owners, link counts and which
names are links of one file, sizes, contents, xattrs, symlink targets, device numbers, and the times that were set.
``support/operations.py`` lists the operations, ``support/programs.py`` how they are chosen, and
``support/differences.py`` everything in which nrfs is known to differ.

``NRFS_TEST_EXAMPLES`` sets how many programs each test generates; the default is small, and always the same programs.
The long run of a person, which takes hours and finds new programs each time:

    NRFS_TEST_EXAMPLES=20000 pytest tests/test_against_tmpfs.py

``NRFS_TEST_NODES=1`` (or ``3``, or ``1,2,8``) sets the numbers of replicas that mounts are made with.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import operations as ops
from support import programs
from support.compare import Failed, Step, compare, outcome, perform
from support.generating import compare_generated
from support.mounts import Pair, configurations, mounted_pair
from support.operations import Pattern, World
from support.syscalls import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    fallocate,
    getdents,
)
from support.tree import differences, snapshot

PAGE = 4096
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE, which the time module does not name

CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))
on_pyfuse3 = pytest.mark.parametrize(
    "pair", [shape for shape in CONFIGURATIONS if shape.channel == "pyfuse3"], ids=str, indirect=True
)


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with mounted_pair(tmp_path_factory.mktemp("pair"), request.param) as pair:
        yield pair


def test_names_links_and_attributes_are_those_of_tmpfs(pair: Pair) -> None:
    compare_generated(pair, programs.tree_programs())


def test_bytes_sizes_and_holes_are_those_of_tmpfs(pair: Pair) -> None:
    compare_generated(pair, programs.content_programs())


def test_what_chattr_sets_and_forbids_is_that_of_tmpfs(pair: Pair) -> None:
    compare_generated(pair, programs.flag_programs())


def test_all_operations_mixed_do_what_they_do_on_tmpfs(pair: Pair) -> None:
    compare_generated(pair, programs.mixed_programs())


# -- single programs, each for a behaviour that generated ones reach seldom -------------------------------------------

NAMED: dict[str, list[ops.Operation]] = {
    "a directory is not moved below itself": [
        ops.Mkdir(b"a", 0o755),
        ops.Mkdir(b"a/b", 0o755),
        ops.Mkdir(b"a/b/c", 0o755),
        ops.Rename(b"a", b"a/b/c/d", 0),
        ops.Rename(b"a", b"a/b/c", 0),
        ops.Rename(b"a", b"a/b", RENAME_EXCHANGE),
        ops.Rename(b"a/b/c", b"a", RENAME_EXCHANGE),
        ops.Rename(b"a/b/c", b"a", 0),
    ],
    "a rename replaces only its like, and only what is empty": [
        ops.Mkdir(b"a", 0o755),
        ops.Mkdir(b"b", 0o755),
        ops.Make(b"b/x", 0o644),
        ops.Make(b"c", 0o644),
        ops.Rename(b"a", b"b", 0),
        ops.Rename(b"a", b"c", 0),
        ops.Rename(b"c", b"a", 0),
        ops.Rename(b"b", b"a", 0),
        ops.Rename(b"c", b"a/x", RENAME_NOREPLACE),
        ops.Rename(b"c", b"a", RENAME_EXCHANGE),
    ],
    "a rename of a link onto another of the same file changes nothing": [
        ops.Make(b"a", 0o644),
        ops.Link(b"a", b"b", False),
        ops.Rename(b"a", b"b", 0),
        ops.Rename(b"a", b"b", RENAME_EXCHANGE),
        ops.Stat(b"a", False),
        ops.Stat(b"b", False),
    ],
    "an exchange of a directory and a file moves the link counts of their parents": [
        ops.Mkdir(b"a", 0o755),
        ops.Mkdir(b"b", 0o755),
        ops.Mkdir(b"a/d", 0o755),
        ops.Make(b"b/f", 0o644),
        ops.Rename(b"a/d", b"b/f", RENAME_EXCHANGE),
        ops.Stat(b"a", False),
        ops.Stat(b"b", False),
    ],
    "an unlinked file lives while it is open, and no link brings it back": [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o640),
        ops.Write(0, Pattern(1, 10000)),
        ops.Unlink(b"a"),
        ops.Fstat(0),
        ops.LinkHandle(0, b"b"),
        ops.Pwrite(0, Pattern(2, 10), 20000),
        ops.Fchmod(0, 0o4755),
        ops.Fchown(0, 5, 6),
        ops.FsetXattr(0, b"user.a", b"v", 0),
        ops.FgetXattr(0, b"user.a"),
        ops.Ftruncate(0, 15000),
        ops.Futimens(0, 1, 2),
        ops.Fstat(0),
        ops.Pread(0, 20000, 0),
        ops.Make(b"a", 0o600),
        ops.Stat(b"a", False),
    ],
    "a removed directory that is open lists nothing and takes nothing": [
        ops.Mkdir(b"a", 0o755),
        ops.Open(0, b"a", os.O_RDONLY | os.O_DIRECTORY, 0),
        ops.Rmdir(b"a"),
        ops.Fstat(0),
        ops.ListHandle(0),
        ops.Fchmod(0, 0o700),
        ops.Fstat(0),
    ],
    "a file replaced by a rename lives while it is open": [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o640),
        ops.Write(0, Pattern(1, 100)),
        ops.Make(b"b", 0o644),
        ops.Rename(b"b", b"a", 0),
        ops.Fstat(0),
        ops.Pread(0, 200, 0),
    ],
    # The kernel follows forty, but if somebody mounts anything meanwhile, it begins again and counts on: also on tmpfs.
    "twenty symlinks in a row are followed, and more than forty are a loop": [
        ops.Make(b"0", 0o644),
        *(ops.Symlink(b"%d" % number, b"%d" % (number + 1)) for number in range(42)),
        *(ops.Stat(b"%d" % number, True) for number in (19, 20, 41, 42)),
        ops.Stat(b"42", False),
    ],
    "a path through what is no directory is refused": [
        ops.Make(b"a", 0o644),
        ops.Symlink(b"a", b"b"),
        ops.Symlink(b"c", b"c"),
        ops.Mknod(b"d", stat.S_IFIFO | 0o644, 0),
        *(ops.Stat(path, True) for path in (b"a/x", b"a/", b"a/.", b"a/..", b"b/x", b"b/", b"c", b"c/x", b"d/x")),
        *(ops.Mkdir(path, 0o755) for path in (b"a/x", b"b/x", b"c/x", b"c", b"d/x", b"x/y")),
        *(ops.Open(0, path, os.O_CREAT | os.O_RDWR, 0o644) for path in (b"a/x", b"b/", b"c", b"c/x", b"x/")),
        ops.Rename(b"a", b"b/x", 0),
        ops.Rename(b"a", b"x/", 0),
        ops.Unlink(b"a/"),
    ],
    "a name may have 255 bytes of any kind": [
        ops.Make(b"n" * 255, 0o644),
        ops.Make(b"n" * 256, 0o644),
        ops.Mkdir(b"\xff\xfe\n\t\x01 '\"\\*", 0o755),
        ops.Symlink(b"t" * 4095, b"s" * 255),
        ops.Symlink(b"t" * 4096, b"t"),
        ops.Rename(b"n" * 255, b"m" * 255, 0),
        ops.Rename(b"m" * 255, b"m" * 256, 0),
        ops.Stat(b"n" * 256, False),
        ops.Unlink(b"n" * 256),
        ops.Link(b"m" * 255, b"\xff" * 255, False),
        ops.List(b"."),
    ],
    "an append goes to the end, wherever the handle stood and whoever moved the end": [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644),
        ops.Open(1, b"a", os.O_RDWR, 0),
        ops.Write(0, Pattern(1, 10)),
        ops.Pwrite(1, Pattern(2, 10), 5000),
        ops.Seek(0, 3, os.SEEK_SET),
        ops.Write(0, Pattern(3, 10)),
        ops.Seek(0, 0, os.SEEK_CUR),
        ops.Ftruncate(1, 7),
        ops.Pwrite(0, Pattern(4, 10), 0),
        ops.Fstat(1),
        ops.Pread(1, 10000, 0),
    ],
    "a truncated file that grows again shows zeros": [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o644),
        ops.Write(0, Pattern(1, 3 * PAGE)),
        ops.Ftruncate(0, PAGE + 7),
        ops.Ftruncate(0, 3 * PAGE),
        ops.Pread(0, 3 * PAGE, 0),
        ops.Ftruncate(0, 5),
        ops.Pwrite(0, Pattern(2, 5), 2 * PAGE),
        ops.Pread(0, 3 * PAGE, 0),
        ops.Open(1, b"a", os.O_WRONLY | os.O_TRUNC, 0),
        ops.Fstat(0),
        ops.Pwrite(0, Pattern(3, 1), 10),
        ops.Pread(0, 100, 0),
    ],
    "what lies near the largest offset can be written, and nothing behind it": [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o644),
        ops.Pwrite(0, Pattern(1, 10), (1 << 63) - 20),
        ops.Pwrite(0, Pattern(1, 10), (1 << 63) - 11),
        ops.Pwrite(0, Pattern(1, 10), (1 << 63) - 5),
        ops.Pwrite(0, Pattern(1, 10), (1 << 63) - 1),
        ops.Pread(0, 100, (1 << 63) - 30),
        ops.Pread(0, 10, (1 << 63) - 1),
        ops.Fstat(0),
        ops.Seek(0, 1, os.SEEK_END),
        ops.Ftruncate(0, (1 << 63) - 1),
        ops.Ftruncate(0, 0),
    ],
    "set-user-id and set-group-id go where tmpfs lets them go": [
        *(ops.Open(number, b"%d" % number, os.O_RDWR | os.O_CREAT, 0o6777) for number in range(4)),
        *(ops.Fchmod(number, 0o6777) for number in range(4)),
        ops.Fchown(0, 1000, 1000),
        ops.Fstat(0),
        ops.Write(1, Pattern(1, 1)),
        ops.Fstat(1),
        ops.Ftruncate(2, 100),
        ops.Fstat(2),
        ops.Chmod(b"3", 0o2644),
        ops.Chown(b"3", -1, 1000, True),
        ops.Fstat(3),
    ],
    "whoever changes a program takes its capabilities away": [
        *(ops.Open(number, b"%d" % number, os.O_RDWR | os.O_CREAT, 0o755) for number in range(4)),
        *(ops.FsetXattr(number, b"security.capability", programs.file_capability, 0) for number in range(4)),
        ops.Write(0, Pattern(1, 1)),
        ops.Ftruncate(1, 100),
        ops.Chown(b"2", 5, 5, True),
        ops.Chmod(b"3", 0o700),
        *(ops.FgetXattr(number, b"security.capability") for number in range(4)),
    ],
    "a directory with set-group-id hands its group down": [
        ops.Mkdir(b"a", 0o755),
        ops.Chown(b"a", 1000, 2000, True),
        ops.Chmod(b"a", 0o2777),
        ops.Make(b"a/file", 0o2755),
        ops.Mkdir(b"a/directory", 0o755),
        ops.Symlink(b"x", b"a/link"),
        ops.Mknod(b"a/fifo", stat.S_IFIFO | 0o600, 0),
        ops.Mkdir(b"a/directory/below", 0o700),
        ops.Rename(b"a/directory", b"moved", 0),
    ],
}


@pytest.mark.parametrize("name", NAMED)
def test_in_particular(pair: Pair, name: str) -> None:
    compare([Step(operation) for operation in NAMED[name]], pair.reference, pair.subject, pair.abilities)


def test_what_another_user_may_not_do_is_refused_alike(pair: Pair) -> None:
    """Sticky directories, foreign files, unreadable directories, as a user without root's capabilities."""
    by_root: list[ops.Operation] = [
        ops.Mkdir(b"sticky", 0o777),
        ops.Chmod(b"sticky", 0o1777),
        ops.Make(b"sticky/roots", 0o666),
        ops.Mkdir(b"closed", 0o700),
        ops.Make(b"closed/file", 0o666),
        ops.Make(b"mine", 0o644),
        ops.Chown(b"mine", 1000, 1000, True),
        ops.Make(b"foreign", 0o644),
        ops.Make(b"group", 0o664),
        ops.Chown(b"group", 0, 1000, True),
    ]
    by_user: list[ops.Operation] = [
        ops.Unlink(b"sticky/roots"),
        ops.Rename(b"sticky/roots", b"sticky/x", 0),
        ops.Make(b"sticky/users", 0o6777),
        ops.Rename(b"sticky/users", b"sticky/roots", 0),
        ops.Stat(b"closed/file", True),
        ops.List(b"closed"),
        ops.Make(b"closed/new", 0o644),
        ops.Chmod(b"foreign", 0o777),
        ops.Chmod(b"mine", 0o6777),
        ops.Chown(b"mine", 0, -1, True),
        ops.Chown(b"mine", -1, 2000, True),
        ops.Chown(b"mine", 1000, 1000, True),
        ops.Utimens(b"foreign", 1, 1, True),
        ops.UtimensNow(b"foreign"),
        ops.UtimensNow(b"group"),
        ops.Truncate(b"foreign", 0),
        ops.Truncate(b"group", 5),
        ops.Open(0, b"foreign", os.O_WRONLY, 0),
        ops.Open(1, b"group", os.O_RDWR | os.O_TRUNC, 0),
        ops.Write(1, Pattern(1, 5)),
        ops.SetXattr(b"foreign", b"user.a", b"v", 0, True),
        ops.SetXattr(b"mine", b"trusted.a", b"v", 0, True),
        ops.SetXattr(b"mine", b"user.a", b"v", 0, True),
        ops.Access(b"foreign", os.W_OK),
        ops.Access(b"closed", os.X_OK),
        ops.Mknod(b"device", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    ]
    program = [Step(operation) for operation in by_root] + [Step(operation, user=1000) for operation in by_user]
    compare(program, pair.reference, pair.subject, pair.abilities)


def test_who_changes_a_program_takes_its_set_user_id_away_and_who_does_not_change_it_leaves_it(pair: Pair) -> None:
    """Of one file for each: what another than root allocates, or copies to it, and also what fails."""
    by_user: list[ops.Operation] = [
        ops.Fallocate(0, 0, 0, PAGE),
        ops.Fallocate(1, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1),
        ops.Fallocate(2, FALLOC_FL_KEEP_SIZE, 0, 1 << 40),
        ops.Fallocate(3, 0, 0, 0),
        ops.Fallocate(4, FALLOC_FL_PUNCH_HOLE, 0, 1),
        ops.CopyRange(9, 5, 3, 0, 0),
        ops.CopyRange(9, 6, 3, 3, 0),
        ops.CopyRange(9, 7, 0, 0, 0),
        ops.Ftruncate(8, 1),
    ]
    files = [(number, b"%d" % number) for number in range(10)]
    program = [
        *(Step(ops.Open(number, name, os.O_RDWR | os.O_CREAT, 0)) for number, name in files),
        Step(ops.Write(9, Pattern(1, 3))),
        *(Step(ops.Fchmod(number, 0o6777)) for number, _ in files),
        *(Step(operation, user=1000) for operation in by_user),
        *(Step(ops.Fstat(number)) for number, _ in files),
    ]
    compare(program, pair.reference, pair.subject, pair.abilities)


def test_a_whiteout_belongs_to_who_renamed(pair: Pair) -> None:
    program = [
        Step(ops.Make(b"a", 0o644), user=1000),
        Step(ops.Rename(b"a", b"b", RENAME_WHITEOUT), user=1000),
        Step(ops.Stat(b"a", False)),
    ]
    compare(program, pair.reference, pair.subject, pair.abilities)


# -- times ------------------------------------------------------------------------------------------------------------

TIMED: dict[str, ops.Operation] = {
    "create": ops.Make(b"d/new", 0o644),
    "mkdir": ops.Mkdir(b"d/new", 0o755),
    "mknod": ops.Mknod(b"d/new", stat.S_IFIFO | 0o600, 0),
    "symlink": ops.Symlink(b"x", b"d/new"),
    "link": ops.Link(b"d/f", b"e/new", False),
    "unlink": ops.Unlink(b"d/f"),
    "unlink one of two links": ops.Unlink(b"e/f"),
    "rmdir": ops.Rmdir(b"d/d"),
    "rename within": ops.Rename(b"d/f", b"d/new", 0),
    "rename to another": ops.Rename(b"d/f", b"e/new", 0),
    "rename over": ops.Rename(b"d/f", b"d/h", 0),
    "rename over one of two links": ops.Rename(b"d/h", b"e/f", 0),
    "rename a directory": ops.Rename(b"d/d", b"e/new", 0),
    "exchange": ops.Rename(b"d/h", b"e/d", RENAME_EXCHANGE),
    "chmod": ops.Chmod(b"d/f", 0o600),
    "chmod to the same": ops.Chmod(b"d/f", 0o644),
    "chown": ops.Chown(b"d/f", 5, 5, True),
    "chown of nothing": ops.Chown(b"d/f", -1, -1, True),
    "utimens": ops.Utimens(b"d/f", 10**18, 10**18 + 5, True),
    "truncate": ops.Truncate(b"d/f", 3),
    "truncate to the same size": ops.Truncate(b"d/f", 10),
    "truncate to grow": ops.Truncate(b"d/f", 100),
    "setxattr": ops.SetXattr(b"d/f", b"user.a", b"v", 0, True),
    "removexattr": ops.RemoveXattr(b"d/h", b"user.there", True),
    "setxattr refused": ops.SetXattr(b"d/f", b"user.a", b"v", os.XATTR_REPLACE, True),
    "open to truncate": ops.Open(3, b"d/f", os.O_WRONLY | os.O_TRUNC, 0),
    "open to truncate what is empty": ops.Open(3, b"d/empty", os.O_WRONLY | os.O_TRUNC, 0),
    "open to read": ops.Open(3, b"d/f", os.O_RDONLY, 0),
    "read": ops.Read(0, 5),
    "list": ops.List(b"d"),
    "readlink": ops.Readlink(b"d/s"),
    "follow": ops.Stat(b"d/s", True),
    "write": ops.Write(0, Pattern(1, 5)),
    "write of nothing": ops.Write(0, Pattern(1, 0)),
    "write through a mapping": ops.MmapWrite(0, Pattern(1, 5), 0),
    "ftruncate": ops.Ftruncate(0, 3),
    "ftruncate to the same size": ops.Ftruncate(0, 10),
    "fsync": ops.Fsync(0, False),
    "close after a write": ops.Close(1),
    "fsync after a write": ops.Fsync(1, False),
    "fsync after a write to what is unlinked": ops.Fsync(2, False),
    "copy_file_range": ops.CopyRange(1, 0, 5, 0, 0),
}

_TIMED_OPENING: list[ops.Operation] = [
    ops.Mkdir(b"d", 0o755),
    ops.Mkdir(b"e", 0o755),
    ops.Mkdir(b"d/d", 0o755),
    ops.Mkdir(b"e/d", 0o755),
    ops.Open(0, b"d/f", os.O_RDWR | os.O_CREAT, 0o644),
    ops.Write(0, Pattern(1, 10)),
    ops.Fsync(0, False),
    ops.Make(b"d/h", 0o644),
    ops.Make(b"d/empty", 0o644),
    ops.SetXattr(b"d/h", b"user.there", b"v", 0, True),
    ops.Link(b"d/h", b"e/h", False),
    ops.Make(b"e/f", 0o644),
    ops.Link(b"e/f", b"e/g", False),
    ops.Symlink(b"f", b"d/s"),
    ops.Open(1, b"d/w", os.O_RDWR | os.O_CREAT, 0o644),
    ops.Write(1, Pattern(1, 10)),
    ops.Open(2, b"d/gone", os.O_RDWR | os.O_CREAT, 0o644),
    ops.Write(2, Pattern(1, 10)),
    ops.Unlink(b"d/gone"),
]


@pytest.mark.parametrize("name", TIMED)
def test_the_times_change_that_change_on_tmpfs(pair: Pair, name: str) -> None:
    """Of every file and directory of a small tree: which of atime, mtime and ctime one operation moves."""
    if name == "write through a mapping" and not pair.abilities.mapped_writes:
        return
    opening = [Step(operation) for operation in _TIMED_OPENING]
    changed = []
    for root in pair.directories(f"times of {name}"):
        world = World()
        try:
            for step in opening:
                perform(step, world, root)
            before = _times(root, world)
            _let_the_clock_tick()
            result = perform(Step(TIMED[name]), world, root)
            changed.append((result, _moved(before, _times(root, world))))
        finally:
            world.close()
    if name == "truncate to the same size" and not pair.abilities.truncation_in_vain:
        assert changed == [(None, {"d/f": "mtime ctime"}), (None, {})]
    else:
        assert changed[1] == changed[0]


@dataclass(frozen=True)
class Stamped:
    """A file by its first name, or the slot that holds it open, and its times."""

    label: str
    atime: int
    mtime: int
    ctime: int


def _times(root: Path, world: World) -> dict[int, Stamped]:
    """Of every inode in the tree or open."""
    every = {str(path.relative_to(root)): path.lstat() for path in [root, *sorted(root.rglob("*"))]}
    every |= {f"handle {slot}": os.fstat(descriptor) for slot, descriptor in world.handles.items()}
    stamped: dict[int, Stamped] = {}
    for label, status in every.items():
        stamped.setdefault(status.st_ino, Stamped(label, status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns))
    return stamped


def _moved(before: dict[int, Stamped], after: dict[int, Stamped]) -> dict[str, str]:
    """The names of the times that differ, by the file's label before; and what came and went."""
    moved = {after[ino].label: "new" for ino in after.keys() - before.keys()}
    for ino, was in before.items():
        now = after.get(ino)
        if now is None:
            moved[was.label] = "gone"
        elif differing := [name for name in ("atime", "mtime", "ctime") if getattr(was, name) != getattr(now, name)]:
            moved[was.label] = " ".join(differing)
    return moved


def _let_the_clock_tick() -> None:
    """Until the coarse clock, by which files are stamped, shows another time than it did."""
    begin = time.clock_gettime_ns(_COARSE_CLOCK)
    while time.clock_gettime_ns(_COARSE_CLOCK) == begin:
        time.sleep(0.001)


def test_times_never_run_backwards(pair: Pair) -> None:
    """Whoever stamps them, the kernel for a cached write or the file system for the rest: in the order of the calls."""
    directory = pair.directories("times forwards")[1]
    path = directory / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    last = 0
    changes: list[Callable[[], object]] = [
        lambda: os.write(descriptor, b"x"),
        lambda: os.fchmod(descriptor, 0o600),
        lambda: os.fsync(descriptor),
        lambda: os.link(path, directory / "link"),
        lambda: (directory / "link").unlink(),
        lambda: os.ftruncate(descriptor, 5),
    ]
    try:
        for _ in range(50):
            for change in changes:
                change()
                status = path.stat()
                assert status.st_ctime_ns >= last
                assert status.st_ctime_ns >= status.st_mtime_ns
                last = status.st_ctime_ns
    finally:
        os.close(descriptor)


# -- attributes -------------------------------------------------------------------------------------------------------


def test_more_xattrs_than_a_list_can_hold_fail_as_on_tmpfs(pair: Pair) -> None:
    results = []
    for directory in pair.directories("xattrs"):
        told: list[object] = []
        for number in range(300):
            name = f"trusted.{number:0240}"
            told.append(outcome(os.setxattr, directory, name, b"v"))
        names = outcome(lambda place: sorted(os.listxattr(place)), directory)
        told += [names, os.getxattr(directory, f"trusted.{299:0240}")]
        results.append(told)
    assert results[1] == results[0]


def test_the_largest_xattr_comes_back_whole(pair: Pair) -> None:
    results = []
    for directory in pair.directories("largest"):
        value = bytes(range(256)) * 256
        told = [
            outcome(os.setxattr, directory, "trusted.a", value),
            os.getxattr(directory, "trusted.a") == value,
        ]
        told.append(outcome(os.setxattr, directory, "trusted.a", value + b"x"))
        results.append([*told, os.getxattr(directory, "trusted.a") == value])
    assert results[0] == [None, True, Failed("E2BIG"), True]
    assert results[1] == results[0]


# -- what the mount cannot carry --------------------------------------------------------------------------------------


@on_pyfuse3
def test_fallocate_is_not_carried_and_changes_nothing(pair: Pair) -> None:
    path = pair.directories("fallocate")[1] / "file"
    path.write_bytes(b"data" * PAGE)
    descriptor = os.open(path, os.O_RDWR)
    try:
        for mode in (0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE):
            with pytest.raises(OSError, match="not supported") as refused:
                fallocate(descriptor, mode, 0, 8 * PAGE)
            assert refused.value.errno == errno.EOPNOTSUPP
        assert os.pread(descriptor, 9 * PAGE, 0) == b"data" * PAGE
    finally:
        os.close(descriptor)


def test_holes_are_found_beside_data_that_was_just_written(pair: Pair) -> None:
    """Whoever looks for holes is shown what somebody has written or stored, and nobody has synced."""
    told = []
    for directory in pair.directories("seek"):
        descriptor = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(descriptor, 1 << 30)
            os.pwrite(descriptor, b"data", 10 * PAGE)
            seen = [
                os.lseek(descriptor, at, whence) for at in (0, 10 * PAGE) for whence in (os.SEEK_DATA, os.SEEK_HOLE)
            ]
            os.pwrite(descriptor, b"more", 0)
            os.pwrite(descriptor, b"last", (1 << 30) - 4)
            if pair.abilities.mapped_writes:
                with mmap.mmap(descriptor, PAGE, offset=300 * PAGE) as mapping:
                    mapping[5] = 1
                    seen.append(os.lseek(descriptor, 290 * PAGE, os.SEEK_DATA))
            seen += [os.lseek(descriptor, at, os.SEEK_DATA) for at in (1, PAGE, 11 * PAGE, 301 * PAGE)]
        finally:
            os.close(descriptor)
        subprocess.run(["cp", "file", "copy"], cwd=directory, check=True, timeout=20)
        told.append((seen, (directory / "copy").stat().st_blocks))
    assert told[1] == told[0]


def test_truncation_in_vain_of_a_file_without_pages_stamps_it_where_the_kernel_keeps_no_times(pair: Pair) -> None:
    told = []
    for directory in pair.directories("in vain"):
        path = directory / "file"
        path.touch()
        os.truncate(path, 10)
        os.utime(path, (0, 0))
        os.truncate(path, 10)
        told.append(path.stat().st_mtime == 0)
    assert told == [True, pair.configuration.is_collecting or pair.configuration.content == "shared"]


def test_the_times_of_a_fifo_are_not_told_by_what_goes_through_it(pair: Pair) -> None:
    stamps = []
    for directory in pair.directories("fifo"):
        os.mkfifo(directory / "fifo")
        descriptor = os.open(directory / "fifo", os.O_RDWR)
        try:
            os.utime(descriptor, ns=(5, 5))
            os.write(descriptor, b"through")
            stamps.append(os.fstat(descriptor).st_mtime_ns == 5)
        finally:
            os.close(descriptor)
    assert stamps == [False, True]


def test_set_group_id_without_the_right_to_execute_stays_behind_a_foreign_change(pair: Pair) -> None:
    modes = []
    for root in pair.directories("set-group-id"):
        world = World()
        perform(Step(ops.Make(b"file", 0o600)), world, root)
        perform(Step(ops.Chmod(b"file", 0o2666)), world, root)
        assert perform(Step(ops.Truncate(b"file", 5), user=1000), world, root) is None
        modes.append(oct((root / "file").stat().st_mode))
    assert modes == ["0o100666", "0o102666"]


def test_chown_of_nothing_leaves_set_user_id_and_set_group_id(pair: Pair) -> None:
    assert not pair.abilities.chown_of_nothing
    modes = []
    for directory in pair.directories("chown"):
        (directory / "file").touch()
        (directory / "file").chmod(0o6755)
        os.chown(directory / "file", -1, -1)
        modes.append(oct((directory / "file").stat().st_mode))
    assert modes == ["0o100755", "0o106755"]


def test_a_seek_from_the_end_of_a_directory_is_from_its_size(pair: Pair) -> None:
    ends = []
    for directory in pair.directories("end"):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            ends.append(outcome(os.lseek, descriptor, 0, os.SEEK_END))
        finally:
            os.close(descriptor)
    assert ends == [Failed("EINVAL"), 40]


@on_pyfuse3
def test_xattr_flags_that_exclude_each_other_are_taken_for_the_first(pair: Pair) -> None:
    path = pair.directories("flags")[1]
    both = os.XATTR_CREATE | os.XATTR_REPLACE
    os.setxattr(path, "user.a", b"value", both)
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.a", b"other", both)
    assert os.getxattr(path, "user.a") == b"value"


def test_a_shared_mapping_needs_the_page_cache(pair: Pair) -> None:
    results = []
    for root in pair.directories("mapping"):
        (root / "file").write_bytes(b"data" * PAGE)
        world = World({0: os.open(root / "file", os.O_RDWR)})
        try:
            results.append(perform(Step(ops.MmapWrite(0, Pattern(1, PAGE), 1)), world, root))
        finally:
            world.close()
    assert results == [PAGE, PAGE if pair.abilities.mapped_writes else Failed("ENODEV")]


# -- listings ---------------------------------------------------------------------------------------------------------


def test_a_listing_shows_each_entry_that_stayed_once_while_others_come_and_go(pair: Pair) -> None:
    directory = pair.directories("listing")[1]
    for number in range(300):
        (directory / f"{number} stays").touch()
        (directory / f"{number} goes").touch()
    descriptor = os.open(directory, os.O_RDONLY)
    names: list[bytes] = []
    try:
        rounds = 0
        while entries := getdents(descriptor, 1000):
            names += [entry.name for entry in entries]
            (directory / f"{rounds} goes").unlink(missing_ok=True)
            (directory / f"{299 - rounds} goes").unlink(missing_ok=True)
            (directory / f"{rounds} comes").touch()
            rounds += 1
    finally:
        os.close(descriptor)
    assert rounds > 10
    stayed = [name for name in names if name.endswith(b"stays")]
    assert sorted(stayed) == sorted(b"%d stays" % number for number in range(300))
    assert len(names) == len(set(names))


def test_a_rewound_listing_shows_what_is_there_now(pair: Pair) -> None:
    listings = []
    for directory in pair.directories("rewound"):
        (directory / "first").touch()
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            told = [ops.ListHandle(0).call(descriptor)]
            (directory / "second").mkdir()
            told.append(ops.ListHandle(0).call(descriptor))
            (directory / "first").unlink()
            told.append(ops.ListHandle(0).call(descriptor))
        finally:
            os.close(descriptor)
        listings.append(told)
    assert listings[1] == listings[0]


# -- the comparison itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (ops.Make(b"new", 0o644), "'new' should not be there"),
        (ops.Unlink(b"link"), "'link' is missing"),
        (ops.Chmod(b"file", 0o640), "'file' mode"),
        (ops.Chown(b"file", 5, -1, True), "'file' owner"),
        (ops.Chown(b"file", -1, 5, True), "'file' owner"),
        (ops.Truncate(b"file", 9), "'file' size"),
        (ops.Truncate(b"file", 1 << 41), "'file' size"),
        (ops.Utimens(b"file", 5, 0, True), "'file' accessed"),
        (ops.Utimens(b"file", 0, 5, True), "'file' modified"),
        (ops.UtimensNow(b"file"), "'file' modified"),
        (ops.SetXattr(b"file", b"user.a", b"v", 0, True), "'file' xattrs"),
        (ops.Link(b"file", b"directory/link", False), "'file' links"),
    ],
)
def test_the_comparison_notices(tmp_path: Path, operation: ops.Operation, told: str) -> None:
    roots = [tmp_path / "one", tmp_path / "other"]
    for root in roots:
        root.mkdir()
        (root / "directory").mkdir()
        (root / "file").write_bytes(b"0123456789")
        (root / "other").write_bytes(b"0123456789")
        os.utime(root / "file", ns=(0, 0))
        (root / "link").symlink_to("target")
    assert differences(*(snapshot(root) for root in roots)) == []
    assert perform(Step(operation), World(), roots[1]) is None
    assert any(told in line for line in differences(*(snapshot(root) for root in roots)))


def test_the_comparison_notices_other_content_links_targets_and_types(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "other"]
    for root, content, target, links in zip(roots, (b"a", b"b"), ("x", "y"), ("13", "23"), strict=True):
        root.mkdir()
        (root / "content").write_bytes(content)
        (root / "symlink").symlink_to(target)
        for name in "123":
            (root / name).touch()
        (root / "4").hardlink_to(root / links[0])
        (root / "5").hardlink_to(root / links[1])
    (roots[0] / "type").mkdir()
    os.mkfifo(roots[1] / "type")
    lines = differences(*(snapshot(root) for root in roots))
    for told in ("'content' content", "'symlink' target", "'4' same_file", "'type' kind"):
        assert any(told in line for line in lines), told


def test_the_comparison_notices_data_far_out_in_a_sparse_file(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "other"]
    for root in roots:
        root.mkdir()
        (root / "file").touch()
        os.truncate(root / "file", 1 << 40)
    assert differences(*(snapshot(root) for root in roots)) == []
    descriptor = os.open(roots[1] / "file", os.O_RDWR)
    os.pwrite(descriptor, b"x", (1 << 39) + 5)
    os.close(descriptor)
    assert any("'file' content" in line for line in differences(*(snapshot(root) for root in roots)))


def test_a_step_that_differs_is_reported_with_the_program_that_led_to_it(tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "other"]
    for root in roots:
        root.mkdir()

    class Marks(ops.Operation):
        def run(self, world: World) -> object:
            return Path.cwd().parts[-3]

        def __repr__(self) -> str:
            return "Marks()"

    with pytest.raises(AssertionError) as raised:
        compare([Step(ops.Mkdir(b"a", 0o755)), Step(Marks(), user=1000)], roots[0], roots[1])
    assert "Step(Mkdir(path=b'a', mode=493)),\n    Step(Marks(), user=1000)" in str(raised.value)
    assert "gives 'one' on the reference, but 'other'" in str(raised.value)
