"""What the kernel keeps of a file is right: attributes, rights, pages, whoever changed them and by whatever way."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import stat
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from conftest import NOBODY
from support.mounts import Configuration, configurations, mounted_nrfs

PAGE = 4096
CONFIGURATIONS = [
    (configuration, is_scarce)
    for configuration in configurations([1, 2], ("writeback", "none"))
    for is_scarce in ([False, True] if configuration.is_collecting else [False])
]
"""With much space, and with so little that the kernel has to ask before it collects data."""

STATX_FIELDS = {
    "mode": 0x2,
    "nlink": 0x4,
    "uid": 0x8,
    "gid": 0x10,
    "mtime": 0x40,
    "ctime": 0x80,
    "size": 0x200,
    "blocks": 0x400,
}
AT_SYMLINK_NOFOLLOW = 0x100
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=lambda shape: f"{shape[0]}{'-scarce' if shape[1] else ''}")
def mount(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mount on which set-user-id counts, and everybody may do everything."""
    if os.geteuid() != 0:
        pytest.skip("only root can be other users")
    shape: tuple[Configuration, bool] = request.param
    configuration, is_scarce = shape
    with mounted_nrfs(**configuration.options, size=32 << 20, allow_other=True, o="suid") as path:
        path.chmod(0o777)
        if is_scarce:
            (path / "fill").write_bytes(bytes(29 << 20))
        yield path


