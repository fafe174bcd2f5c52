"""At the limits: a file system that is full in bytes or in inodes, and the largest offsets and sizes.

The same is done on a tmpfs with the same limits. Under the writeback cache the kernel collects what is written, and
asks for room before that when little is left: a write(2) is taken whole then, or not at all. One that is larger than
what is left, and comes before little is left, is taken; then fsync(2) and close(2) tell of the lack of space, as on a
disk. What is told by which call is in ``test_full``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from conftest import alone, wait_until
from support import acl
from support import operations as ops
from support.compare import Failed, Step, compare, outcome
from support.mounts import Pair, configurations, mounted_pair
from support.operations import DEFAULT_LIST, Pattern
from support.programs import file_capability
from support.syscalls import linkat
from support.tree import differences, snapshot

PAGE = 4096
SIZE = 4 << 20
INODES = 64
LIST = acl.packed(acl.owner(7), acl.user(1000, 7), acl.group(5), acl.mask(7), acl.other(0))
CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that is soon full. Every test leaves it empty."""
    with mounted_pair(tmp_path_factory.mktemp("tmpfs"), request.param, size=SIZE, inodes=INODES) as pair:
        yield pair


@pytest.fixture(autouse=True)
def _left_empty(pair: Pair) -> Iterator[None]:
    """Fails a test behind which space does not come back."""
    yield
    for root in (pair.reference, pair.subject):
        for path in root.iterdir():
            subprocess.run(["rm", "-rf", path], check=True)
        wait_until(partial(is_empty, root), f"space and inodes of {root} come back")


def used(root: Path) -> tuple[int, int]:
    """Bytes and inodes in use; a root directory is one inode."""
    told = os.statvfs(root)
    return (told.f_blocks - told.f_bfree) * told.f_frsize, told.f_files - told.f_ffree


def is_empty(root: Path) -> bool:
    return used(root) == (0, 1)


def holds_no_bytes(root: Path) -> bool:
    return used(root)[0] == 0


def is_written_through(pair: Pair) -> bool:
    """Whether a write tells at once that there is no space for it."""
    return not pair.configuration.is_collecting


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_the_limits_are_told_as_on_tmpfs(pair: Pair) -> None:
    told = []
    for root in (pair.reference, pair.subject):
        status = os.statvfs(root)
        told.append(
            (status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize, status.f_files, status.f_ffree)
        )
    assert told[0] == (SIZE, SIZE, INODES, INODES - 1)
    assert told[1] == told[0]


