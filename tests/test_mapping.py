"""Mapped files, and the ways around read(2) and write(2), do what they do on tmpfs, beside each other and at once.

A mapping that is handed to a system call, not touched by the process itself, gives EFAULT where a touch would be a
SIGBUS: so generated programs can go behind the end of a file.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compare import Failed, outcome
from support.generating import generated
from support.mounts import Pair, configurations, mounted_pair
from support.syscalls import linkat
from support.workers import run_at_once

PAGE = mmap.PAGESIZE
PAGES = 4
CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with mounted_pair(tmp_path_factory.mktemp("pair"), request.param) as pair:
        yield pair


def alike(pair: Pair, name: str, use: Callable[[Path], object]) -> object:
    """What ``use`` comes to in a new directory, which must be the same on both."""
    expected, actual = (outcome(use, directory) for directory in pair.directories(name))
    assert actual == expected
    return expected


@contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- mmap -------------------------------------------------------------------------------------------------------------


class Mapped:
    """A file of some pages, two handles on it, and its mappings."""

    def __init__(self, directory: Path, kinds: dict[str, int]) -> None:
        self._open = ExitStack()
        self.descriptor = self._open.enter_context(opened(directory / "file"))
        self.second = self._open.enter_context(opened(directory / "file"))
        os.ftruncate(self.descriptor, PAGES * PAGE)
        self.mappings = {
            kind: self._open.enter_context(closing(mmap.mmap(self.second, PAGES * PAGE, flags)))
            for kind, flags in kinds.items()
        }
        os.ftruncate(self.descriptor, 0)
        self._pipe = os.pipe()
        for end in self._pipe:
            self._open.callback(os.close, end)

    def load(self, kind: str, offset: int, length: int) -> bytes:
        """Reads the mapping: EFAULT where it has no memory."""
        with memoryview(self.mappings[kind]) as view, view[offset : offset + length] as part:
            return os.read(self._pipe[0], os.write(self._pipe[1], part))

    def store(self, kind: str, offset: int, data: bytes) -> int:
        """Writes into the mapping, but not between the end and its page's: what comes of that is not said anywhere."""
        size = os.fstat(self.second).st_size
        if offset // PAGE * PAGE < size:
            data = data[: max(size - offset, 0)]
        if not data:
            return 0
        os.write(self._pipe[1], data)
        try:
            with memoryview(self.mappings[kind]) as view, view[offset : offset + len(data)] as part:
                return os.readv(self._pipe[0], [part])
        except OSError:
            os.read(self._pipe[0], len(data))
            raise

    def state(self) -> tuple[int, bytes]:
        return os.fstat(self.second).st_size, os.pread(self.second, PAGES * PAGE, 0)

    def close(self) -> None:
        self._open.close()


Action = Callable[[Mapped], object]


@dataclass(frozen=True)
class Step:
    name: str
    arguments: tuple[object, ...]
    action: Action

    def __repr__(self) -> str:
        return f"{self.name}{self.arguments}"


