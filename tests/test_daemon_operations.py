"""What a mount does for its users: file operations through the kernel, and a handler's own faults."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pyfuse3
import pytest
from conftest import Mounts, alone, wait_until
from support.mounts import Option, mounted_nrfs

from mount.operations import Operations
from mount.options import Cache
from nrfs import Filesystem

Reply = TypeVar("Reply")


KINDS: dict[str, dict[str, Option]] = {
    "writeback": {"cache": "writeback", "nodes": "auto"},
    "two nodes": {"cache": "writeback", "nodes": 2, "logs": 1},
    "no cache, more nodes than CPUs": {"cache": "none", "nodes": 5, "logs": 3},
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def mounted(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A mount of each kind."""
    with mounted_nrfs(**request.param) as path:
        yield path


@pytest.fixture
def place(mounted: Path) -> Path:
    """A new directory on a mount of each kind."""
    return Path(tempfile.mkdtemp(dir=mounted))


def test_bytes_come_back(place: Path) -> None:
    content = os.urandom(3 << 20)
    (place / "file").write_bytes(content)
    assert (place / "file").read_bytes() == content
    with (place / "file").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
        file.truncate(2_000_000)
    content = content[:1_000_000] + b"changed" + content[1_000_007:2_000_000]
    assert (place / "file").read_bytes() == content
    with (place / "file").open("ab") as file:
        file.write(b"end")
    assert (place / "file").read_bytes() == content + b"end"
    assert (place / "file").stat().st_size == 2_000_003


def test_opening_to_truncate_empties(place: Path) -> None:
    (place / "file").write_bytes(b"long content")
    (place / "file").write_bytes(b"short")
    assert (place / "file").read_bytes() == b"short"
    os.close(os.open(place / "file", os.O_WRONLY | os.O_TRUNC))
    assert (place / "file").stat().st_size == 0


def test_holes_read_as_zeros_and_take_no_space(place: Path) -> None:
    with (place / "file").open("wb") as file:
        file.seek(10 << 20)
        file.write(b"x")
    assert (place / "file").read_bytes() == bytes(10 << 20) + b"x"
    assert (place / "file").stat().st_blocks * 512 < 1 << 20