def test_writes_fill_the_file_system_to_the_last_page(pair: Pair) -> None:
    if not is_written_through(pair):
        return
    results = []
    for directory in pair.directories("full"):
        descriptor = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
        told = []
        try:
            while (got := outcome(os.write, descriptor, Pattern(7, 100_000).bytes())) != Failed("ENOSPC"):
                told.append(got)
            told += [
                os.fstat(descriptor).st_size,
                used(directory)[0],
                outcome(os.pwrite, descriptor, b"x", 2 * SIZE),
            ]
            told += [os.fstat(descriptor).st_size, outcome(os.pwrite, descriptor, b"y" * 10_000, SIZE // 2)]
            told += [outcome(os.pwrite, descriptor, b"z" * 10_000, SIZE - 5000), os.fstat(descriptor).st_size]
            os.ftruncate(descriptor, SIZE - PAGE)
            told += [os.pwrite(descriptor, b"w" * 2 * PAGE, SIZE + 5), used(directory)[0]]
        finally:
            os.close(descriptor)
        results.append((told, snapshot(directory)))
    assert results[1][0] == results[0][0]
    assert differences(results[0][1], results[1][1]) == []


@pytest.mark.parametrize("how", ["fsync", "close", "fdatasync", "msync"])
def test_a_lack_of_space_is_never_silent(pair: Pair, how: str) -> None:
    """Somebody who writes, and then syncs or closes, is told by the one call or the other."""
    path = pair.directories("silent")[1] / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    told: list[object] = []
    try:
        told += [outcome(os.write, descriptor, bytes(range(250)) * 400) for _ in range(2 * SIZE // 100_000)]
        if how == "msync":
            subprocess.run(["sync", "-f", path], check=False)
        elif how != "close":
            told.append(outcome(os.fsync if how == "fsync" else os.fdatasync, descriptor))
    finally:
        told.append(outcome(os.close, descriptor))
    assert Failed("ENOSPC") in told
    assert used(path)[0] <= SIZE


@alone  # It drops caches of the whole machine.
def test_what_is_there_is_not_harmed_by_what_does_not_fit(pair: Pair) -> None:
    """A full file system refuses new pages alone: old ones can be written, and read as they were."""
    directory = pair.directories("harm")[1]
    kept = Pattern(5, SIZE // 2).bytes()
    (directory / "kept").write_bytes(kept)
    descriptor = os.open(directory / "kept", os.O_RDWR)
    other = os.open(directory / "other", os.O_RDWR | os.O_CREAT)
    try:
        told = [outcome(os.write, other, b"o" * SIZE), outcome(os.fsync, other)]
        assert Failed("ENOSPC") in told or told == [SIZE // 2, None]
        # While space is scarce, a write is taken whole or not at all.
        while outcome(os.write, other, b"o" * PAGE) == PAGE:
            pass
        assert outcome(os.pwrite, other, b"p" * PAGE, 3 * SIZE) == Failed("ENOSPC")
        assert outcome(os.fsync, other) is None
        assert used(directory)[0] == SIZE
        assert os.pwrite(descriptor, b"changed", PAGE - 3) == 7
        os.fsync(descriptor)
        kept = kept[: PAGE - 3] + b"changed" + kept[PAGE + 4 :]
        assert os.pread(descriptor, SIZE, 0) == kept
        os.ftruncate(other, PAGE)
        assert used(directory)[0] == SIZE // 2 + PAGE
        assert outcome(os.pwrite, descriptor, kept, SIZE // 2) == (
            SIZE // 2 - PAGE if is_written_through(pair) else Failed("ENOSPC")
        )
        assert outcome(os.fsync, descriptor) is None
        assert os.pread(descriptor, SIZE // 2, 0) == kept
    finally:
        with suppress(OSError):  # Once more, what fsync has told.
            os.close(other)
        os.close(descriptor)
    Path("/proc/sys/vm/drop_caches").write_text("1\n")
    assert (directory / "kept").read_bytes()[: SIZE // 2] == kept
    assert (directory / "other").read_bytes()[:PAGE] == b"o" * PAGE


@pytest.mark.parametrize("end", ["fsync", "close"])
def test_the_space_told_is_never_less_than_what_was_accepted(pair: Pair, end: str) -> None:
    """Accepted is what was synced or closed: what the kernel still holds back is told to nobody."""
    for directory in pair.directories("told"):
        accepted = 0
        for number in range(12):
            descriptor = os.open(directory / f"{number}", os.O_WRONLY | os.O_CREAT)
            accepted += os.write(descriptor, bytes([number + 1]) * (number + 1) * 3 * PAGE)
            if end == "fsync":
                os.fsync(descriptor)
            else:
                os.close(descriptor)
            assert used(directory)[0] == accepted
            if end == "fsync":
                os.close(descriptor)
            if number % 3 == 2:
                os.truncate(directory / f"{number}", PAGE)
                accepted -= (3 * (number + 1) - 1) * PAGE
                assert used(directory)[0] == accepted


def test_a_program_that_copies_too_much_fails_as_on_tmpfs(pair: Pair) -> None:
    told = []
    for directory in pair.directories("copy"):
        script = """
            head -c 3000000 /dev/zero | tr '\\0' a >first; cp first second && echo copied; echo status $?
            rm second; cp first third && echo copied; cmp -n 1000000 first third && echo same
            rm first third; head -c 3000000 /dev/zero | tr '\\0' b >again; md5sum again
        """
        done = subprocess.run(["sh", "-c", script], cwd=directory, capture_output=True, text=True, check=False)
        told.append((done.stdout, done.stderr.count(": No space left on device\n"), len(done.stderr.splitlines())))
    assert told[0][1] > 0
    assert told[1] == told[0]


def test_who_copies_what_does_not_fit_takes_set_user_id_away_as_on_tmpfs(pair: Pair) -> None:
    if not is_written_through(pair):
        return
    program = [
        *(Step(ops.Open(slot, b"%d" % slot, os.O_RDWR | os.O_CREAT, 0)) for slot in range(3)),
        Step(ops.Write(0, Pattern(1, PAGE))),
        Step(ops.Write(1, Pattern(1, SIZE))),
        Step(ops.Fchmod(2, 0o6777)),
        Step(ops.CopyRange(0, 2, 3, 0, 0), user=1000),
        Step(ops.Fstat(2)),
    ]
    compare(program, pair.reference, pair.subject, pair.abilities)


def test_space_that_is_freed_can_be_used_again_at_once(pair: Pair) -> None:
    for directory in pair.directories("again"):
        for round_number in range(6):
            path = directory / f"file {round_number}"
            path.write_bytes(bytes([round_number + 1]) * (SIZE - 100 * PAGE))
            assert path.read_bytes() == bytes([round_number + 1]) * (SIZE - 100 * PAGE)
            path.unlink()


def test_what_is_unlinked_and_open_keeps_its_space_until_it_is_closed(pair: Pair) -> None:
    for directory in pair.directories("open"):
        descriptor = os.open(directory / "file", os.O_RDWR | os.O_CREAT)
        os.write(descriptor, b"a" * (SIZE // 2))
        os.fsync(descriptor)
        (directory / "file").unlink()
        assert used(directory)[0] == SIZE // 2
        assert os.pread(descriptor, SIZE, 0) == b"a" * (SIZE // 2)
        os.close(descriptor)
        wait_until(partial(holds_no_bytes, directory), "the space of an unlinked file comes back")


def test_a_file_of_holes_may_be_larger_than_the_file_system(pair: Pair) -> None:
    results = []
    for directory in pair.directories("sparse"):
        path = directory / "sparse"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(descriptor, 1 << 40)
            for offset in (0, 5 << 30, (1 << 40) - 3, (3 << 40) + 1):
                os.pwrite(descriptor, b"data", offset)
            os.fsync(descriptor)
            read = [os.pread(descriptor, 8, offset) for offset in (0, 5 << 30, (1 << 40) - 5, 3 << 40, (3 << 40) + 4)]
        finally:
            os.close(descriptor)
        results.append((read, path.stat().st_size, path.stat().st_blocks, used(directory)[0]))
    assert results[0][0] == [b"data\0\0\0\0", b"data\0\0\0\0", b"\0\0data\0\0", b"\0data", b"a"]
    assert results[1] == results[0]


def test_reads_behind_the_end_find_nothing(pair: Pair) -> None:
    program = [
        ops.Open(0, b"a", os.O_RDWR | os.O_CREAT, 0o644),
        ops.Write(0, Pattern(1, 5000)),
        *(ops.Pread(0, 100, offset) for offset in (4990, 5000, 5001, 8191, 8192, 1 << 20, 1 << 40, (1 << 63) - 1)),
        ops.Pread(0, 100, -1),
        ops.Seek(0, 1 << 40, os.SEEK_SET),
        ops.Read(0, 10),
        ops.Read(0, 0),
    ]
    compare([Step(operation) for operation in program], pair.reference, pair.subject, pair.abilities)


def test_a_process_with_a_limit_on_file_sizes_is_held_to_it(pair: Pair) -> None:
    script = """
import os, resource, signal
signal.signal(signal.SIGXFSZ, lambda *_: print("SIGXFSZ"))
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
descriptor = os.open("file", os.O_RDWR | os.O_CREAT)
def attempt(call):
    try: print(call())
    except OSError as error: print(error.strerror)
attempt(lambda: os.write(descriptor, bytes(8000)))
attempt(lambda: os.write(descriptor, bytes(8000)))
attempt(lambda: os.write(descriptor, bytes(8000)))
attempt(lambda: os.ftruncate(descriptor, 10001))
attempt(lambda: os.fstat(descriptor).st_size)
"""
    told = [
        subprocess.run([sys.executable, "-c", script], cwd=directory, capture_output=True, text=True, check=True).stdout
        for directory in pair.directories("limit")
    ]
    assert told[0].split("\n") == [
        "8000",
        "2000",
        "SIGXFSZ",
        "File too large",
        "SIGXFSZ",
        "File too large",
        "10000",
        "",
    ]
    assert told[1] == told[0]


# -- inodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "fifo"])
def test_as_many_inodes_can_be_made_as_on_tmpfs_and_then_none_of_any_kind(pair: Pair, kind: str) -> None:
    makers: dict[str, Callable[[Path], object]] = {
        "file": lambda path: path.touch(exist_ok=False),
        "directory": lambda path: path.mkdir(),
        "symlink": lambda path: path.symlink_to("target"),
        "fifo": lambda path: os.mkfifo(path),
    }
    results = []
    for directory in pair.directories("inodes"):
        made = 0
        while outcome(makers[kind], directory / f"{made}") != Failed("ENOSPC"):
            made += 1
            assert made <= INODES
        refused = {other: outcome(maker, directory / "new") for other, maker in makers.items()}
        taken = {other: outcome(maker, directory / "0") for other, maker in makers.items()}
        (directory / "0").rename(directory / "renamed")
        results.append((made, refused, taken, used(directory)[1], sorted(path.name for path in directory.iterdir())))
    assert results[0][0] == INODES - 2
    assert results[1] == results[0]


def test_an_inode_that_is_freed_can_be_used_again_at_once(pair: Pair) -> None:
    for directory in pair.directories("again"):
        for number in range(INODES - 2):
            (directory / f"{number}").touch()
        for round_number in range(5):
            for number in range(INODES - 2):
                (directory / f"{number}").unlink()
                (directory / f"{number}").write_text(f"{round_number}")


def test_xattrs_take_the_space_of_inodes_as_on_tmpfs(pair: Pair) -> None:
    """A KiB is an inode. What takes another's place needs room beside it; short access control lists need none."""
    values = (
        ("user.a", 0, 0),
        ("user.a", 978, 0),
        ("user.a", 979, os.XATTR_REPLACE),
        ("security.b", 20_000, os.XATTR_CREATE),
        ("security.b", 5, os.XATTR_CREATE),
        ("user.c", 40_000, 0),
        ("trusted.d", 25_000, 0),
        ("security.b", 20_000, 0),
        ("user.missing", 5, os.XATTR_REPLACE),
        ("security.b", 10, 0),
        ("user.c", 40_000, 0),
    )
    results = []
    for top in pair.directories("xattrs"):
        file, other, directory = top / "file", top / "other", top / "directory"
        file.touch()
        other.touch()
        calls: list[Callable[[], object]] = [
            *(partial(os.setxattr, file, name, bytes(length), flags) for name, length, flags in values),
            partial(os.removexattr, file, "trusted.d"),
            partial(os.setxattr, other, "user.e", bytes(15_000)),
            directory.mkdir,
            partial(os.setxattr, directory, DEFAULT_LIST, LIST),
            (directory / "below").mkdir,
            partial(os.setxattr, other, "security.capability", file_capability),
            partial(os.chown, other, 5, 5),
        ]
        results.append([(outcome(call), used(top)) for call in calls])
        file.unlink()
    assert results[1] == results[0]
    assert any(result == Failed("ENOSPC") for result, _ in results[0])


def test_each_further_name_of_a_file_takes_an_inode_as_on_tmpfs(pair: Pair) -> None:
    """Of a file made without a name the first link takes none: it is the one that an inode comes with."""
    results: list[list[object]] = []
    for directory in pair.directories("links"):
        file, told = directory / "file", list[object]()
        results.append(told)
        file.touch()
        for number in range(5):
            (directory / f"{number}").hardlink_to(file)
        told += [file.stat().st_nlink, used(directory)[1]]
        (directory / "0").rename(directory / "1")
        told.append(used(directory)[1])
        (directory / "other").touch()
        (directory / "other").rename(directory / "2")
        told.append(used(directory)[1])
        (directory / "3").unlink()
        told.append(used(directory)[1])
        if pair.abilities.nameless_files:
            descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR)
            told.append(used(directory)[1])
            for name in ("first", "second"):
                linkat(f"/proc/self/fd/{descriptor}".encode(), os.fsencode(directory / name), follow=True)
                told.append(used(directory)[1])
            os.close(descriptor)
        made = 0
        while outcome((directory / f"link {made}").hardlink_to, file) != Failed("ENOSPC"):
            made += 1
        told += [made, used(directory)[1], outcome((directory / "4").hardlink_to, file)]
        (directory / "4").unlink()
        told.append(outcome((directory / "again").hardlink_to, file))
    assert results[1] == results[0]
    assert used(directory)[1] == INODES


def test_what_is_larger_than_usual_takes_the_space_of_inodes(pair: Pair) -> None:
    """Short targets and lists are in the inode. On tmpfs a long target has a page instead, and lists cost nothing."""
    _, directory = pair.directories("large")
    before = used(directory)
    users = [acl.user(uid, 7) for uid in range(400)]
    large = acl.packed(acl.owner(7), *users, acl.group(5), acl.mask(7), acl.other(0))

    def taken(call: Callable[[], object]) -> int:
        inodes = used(directory)[1]
        call()
        assert used(directory)[0] == before[0]
        return used(directory)[1] - inodes

    assert taken(lambda: (directory / "short").symlink_to("x" * 128)) == 1
    assert taken(lambda: (directory / "long").symlink_to("x" * 4000)) == 5
    assert taken((directory / "list").mkdir) == 1
    assert taken(lambda: os.setxattr(directory / "list", DEFAULT_LIST, LIST)) == 0
    assert taken((directory / "list" / "short").mkdir) == 1
    assert taken(lambda: os.setxattr(directory / "list", DEFAULT_LIST, large)) in (3, 4)
    assert taken((directory / "list" / "file").touch) in (4, 5)
    assert taken((directory / "list" / "directory").mkdir) in (7, 8)
    assert taken((directory / "list" / "file").unlink) in (-4, -5)
    made = 0
    while outcome((directory / "list" / f"{made}").mkdir) != Failed("ENOSPC"):
        made += 1
    assert 1 < made < INODES // 7


def test_a_directory_grows_with_its_entries_as_on_tmpfs(pair: Pair) -> None:
    listings = []
    for directory in pair.directories("sizes"):
        sizes = [directory.stat().st_size]
        for number in range(40):
            (directory / ("n" * 200 + f"{number}")).touch()
            sizes.append(directory.stat().st_size)
        listings.append(sizes)
    assert listings[1] == listings[0]
