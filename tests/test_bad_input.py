"""Odd names, wrong paths, signals at any time, processes that fight or die.

Each gets what tmpfs would give, and nothing is lost.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support import operations as ops
from support import workers
from support.compare import Failed, Step, compare, outcome
from support.mounts import Pair, configurations, more_than_cpus, mounted_pair
from support.operations import Pattern
from support.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2
from support.tree import differences, snapshot

CONFIGURATIONS = configurations([1, more_than_cpus()], ("writeback", "none"))
PROCESSES = 6
SIGNALS = 100


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with mounted_pair(tmp_path_factory.mktemp("tmpfs"), request.param) as pair:
        yield pair


# -- names and paths --------------------------------------------------------------------------------------------------

ODD_NAMES = [
    b"\n",
    b" ",
    b"-rf",
    b"*",
    b"\\",
    b"'\"`$(touch pwned)",
    b"\x01\x02\x7f",
    b"\xff\xfe\xfd",
    b"\xc3\x28",
    "ä".encode(),
    "a\u0308".encode(),
    "名前".encode(),
    "\U0001f600".encode(),
    b"...",
    b".hidden",
    b"..a",
    b"a" * 255,
    b"\xff" * 255,
    "ß".encode() * 127,
    b"con",
    b"CON:",
    b"a.fuse_hidden0001",
]
"""No two are the same name, whatever a normalization of Unicode might think."""


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name[:10])[2:-1])
def test_any_bytes_are_a_name_in_every_call(pair: Pair, name: bytes) -> None:
    other = b"_" + name[1:]
    program: list[ops.Operation] = [
        ops.Make(name, 0o644),
        ops.Make(name, 0o644),
        ops.Stat(name, False),
        ops.List(b"."),
        ops.Rename(name, other, 0),
        ops.Link(other, name, False),
        ops.Unlink(other),
        ops.Symlink(name, other),
        ops.Readlink(other),
        ops.Stat(other, True),
        ops.SetXattr(name, b"user." + name[:200].replace(b"\0", b"0"), name, 0, True),
        ops.ListXattr(name, True),
        ops.Unlink(name),
        ops.Mkdir(name, 0o755),
        ops.Make(name + b"/" + name, 0o644),
        ops.List(name),
        ops.Rmdir(name),
    ]
    compare([Step(operation) for operation in program], pair.reference, pair.subject, pair.abilities)


def test_names_that_differ_in_one_bit_are_different_names(pair: Pair) -> None:
    listings = []
    for directory in pair.directories("bits"):
        names = {bytes([byte]) for byte in range(1, 256)} - {b"/", b"."}
        for name in names:
            (directory / os.fsdecode(name)).write_bytes(name)
        listing = {os.fsencode(path.name): path.read_bytes() for path in directory.iterdir()}
        assert listing == {name: name for name in names}
        listings.append(sorted(listing))
    assert listings[1] == listings[0]


@pytest.mark.parametrize("length", [0, 1, 254, 255, 256, 257, 1000, 4094, 4095, 4096, 5000])
def test_every_call_takes_a_name_of_the_lengths_that_tmpfs_takes(pair: Pair, length: int) -> None:
    name = b"n" * length
    program: list[ops.Operation] = [
        ops.Make(b"file", 0o644),
        ops.Mkdir(b"directory", 0o755),
        ops.Make(name, 0o644),
        ops.Stat(name, False),
        ops.Open(0, name, os.O_RDWR, 0),
        ops.Unlink(name),
        ops.Mkdir(name, 0o755),
        ops.List(name),
        ops.Rmdir(name),
        ops.Mknod(name, 0o010644, 0),
        ops.Rename(name, b"fifo", 0),
        ops.Rename(b"fifo", name, 0),
        ops.Symlink(b"target", b"directory/" + name),
        ops.Readlink(b"directory/" + name),
        ops.Symlink(name, b"symlink"),
        ops.Stat(b"symlink", True),
        ops.Readlink(b"symlink"),
        ops.Link(b"file", name, False),
        ops.Truncate(name, 5),
        ops.Chmod(name, 0o600),
        ops.GetXattr(name, b"user.a", True),
        ops.Stat(name + b"/x", True),
        ops.Stat(b"file/" + name, True),
        ops.Stat(b"missing/" + name, True),
    ]
    compare([Step(operation) for operation in program], pair.reference, pair.subject, pair.abilities)


def test_a_deep_tree_is_made_moved_and_removed(pair: Pair) -> None:
    trees = []
    for directory in pair.directories("deep"):
        os.chdir(directory)
        try:
            for level in range(60):
                name = f"{level}".ljust(level % 2 * 30, "_")
                Path(name).mkdir()
                Path(name, "file").write_text(name)
                os.chdir(name)
            assert len(os.getcwd()) > 1000  # noqa: PTH109 -- pathlib would look it up the same way
        finally:
            os.chdir("/")
        (directory / "0").rename(directory / "moved")
        below = outcome(os.rename, directory / "moved", directory / "moved" / f"{1:_<30}" / "2" / "below")
        trees.append((below, snapshot(directory)))
        shutil.rmtree(directory / "moved")
        assert list(directory.iterdir()) == []
    assert trees[0][0] == Failed("EINVAL")
    assert trees[1][0] == trees[0][0]
    assert differences(trees[0][1], trees[1][1]) == []


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "interrupted"])
def test_a_process_that_is_signalled_all_the_time_loses_nothing(pair: Pair, restart: bool) -> None:
    """Each operation is done once and whole, or says EINTR; Python repeats what is interrupted."""
    trees = []
    for directory in pair.directories("signals"):
        workers.run_at_once([partial(_work_under_signals, directory, restart)])
        trees.append(snapshot(directory))
    assert len(trees[0]) > 100
    assert differences(*trees) == []


def _work_under_signals(directory: Path, restart: bool) -> None:
    """Does the same over and over, until there were many signals; what is there then is what the last round left."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1

    signal.signal(signal.SIGALRM, count)
    signal.siginterrupt(signal.SIGALRM, not restart)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    while seen < SIGNALS:
        for path in directory.iterdir():
            path.unlink()
        _work(directory)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _work(directory: Path) -> None:
    content = Pattern(3, 1 << 20).bytes()
    descriptor = os.open(directory / "appended", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    written = 0
    while written < len(content):
        written += os.write(descriptor, content[written : written + 70_000])
    os.fsync(descriptor)
    read = b""
    while part := os.pread(descriptor, 30_000, len(read)):
        read += part
    assert read == content
    os.close(descriptor)
    for number in range(100):
        path = directory / f"{number}"
        path.write_bytes(content[number : number + number * 100])
        path.rename(directory / f"renamed {number}")
        (directory / f"linked {number}").hardlink_to(directory / f"renamed {number}")
        os.truncate(directory / f"renamed {number}", number * 50)
        if number % 2:
            (directory / f"renamed {number}").unlink()
        assert (directory / f"linked {number}").read_bytes() == content[number : number + number * 50]
        assert len(list(directory.iterdir())) == 1 + number + 1 + (number // 2 + 1)


def test_processes_killed_in_the_midst_leave_whole_files_and_a_mount_that_works(pair: Pair) -> None:
    """Only the mount is asked: where a process was when it was killed is chance."""
    directory = pair.directories("killed")[1]
    chance = random.Random(5)

    def work(number: int) -> None:
        for round_number in itertools.count():
            temporary = directory / f"temporary {number}"
            temporary.write_bytes(_sealed(b"%d %d" % (number, round_number), 200_000))
            temporary.rename(directory / f"whole {number}")

    for _ in range(5):
        processes = [workers.start(partial(work, number)) for number in range(3)]
        while len(list(directory.glob("whole *"))) < 3:
            workers.pause(0.01)
        for process in processes:
            workers.pause(chance.random() / 20)
            workers.end(process)
        for path in directory.glob("whole *"):
            descriptor = os.open(path, os.O_RDONLY)
            _check_seal(os.read(descriptor, 1 << 20))
            closed = outcome(os.close, descriptor)
            assert closed is None or (closed == Failed("EIO") and pair.configuration.cache == "writeback")
            path.unlink()
    shutil.rmtree(directory)
    assert outcome(os.stat, directory) == Failed("ENOENT")


def _sealed(payload: bytes, length: int) -> bytes:
    """Bytes that tell whether they are whole."""
    body = (payload + b"\n") * (length // (len(payload) + 1))
    return body + hashlib.sha256(body).digest()


def _check_seal(data: bytes) -> None:
    assert hashlib.sha256(data[:-32]).digest() == data[-32:], f"{len(data)} bytes are not whole: {data[:30]!r}..."


# -- many processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["create", "mkdir", "symlink", "link", "rename"])
def test_of_many_who_want_a_name_exactly_one_gets_it(pair: Pair, how: str) -> None:
    names = 60
    for directory in pair.directories("fight"):
        for number in range(PROCESSES):
            (directory / f"own {number}").mkdir()
            for name in range(names):
                (directory / f"own {number}" / f"{name}").touch()

        def fight(number: int, directory: Path = directory) -> None:
            own = directory / f"own {number}"
            calls: dict[str, Callable[[Path, Path], object]] = {
                "create": lambda mine, wanted: wanted.touch(exist_ok=False),
                "mkdir": lambda mine, wanted: wanted.mkdir(),
                "symlink": lambda mine, wanted: wanted.symlink_to(f"{number}"),
                "link": lambda mine, wanted: wanted.hardlink_to(mine),
                "rename": lambda mine, wanted: renameat2(os.fsencode(mine), os.fsencode(wanted), RENAME_NOREPLACE),
            }
            won = []
            for name in range(names):
                result = outcome(calls[how], own / f"{name}", directory / f"wanted {name}")
                assert result in (None, Failed("EEXIST")), result
                won += [] if result else [name]
            (own / "won").write_text(" ".join(map(str, won)))

        workers.run_at_once([partial(fight, number) for number in range(PROCESSES)])
        won = [int(word) for path in directory.glob("own */won") for word in path.read_text().split()]
        assert sorted(won) == list(range(names))
        assert sorted(path.name for path in directory.glob("wanted *")) == sorted(
            f"wanted {name}" for name in range(names)
        )
        left = len(list(directory.glob("own */[0-9]*")))
        assert left == PROCESSES * names - (names if how == "rename" else 0)


def test_appends_of_many_processes_are_all_there_and_whole(pair: Pair) -> None:
    records = 150
    for directory in pair.directories("append"):

        def append(number: int, directory: Path = directory) -> None:
            descriptor = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for record in range(records):
                line = b"%d %d " % (number, record) + b"x" * (number * 37) + b"\n"
                assert os.write(descriptor, line) == len(line)
            os.close(descriptor)

        workers.run_at_once([partial(append, number) for number in range(PROCESSES)])
        lines = (directory / "log").read_bytes().splitlines()
        seen = [tuple(map(int, line.split()[:2])) for line in lines]
        assert sorted(seen) == [(number, record) for number in range(PROCESSES) for record in range(records)]
        assert all(len(line.split(b" ")[2]) == 37 * int(line.split()[0]) for line in lines)
        for number in range(PROCESSES):
            assert [record for who, record in seen if who == number] == list(range(records))


def test_readers_see_old_files_or_new_ones_but_none_that_are_mixed(pair: Pair) -> None:
    """Writers replace files by a rename; whoever reads one, under its name or by a handle, sees it whole."""
    for directory in pair.directories("replaced"):
        names = [directory / f"{name}" for name in range(4)]
        for path in names:
            path.write_bytes(_sealed(b"first", 10_000))

        def write(number: int, names: list[Path] = names) -> None:
            for round_number in range(40):
                path = names[(number + round_number) % len(names)]
                temporary = path.with_name(f"temporary {number}")
                temporary.write_bytes(_sealed(b"%d %d" % (number, round_number), 1000 * (number * 40 + round_number)))
                temporary.replace(path)

        def read(names: list[Path] = names) -> None:
            for round_number in range(200):
                with names[round_number % len(names)].open("rb") as file:
                    _check_seal(file.read())

        workers.run_at_once([*(partial(write, number) for number in range(3)), read, read, read])
        for path in names:
            _check_seal(path.read_bytes())
        assert len(list(directory.iterdir())) == len(names)


def test_writers_of_one_file_keep_to_their_own_parts(pair: Pair) -> None:
    """Many processes write interleaved blocks of one file."""
    block, rounds = 1000, 60
    for directory in pair.directories("shared"):
        path = directory / "file"
        path.touch()

        def write(number: int, path: Path = path) -> None:
            descriptor = os.open(path, os.O_RDWR)
            for round_number in range(rounds):
                data = bytes([number + 1]) * block
                assert os.pwrite(descriptor, data, (round_number * PROCESSES + number) * block) == block
                back = os.pread(descriptor, block, (round_number * PROCESSES + number) * block)
                assert back == data
            os.close(descriptor)

        workers.run_at_once([partial(write, number) for number in range(PROCESSES)])
        assert path.read_bytes() == b"".join(bytes([number + 1]) * block for number in range(PROCESSES)) * rounds


def test_what_one_process_did_the_next_one_sees(pair: Pair) -> None:
    """A ring of processes, each of which waits for its neighbour's file and answers with its own."""
    rounds = 8
    for directory in pair.directories("ring"):

        def pass_on(number: int, directory: Path = directory) -> None:
            for round_number in range(rounds):
                if number or round_number:
                    before = directory / f"{(number - 1) % PROCESSES} {round_number - (not number)}"
                    while not before.exists():
                        workers.pause(0)
                    assert before.read_text() == before.name
                    before.unlink()
                temporary = directory / f"temporary {number}"
                temporary.write_text(f"{number} {round_number}")
                temporary.rename(directory / f"{number} {round_number}")

        workers.run_at_once([partial(pass_on, number) for number in range(PROCESSES)])
        assert [path.name for path in directory.iterdir()] == [f"{PROCESSES - 1} {rounds - 1}"]


def test_a_tree_that_many_make_and_remove_at_once_gives_only_the_errors_of_a_race(pair: Pair) -> None:
    """And in the end it can be removed. EPERM is link(2)'s word for a directory."""
    allowed = {"EPERM", "ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EINVAL", "ELOOP"}
    for directory in pair.directories("chaos"):

        def disturb(seed: int, directory: Path = directory) -> None:
            chance = random.Random(seed)

            def place() -> Path:
                return directory.joinpath(*(chance.choice("abc") for _ in range(chance.randrange(1, 4))))

            calls: list[Callable[[], object]] = [
                lambda: place().mkdir(),
                lambda: place().mkdir(),
                lambda: place().write_bytes(chance.randbytes(chance.randrange(9000))),
                lambda: place().write_bytes(chance.randbytes(chance.randrange(9000))),
                lambda: place().read_bytes(),
                lambda: place().symlink_to(chance.choice("abc")),
                lambda: place().hardlink_to(place()),
                lambda: place().unlink(),
                lambda: place().rmdir(),
                lambda: place().rename(place()),
                lambda: renameat2(os.fsencode(place()), os.fsencode(place()), RENAME_EXCHANGE),
                lambda: [entry.stat() for entry in os.scandir(place())],
                lambda: _remove_tree(place()),
                lambda: place().chmod(0o700 | chance.randrange(0o100)),
                lambda: os.truncate(place(), chance.randrange(20_000)),
            ]
            for _ in range(250):
                result = outcome(chance.choice(calls))
                assert not isinstance(result, Failed) or result.errno in allowed, result

        workers.run_at_once([partial(disturb, seed) for seed in range(PROCESSES)])
        snapshot(directory)
        _remove_tree(directory)
        assert outcome(os.stat, directory) == Failed("ENOENT")


def _remove_tree(top: Path) -> None:
    """As shutil.rmtree, which has no errno for a symlink."""
    with os.scandir(top) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(Path(entry.path))
            else:
                os.unlink(entry.path)  # noqa: PTH108
    top.rmdir()