def _step(name: str, action: Callable[..., object], *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.tuples(*arguments).map(lambda given: Step(name, given, lambda mapped: action(mapped, *given)))


# Near the edges of pages, which is where things go wrong.
offsets = st.builds(
    lambda page, near: min(max(page * PAGE + near, 0), PAGES * PAGE - 100),
    st.integers(0, PAGES - 1),
    st.sampled_from([0, 1, 50, 2000, PAGE - 60, PAGE - 1]),
)
data = st.builds(lambda byte, length: bytes([byte]) * length, st.integers(1, 255), st.sampled_from([1, 7, 100]))


def steps(kinds: dict[str, int]) -> st.SearchStrategy[Step]:
    kind = st.sampled_from(sorted(kinds))
    through = st.sampled_from(["descriptor", "second"])
    return st.one_of(
        _step("store", lambda mapped, *given: mapped.store(*given), kind, offsets, data),
        _step("load", lambda mapped, *given: mapped.load(*given), kind, offsets, st.sampled_from([1, 100])),
        _step(
            "pwrite",
            lambda mapped, handle, data, offset: os.pwrite(getattr(mapped, handle), data, offset),
            through,
            data,
            offsets,
        ),
        _step(
            "pread",
            lambda mapped, handle, offset: os.pread(getattr(mapped, handle), PAGE, offset),
            through,
            offsets,
        ),
        _step("truncate", lambda mapped, size: os.ftruncate(mapped.descriptor, size), offsets),
        _step("fsync", lambda mapped: os.fsync(mapped.descriptor)),
        _step("msync", lambda mapped: [mapping.flush() for mapping in mapped.mappings.values()]),
        _step("dontneed", lambda mapped: [mapping.madvise(mmap.MADV_DONTNEED) for mapping in mapped.mappings.values()]),
    )


def run_alike(pair: Pair, program: list[Step], kinds: dict[str, int]) -> None:
    directories = pair.directories("mapped")
    with ExitStack() as stack:
        expected, actual = (stack.enter_context(closing(Mapped(directory, kinds))) for directory in directories)
        for number, step in enumerate(program):
            told = [outcome(step.action, mapped) for mapped in (expected, actual)]
            assert told[1] == told[0], program[: number + 1]
        assert actual.state() == expected.state(), program
    assert (directories[1] / "file").read_bytes() == (directories[0] / "file").read_bytes(), program


@generated()
@given(st.data())
def test_shared_mappings_beside_writes_and_truncations_show_what_is_there(pair: Pair, data: st.DataObject) -> None:
    """Through one mapping that may be written, one that may not, and two handles."""
    if not pair.abilities.mapped_writes:
        return
    kinds = {"shared": mmap.MAP_SHARED}
    program = data.draw(st.lists(steps(kinds), min_size=20, max_size=40))
    run_alike(pair, program, kinds)


@generated()
@given(st.data())
def test_what_is_stored_in_a_private_mapping_is_nobody_elses(pair: Pair, data: st.DataObject) -> None:
    """What a private mapping shows of later writes is not said anywhere: it is not looked at before it is stored to."""
    kinds = {"private": mmap.MAP_PRIVATE}
    program = [step for step in data.draw(st.lists(steps(kinds), min_size=20, max_size=40)) if step.name != "load"]
    if not pair.abilities.mapped_writes:  # Nor, without the page cache, whether it has memory behind the end.
        program = [step for step in program if step.name != "store"]
    run_alike(pair, program, kinds)


def test_a_private_mapping_shows_the_file_and_keeps_its_own_changes(pair: Pair) -> None:
    def use(directory: Path) -> object:
        (directory / "file").write_bytes(b"file" * PAGE)
        with (
            opened(directory / "file", os.O_RDONLY) as descriptor,
            closing(mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)) as mapping,
        ):
            shown = mapping[:]
            mapping[10:14] = b"mine"
            return shown == b"file" * PAGE, mapping[8:16], (directory / "file").read_bytes()[8:16]

    assert alike(pair, "private", use) == (True, b"fimineel"[:2] + b"mine" + b"le", b"filefile")


@pytest.mark.parametrize("flags", ["shared", "private"])
def test_a_touch_behind_the_end_is_a_bus_error(pair: Pair, flags: str) -> None:
    if flags == "shared" and not pair.abilities.mapped_writes:
        return

    def use(directory: Path) -> object:
        path = directory / "file"
        path.write_bytes(bytes(2 * PAGE))
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            with opened(path) as descriptor:
                kind = mmap.MAP_SHARED if flags == "shared" else mmap.MAP_PRIVATE
                mapping = mmap.mmap(descriptor, 0, kind, mmap.PROT_READ)
                os.ftruncate(descriptor, 100)
                mapping[PAGE - 1]  # In the last page, which is there as a whole.
                mapping[PAGE]
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert alike(pair, "bus error", use) == -signal.SIGBUS


