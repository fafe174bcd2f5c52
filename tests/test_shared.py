"""``--content shared``: the kernel itself reads and writes the bytes of files, and all is as on a tmpfs.

The suites of conformance run on it too (``NRFS_TEST_CONTENT=shared``). Here is what could go wrong because the daemon
does not see reads and writes.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import mmap
import os
import resource
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path

import pytest
from conftest import NOBODY, Mounts, User, alone, daemon_of, in_namespace, run_nrfs, wait_until
from support import syscalls
from support.mounts import Configuration, Pair, mounted_nrfs, mounted_pair

from mount.channel import Channel, choose

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may let the kernel read and write other files")

MIB = 1 << 20
TICK = 0.02
"""Seconds in which the clock that stamps files has surely moved."""

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    mounts = Mounts()
    configuration = Configuration(1, channel=choose(Channel.AUTO).channel, content="shared")
    try:
        with mounted_pair(mounts.directory(), configuration, size=128 * MIB, allow_other=True) as pair:
            yield pair
    finally:
        mounts.clean_up()


def on_both(pair: Pair, action: Callable[[Path], object]) -> object:
    """What an action says in a new directory where anybody may write: the same on nrfs as on tmpfs."""
    said = []
    for directory in pair.directories("both"):
        directory.chmod(0o777)
        try:
            said.append(action(directory))
        except OSError as error:
            said.append(error.errno)
        finally:
            shutil.rmtree(directory)
    theirs, ours = said
    assert ours == theirs
    return ours


def in_child(action: Callable[[], object], user: int = 0) -> int:
    """Runs an action in a process of its own; returns how that ended: 0, an exit status, or minus a signal."""
    process = os.fork()
    if process == 0:
        faulthandler.disable()  # A SIGBUS may be what is wanted.
        with suppress(BaseException):
            os.setresgid(user, user, user)
            os.setgroups([])
            os.setresuid(user, user, user)
            action()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def fill(path: Path, size: int) -> None:
    path.write_bytes(b"x" * size)


@contextmanager
def mapped(path: Path, size: int) -> Iterator[Callable[[int], object]]:
    """A shared mapping of a file that is not open any more; ``mmap`` would keep a descriptor. Gives a store."""
    with syscalls.opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        os.ftruncate(descriptor, size)
        address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, descriptor, 0)
    assert address != ctypes.c_void_p(-1).value
    try:
        yield lambda offset: ctypes.memset(address + offset, 1, 1)
    finally:
        libc.munmap(address, size)


def test_write_tells_that_there_is_no_space_and_a_store_is_a_sigbus(pair: Pair) -> None:
    def action(directory: Path) -> object:
        hole = directory / "hole"
        with (
            mapped(hole, 4 * MIB) as store,
            syscalls.opened(directory / "file", os.O_CREAT | os.O_WRONLY) as descriptor,
        ):
            written = 0
            with pytest.raises(OSError, match="No space"):
                while True:
                    written += os.write(descriptor, bytes(MIB))
            return written > 100 * MIB, in_child(lambda: store(MIB))

    assert on_both(pair, action) == (True, -signal.SIGBUS)


def test_space_is_free_at_once_after_an_unlink_near_full(pair: Pair) -> None:
    def action(directory: Path) -> object:
        for _ in range(5):
            fill(directory / "large", 120 * MIB)
            (directory / "large").unlink()
        return True

    assert on_both(pair, action)


def test_space_is_free_at_once_after_a_rename_over_near_full(pair: Pair) -> None:
    def action(directory: Path) -> object:
        for _ in range(5):
            fill(directory / "new", 60 * MIB)
            (directory / "new").rename(directory / "old")
        return True

    assert on_both(pair, action)


def test_holes_are_found_beside_stores_to_a_mapping(pair: Pair) -> None:
    def action(directory: Path) -> object:
        with mapped(directory / "file", MIB) as store, syscalls.opened(directory / "file") as descriptor:
            store(500_000)
            return os.lseek(descriptor, 0, os.SEEK_DATA), os.lseek(descriptor, 500_000, os.SEEK_HOLE)

    assert on_both(pair, action) == (499_712, 503_808)


def test_direct_and_buffered_reads_and_writes_see_each_other(pair: Pair) -> None:
    def action(directory: Path) -> object:
        page = mmap.mmap(-1, 4096)
        flags = os.O_RDWR | os.O_CREAT
        with (
            syscalls.opened(directory / "file", flags | os.O_DIRECT) as direct,
            syscalls.opened(directory / "file", flags) as buffered,
        ):
            seen = []
            for value in range(1, 50):
                page[:] = bytes([value]) * 4096
                os.pwrite(direct, page, 0)
                seen.append(os.pread(buffered, 1, 7))
                os.pwrite(buffered, b"b", 7)
                os.preadv(direct, [page], 0)
                seen.append(page[7:8])
            return seen

    expected = [byte for value in range(1, 50) for byte in (bytes([value]), b"b")]
    assert on_both(pair, action) == expected


def test_stores_are_seen_by_stat_also_after_the_descriptor_was_closed(pair: Pair) -> None:
    def action(directory: Path) -> object:
        path = directory / "file"
        with mapped(path, MIB) as store:
            seen = [path.stat()]
            for page in range(3):
                time.sleep(TICK)
                store(page * 4096)
                seen.append(path.stat())
        time.sleep(TICK)
        seen.append(path.stat())
        steps = list(pairwise(seen))
        moved = [after.st_mtime_ns > before.st_mtime_ns for before, after in steps]
        return moved, [after.st_blocks - before.st_blocks for before, after in steps]

    assert on_both(pair, action) == ([True, True, True, False], [8, 8, 8, 0])


def test_once_nothing_is_mapped_the_kernel_keeps_attributes_again(pair: Pair) -> None:
    path = pair.subject / "kept"
    with mapped(path, 4096) as store:
        store(0)
        path.stat()
        before = Mounts().requests(pair.subject)["getattr"]
        path.stat()
        assert Mounts().requests(pair.subject)["getattr"] == before + 1
    time.sleep(TICK)
    path.stat()
    before = Mounts().requests(pair.subject)["getattr"]
    path.stat()
    assert Mounts().requests(pair.subject)["getattr"] == before
    path.unlink()


SET_ID = 0o6777


def mode_of(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


WAYS: dict[str, Callable[[int, int], object]] = {
    "write": lambda descriptor, source: os.write(descriptor, b"x"),
    "pwritev": lambda descriptor, source: os.pwritev(descriptor, [b"x", b"y"], 3),
    "sendfile": lambda descriptor, source: os.sendfile(descriptor, source, 0, 5),
    "copy_file_range": lambda descriptor, source: os.copy_file_range(source, descriptor, 5, 0),
    "ftruncate": lambda descriptor, source: os.ftruncate(descriptor, 2),
    "fallocate": lambda descriptor, source: syscalls.fallocate(descriptor, 0, 0, 4096),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("opened", ["before chmod", "after chmod", "by root, before chmod"])
@pytest.mark.parametrize("writer", [0, NOBODY])
def test_set_user_id_goes_when_another_user_writes(pair: Pair, way: str, opened: str, writer: int) -> None:
    def action(directory: Path) -> object:
        path, source = directory / "file", directory / "source"
        fill(source, 10)
        path.touch()
        path.chmod(0o666)
        ready, go = os.pipe(), os.pipe()

        def write() -> None:
            with syscalls.opened(source) as readable:
                if opened == "before chmod":
                    try:
                        descriptor = os.open(path, os.O_RDWR)
                    finally:
                        os.write(ready[1], b"r")
                    os.read(go[0], 1)
                elif opened == "after chmod":
                    descriptor = os.open(path, os.O_RDWR)
                else:
                    descriptor = inherited
                WAYS[way](descriptor, readable)

        inherited = os.open(path, os.O_RDWR)
        if opened == "before chmod":
            process = os.fork()
            if process == 0:
                os._exit(in_child(write, writer))
            os.read(ready[0], 1)
            path.chmod(SET_ID)
            os.write(go[1], b"g")
            ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        else:
            path.chmod(SET_ID)
            ended = in_child(write, writer)
        for descriptor in (inherited, *ready, *go):
            os.close(descriptor)
        return ended, mode_of(path)

    assert on_both(pair, action) == (0, "0o6777" if writer == 0 else "0o777")


@pytest.mark.parametrize("is_open", [False, True])
def test_nobody_else_takes_set_user_id_away_without_a_write(pair: Pair, *, is_open: bool) -> None:
    """As chown(2) of nothing may be taken for a write that is about to come."""
    path = pair.subject / "program"
    path.touch()
    path.chmod(SET_ID)
    with syscalls.opened(path, os.O_RDWR if is_open else os.O_RDONLY) as descriptor:
        in_child(lambda: os.chown(path, -1, -1), NOBODY)
        in_child(lambda: os.chown(path, -1, -1, follow_symlinks=False), NOBODY)
        in_child(lambda: os.fchown(descriptor, -1, -1), NOBODY)
        assert mode_of(path) == oct(SET_ID)
    path.unlink()


def test_truncation_by_open_takes_set_user_id_away(pair: Pair) -> None:
    def action(directory: Path) -> object:
        path = directory / "file"
        fill(path, 5)
        path.chmod(SET_ID)
        ended = in_child(lambda: os.open(path, os.O_WRONLY | os.O_TRUNC), NOBODY)
        return ended, mode_of(path), path.stat().st_size

    assert on_both(pair, action) == (0, "0o777", 0)


def test_any_write_takes_capabilities_away(pair: Pair) -> None:
    def action(directory: Path) -> object:
        path = directory / "file"
        with syscalls.opened(path, os.O_CREAT | os.O_WRONLY) as descriptor:
            os.write(descriptor, b"x")
            os.setxattr(path, "security.capability", bytes.fromhex("01000002002000000000000000000000" + 8 * "0"))
            before = os.listxattr(path)
            os.write(descriptor, b"x")
            return before, os.listxattr(path)

    assert on_both(pair, action) == (["security.capability"], [])


def test_programs_run_and_are_not_written_meanwhile(pair: Pair) -> None:
    def action(directory: Path) -> object:
        path = directory / "sleep"
        shutil.copy("/bin/sleep", path)
        with subprocess.Popen([path, "60"]) as process:
            with pytest.raises(OSError, match="Text file busy"):
                path.open("r+b")
            process.kill()
        return subprocess.run([path, "0"], check=False).returncode

    assert on_both(pair, action) == 0


def test_a_file_without_a_name_gets_one(pair: Pair) -> None:
    def action(directory: Path) -> object:
        with syscalls.opened(directory, os.O_TMPFILE | os.O_RDWR) as descriptor:
            os.write(descriptor, b"content")
            syscalls.linkat(f"/proc/self/fd/{descriptor}".encode(), bytes(directory / "name"), follow=True)
        return (directory / "name").read_bytes()

    assert on_both(pair, action) == b"content"


def test_unlinked_files_stay_while_they_are_open(pair: Pair) -> None:
    def action(directory: Path) -> object:
        path = directory / "file"
        with syscalls.opened(path, os.O_CREAT | os.O_RDWR) as descriptor:
            os.write(descriptor, b"old")
            path.unlink()
            path.write_bytes(b"new")
            os.write(descriptor, b"er")
            again = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            return os.pread(descriptor, 9, 0), again, os.fstat(descriptor).st_size, path.read_bytes()

    assert on_both(pair, action) == (b"older", b"older", 5, b"new")


def test_unlinked_files_stay_while_they_are_mapped_also_near_full(pair: Pair) -> None:
    def action(directory: Path) -> object:
        fill(directory / "large", 100 * MIB)
        with mapped(directory / "file", 8192) as store:
            store(5)
            (directory / "file").unlink()
            fill(directory / "other", 8192)
            return in_child(lambda: store(6)), (directory / "other").read_bytes() == b"x" * 8192

    assert on_both(pair, action) == (0, True)


def test_processes_that_append_overwrite_nothing(pair: Pair) -> None:
    def action(directory: Path) -> object:
        def append(letter: bytes) -> None:
            with syscalls.opened(directory / "file", os.O_CREAT | os.O_WRONLY | os.O_APPEND) as descriptor:
                for _ in range(1000):
                    os.write(descriptor, letter * 10)

        process = os.fork()
        if process == 0:
            append(b"a")
            os._exit(0)
        append(b"b")
        os.waitpid(process, 0)
        content = (directory / "file").read_bytes()
        lines = {content[start : start + 10] for start in range(0, len(content), 10)}
        return len(content), sorted(lines)

    assert on_both(pair, action) == (20_000, [b"a" * 10, b"b" * 10])


def test_fallocate_does_what_it_does_on_tmpfs(pair: Pair) -> None:
    def action(directory: Path) -> object:
        said: list[object] = []
        keep, punch = syscalls.FALLOC_FL_KEEP_SIZE, syscalls.FALLOC_FL_PUNCH_HOLE
        with syscalls.opened(directory / "file", os.O_CREAT | os.O_RDWR) as descriptor:
            os.write(descriptor, b"x" * 20_000)
            for mode, offset, length in [
                (0, 0, 30_000),
                (keep, 0, 90_000),
                (keep | punch, 100, 9000),
                (punch, 0, 1),
                (0, 0, 1 << 40),
                (syscalls.FALLOC_FL_COLLAPSE_RANGE, 0, 4096),
            ]:
                try:
                    syscalls.fallocate(descriptor, mode, offset, length)
                except OSError as error:
                    said.append(error.errno)
                said.append((os.fstat(descriptor).st_size, os.fstat(descriptor).st_blocks))
            said.append(os.pread(descriptor, 30_000, 0))
        return said

    on_both(pair, action)


def test_a_range_can_be_zeroed(pair: Pair) -> None:
    """A tmpfs itself has no FALLOC_FL_ZERO_RANGE."""
    with syscalls.opened(pair.subject / "zeros", os.O_CREAT | os.O_RDWR) as descriptor:
        os.write(descriptor, b"x" * 10_000)
        syscalls.fallocate(descriptor, syscalls.FALLOC_FL_ZERO_RANGE, 5, 5000)
        assert os.pread(descriptor, 20_000, 0) == b"x" * 5 + bytes(5000) + b"x" * 4995
        syscalls.fallocate(descriptor, syscalls.FALLOC_FL_ZERO_RANGE, 9990, 4096)
        assert os.pread(descriptor, 20_000, 9980) == b"x" * 10 + bytes(4096)
    (pair.subject / "zeros").unlink()


def test_pipes_and_files_are_copied_inside_the_kernel(pair: Pair) -> None:
    def action(directory: Path) -> object:
        flags = os.O_CREAT | os.O_RDWR
        with syscalls.opened(directory / "a", flags) as a, syscalls.opened(directory / "b", flags) as b:
            readable, writable = os.pipe()
            os.write(writable, b"hello")
            counts = os.splice(readable, a, 5), os.sendfile(b, a, 0, 9), os.copy_file_range(a, b, 5, 0, 8)
            os.close(readable)
            os.close(writable)
            return counts, os.pread(b, 99, 0)

    assert on_both(pair, action) == ((5, 5, 5), b"hello\0\0\0hello")


def test_leases_are_granted_and_refused(pair: Pair) -> None:
    def action(directory: Path) -> object:
        path = directory / "file"
        path.touch()
        said: list[object] = []
        with syscalls.opened(path) as descriptor:
            for writing in (False, True):
                other = os.open(path, os.O_RDWR if writing else os.O_RDONLY)
                for lease in (fcntl.F_RDLCK, fcntl.F_WRLCK):
                    try:
                        said.append(fcntl.fcntl(descriptor, fcntl.F_SETLEASE, lease))
                        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                    except OSError as error:
                        said.append(error.errno)
                os.close(other)
        return said

    on_both(pair, action)


@pytest.mark.parametrize("layer", ["upperdir", "lowerdir"])
def test_it_lies_under_overlayfs(pair: Pair, tmp_path: Path, layer: str) -> None:
    other = tmp_path / "other"
    subprocess.run(["mkdir", other], check=True)
    script = f"mount -t tmpfs none {other}; mkdir {other}/o {other}/w {other}/m"
    ours = pair.subject / f"overlay {layer}".replace(" ", "-")
    (ours / "layer").mkdir(parents=True)
    (ours / "work").mkdir()
    lower, upper, work = (
        (f"{other}/o", ours / "layer", ours / "work")
        if layer == "upperdir"
        else (ours / "layer", f"{other}/o", f"{other}/w")
    )
    if layer == "lowerdir":
        fill(ours / "layer" / "file", 9)
    else:
        script += f"; echo -n xxxxxxxxx > {other}/o/file"
    script += f"; mount -t overlay -o lowerdir={lower},upperdir={upper},workdir={work} none {other}/m"
    use = f"cd {other}/m && echo more >> file && cat file && echo new > new && mv new old && cat old && rm file && ls"
    ran = subprocess.run([*in_namespace(script), "sh", "-c", use], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("xxxxxxxxxmore\nnew\nold\n", "")
    shutil.rmtree(ours)


def test_the_space_of_deleted_files_comes_back(pair: Pair) -> None:
    def free() -> int:
        return os.statvfs(pair.subject).f_bavail

    before = free()
    for number in range(300):
        path = pair.subject / f"deleted{number % 7}"
        with syscalls.opened(path, os.O_CREAT | os.O_RDWR) as descriptor:
            os.write(descriptor, bytes(64 << 10))
            if number % 2:
                path.unlink()
                os.pread(descriptor, 9, 0)
        if number % 2 == 0:
            path.read_bytes()
            path.unlink()
    wait_until(lambda: free() >= before, "all space is free again")


def test_many_files_take_few_descriptors_of_the_daemon() -> None:
    with mounted_nrfs(nodes=1, content="shared") as path:
        descriptors = Path(f"/proc/{daemon_of(path)}/fd")
        before = len(list(descriptors.iterdir()))
        for number in range(100):
            (path / f"{number}").mkdir()
        kept = [os.open(path / "0" / f"open{number}", os.O_CREAT | os.O_RDWR) for number in range(500)]
        for number in range(20_000):
            os.close(os.open(path / f"{number % 100}" / f"{number}", os.O_CREAT | os.O_WRONLY))
        for number in range(0, 20_000, 50):
            assert (path / f"{number % 100}" / f"{number}").read_bytes() == b""
        assert len(list(descriptors.iterdir())) < before + 10
        for descriptor in kept:
            os.close(descriptor)


def test_a_daemon_without_descriptors_left_loses_nothing() -> None:
    with mounted_nrfs(nodes=1, content="shared") as path:
        daemon = daemon_of(path)
        (path / "old").write_bytes(b"old")
        with mapped(path / "mapped", 4096) as store:
            limit = resource.prlimit(daemon, resource.RLIMIT_NOFILE)
            free = next(number for number in count() if not Path(f"/proc/{daemon}/fd/{number}").exists())
            resource.prlimit(daemon, resource.RLIMIT_NOFILE, (free, limit[1]))
            try:
                with pytest.raises(OSError, match="Input/output error"):
                    (path / "new").write_bytes(b"new")
                os.mknod(path / "made")
                before = (path / "mapped").stat().st_mtime_ns
                time.sleep(TICK)
                store(7)
                assert (path / "mapped").stat().st_mtime_ns > before
            finally:
                resource.prlimit(daemon, resource.RLIMIT_NOFILE, limit)
        (path / "new").write_bytes(b"new")
        assert (path / "new").read_bytes() == b"new"
        assert (path / "old").read_bytes() == b"old"
        assert (path / "made").read_bytes() == b""


def shared_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Shmem:"))


@alone  # It looks at how much memory all have.
def test_a_byte_takes_a_byte() -> None:
    with mounted_nrfs(nodes=2, content="shared") as path:
        before, of_daemon = shared_memory(), resident(daemon_of(path))
        fill(path / "large", 200 * MIB)
        (path / "large").read_bytes()
        assert 190 * MIB < shared_memory() - before < 230 * MIB
        assert resident(daemon_of(path)) - of_daemon < 20 * MIB


def resident(process: int) -> int:
    """Bytes of memory that a process has in use."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--content", "shared", "--huge", "sometimes"), "huge"),
        (("--huge", "always"), "--content shared"),
        (("--content", "both"), "content"),
        (("--content", "shared", "--channel", "pyfuse3"), "pyfuse3"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(mount_nrfs: Mounts, options: tuple[str, ...], says: str) -> None:
    refused = run_nrfs("mount", mount_nrfs.directory(), *options)
    assert refused.returncode != 0
    assert refused.stdout == ""
    line = refused.stderr.splitlines()[-1]
    assert says in line
    assert "Traceback" not in refused.stderr


def test_an_ordinary_user_is_refused_in_one_line(user: User) -> None:
    place = user.home / "mount"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    refused = run_nrfs("mount", place, "--content", "shared", before=user.before)
    assert refused.returncode != 0
    assert len(refused.stderr.splitlines()) == 1
    assert "only root" in refused.stderr


def test_status_says_where_content_lies_and_what_is_used(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(content="shared", size=64 * MIB, nodes=2)
    fill(path / "file", 10 * MIB)
    shown = run_nrfs("status", path).stdout
    assert "once, read and written by the kernel itself" in shown
    assert "10.0 MiB of 64.0 MiB" in shown
    verified = run_nrfs("status", "--verify", path)
    assert verified.returncode == 0
    assert "namespace" in verified.stdout


@alone  # It looks at how much memory all have.
def test_a_killed_daemon_leaves_no_call_hanging_and_no_memory(mount_nrfs: Mounts) -> None:
    before = shared_memory()
    path = mount_nrfs(content="shared")
    fill(path / "file", 100 * MIB)
    with syscalls.opened(path / "file", os.O_RDWR) as descriptor:
        os.kill(daemon_of(path), signal.SIGKILL)
        wait_until(lambda: in_child((path / "other").stat) != 0, "the end of the mount")
        # What is open is the kernel's alone; nothing else works.
        with suppress(OSError):
            os.pread(descriptor, 1, 0)
        with pytest.raises(OSError, match="not connected"):
            (path / "new").touch()
    run_nrfs("umount", path)
    wait_until(lambda: shared_memory() < before + 20 * MIB, "the memory to be free")