def test_names_are_made_found_moved_and_removed(place: Path) -> None:
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_text("x")
    (place / "a" / "b" / "file").rename(place / "file")
    (place / "a" / "other name").hardlink_to(place / "file")
    assert (place / "file").stat().st_nlink == 2
    (place / "link").symlink_to("a/other name")
    assert (place / "link").read_text() == "x"
    assert (place / "link").readlink() == Path("a/other name")
    os.mkfifo(place / "fifo")
    assert stat.S_ISFIFO((place / "fifo").stat().st_mode)
    with pytest.raises(OSError) as caught:
        (place / "a").rmdir()
    assert caught.value.errno == errno.ENOTEMPTY
    with pytest.raises(OSError) as caught:
        (place / ("x" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG
    (place / "a" / "b").rmdir()
    (place / "a" / "other name").unlink()
    (place / "a").rmdir()
    assert sorted(path.name for path in place.iterdir()) == ["fifo", "file", "link"]


def test_a_missing_name_is_missing_until_it_is_made(place: Path) -> None:
    for _ in range(2):
        assert not (place / "name").exists()
    (place / "name").mkdir()
    assert (place / "name").is_dir()
    (place / "name").rmdir()
    assert not (place / "name").exists()


def test_renames_can_exchange_or_refuse_to_replace(place: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def rename(old: str, new: str, flags: int) -> int:
        result = libc.renameat2(-100, bytes(place / old), -100, bytes(place / new), flags)
        return ctypes.get_errno() if result else 0

    (place / "a").write_text("a")
    (place / "b").write_text("b")
    assert rename("a", "b", 1) == errno.EEXIST
    assert rename("a", "b", 2) == 0
    assert ((place / "a").read_text(), (place / "b").read_text()) == ("b", "a")
    assert rename("a", "c", 1) == 0


def test_a_directory_of_many_names_is_listed_whole(place: Path) -> None:
    names = {f"{number:05} {'x' * (number % 200)}" for number in range(2000)}
    for name in names:
        os.mknod(place / name)
    listed = [path.name for path in place.iterdir()]
    assert (len(listed), set(listed)) == (len(names), names)
    with os.scandir(place) as entries:
        assert {entry.name for entry in entries if entry.stat().st_size == 0} == names


def test_a_directory_that_changes_while_it_is_listed_keeps_what_stays(place: Path) -> None:
    for number in range(1000):
        os.mknod(place / f"{number}")
    seen = []
    with os.scandir(place) as entries:
        for entry in entries:
            number = int(entry.name)
            seen.append(entry.name)
            if number % 2 and number > 500:
                (place / entry.name).unlink()
                if number < 600:
                    os.mknod(place / f"{number + 10_000}")
    stayed = {str(number) for number in range(1000) if not (number % 2 and number > 500)}
    assert len(seen) == len(set(seen))
    assert stayed <= set(seen)


def test_an_unlinked_file_lives_while_it_is_open(place: Path) -> None:
    with (place / "file").open("w+b") as file:
        file.write(b"before")
        (place / "file").unlink()
        file.write(b" after")
        file.seek(0)
        assert file.read() == b"before after"
        assert os.fstat(file.fileno()).st_nlink == 0


def test_attributes_are_set_and_kept(place: Path) -> None:
    (place / "file").touch()
    (place / "file").chmod(0o4640)
    os.chown(place / "file", 12, 34)
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o640
    (place / "file").chmod(0o1640)
    os.utime(place / "file", ns=(1_234_567_891_234_567_891, -5_000_000_001))
    status = (place / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1640, 12, 34)
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_234_567_891_234_567_891, -5_000_000_001)
    before = time.time() - 1
    os.utime(place / "file")
    status = (place / "file").stat()
    assert before < status.st_atime < time.time() + 1
    assert before < status.st_mtime < time.time() + 1
    assert before < status.st_ctime < time.time() + 1


def test_a_write_moves_the_times_of_the_file_alone(place: Path) -> None:
    (place / "file").write_text("x")
    os.utime(place / "file", (0, 0))
    os.utime(place, (0, 0))
    with (place / "file").open("a") as file:
        file.write("y")
    assert abs((place / "file").stat().st_mtime - time.time()) < 5
    assert place.stat().st_mtime == 0


def test_extended_attributes(place: Path) -> None:
    file = place / "file"
    file.touch()
    with pytest.raises(OSError) as caught:
        os.getxattr(file, "user.none")
    assert caught.value.errno == errno.ENODATA
    os.setxattr(file, "user.name", b"value\0with zero")
    assert os.getxattr(file, "user.name") == b"value\0with zero"
    with pytest.raises(FileExistsError):
        os.setxattr(file, "user.name", b"", os.XATTR_CREATE)
    with pytest.raises(OSError) as caught:
        os.setxattr(file, "user.other", b"", os.XATTR_REPLACE)
    assert caught.value.errno == errno.ENODATA
    os.setxattr(file, "user.name", b"new", os.XATTR_REPLACE)
    os.setxattr(file, "user.empty", b"", os.XATTR_CREATE)
    assert sorted(os.listxattr(file)) == ["user.empty", "user.name"]
    os.removexattr(file, "user.name")
    assert os.listxattr(file) == ["user.empty"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_is_told_and_comes_back(mount_nrfs: Mounts, kind: str) -> None:
    place = mount_nrfs(None, **KINDS[kind])
    before = os.statvfs(place)
    assert before.f_blocks * before.f_frsize == 1 << 30
    assert before.f_namemax == 255
    (place / "file").write_bytes(bytes(1 << 20))
    subprocess.run(["sync", "-f", place], check=True)
    during = os.statvfs(place)
    assert (before.f_bfree - during.f_bfree) * before.f_frsize >= 1 << 20
    assert before.f_ffree - during.f_ffree == 1
    (place / "file").unlink()
    wait_until(lambda: os.statvfs(place).f_bfree == before.f_bfree, "the kernel to forget the file")


@pytest.mark.parametrize("cache", ["writeback", "none"])
def test_a_full_file_system_says_so(mount_nrfs: Mounts, cache: str) -> None:
    path = mount_nrfs(size="1M", cache=cache)
    with pytest.raises(OSError) as caught, (path / "file").open("wb") as file:
        file.write(bytes(4 << 20))
        file.flush()
        os.fsync(file.fileno())
    assert caught.value.errno == errno.ENOSPC
    (path / "file").unlink()
    wait_until(lambda: os.statvfs(path).f_bfree == os.statvfs(path).f_blocks, "the kernel to forget the file")
    (path / "small").write_bytes(b"there is room again")
    assert (path / "small").read_bytes() == b"there is room again"


def test_a_file_can_be_mapped_and_shared(mountpoint: Path) -> None:
    (mountpoint / "file").write_bytes(bytes(mmap.PAGESIZE * 3))
    with (mountpoint / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5000:5006] = b"mapped"
        assert file.read()[5000:5006] == b"mapped"
        memory.flush()
    assert (mountpoint / "file").read_bytes()[5000:5006] == b"mapped"


@alone  # It drops caches of the whole machine.
def test_a_file_is_found_again_by_its_handle(mountpoint: Path) -> None:
    """As an NFS server does, though the kernel may have forgotten the inode: name_to_handle_at(2)."""
    (mountpoint / "a" / "b").mkdir(parents=True)
    (mountpoint / "a" / "b" / "file").write_text("content")
    libc = ctypes.CDLL(None, use_errno=True)
    handle = (ctypes.c_uint8 * 136)()
    ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint32))[0] = 128
    mount_id = ctypes.c_int()
    path = bytes(mountpoint / "a" / "b" / "file")
    assert libc.name_to_handle_at(-100, path, handle, ctypes.byref(mount_id), 0) == 0
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    root = os.open(mountpoint, os.O_RDONLY)
    try:
        descriptor = libc.open_by_handle_at(root, handle, os.O_RDONLY)
        assert descriptor >= 0, os.strerror(ctypes.get_errno())
        with os.fdopen(descriptor) as file:
            assert file.read() == "content"
    finally:
        os.close(root)


# Caching


def test_without_a_cache_every_operation_is_a_request(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(cache="none")
    (path / "file").write_bytes(b"content")
    before = mount_nrfs.requests(path)
    with (path / "file").open("rb", buffering=0) as file:
        for _ in range(10):
            os.fstat(file.fileno())
            os.pread(file.fileno(), 7, 0)
    made = {kind: count - before[kind] for kind, count in mount_nrfs.requests(path).items()}
    assert made["getattr"] >= 10
    assert made["read"] == 10


def test_with_the_cache_what_is_known_is_not_asked_again(mountpoint: Path, mount_nrfs: Mounts) -> None:
    (mountpoint / "file").write_bytes(b"content")
    (mountpoint / "file").stat()
    assert not (mountpoint / "missing").exists()
    before = mount_nrfs.requests(mountpoint)
    for _ in range(10):
        assert (mountpoint / "file").stat().st_size == 7
        assert not (mountpoint / "missing").exists()
    assert mount_nrfs.requests(mountpoint) == before


def test_closing_and_syncing_cost_no_request(mountpoint: Path, mount_nrfs: Mounts) -> None:
    def use() -> None:
        with (mountpoint / "file").open("wb") as file:
            file.write(b"content")
            os.fsync(file.fileno())
        directory = os.open(mountpoint, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    use()
    before = mount_nrfs.requests(mountpoint)
    use()
    after = mount_nrfs.requests(mountpoint)
    assert [after[kind] - before[kind] for kind in ("flush", "fsync", "fsyncdir")] == [0, 0, 0]


def test_requests_carry_up_to_a_mebibyte(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(cache="none")
    with (path / "file").open("wb", buffering=0) as file, mmap.mmap(-1, 4 << 20) as page_aligned:
        before = mount_nrfs.requests(path)["write"]
        assert file.write(page_aligned) == 4 << 20
    assert mount_nrfs.requests(path)["write"] - before == 4


# A handler's own faults


class Context:
    uid = 0
    gid = 0
    umask = 0


def answered(request: Coroutine[Any, Any, Reply]) -> Reply:
    """Runs a handler as pyfuse3 does; none ever waits."""
    try:
        request.send(None)
    except StopIteration as stop:
        return cast("Reply", stop.value)
    raise AssertionError("a handler waited")


class Faulty:
    """A service that has a fault."""

    def attributes(self, ino: int) -> None:
        raise RuntimeError("a fault")


def test_a_fault_costs_its_caller_an_error_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    operations = Operations(cast("Filesystem", Faulty()), Cache.WRITEBACK, lambda: None)
    context = cast("pyfuse3.RequestContext", Context())
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            with pytest.raises(pyfuse3.FUSEError) as caught:
                answered(operations.getattr(1, context))
            assert caught.value.errno == errno.EIO
    assert [record.message for record in caplog.records] == ["getattr failed; this is a fault of nrfs"]


def test_an_inode_lives_until_the_kernel_forgets_all_it_looked_up() -> None:
    service = Filesystem(nodes=1, size="16M")
    operations = Operations(service, Cache.WRITEBACK, lambda: None)
    context = cast("pyfuse3.RequestContext", Context())
    opened, entry = answered(operations.create(1, b"file", stat.S_IFREG | 0o644, os.O_RDWR, context))
    ino = entry.st_ino
    answered(operations.lookup(1, b"file", context))
    answered(operations.unlink(1, b"file", context))
    answered(operations.release(opened.fh))
    service.forget(ino)
    assert service.attributes(ino).nlink == 0
    service.forget(ino)
    with pytest.raises(FileNotFoundError):
        service.attributes(ino)


def test_all_that_pyfuse3_offers_is_answered() -> None:
    kinds = {name for name, value in vars(pyfuse3.Operations).items() if callable(value)}
    left_to_the_kernel = {"access", "poll"}
    answered_natively = {"forget", "listxattr"}
    assert kinds - set(vars(Operations)) == left_to_the_kernel | answered_natively | {"stacktrace"}