def test_a_mapping_outlives_its_handle_and_its_name(pair: Pair) -> None:
    if not pair.abilities.mapped_writes:
        return

    def use(directory: Path) -> object:
        path = directory / "file"
        path.write_bytes(b"x" * PAGE)
        with opened(path) as descriptor:
            mapping = mmap.mmap(descriptor, PAGE)
        (directory / "other").hardlink_to(path)
        path.unlink()
        with closing(mapping):
            mapping[0:5] = b"still"
            mapping.flush()
            (directory / "other").unlink()
            return mapping[0:6]

    assert alike(pair, "outlives", use) == b"stillx"


def test_processes_that_map_one_file_see_each_others_stores(pair: Pair) -> None:
    """Each adds to counters of its own in pages that all share, while another writes and truncates behind them."""
    if not pair.abilities.mapped_writes:
        return
    path = pair.directories("counters")[1] / "file"
    path.write_bytes(bytes(2 * PAGE))
    rounds = 2000

    def count(worker: int) -> None:
        with opened(path) as descriptor, closing(mmap.mmap(descriptor, PAGE)) as mapping:
            counter = memoryview(mapping).cast("Q")
            for _ in range(rounds):
                counter[worker] += 1
            counter.release()

    def disturb() -> None:
        with opened(path) as descriptor:
            for number in range(200):
                os.ftruncate(descriptor, PAGE + number % 3 * 1000)
                os.pwrite(descriptor, b"z" * 100, PAGE + 50)
                os.fsync(descriptor)

    run_at_once([*(lambda worker=worker: count(worker) for worker in range(4)), disturb])
    counters = array.array("Q", path.read_bytes()[: 8 * 4])
    assert list(counters) == [rounds] * 4


# -- beside the page cache --------------------------------------------------------------------------------------------


def test_direct_reads_and_writes_and_cached_ones_see_each_other(pair: Pair) -> None:
    def use(directory: Path) -> object:
        told: list[object] = []
        with opened(directory / "file") as cached, opened(directory / "file", os.O_RDWR | os.O_DIRECT) as direct:
            with closing(mmap.mmap(-1, 2 * PAGE)) as aligned:
                os.pwrite(cached, b"c" * 3 * PAGE, 0)
                told.append((os.preadv(direct, [aligned], PAGE), aligned[:10]))
                aligned[:] = b"d" * 2 * PAGE
                told.append(os.pwritev(direct, [aligned], 0))
                told.append(os.pread(cached, 4 * PAGE, 0))
                os.pwrite(cached, b"again", PAGE)
                told.append((os.preadv(direct, [aligned], PAGE), aligned[:10]))
                told.append((os.preadv(direct, [aligned], 2 * PAGE), aligned[:10]))
                told.append(os.preadv(direct, [aligned], 3 * PAGE))
                told.append(os.pwritev(direct, [aligned], 5 * PAGE))
            told.append(os.fstat(cached).st_size)
        return told, (directory / "file").read_bytes()

    alike(pair, "direct", use)


def test_appends_of_several_processes_lie_behind_each_other_whole(pair: Pair) -> None:
    path = pair.directories("append")[1] / "log"
    record, writers, records = 300, 4, 200

    def write(worker: int) -> None:
        with opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
            for number in range(records):
                line = f"{worker} {number} ".ljust(record - 1, chr(ord("a") + worker)) + "\n"
                assert os.write(descriptor, line.encode()) == record

    run_at_once([lambda worker=worker: write(worker) for worker in range(writers)])  # type: ignore[misc]
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == writers * records
    assert all(len(line) == record for line in lines)
    for worker in range(writers):
        own = [int(line.split()[1]) for line in lines if line.split()[0] == str(worker)]
        assert own == list(range(records))