def act_as(user: int, act: Callable[[], object]) -> bool:
    """Has a user act, in a process of his own; whether he was let."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if user != 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def statx(path: Path, mask: int) -> dict[str, object]:
    """The fields of a path that are asked for, and the others as they come."""
    told = ctypes.create_string_buffer(256)
    if libc.statx(-100, os.fsencode(path), AT_SYMLINK_NOFOLLOW, mask, told) != 0:
        return {}
    nlink, uid, gid, mode = struct.unpack_from("=IIIH", told, 16)
    size, blocks = struct.unpack_from("=QQ", told, 40)
    ctime, mtime = (struct.unpack_from("=qI", told, offset) for offset in (96, 112))
    all_fields = {"mode": oct(mode), "nlink": nlink, "uid": uid, "gid": gid, "mtime": mtime, "ctime": ctime}
    return {**all_fields, "size": size, "blocks": blocks}


@dataclass(frozen=True)
class Files:
    """What a change is tried on."""

    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "file"

    @property
    def other(self) -> Path:
        return self.directory / "other"

    def all(self) -> list[Path]:
        return [self.directory, *self.directory.iterdir()]

    def open(self, flags: int = 0) -> int:
        return os.open(self.file, os.O_RDWR | flags)

    @classmethod
    def fresh(cls, directory: Path) -> Files:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        directory.chmod(0o777)
        files = cls(directory)
        for path in (files.file, files.other):
            path.write_bytes(b"a" * 20_000)
            path.chmod(0o6777)
        (directory / "sub").mkdir()
        for path in files.all():
            statx(path, 0xFFF)
        return files


def _direct(files: Files) -> None:
    page = mmap.mmap(-1, PAGE)
    os.pwrite(files.open(os.O_DIRECT), page, 8 * PAGE)


def _splice(files: Files) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"spliced")
    os.splice(reading, files.open(), 7)


def _link_and_unlink(files: Files) -> None:
    link = files.directory / "l"
    link.hardlink_to(files.file)
    link.unlink()


def _punch(files: Files) -> None:
    flags = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    if libc.fallocate(files.open(), flags, ctypes.c_long(0), ctypes.c_long(8192)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def _store(files: Files) -> None:
    with mmap.mmap(files.open(), PAGE) as mapping:
        mapping[0] = 66
        mapping.flush()


CHANGES: dict[str, Callable[[Files], object]] = {
    "write": lambda files: os.pwrite(files.open(), b"x", 0),
    "write more": lambda files: os.pwrite(files.open(), b"x" * 60_000, 0),
    "append": lambda files: os.write(files.open(os.O_APPEND), b"x"),
    "direct": _direct,
    "splice": _splice,
    "store": _store,
    "sendfile": lambda files: os.sendfile(files.open(), os.open(files.other, os.O_RDONLY), 0, 20_000),
    "copy": lambda files: os.copy_file_range(os.open(files.other, os.O_RDONLY), files.open(), 20_000, 0, 30_000),
    "truncate": lambda files: os.truncate(files.file, 10),
    "ftruncate": lambda files: os.ftruncate(files.open(), 100_000),
    "open with O_TRUNC": lambda files: files.open(os.O_TRUNC),
    "fallocate": lambda files: os.posix_fallocate(files.open(), 0, 200_000),
    "punch": _punch,
    "chmod": lambda files: files.file.chmod(0o600),
    "chown": lambda files: os.chown(files.file, NOBODY, NOBODY),
    "utime": lambda files: os.utime(files.file, (1, 2)),
    "link and unlink": _link_and_unlink,
    "rename over": lambda files: files.other.rename(files.file),
    "unlink": lambda files: files.other.unlink(),
    "mkdir": lambda files: (files.directory / "sub" / "new").mkdir(),
    "rmdir": lambda files: (files.directory / "sub").rmdir(),
    "set an access list": lambda files: subprocess.run(["setfacl", "-m", "u:5:rw", files.file], check=True),
    "set a default list": lambda files: subprocess.run(["setfacl", "-d", "-m", "u:5:rw", files.directory], check=True),
}


@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize("name", CHANGES)
def test_each_attribute_asked_for_alone_is_as_among_all(mount: Path, name: str, user: int) -> None:
    """Each is asked for of files of its own: the answer to another question could have brought it along."""
    asked = {field: Files.fresh(mount / f"attributes {field}") for field in STATX_FIELDS}

    def change() -> None:
        for files in asked.values():
            with suppress(OSError, subprocess.CalledProcessError):
                CHANGES[name](files)

    act_as(user, change)
    wrong = []
    for field, files in asked.items():
        for path in files.all():
            alone, whole = statx(path, STATX_FIELDS[field]), statx(path, 0xFFF)
            if alone.get(field) != whole.get(field):
                wrong.append((path.name, field, alone.get(field), whole.get(field)))
    assert wrong == []


CONTENT_CHANGES = [
    *(
        "write",
        "append",
        "direct",
        "splice",
        "copy",
        "truncate",
        "ftruncate",
        "open with O_TRUNC",
        "fallocate",
        "punch",
    ),
]


@pytest.mark.parametrize("mode", [0o4777, 0o6777, 0o2777], ids=oct)
@pytest.mark.parametrize("name", CONTENT_CHANGES)
def test_who_changes_a_file_of_somebody_else_takes_its_privileges_away_at_once(
    mount: Path, name: str, mode: int
) -> None:
    """As ls and exec ask: for the mode alone, which the kernel may have kept."""
    files = Files.fresh(mount / "privileges")
    files.file.chmod(mode)
    files.file.stat()
    if act_as(NOBODY, partial(CHANGES[name], files)):
        assert statx(files.file, STATX_FIELDS["mode"])["mode"] == oct(stat.S_IFREG | 0o777)


@pytest.mark.parametrize("flags", [0, os.O_DIRECT, os.O_APPEND], ids=["buffered", "direct", "append"])
def test_a_program_that_somebody_else_wrote_to_does_not_run_as_its_owner(mount: Path, flags: int) -> None:
    program = mount / "id"
    program.unlink(missing_ok=True)
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4777)
    asked = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"{program}", "-u"]
    assert "0" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    page = mmap.mmap(-1, PAGE)
    page.write(program.read_bytes()[:PAGE])

    def write() -> None:
        descriptor = os.open(program, os.O_RDWR | flags)
        os.pwrite(descriptor, page, 0)

    assert act_as(NOBODY, write)
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert told.stdout.split() in ([str(NOBODY)], [])


# -- pages behind asynchronous direct writes --------------------------------------------------------------------------

SYS_IO_SETUP, SYS_IO_GETEVENTS, SYS_IO_SUBMIT, SYS_IO_DESTROY = 206, 208, 209, 207
IOCB_CMD_PWRITE = 1


def write_asynchronously(context: ctypes.c_ulong, descriptor: int, buffer: mmap.mmap) -> None:
    """Writes the whole buffer to the start of the file by io_submit(2), and waits for the end of that."""
    length = len(buffer)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    block = struct.pack("=QIiHhIQQqQII", 0, 0, 0, IOCB_CMD_PWRITE, 0, descriptor, address, length, 0, 0, 0, 0)
    blocks = ctypes.create_string_buffer(block, len(block))
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(blocks))
    assert libc.syscall(SYS_IO_SUBMIT, context, 1, pointers) == 1
    event = ctypes.create_string_buffer(32)
    assert libc.syscall(SYS_IO_GETEVENTS, context, 1, 1, event, None) == 1
    assert struct.unpack_from("=q", event, 16)[0] == length


def test_what_an_asynchronous_direct_write_has_stored_is_read_at_once(mount: Path) -> None:
    path = mount / "asynchronous"
    size = 160 * PAGE
    path.write_bytes(bytes(size))
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            path.read_bytes()

    readers = [threading.Thread(target=read) for _ in range(2)]
    context = ctypes.c_ulong(0)
    assert libc.syscall(SYS_IO_SETUP, 1, ctypes.byref(context)) == 0
    direct, buffered = os.open(path, os.O_RDWR | os.O_DIRECT), os.open(path, os.O_RDONLY)
    buffer = mmap.mmap(-1, size)
    try:
        for reader in readers:
            reader.start()
        for number in range(150):
            content = bytes([1 + number]) * size
            buffer.seek(0)
            buffer.write(content)
            write_asynchronously(context, direct, buffer)
            assert os.pread(buffered, size, 0) == content
    finally:
        ended.set()
        for reader in readers:
            reader.join()
        libc.syscall(SYS_IO_DESTROY, context)
        os.close(direct)
        os.close(buffered)
