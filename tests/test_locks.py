"""flock(2), fcntl(2) record locks and open file description locks, across processes, exclude as they do on tmpfs."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.mounts import Pair, configurations, mounted_pair
from support.workers import end, pause, run_at_once, start

CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))

_F_OFD_GETLK, _F_OFD_SETLK, _F_OFD_SETLKW = 36, 37, 38
_FLOCK = struct.Struct("hhqqi4x")

Lock = Callable[[int, int], None]
"""Takes a lock on the whole of an open file: ``fcntl.LOCK_*``."""


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with mounted_pair(tmp_path_factory.mktemp("pair"), request.param) as pair:
        yield pair


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def by_description(descriptor: int, operation: int, start: int = 0, length: int = 0) -> None:
    """An open file description lock, which Python's ``fcntl`` has no function for."""
    kind = {fcntl.LOCK_SH: fcntl.F_RDLCK, fcntl.LOCK_EX: fcntl.F_WRLCK, fcntl.LOCK_UN: fcntl.F_UNLCK}
    command = _F_OFD_SETLK if operation & fcntl.LOCK_NB else _F_OFD_SETLKW
    packed = _FLOCK.pack(kind[operation & ~fcntl.LOCK_NB], os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, command, packed)


def of_processes(descriptor: int, operation: int) -> None:
    fcntl.lockf(descriptor, operation)


KINDS: dict[str, Lock] = {"flock": fcntl.flock, "fcntl": of_processes, "OFD": by_description}


def is_free(lock: Lock, path: Path, operation: int) -> bool:
    """Whether a process of its own gets the lock at once."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            with opened(path) as descriptor:
                lock(descriptor, operation | fcntl.LOCK_NB)
            status = 0
        except OSError as error:
            status = 1 if error.errno in (errno.EAGAIN, errno.EACCES) else 2
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_excludes_other_processes_until_it_is_given_up(pair: Pair, kind: str) -> None:
    lock = KINDS[kind]
    for directory in pair.directories("exclude"):
        path = directory / "file"
        with opened(path) as descriptor:
            lock(descriptor, fcntl.LOCK_SH)
            assert (is_free(lock, path, fcntl.LOCK_SH), is_free(lock, path, fcntl.LOCK_EX)) == (True, False)
            lock(descriptor, fcntl.LOCK_EX)
            assert (is_free(lock, path, fcntl.LOCK_SH), is_free(lock, path, fcntl.LOCK_EX)) == (False, False)
            lock(descriptor, fcntl.LOCK_UN)
            assert is_free(lock, path, fcntl.LOCK_EX)
            lock(descriptor, fcntl.LOCK_EX)
        assert is_free(lock, path, fcntl.LOCK_EX)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_is_free_when_its_process_is_killed(pair: Pair, kind: str) -> None:
    lock = KINDS[kind]
    for directory in pair.directories("killed"):
        path = directory / "file"
        reading, writing = os.pipe()

        def hold(path: Path = path, writing: int = writing) -> None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
            lock(descriptor, fcntl.LOCK_EX)
            os.write(writing, b"x")
            signal.pause()

        holder = start(hold)
        assert os.read(reading, 1) == b"x"
        assert not is_free(lock, path, fcntl.LOCK_EX)
        end(holder)
        assert is_free(lock, path, fcntl.LOCK_EX)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_for_a_lock_gets_it_in_the_end(pair: Pair, kind: str) -> None:
    """Processes that read a number, and write one more, each under the lock: no step is lost."""
    lock, rounds = KINDS[kind], 100
    path = pair.directories("wait")[1] / "number"
    path.write_text("0")

    def count() -> None:
        with opened(path) as descriptor:
            for _ in range(rounds):
                lock(descriptor, fcntl.LOCK_EX)
                number = int(os.pread(descriptor, 20, 0))
                os.pwrite(descriptor, str(number + 1).encode(), 0)
                lock(descriptor, fcntl.LOCK_UN)

    run_at_once([count] * 4)
    assert path.read_text() == str(4 * rounds)


def test_record_locks_are_of_ranges_and_tell_who_holds_them(pair: Pair) -> None:
    told = []
    for directory in pair.directories("ranges"):
        path = directory / "file"
        with opened(path) as descriptor:
            fcntl.lockf(descriptor, fcntl.LOCK_EX, 100, 50)
            reading, writing = os.pipe()

            def ask(path: Path = path, writing: int = writing) -> None:
                with opened(path) as other:
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 50, 0)
                    fcntl.lockf(other, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 150)
                    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                    os.write(writing, fcntl.fcntl(other, fcntl.F_GETLK, asked))

            run_at_once([ask])
            answer = _FLOCK.unpack(os.read(reading, _FLOCK.size))
            assert answer[-1] == os.getpid()
            told.append(answer)
            os.close(reading)
            os.close(writing)
    assert told[0] == told[1] == (fcntl.F_WRLCK, os.SEEK_SET, 50, 100, os.getpid())


def test_closing_any_handle_ends_a_processes_record_locks_but_not_those_of_a_description(pair: Pair) -> None:
    for directory in pair.directories("close"):
        path = directory / "file"
        with opened(path) as descriptor:
            of_processes(descriptor, fcntl.LOCK_EX)
            with opened(path):
                pass
            assert is_free(of_processes, path, fcntl.LOCK_EX)
            by_description(descriptor, fcntl.LOCK_EX)
            with opened(path):
                pass
            assert not is_free(by_description, path, fcntl.LOCK_EX)


def test_a_deadlock_of_record_locks_is_found_and_one_of_the_two_is_refused(pair: Pair) -> None:
    for directory in pair.directories("deadlock"):
        path = directory / "file"
        held, told = os.pipe(), os.pipe()

        def embrace(own: int, path: Path = path, held: tuple[int, int] = held, told: tuple[int, int] = told) -> None:
            with opened(path) as descriptor:
                fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, own)
                os.write(held[1], b"x")
                while _waiting(held[0]) < 2:
                    pause(0.001)
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, 1 - own)
                except OSError as error:
                    os.write(told[1], bytes([error.errno or 0]))
                else:
                    os.write(told[1], b"\0")

        run_at_once([lambda: embrace(0), lambda: embrace(1)])
        assert sorted(os.read(told[0], 2)) == [0, errno.EDEADLK]
        for descriptor in (*held, *told):
            os.close(descriptor)


def _waiting(pipe: int) -> int:
    """Bytes that wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