@pytest.mark.parametrize("how", ["sendfile", "splice", "copy_file_range"])
def test_the_kernel_moves_bytes_between_files_and_pipes(pair: Pair, how: str) -> None:
    content = bytes(range(256)) * 1500

    def by_sendfile(source: int, target: int) -> object:
        left, right = socket.socketpair()
        with left, right:
            sent = os.sendfile(left.fileno(), source, 100, 50_000)
            return sent, right.recv(sent, socket.MSG_WAITALL), os.sendfile(target, source, 5, len(content))

    def by_splice(source: int, target: int) -> object:
        reading, writing = os.pipe()
        try:
            moved = []
            while count := os.splice(source, writing, 50_000):
                moved.append(count)
                while count > 0:
                    count -= os.splice(reading, target, count)
            return sum(moved)
        finally:
            os.close(reading)
            os.close(writing)

    def by_copy(source: int, target: int) -> object:
        told = [os.copy_file_range(source, target, 100_000, 10, 3)]
        told.append(os.copy_file_range(source, target, len(content), 300_000, 200_000))
        told.append(os.copy_file_range(source, target, 10, len(content), 0))
        return told

    move = {"sendfile": by_sendfile, "splice": by_splice, "copy_file_range": by_copy}[how]

    def use(directory: Path) -> object:
        (directory / "source").write_bytes(content)
        with opened(directory / "source") as source, opened(directory / "target") as target:
            told = move(source, target)
        return told, (directory / "target").read_bytes()

    alike(pair, how, use)


def test_vectored_reads_and_writes_take_flags_as_on_tmpfs(pair: Pair) -> None:
    def use(directory: Path) -> object:
        told: list[object] = []
        with opened(directory / "file") as descriptor:
            for flags in (0, os.RWF_DSYNC, os.RWF_SYNC, os.RWF_APPEND, os.RWF_HIPRI, 1 << 30):
                told.append(outcome(os.pwritev, descriptor, [b"one", b"", b"two" * 2000], 3, flags))
                told.append(os.fstat(descriptor).st_size)
            buffers = [bytearray(5), bytearray(6000), bytearray(10)]
            told += [outcome(os.preadv, descriptor, buffers, 1), buffers]
            told.append(outcome(os.preadv, descriptor, buffers, 1, 1 << 30))
            told.append(outcome(os.preadv, descriptor, buffers, 1 << 40))
        return told

    alike(pair, "vectors", use)


def test_read_ahead_and_advice_change_nothing(pair: Pair) -> None:
    def use(directory: Path) -> object:
        content = os.urandom(1) * 500_000
        (directory / "file").write_bytes(content)
        with opened(directory / "file") as descriptor:
            libc = ctypes.CDLL(None, use_errno=True)
            told: list[object] = [libc.readahead(descriptor, ctypes.c_int64(0), ctypes.c_size_t(1 << 20))]
            advice = (os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED, os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_NOREUSE)
            for one in advice:
                os.posix_fadvise(descriptor, 0, 0, one)
                told.append(os.pread(descriptor, 1 << 20, 0) == content)
            told.append(outcome(os.posix_fadvise, descriptor, 0, 0, 99))
        return told

    alike(pair, "advice", use)


# -- what is told of files --------------------------------------------------------------------------------------------

_STATX_BASIC = 0x7FF
_STATX_BTIME = 0x800
_SYS_STATX = {"x86_64": 332}.get(os.uname().machine, 291)


def statx(path: Path, wanted: int, flags: int = 0) -> tuple[int, tuple[int, ...]]:
    """The mask of what the kernel says it knows, and of that: links, owner, group, mode, size."""
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = ctypes.c_int(-100), os.fsencode(path), ctypes.c_int(flags), ctypes.c_uint(wanted), buffer
    if libc.syscall(ctypes.c_long(_SYS_STATX), *arguments) != 0:
        raise OSError(ctypes.get_errno(), "statx")
    mask, _, _, links, owner, group, mode = struct.unpack_from("=IIQIIIH", buffer.raw)
    size = struct.unpack_from("=Q", buffer.raw, 40)[0]
    return mask, (links, owner, group, mode, size)


