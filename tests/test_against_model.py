"""What tmpfs cannot be asked: capacity to the page, holes, cookies, replicas that agree, and how long an inode lives.

Through the Python API, without a mount. ``NRFS_TEST_EXAMPLES`` sets how many programs are generated; the default is
small, and always the same programs. The long run:

    NRFS_TEST_EXAMPLES=20000 pytest tests/test_against_model.py
"""

from __future__ import annotations

import errno
import os
import random
import stat
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import acl
from support.generating import generated
from support.model import PAGE, Model, ModelFile
from support.operations import ACCESS_LIST, DEFAULT_LIST, Pattern
from support.syscalls import (
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
)

import nrfs

REPLICATION = [(1, 1), (1, 4), (2, 1), (2, 4), (4, 1), (4, 4)]
"""Nodes and content logs."""

LIST = acl.packed(acl.owner(7), acl.user(1000, 6), acl.group(5), acl.mask(7), acl.other(0))


def outcome(call: Callable[[], object]) -> object:
    """What a call returns, or the errno it fails with."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def make_file(filesystem: nrfs.Filesystem, name: bytes, parent: int = nrfs.ROOT) -> int:
    return filesystem.mknod(parent, name, stat.S_IFREG | 0o644).ino


def assert_replicas_agree(filesystem: nrfs.Filesystem, nodes: int) -> None:
    told = filesystem.verify()
    assert told
    for log in told:
        assert len(log["digests"]) == nodes, log
        assert len(set(log["digests"])) == 1, log


class ContentUnderALimit(RuleBasedStateMachine):
    """Files that are written, cut, punched, unlinked and held, in a file system of a few pages and inodes."""

    PAGES = 12
    INODES = 6

    filesystem: nrfs.Filesystem
    model: Model
    nodes: int
    seen: set[int]

    @initialize(replication=st.sampled_from(REPLICATION))
    def begin(self, replication: tuple[int, int]) -> None:
        self.nodes, logs = replication
        self.filesystem = nrfs.Filesystem(nodes=self.nodes, logs=logs, size=self.PAGES * PAGE, inodes=self.INODES)
        self.model = Model(self.PAGES, self.INODES)
        self.seen = {nrfs.ROOT}

    def teardown(self) -> None:
        if hasattr(self, "filesystem"):
            assert_replicas_agree(self.filesystem, self.nodes)

    def pick(self, number: int) -> int:
        return sorted(self.model.files)[number % len(self.model.files)]

    has_files = precondition(lambda self: self.model.files)
    numbers = st.integers(0, INODES - 1)
    offsets = st.one_of(
        st.integers(0, 6 * PAGE), st.sampled_from([0, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE - 1, 4 * PAGE])
    )
    lengths = st.one_of(st.integers(0, 40), st.integers(0, 14 * PAGE), st.sampled_from([PAGE, 2 * PAGE, 12 * PAGE]))

    @rule()
    def create(self) -> None:
        name = f"file {len(self.seen)}".encode()
        if not self.model.inodes_free:
            assert outcome(lambda: make_file(self.filesystem, name)) == "ENOSPC"
            return
        ino = make_file(self.filesystem, name)
        assert ino not in self.seen, "an inode number was used again"
        self.seen.add(ino)
        self.names[ino] = name
        self.model.files[ino] = ModelFile()

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, bytes] = {}

    @rule()
    def create_nameless(self) -> None:
        if not self.model.inodes_free:
            assert outcome(lambda: self.filesystem.mknod_nameless(nrfs.ROOT, 0o600).ino) == "ENOSPC"
            return
        ino = self.filesystem.mknod_nameless(nrfs.ROOT, 0o600).ino
        assert ino not in self.seen, "an inode number was used again"
        self.seen.add(ino)
        self.names[ino] = f"nameless {len(self.seen)}".encode()
        self.model.files[ino] = ModelFile(named=False, holds=1, linkable=True)

    @has_files
    @rule(number=numbers)
    def link(self, number: int) -> None:
        """Under the same name again, or for the first time."""
        ino = self.pick(number)
        file = self.model.files[ino]
        expected = 1 if file.linkable else "EEXIST" if file.named else "ENOENT"
        assert outcome(lambda: self.filesystem.link(ino, nrfs.ROOT, self.names[ino]).nlink) == expected
        file.named |= file.linkable
        file.linkable = False

    @has_files
    @rule(number=numbers, offset=offsets, data=st.builds(Pattern, st.integers(0, 250), lengths))
    def write(self, number: int, offset: int, data: Pattern) -> None:
        ino, content = self.pick(number), data.bytes()
        expected = outcome(lambda: self.model.write(ino, offset, content))
        assert outcome(lambda: self.filesystem.write(ino, offset, content)) == expected

    @has_files
    @rule(number=numbers, size=offsets)
    def truncate(self, number: int, size: int) -> None:
        ino = self.pick(number)
        self.model.truncate(ino, size)
        assert self.filesystem.set_attributes(ino, size=size).size == size

    @has_files
    @rule(
        number=numbers,
        offset=offsets,
        length=lengths,
        mode=st.sampled_from(
            [
                0,
                FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_ZERO_RANGE,
                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                FALLOC_FL_PUNCH_HOLE,
                FALLOC_FL_COLLAPSE_RANGE,
            ]
        ),
    )
    def fallocate(self, number: int, offset: int, length: int, mode: int) -> None:
        ino = self.pick(number)
        expected = outcome(lambda: self.model.fallocate(ino, offset, length, mode))
        assert outcome(lambda: self.filesystem.fallocate(ino, offset, length, mode)) == expected

    @has_files
    @rule(number=numbers, offset=offsets, length=lengths)
    def read(self, number: int, offset: int, length: int) -> None:
        ino = self.pick(number)
        assert self.filesystem.read(ino, offset, length) == self.model.read(ino, offset, length)

    @has_files
    @rule(number=numbers, offset=offsets, whence=st.sampled_from([os.SEEK_DATA, os.SEEK_HOLE]))
    def seek(self, number: int, offset: int, whence: int) -> None:
        ino = self.pick(number)
        expected = outcome(lambda: self.model.files[ino].seek(offset, whence))
        assert outcome(lambda: self.filesystem.seek(ino, offset, whence)) == expected

    @has_files
    @rule(number=numbers)
    def unlink(self, number: int) -> None:
        ino = self.pick(number)
        file = self.model.files[ino]
        if not file.named:
            assert outcome(lambda: self.filesystem.unlink(nrfs.ROOT, self.names[ino])) == "ENOENT"
            return
        self.filesystem.unlink(nrfs.ROOT, self.names[ino])
        file.named = False
        self.model.drop_if_dead(ino)

    @has_files
    @rule(number=numbers, count=st.integers(1, 3))
    def hold(self, number: int, count: int) -> None:
        ino = self.pick(number)
        self.filesystem.hold(ino, count)
        self.model.files[ino].holds += count

    @has_files
    @rule(number=numbers, count=st.integers(1, 3))
    def forget(self, number: int, count: int) -> None:
        ino = self.pick(number)
        file = self.model.files[ino]
        given_up = min(count, file.holds)
        if given_up:
            self.filesystem.forget(ino, given_up)
            file.holds -= given_up
            self.model.drop_if_dead(ino)

    @invariant()
    def capacity_is_what_the_files_leave(self) -> None:
        told = self.filesystem.capacity()
        assert (told.blocks * told.block_size, told.blocks_free * told.block_size) == (
            self.PAGES * PAGE,
            self.model.pages_free * PAGE,
        )
        assert (told.inodes, told.inodes_free) == (self.INODES, self.model.inodes_free)

    @invariant()
    def attributes_are_those_of_the_files(self) -> None:
        for ino, file in self.model.files.items():
            told = self.filesystem.attributes(ino)
            assert (told.size, told.blocks * 512, told.nlink) == (
                len(file.data),
                len(file.pages) * PAGE,
                int(file.named),
            )

    @invariant()
    def the_dead_are_gone(self) -> None:
        for ino in self.seen - self.model.files.keys() - {nrfs.ROOT}:
            assert outcome(partial(self.filesystem.attributes, ino)) == "ENOENT"


TestContentUnderALimit = ContentUnderALimit.TestCase
TestContentUnderALimit.settings = generated(steps=30)


# -- capacity, told step by step --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "logs"), REPLICATION)
def test_a_write_is_cut_short_at_the_last_free_page(nodes: int, logs: int) -> None:
    filesystem = nrfs.Filesystem(nodes=nodes, logs=logs, size=10 * PAGE, inodes=100)
    ino = make_file(filesystem, b"file")
    assert filesystem.write(ino, 100, bytes(20 * PAGE)) == 10 * PAGE - 100
    assert filesystem.attributes(ino).size == 10 * PAGE
    for offset in (10 * PAGE, 10 * PAGE + 1, 1 << 40):
        assert outcome(partial(filesystem.write, ino, offset, b"x")) == "ENOSPC"
        assert filesystem.attributes(ino).size == 10 * PAGE
    assert_replicas_agree(filesystem, nodes)


@pytest.mark.parametrize(("nodes", "logs"), REPLICATION)
def test_what_has_its_page_can_be_overwritten_in_a_full_file_system(nodes: int, logs: int) -> None:
    filesystem = nrfs.Filesystem(nodes=nodes, logs=logs, size=4 * PAGE, inodes=100)
    ino = make_file(filesystem, b"file")
    assert filesystem.write(ino, 0, b"a" * (3 * PAGE + 1)) == 3 * PAGE + 1
    assert filesystem.capacity().blocks_free == 0
    assert filesystem.write(ino, 3 * PAGE, b"b" * PAGE) == PAGE
    assert filesystem.write(ino, 5, b"c" * PAGE) == PAGE
    assert filesystem.read(ino, 0, 5 * PAGE) == b"a" * 5 + b"c" * PAGE + b"a" * (2 * PAGE - 5) + b"b" * PAGE


@pytest.mark.parametrize(("nodes", "logs"), REPLICATION)
def test_every_way_of_freeing_space_gives_it_back(nodes: int, logs: int) -> None:
    filesystem = nrfs.Filesystem(nodes=nodes, logs=logs, size=8 * PAGE, inodes=100)

    def fill(name: bytes) -> int:
        ino = make_file(filesystem, name)
        assert filesystem.write(ino, 0, bytes(9 * PAGE)) == 8 * PAGE
        assert filesystem.capacity().blocks_free == 0
        return ino

    def free() -> int:
        capacity = filesystem.capacity()
        return capacity.blocks_free * capacity.block_size // PAGE

    ino = fill(b"truncated")
    filesystem.set_attributes(ino, size=3 * PAGE - 1)
    assert free() == 5
    filesystem.set_attributes(ino, size=0)
    assert free() == 8
    ino = fill(b"punched")
    filesystem.fallocate(ino, PAGE, 2 * PAGE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
    assert free() == 2
    filesystem.unlink(nrfs.ROOT, b"punched")
    assert free() == 8
    fill(b"replaced")
    make_file(filesystem, b"new")
    filesystem.rename(nrfs.ROOT, b"new", nrfs.ROOT, b"replaced")
    assert free() == 8
    ino = fill(b"held")
    filesystem.hold(ino)
    filesystem.unlink(nrfs.ROOT, b"held")
    assert free() == 0
    filesystem.forget(ino)
    assert free() == 8
    assert_replicas_agree(filesystem, nodes)


@pytest.mark.parametrize("make", ["mknod", "mkdir", "symlink"])
def test_the_last_inode_can_be_had_and_the_next_cannot(make: str) -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1M", inodes=5)
    calls: dict[str, Callable[[bytes], object]] = {
        "mknod": lambda name: filesystem.mknod(nrfs.ROOT, name, stat.S_IFIFO | 0o600),
        "mkdir": lambda name: filesystem.mkdir(nrfs.ROOT, name, 0o700),
        "symlink": lambda name: filesystem.symlink(nrfs.ROOT, name, b"target"),
    }
    for number in range(4):
        calls[make](b"%d" % number)
    assert outcome(lambda: calls[make](b"one too many")) == "ENOSPC"
    assert outcome(lambda: filesystem.lookup(nrfs.ROOT, b"one too many")) == "ENOENT"
    assert filesystem.capacity().inodes_free == 0
    assert outcome(lambda: calls[make](b"0")) == "EEXIST", "a name that is taken is told before the lack of inodes"
    (filesystem.rmdir if make == "mkdir" else filesystem.unlink)(nrfs.ROOT, b"2")
    calls[make](b"again")
    assert_replicas_agree(filesystem, 2)


def test_threads_that_fill_the_file_system_together_get_exactly_all_of_it() -> None:
    pages, threads = 300, 6
    filesystem = nrfs.Filesystem(nodes=2, size=pages * PAGE, inodes=100)
    written = [0] * threads

    def fill(number: int) -> None:
        ino = make_file(filesystem, b"%d" % number)
        while (got := outcome(lambda: filesystem.write(ino, written[number], bytes(3 * PAGE)))) != "ENOSPC":
            assert isinstance(got, int)
            written[number] += got

    run_in_threads([partial(fill, number) for number in range(threads)])
    assert sum(written) == pages * PAGE
    assert filesystem.capacity().blocks_free == 0
    assert_replicas_agree(filesystem, 2)


def run_in_threads(bodies: list[Callable[[], None]]) -> None:
    """Runs all at once and passes on the first failure."""
    failures: list[BaseException] = []

    def run(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=[body]) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


# -- replicas ---------------------------------------------------------------------------------------------------------


def disturb(filesystem: nrfs.Filesystem, chance: random.Random, directory: int) -> None:
    """One operation chosen by ``chance`` on a few names; that many of them fail is as good."""
    name, other = (b"%d" % chance.randrange(8) for _ in range(2))

    def ino() -> int:
        return filesystem.lookup(directory, name).ino

    calls: list[Callable[[], object]] = [
        lambda: make_file(filesystem, name, directory),
        lambda: filesystem.mkdir(directory, name, 0o755, uid=chance.randrange(3)),
        lambda: filesystem.symlink(directory, name, other),
        lambda: filesystem.link(ino(), directory, other),
        lambda: filesystem.unlink(directory, name),
        lambda: filesystem.rmdir(directory, name),
        lambda: filesystem.rename(directory, name, directory, other),
        lambda: filesystem.rename(directory, name, nrfs.ROOT, other, RENAME_EXCHANGE),
        lambda: filesystem.rename(nrfs.ROOT, name, directory, other, RENAME_NOREPLACE),
        lambda: filesystem.write(ino(), chance.randrange(3 * PAGE), chance.randbytes(chance.randrange(2 * PAGE))),
        lambda: filesystem.write(ino(), chance.randrange(3 * PAGE), chance.randbytes(chance.randrange(2 * PAGE))),
        lambda: filesystem.set_attributes(ino(), size=chance.randrange(3 * PAGE), mode=chance.randrange(0o10000)),
        lambda: filesystem.set_attributes(ino(), uid=chance.randrange(5), mtime_ns=chance.randrange(10**18)),
        lambda: filesystem.fallocate(ino(), chance.randrange(3 * PAGE), chance.randrange(1, PAGE), 3),
        lambda: filesystem.setxattr(ino(), b"user." + other, chance.randbytes(20)),
        lambda: filesystem.removexattr(ino(), b"user." + other),
        lambda: filesystem.setxattr(ino(), ACCESS_LIST, LIST),
        lambda: filesystem.setxattr(ino(), DEFAULT_LIST, LIST),
        lambda: filesystem.removexattr(ino(), DEFAULT_LIST),
    ]
    outcome(chance.choice(calls))


@pytest.mark.parametrize(("nodes", "logs"), REPLICATION)
@generated(divide=4)
@given(seed=st.integers(0, 2**32))
def test_all_replicas_have_equal_digests_after_any_operations(nodes: int, logs: int, seed: int) -> None:
    filesystem = nrfs.Filesystem(nodes=nodes, logs=logs, size="1M", inodes=40)
    directory = filesystem.mkdir(nrfs.ROOT, b"directory", 0o755).ino
    chance = random.Random(seed)
    for _ in range(150):
        disturb(filesystem, chance, chance.choice([nrfs.ROOT, directory]))
    assert_replicas_agree(filesystem, nodes)


@pytest.mark.parametrize(("nodes", "logs"), [(2, 1), (2, 4), (4, 4)])
def test_all_replicas_have_equal_digests_after_threads_worked_at_once(nodes: int, logs: int) -> None:
    filesystem = nrfs.Filesystem(nodes=nodes, logs=logs, size="1M", inodes=60)
    directory = filesystem.mkdir(nrfs.ROOT, b"directory", 0o755).ino

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(400):
            disturb(filesystem, chance, chance.choice([nrfs.ROOT, directory]))

    run_in_threads([partial(work, seed) for seed in range(6)])
    assert_replicas_agree(filesystem, nodes)


def test_a_digest_tells_every_kind_of_change() -> None:
    filesystem = nrfs.Filesystem(nodes=2, logs=1, size="1M", inodes=40)
    ino = make_file(filesystem, b"file")
    filesystem.write(ino, 0, b"content")
    changes: list[Callable[[], object]] = [
        lambda: filesystem.write(ino, 3, b"T"),
        lambda: filesystem.set_attributes(ino, mode=0o600),
        lambda: filesystem.set_attributes(ino, uid=7),
        lambda: filesystem.set_attributes(ino, mtime_ns=5),
        lambda: filesystem.set_attributes(ino, size=9),
        lambda: filesystem.setxattr(ino, b"user.a", b"1"),
        lambda: filesystem.setxattr(ino, b"user.a", b"2"),
        lambda: filesystem.setxattr(ino, ACCESS_LIST, LIST),
        lambda: filesystem.setxattr(nrfs.ROOT, DEFAULT_LIST, LIST),
        lambda: filesystem.removexattr(nrfs.ROOT, DEFAULT_LIST),
        lambda: filesystem.rename(nrfs.ROOT, b"file", nrfs.ROOT, b"other"),
        lambda: filesystem.link(ino, nrfs.ROOT, b"link"),
        lambda: filesystem.unlink(nrfs.ROOT, b"link"),
        lambda: filesystem.symlink(nrfs.ROOT, b"link", b"target"),
    ]

    def digests() -> tuple[str, ...]:
        return tuple(log["digests"][0] for log in filesystem.verify())

    for number, change in enumerate(changes):
        before = digests()
        change()
        assert digests() != before, f"change {number} left the digests as they were"


# -- listings ---------------------------------------------------------------------------------------------------------


@generated()
@given(
    first=st.sets(st.integers(0, 60), max_size=40),
    chunks=st.lists(
        st.tuples(
            st.integers(1, 7),
            st.lists(st.tuples(st.sampled_from(["add", "remove", "rename"]), st.integers(0, 60)), max_size=6),
        ),
        max_size=30,
    ),
)
def test_a_changing_directory_neither_repeats_nor_skips_what_stays(
    first: set[int], chunks: list[tuple[int, list[tuple[str, int]]]]
) -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1M", inodes=200)
    directory = filesystem.mkdir(nrfs.ROOT, b"directory", 0o755).ino
    present, stayed = set(first), set(first)
    lives = Counter(first)
    for number in first:
        make_file(filesystem, b"%d" % number, directory)
    listed: list[int] = []
    cookie, more = 0, True
    while more:
        limit, changes = chunks.pop(0) if chunks else (5, [])
        part = filesystem.readdir(directory, cookie, limit)
        assert len(part) <= limit
        listed += [int(entry.name) for entry in part if entry.name not in (b".", b"..")]
        more = bool(part)
        cookie = part[-1].cookie if part else cookie
        for change, number in changes:
            name = b"%d" % number
            if change == "add" and number not in present:
                make_file(filesystem, name, directory)
                present.add(number)
                lives[number] += 1
            elif change == "remove" and number in present:
                filesystem.unlink(directory, name)
                present.discard(number)
            elif change == "rename" and number in present:
                filesystem.rename(directory, name, directory, b"%d" % (number + 100))
                filesystem.rename(directory, b"%d" % (number + 100), directory, name)
                lives[number] += 2
            stayed &= present if change != "rename" else present - {number}
    seen = Counter(listed)
    assert stayed <= seen.keys(), f"skipped: {sorted(stayed - seen.keys())}"
    assert all(seen[number] == 1 for number in stayed), f"repeated: {seen}"
    assert all(seen[number % 100] <= lives[number % 100] for number in seen), f"listed more often than made: {seen}"


def test_a_listing_goes_on_behind_any_cookie_it_gave() -> None:
    filesystem = nrfs.Filesystem(nodes=1, size="1M", inodes=200)
    for number in range(20):
        make_file(filesystem, b"%d" % number)
    whole = [(entry.name, entry.cookie) for entry in filesystem.readdir(nrfs.ROOT)]
    assert [name for name, _ in whole[:2]] == [b".", b".."]
    assert {name for name, _ in whole[2:]} == {b"%d" % number for number in range(20)}
    assert len({cookie for _, cookie in whole}) == 22
    for at, (_, cookie) in enumerate(whole):
        rest = [(entry.name, entry.cookie) for entry in filesystem.readdir(nrfs.ROOT, cookie)]
        assert rest == whole[at + 1 :]


def test_a_listing_goes_on_behind_an_entry_that_was_removed() -> None:
    filesystem = nrfs.Filesystem(nodes=1, size="1M", inodes=200)
    for number in range(20):
        make_file(filesystem, b"%d" % number)
    part = filesystem.readdir(nrfs.ROOT, 0, 8)
    filesystem.unlink(nrfs.ROOT, part[-1].name)
    rest = filesystem.readdir(nrfs.ROOT, part[-1].cookie)
    assert {entry.name for entry in part + rest} == {b".", b".."} | {b"%d" % number for number in range(20)}
    assert len(part + rest) == 22


# -- the life of an inode ---------------------------------------------------------------------------------------------


def test_a_held_file_outlives_its_name_with_all_it_has() -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1M", inodes=10)
    ino = make_file(filesystem, b"file")
    filesystem.write(ino, 0, b"content")
    filesystem.setxattr(ino, b"user.a", b"value")
    filesystem.hold(ino, 2)
    filesystem.unlink(nrfs.ROOT, b"file")
    assert filesystem.attributes(ino).nlink == 0
    filesystem.forget(ino)
    assert filesystem.read(ino, 0, 100) == b"content"
    assert filesystem.getxattr(ino, b"user.a") == b"value"
    assert filesystem.write(ino, 7, b" and more") == 9
    assert outcome(lambda: filesystem.link(ino, nrfs.ROOT, b"back")) == "ENOENT"
    assert filesystem.capacity().inodes_free == 7  # The attribute takes some of the space of one, as on tmpfs.
    filesystem.forget(ino)
    assert filesystem.capacity().inodes_free == 9
    for call in (lambda: filesystem.attributes(ino), lambda: filesystem.getxattr(ino, b"user.a")):
        assert outcome(call) == "ENOENT"


def test_a_held_directory_that_was_removed_takes_no_new_names() -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1M", inodes=10)
    directory = filesystem.mkdir(nrfs.ROOT, b"directory", 0o755).ino
    filesystem.hold(directory)
    filesystem.rmdir(nrfs.ROOT, b"directory")
    for call in (
        lambda: make_file(filesystem, b"file", directory),
        lambda: filesystem.mkdir(directory, b"directory", 0o755),
        lambda: filesystem.symlink(directory, b"link", b"target"),
        lambda: filesystem.lookup(directory, b"file"),
    ):
        assert outcome(call) == "ENOENT"
    assert filesystem.capacity().inodes_free == 8
    filesystem.forget(directory)
    assert filesystem.capacity().inodes_free == 9


def test_an_inode_number_is_never_given_twice() -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1M", inodes=10)
    given_out = []
    for round_number in range(200):
        given_out.append(make_file(filesystem, b"file"))
        given_out.append(filesystem.mkdir(nrfs.ROOT, b"directory", 0o755).ino)
        filesystem.unlink(nrfs.ROOT, b"file")
        filesystem.rmdir(nrfs.ROOT, b"directory")
        assert len(set(given_out)) == 2 * (round_number + 1)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"nodes": 0},
        {"nodes": -1},
        {"nodes": "many"},
        {"logs": 0},
        {"size": "8 elephants"},
        {"size": ""},
        {"size": -1},
        {"size": "101%%"},
        {"inodes": 0},
    ],
)
def test_an_argument_out_of_range_is_refused_with_the_reason(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        nrfs.Filesystem(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"", "EINVAL"),
        (b".", "EINVAL"),
        (b"..", "EINVAL"),
        (b"a/b", "EINVAL"),
        (b"a\0b", "EINVAL"),
        (b"n" * 256, "ENAMETOOLONG"),
    ],
)
def test_no_call_takes_a_name_that_the_kernel_would_not_let_through(name: bytes, expected: str) -> None:
    filesystem = nrfs.Filesystem(nodes=1, size="1M", inodes=10)
    ino = make_file(filesystem, b"file")
    calls: list[Callable[[], object]] = [
        lambda: make_file(filesystem, name),
        lambda: filesystem.mkdir(nrfs.ROOT, name, 0o755),
        lambda: filesystem.symlink(nrfs.ROOT, name, b"target"),
        lambda: filesystem.link(ino, nrfs.ROOT, name),
        lambda: filesystem.rename(nrfs.ROOT, b"file", nrfs.ROOT, name),
    ]
    assert [outcome(call) for call in calls] == [expected] * len(calls)
    assert filesystem.capacity().inodes_free == 8
    assert [entry.name for entry in filesystem.readdir(nrfs.ROOT)] == [b".", b"..", b"file"]


def test_calls_about_no_inode_or_the_wrong_kind_change_nothing() -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1M", inodes=10)
    ino = make_file(filesystem, b"file")
    nowhere = 1 << 60
    assert outcome(lambda: filesystem.attributes(nowhere)) == "ENOENT"
    assert outcome(lambda: filesystem.lookup(nowhere, b"x")) == "ENOENT"
    assert outcome(lambda: filesystem.write(nowhere, 0, b"x")) == "ENOENT"
    assert outcome(lambda: make_file(filesystem, b"x", ino)) == "ENOTDIR"
    assert outcome(lambda: filesystem.lookup(ino, b"x")) == "ENOTDIR"
    assert outcome(lambda: filesystem.readdir(ino)) == "ENOTDIR"
    assert outcome(lambda: filesystem.readlink(ino)) == "EINVAL"
    assert outcome(lambda: filesystem.rmdir(nrfs.ROOT, b"file")) == "ENOTDIR"
    assert outcome(lambda: filesystem.write(nrfs.ROOT, 0, b"x")) == "EISDIR"
    assert outcome(lambda: filesystem.read(nrfs.ROOT, 0, 1)) == "EISDIR"
    assert outcome(lambda: filesystem.write(ino, 2**63 - 1, b"x")) == "EFBIG"
    assert filesystem.read(ino, 2**63 - 1, 10) == b""
    assert filesystem.capacity().inodes_free == 8
    assert_replicas_agree(filesystem, 2)
