"""chattr(1) and lsattr(1): what can be set is what tmpfs has, and it is shown and forbids what it does there.

Programs of such operations are generated in ``test_against_tmpfs``; here is each call by itself, with its errno.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import NOBODY
from support import acl, inode_flags
from support.compare import Failed, outcome
from support.inode_flags import APPEND_ONLY, GET, IMMUTABLE, NO_ACCESS_TIME, NO_DUMP, SET, get_flags, set_flags
from support.mounts import Pair, configurations, mounted_pair
from support.syscalls import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, acting_as, fallocate, opened

CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))

FLAGS = {"immutable": IMMUTABLE, "append-only": APPEND_ONLY}
SETTABLE = IMMUTABLE | APPEND_ONLY | NO_DUMP | NO_ACCESS_TIME
TCGETS = 0x5401
GET_OF_32_BITS, SET_OF_32_BITS, GET_VERSION = 0x80046601, 0x40046602, 0x80087601


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with mounted_pair(tmp_path_factory.mktemp("pair"), request.param, allow_other=True) as pair:
        yield pair


@pytest.fixture
def directories(pair: Pair) -> Iterator[tuple[Path, Path]]:
    """A directory on each, with a file ``file`` of five bytes and others. What is set on them goes in the end."""
    directories = pair.directories("flags")
    for directory in directories:
        directory.chmod(0o755)
        for name in ("file", "other", "third"):
            (directory / name).write_bytes(b"data\n")
        (directory / "inner").mkdir()
        (directory / "symlink").symlink_to("file")
        os.mkfifo(directory / "fifo")
    yield directories
    for directory in directories:
        inode_flags.clear_flags(directory)


def alike(directories: tuple[Path, Path], call: Callable[[Path], object]) -> object:
    """What a call does on nrfs, which must be what it does on tmpfs."""
    expected, actual = (outcome(call, directory) for directory in directories)
    assert actual == expected
    return actual


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("name", ["file", "inner", "symlink", "fifo"])
def test_flags_are_set_and_shown_as_on_tmpfs(directories: tuple[Path, Path], name: str) -> None:
    def shown(directory: Path) -> list[object]:
        path = directory / name
        told = [outcome(get_flags, path)]
        if name != "fifo":
            told.append(outcome(inode_flags.get_extended, path))
        if inode_flags.has_file_getattr():
            told.append(outcome(inode_flags.file_getattr, path))
        return told

    def sets(call: Callable[..., None], *values: int) -> None:
        alike(directories, lambda directory: call(directory / name, *values))
        alike(directories, shown)

    alike(directories, shown)
    known = [IMMUTABLE, APPEND_ONLY, NO_DUMP, NO_ACCESS_TIME, SETTABLE, 0]
    for flags in [*known, 1, 8, 0x100, IMMUTABLE | 1, 1 << 19, 1 << 30]:
        sets(set_flags, flags)
    if name != "fifo":
        extended = [(8,), (0x10,), (0x40,), (0x80,), (0xD8,), (0,)]
        others = [(0x20,), (0x8000,), (0x800, 4096), (0x800,), (0, 0, 0, 5), (0, 4096), (0, 0, 7), (2,), (1 << 30,)]
        for values in extended + others:
            padded = (*values, 0, 0, 0, 0)[:5]
            sets(inode_flags.set_extended, *padded)
            if inode_flags.has_file_getattr():
                sets(inode_flags.file_setattr, *padded)


def test_what_is_made_in_a_directory_begins_with_some_of_its_flags(directories: tuple[Path, Path]) -> None:
    def made(directory: Path) -> list[int]:
        set_flags(directory, NO_DUMP | NO_ACCESS_TIME | APPEND_ONLY)
        (directory / "new").touch()
        (directory / "below").mkdir()
        return [get_flags(directory / name) for name in ("new", "below", "file")]

    assert alike(directories, made) == [NO_DUMP | NO_ACCESS_TIME] * 2 + [0]


def test_a_new_flag_is_a_change_of_the_directory(directories: tuple[Path, Path]) -> None:
    def moves(directory: Path) -> bool:
        before = directory.stat().st_ctime_ns
        os.utime(directory, ns=(0, 0))
        set_flags(directory, NO_DUMP)
        after = directory.stat()
        return after.st_ctime_ns >= before and after.st_mtime_ns == 0

    assert alike(directories, moves) is True


def test_only_root_makes_immutable_and_only_owners_set_the_rest(
    directories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempts(directory: Path) -> list[object]:
        monkeypatch.chdir(directory)  # The way there is root's alone.
        mine, roots = Path("file"), Path("other")
        os.chown(mine, NOBODY, NOBODY)
        told: list[object] = []
        with acting_as(NOBODY, 0o022):
            told += [outcome(set_flags, mine, flags) for flags in (IMMUTABLE, APPEND_ONLY, NO_DUMP)]
            told += [outcome(set_flags, roots, NO_DUMP), get_flags(mine)]
        set_flags(mine, IMMUTABLE | NO_DUMP)
        with acting_as(NOBODY, 0o022):
            told += [outcome(set_flags, mine, flags) for flags in (NO_DUMP, IMMUTABLE)]
            told.append(outcome(mine.write_bytes, b"mine"))
        return [*told, get_flags(mine)]

    refused = Failed("EPERM")
    expected = [refused, refused, None, refused, NO_DUMP, refused, None, refused, IMMUTABLE]
    assert alike(directories, attempts) == expected


def test_other_ioctls_are_unknown_as_on_tmpfs(directories: tuple[Path, Path]) -> None:
    def attempts(directory: Path) -> list[object]:
        told: list[object] = []
        for name in ("file", "inner"):
            with opened(directory / name) as descriptor:
                commands = (TCGETS, GET_VERSION, GET_OF_32_BITS, SET_OF_32_BITS, 0x1234, 0xC0FF5AFE, 0)
                told += [outcome(fcntl.ioctl, descriptor, command, bytes(512)) for command in commands]
        return told

    assert alike(directories, attempts) == [Failed("ENOTTY")] * 14


def _open(path: Path, flags: int, data: bytes = b"") -> None:
    with opened(path, flags) as descriptor:
        if data:
            os.write(descriptor, data)


def _touch(what: str, path: Path) -> int:
    """One of the two times alone, which Python cannot set."""
    command = ["touch", "--no-create", "-d", "2001-01-01", what, f"{path}"]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode


TO_FILE: dict[str, Callable[[Path], object]] = {
    "open for reading": lambda path: _open(path, os.O_RDONLY),
    "open for writing": lambda path: _open(path, os.O_WRONLY, b"x"),
    "open for both": lambda path: _open(path, os.O_RDWR),
    "open for appending": lambda path: _open(path, os.O_WRONLY | os.O_APPEND, b"x"),
    "open or make": lambda path: _open(path, os.O_RDWR | os.O_CREAT),
    "make": lambda path: _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL),
    "open and truncate": lambda path: _open(path, os.O_WRONLY | os.O_TRUNC),
    "open for appending and truncate": lambda path: _open(path, os.O_WRONLY | os.O_TRUNC | os.O_APPEND),
    "open for reading and truncate": lambda path: _open(path, os.O_RDONLY | os.O_TRUNC),
    "open without access": lambda path: _open(path, os.O_WRONLY | os.O_PATH),
    "truncate": lambda path: os.truncate(path, 1),
    "truncate to its size": lambda path: os.truncate(path, 5),
    "chmod": lambda path: path.chmod(0o600),
    "chown": lambda path: os.chown(path, 1, 1),
    "touch": os.utime,
    "set times": lambda path: os.utime(path, (1, 1)),
    "set the time of modification": lambda path: _touch("-m", path),
    "set the time of access": lambda path: _touch("-a", path),
    "unlink": os.unlink,
    "link": lambda path: (path.parent / "new").hardlink_to(path),
    "rename": lambda path: path.rename(path.parent / "new"),
    "rename over it": lambda path: (path.parent / "other").rename(path),
    "set an attribute": lambda path: os.setxattr(path, "user.a", b"v"),
    "remove an attribute": lambda path: os.removexattr(path, "user.b"),
    "set an access control list": lambda path: os.setxattr(
        path, "system.posix_acl_access", acl.packed(acl.owner(7), acl.group(5), acl.other(0))
    ),
    "set other flags": lambda path: set_flags(path, get_flags(path) | NO_DUMP),
}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", TO_FILE)
def test_a_file_is_kept_as_on_tmpfs(directories: tuple[Path, Path], flag: str, name: str) -> None:
    for directory in directories:
        set_flags(directory / "file", FLAGS[flag])
        (directory / "file").stat()
    alike(directories, lambda directory: TO_FILE[name](directory / "file"))
    alike(directories, lambda directory: (names(directory), (directory / "file").read_bytes()))


IN_DIRECTORY: dict[str, Callable[[Path], object]] = {
    "make a file": lambda path: _open(path / "new", os.O_WRONLY | os.O_CREAT, b"x"),
    "open or make what is there": lambda path: _open(path / "file", os.O_WRONLY | os.O_CREAT, b"x"),
    "make what is there": lambda path: os.mknod(path / "file"),
    "make a directory": lambda path: (path / "new").mkdir(),
    "make a fifo": lambda path: os.mkfifo(path / "new"),
    "make a symlink": lambda path: (path / "new").symlink_to("x"),
    "link": lambda path: (path / "new").hardlink_to(path / "file"),
    "unlink": lambda path: (path / "file").unlink(),
    "unlink what is not there": lambda path: (path / "missing").unlink(),
    "remove a directory": lambda path: (path / "inner").rmdir(),
    "rename": lambda path: (path / "file").rename(path / "new"),
    "rename out": lambda path: (path / "file").rename(path.parent / "moved").rename(path / "file"),
    "write to a file": lambda path: (path / "file").write_bytes(b"other"),
    "chmod": lambda path: path.chmod(0o700),
    "touch": os.utime,
    "set times": lambda path: os.utime(path, (1, 1)),
    "set an attribute": lambda path: os.setxattr(path, "user.a", b"v"),
    "remove it": os.rmdir,
    "rename it": lambda path: path.rename(path.parent / "moved"),
}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", IN_DIRECTORY)
def test_a_directory_is_kept_as_on_tmpfs(directories: tuple[Path, Path], flag: str, name: str) -> None:
    for directory in directories:
        set_flags(directory, FLAGS[flag])
    alike(directories, IN_DIRECTORY[name])
    alike(directories, names)


def test_a_nameless_file_is_not_made_in_an_immutable_directory(pair: Pair, directories: tuple[Path, Path]) -> None:
    if not pair.abilities.nameless_files:
        pytest.skip("pyfuse3 makes none anywhere")
    for directory in directories:
        set_flags(directory, IMMUTABLE)
    assert alike(directories, lambda directory: _open(directory, os.O_RDWR | os.O_TMPFILE)) == Failed("EPERM")


@pytest.mark.parametrize("flag", FLAGS)
def test_who_has_a_file_open_for_writing_may_go_on_as_on_tmpfs(
    pair: Pair, directories: tuple[Path, Path], flag: str
) -> None:
    def go_on(directory: Path) -> list[object]:
        with opened(directory / "file", os.O_RDWR) as descriptor, opened(directory / "other") as source:
            set_flags(directory / "file", FLAGS[flag])
            told = [outcome(os.pwrite, descriptor, b"over", 0), outcome(os.fsync, descriptor)]
            told += [outcome(os.ftruncate, descriptor, 3), outcome(os.fchmod, descriptor, 0o600)]
            told += [outcome(os.utime, descriptor), outcome(os.utime, descriptor, (1, 1))]
            told.append(outcome(os.copy_file_range, source, descriptor, 5, 0, 0))
            if pair.abilities.fallocate:
                for mode in (0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE):
                    told.append(outcome(fallocate, descriptor, mode, 0, 8192))
        return [*told, (directory / "file").read_bytes()]

    alike(directories, go_on)


@pytest.mark.parametrize("how", [os.R_OK, os.W_OK, os.R_OK | os.W_OK, os.F_OK])
@pytest.mark.parametrize("flag", FLAGS)
def test_access_tells_what_may_be_done_to_a_file(
    pair: Pair, directories: tuple[Path, Path], flag: str, how: int
) -> None:
    if pair.configuration.channel == "pyfuse3" and pair.configuration.cache == "writeback":
        pytest.skip("the kernel does not ask: it is told to keep attributes")
    for directory in directories:
        set_flags(directory / "file", FLAGS[flag])
    alike(directories, lambda directory: os.access(directory / "file", how))


def test_flags_that_are_gone_forbid_nothing_and_cost_nothing(pair: Pair, directories: tuple[Path, Path]) -> None:
    def again(directory: Path) -> bytes:
        file = directory / "file"
        set_flags(file, IMMUTABLE)
        file.stat()
        set_flags(file, 0)
        file.write_bytes(b"new")
        file.rename(directory / "moved").rename(file)
        return file.read_bytes()

    assert alike(directories, again) == b"new"


def test_statx_shows_no_flags(directories: tuple[Path, Path]) -> None:
    """The kernel asks for them, is told, and passes nothing on: should it begin to, this is a difference less."""

    def shown(directory: Path) -> int:
        set_flags(directory / "file", IMMUTABLE)
        return inode_flags.statx_attributes(directory / "file") & (IMMUTABLE | APPEND_ONLY | NO_DUMP)

    assert [shown(directory) for directory in directories] == [IMMUTABLE, 0]


def test_a_callers_own_ioctl_sets_nothing(directories: tuple[Path, Path]) -> None:
    """What the kernel refuses it may pass on as it is, unchecked: by then other flags could stand in its place."""
    with opened(directories[1] / "file") as descriptor:
        for flags in (1, 0x100):
            with pytest.raises(OSError) as raised:
                fcntl.ioctl(descriptor, SET, struct.pack("I", flags))
            assert raised.value.errno in (errno.EOPNOTSUPP, errno.ENOTTY)
        assert struct.unpack("I", fcntl.ioctl(descriptor, GET, bytes(4))) == (0,)