def test_statx_tells_what_stat_does(pair: Pair) -> None:
    def use(directory: Path) -> object:
        (directory / "file").write_bytes(b"four")
        (directory / "link").symlink_to("file")
        told: list[object] = []
        for name in ("file", "link", "."):
            mask, rest = statx(directory / name, _STATX_BASIC, 0x100)
            told.append((mask & _STATX_BASIC, rest if name != "." else rest[:-1]))
        told.append(statx(directory / "link", _STATX_BASIC)[1])
        # AT_STATX_FORCE_SYNC, and AT_STATX_DONT_SYNC.
        told += [statx(directory / "file", _STATX_BASIC, flags)[1] for flags in (0x2000, 0x4000)]
        return told, outcome(statx, directory / "file", _STATX_BASIC, 0x6000)

    told = alike(pair, "statx", use)
    assert isinstance(told, tuple)
    assert told[1] == Failed("EINVAL")


def test_inotify_tells_what_happens_as_on_tmpfs(pair: Pair) -> None:
    def use(directory: Path) -> object:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(os.O_NONBLOCK)
        try:
            watch = libc.inotify_add_watch(descriptor, os.fsencode(directory), 0xFFF)
            assert watch > 0
            (directory / "file").write_bytes(b"content")
            (directory / "file").read_bytes()
            (directory / "file").chmod(0o600)
            os.truncate(directory / "file", 3)
            os.setxattr(directory / "file", "user.a", b"b")
            (directory / "file").rename(directory / "other")
            (directory / "new").mkdir()
            (directory / "link").symlink_to("other")
            os.link(directory / "other", directory / "hard link")
            (directory / "hard link").unlink()
            (directory / "other").unlink()
            (directory / "new").rmdir()
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            assert poll.poll(0)
            return list(_events(os.read(descriptor, 1 << 16)))
        finally:
            os.close(descriptor)

    told = alike(pair, "inotify", use)
    assert isinstance(told, list)
    assert len(told) > 15


def _events(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(buffer):
        _, mask, _, length = struct.unpack_from("=iIII", buffer, at)
        at += 16
        yield mask, buffer[at : at + length].rstrip(b"\0")
        at += length


def test_a_nameless_file_gets_a_name_where_a_channel_can_make_one(pair: Pair) -> None:
    """O_TMPFILE and linkat(2). Where it is not carried, the caller is told so, as by any file system without it."""

    def use(directory: Path) -> object:
        with opened(directory, os.O_RDWR | os.O_TMPFILE) as descriptor:
            os.write(descriptor, b"nameless")
            listed = list(directory.iterdir())
            linkat(f"/proc/self/fd/{descriptor}".encode(), os.fsencode(directory / "named"), follow=True)
        return listed, (directory / "named").read_bytes()

    expected, actual = (outcome(use, directory) for directory in pair.directories("nameless"))
    assert expected == ([], b"nameless")
    assert actual == (expected if pair.abilities.nameless_files else Failed("ENOTSUP"))


def test_a_nameless_file_can_be_made_in_a_directory_that_was_removed(pair: Pair) -> None:
    def use(directory: Path) -> object:
        removed = directory / "removed"
        removed.mkdir()
        with opened(removed, os.O_RDONLY | os.O_DIRECTORY) as within:
            removed.rmdir()
            with opened(Path(f"/proc/self/fd/{within}"), os.O_RDWR | os.O_TMPFILE) as descriptor:
                linkat(f"/proc/self/fd/{descriptor}".encode(), os.fsencode(directory / "named"), follow=True)
        return (directory / "named").stat().st_nlink

    expected, actual = (outcome(use, directory) for directory in pair.directories("nameless"))
    assert expected == 1
    assert actual == (expected if pair.abilities.nameless_files else Failed("ENOTSUP"))


def test_leases_are_given_or_refused_as_on_tmpfs(pair: Pair) -> None:
    def use(directory: Path) -> object:
        with opened(directory / "file", os.O_RDWR | os.O_CREAT) as descriptor:
            told: list[object] = [outcome(fcntl.fcntl, descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)]
            told += [outcome(fcntl.fcntl, descriptor, fcntl.F_GETLEASE)]
            told += [outcome(fcntl.fcntl, descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)]
            return told

    alike(pair, "leases", use)
