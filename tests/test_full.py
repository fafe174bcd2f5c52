"""A full file system: what a call says is stored is stored, whatever it was, and whoever looks at what close(2) says.

Under the writeback cache the kernel takes what is written before the file system knows of it. So near the limit it has
to ask first.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import REPOSITORY, wait_until
from support.compare import Failed, outcome
from support.mounts import Pair, configurations, mounted_pair
from support.writers import WAYS

PAGE = 4096
SIZE = 4 << 20
CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that is soon full."""
    with mounted_pair(tmp_path_factory.mktemp("tmpfs"), request.param, size=SIZE) as pair:
        yield pair


@pytest.fixture(autouse=True)
def _left_empty(pair: Pair) -> Iterator[None]:
    yield
    # Nothing was collected that could not be written: else somebody else's sync is told.
    subprocess.run(["sync", "-f", pair.subject], check=True)
    for root in (pair.reference, pair.subject):
        for path in root.iterdir():
            subprocess.run(["rm", "-rf", path], check=True)
        wait_until(partial(_has_free, root, SIZE), f"space of {root} comes back")


def _has_free(root: Path, expected: int) -> bool:
    return free(root) == expected


def free(root: Path) -> int:
    told = os.statvfs(root)
    return told.f_bavail * told.f_frsize


def fill(directory: Path, leave: int = 0) -> None:
    """Leaves so many bytes free, in whole pages."""
    with (directory / "fill").open("wb", buffering=0) as file:
        while (rest := free(directory) - leave) > 0:
            file.write(b"f" * min(rest, 1 << 20))
            os.fsync(file.fileno())


def drop_pages(directory: Path) -> None:
    """Has the kernel write back what it has collected, and forget the pages of all files in the directory."""
    subprocess.run(["sync", "-f", directory], check=True)
    for file in directory.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def shell(directory: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], cwd=directory, capture_output=True, text=True, check=False, timeout=60)


def python(directory: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)


def ways_on(pair: Pair) -> list[str]:
    """The ways to write that the channel and the cache have."""
    native = pair.configuration.channel != "pyfuse3"
    missing = {"copy_file_range"} if not native else set()
    if not pair.abilities.mapped_writes or not native:
        missing.add("mapping")
    return [way for way in WAYS if way not in missing]


@pytest.mark.parametrize("seed", range(3))
def test_what_several_writers_were_told_is_stored_is_stored(pair: Pair, seed: int) -> None:
    directory = pair.directories("writers")[1]
    command = [sys.executable, "-m", "support.writers", str(directory)]
    ways = ",".join(ways_on(pair))
    writers = [
        subprocess.Popen(
            [*command, str(10 * seed + number), "250", ways],
            cwd=REPOSITORY / "tests",
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    told: dict[str, str] = {}
    for writer in writers:
        out, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0
        told.update(json.loads(out))
    assert free(directory) < 1 << 20, "they did not fill it"
    drop_pages(directory)
    for name, content in told.items():
        path = directory / name
        stored = path.read_bytes() if path.exists() else b""
        expected = bytes.fromhex(content)
        # A mapping and posix_fallocate may have made a file longer than what was written there.
        assert stored[: len(expected)] == expected, f"{name}: of {len(expected)} bytes not all are there"
        assert not stored[len(expected) :].strip(b"\0")


def test_a_program_that_does_not_end_by_itself_ends(pair: Pair) -> None:
    directory = pair.directories("endless")[1]
    done = shell(directory, "timeout 30 dd if=/dev/zero of=f bs=64k; echo $?; stat -c '%s %b' f")
    status, (size, blocks) = done.stdout.split()[0], done.stdout.split()[1:]
    assert status == "1"
    assert (int(size), int(blocks) * 512) == (SIZE, SIZE)


COMMANDS = [
    "echo kept >new",
    "printf 'kept\\n' >>there",
    "sh -c 'echo kept >new'",
    "{ echo one; echo two; } >new",
    "cat <<end >new\nkept\nend",
    "echo kept | tee new >/dev/null",
    "cp source new",
    "dd if=source of=new 2>/dev/null",
    "sed s/k/K/ source >new",
]


@pytest.mark.parametrize("pages", [0, 1])
def test_a_shell_command_that_succeeds_has_stored_what_it_wrote(pair: Pair, pages: int) -> None:
    """The shell does not look at what close(2) says. With a page left there is room for it."""
    told: list[dict[str, tuple[bool, bytes]]] = []
    for directory in pair.directories("shell"):
        (directory / "there").touch()
        (directory / "source").write_text("kept\n")
        fill(directory, leave=pages * PAGE)
        told.append({})
        for command in COMMANDS:
            done = shell(directory, command)
            drop_pages(directory)
            path = directory / ("there" if "there" in command else "new")
            stored = path.read_bytes() if path.exists() else b""
            told[-1][command] = (done.returncode == 0, stored)
            path.unlink(missing_ok=True)
            wait_until(partial(_has_free, directory, pages * PAGE), "the page comes back")
    assert all(succeeded == bool(pages) for succeeded, _ in told[0].values())
    if not pair.abilities.fallocate and told[1]["cp source new"] == (False, b""):
        # Where the kernel copies through a pipe, it does not say how much: there must be room for a whole pipe.
        del told[0]["cp source new"], told[1]["cp source new"]
    assert told[1] == told[0]


STORE = """
    import mmap, os, sys
    descriptor = os.open("mapped", os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, 1 << 20)
    mapping = mmap.mmap(descriptor, 1 << 20)
    if sys.argv[1] == "closed first":
        os.close(descriptor)
    for page in range(0, 1 << 20, 4096):
        mapping[page:page + 4] = b"DATA"
    if sys.argv[1] == "synced":
        mapping.flush()
    mapping.close()
    if sys.argv[1] != "closed first":
        os.close(descriptor)
"""


@pytest.mark.parametrize("pages", [0, 20, 256])
def test_who_stores_in_a_mapping_what_has_no_room_is_told(pair: Pair, pages: int) -> None:
    if not pair.abilities.mapped_writes:
        return
    for directory in pair.directories("mapping"):
        fill(directory, leave=pages * PAGE)
        for how in ("synced", "closed last", "closed first"):
            done = python(directory, STORE, how)
            drop_pages(directory)
            content = (directory / "mapped").read_bytes()
            stored = sum(content[page : page + 4] == b"DATA" for page in range(0, 1 << 20, PAGE))
            assert (done.returncode == 0) == (stored == 256) == (pages == 256), (how, done.stderr)
            assert done.returncode in (0, 1, -signal.SIGBUS)
            assert stored <= pages
            (directory / "mapped").unlink()
            wait_until(partial(_has_free, directory, pages * PAGE), "the pages come back")


def test_what_is_there_can_be_changed_and_read_though_nothing_can_be_added(pair: Pair) -> None:
    script = """
        import os
        descriptor = os.open("kept", os.O_RDWR)
        print(os.pwrite(descriptor, b"changed", 5000), os.pwrite(descriptor, b"x" * 4096, 0))
        print(os.pwritev(descriptor, [b"by", b" parts"], 9000), os.lseek(descriptor, 0, os.SEEK_END))
        print(os.read(descriptor, 10), len(os.pread(descriptor, 99999, 0)), os.pread(descriptor, 7, 5000))
        tail = os.open("short", os.O_WRONLY | os.O_APPEND)
        print(os.write(tail, b"fits in its page"))
        try:
            os.write(tail, b"y" * 5000)
        except OSError as error:
            print(error.strerror)
        print(os.fstat(tail).st_size, open("short", "rb").read()[:20])
    """
    told = []
    for directory in pair.directories("change"):
        (directory / "kept").write_bytes(b"k" * 20_000)
        (directory / "short").write_bytes(b"short")
        fill(directory)
        done = python(directory, script)
        out = done.stdout.replace(f"{PAGE} ", "")
        if pair.configuration.is_collecting:
            # tmpfs stores as much of the last write as fits the page; the kernel's cache takes all of it or nothing.
            out = "\n".join(out.replace("No space left on device\n", "").splitlines()[:4])
        told.append((out, done.stderr))
    assert told[1] == told[0]


def test_of_a_direct_write_as_much_is_stored_as_has_room_and_that_is_told(pair: Pair) -> None:
    """By write(2) it is told as on tmpfs, also where other writes are collected: these do not pass the cache."""
    script = """
        import mmap, os
        pages = mmap.mmap(-1, 4 * 4096)
        pages.write(b"d" * len(pages))
        descriptor = os.open("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        print(os.pwrite(descriptor, pages, 0))
        try:
            print(os.pwrite(descriptor, pages, 2 * 4096))
        except OSError as error:
            print(error.strerror)
        print(os.fstat(descriptor).st_size, os.pread(os.open("direct", os.O_RDONLY), 99999, 0) == b"d" * 2 * 4096)
    """
    told = []
    for directory in pair.directories("direct"):
        fill(directory, leave=2 * PAGE)
        done = python(directory, script)
        told.append((done.stdout, done.stderr))
    assert told[1] == told[0]


def test_a_file_that_has_no_room_harms_no_other_and_no_sync_of_somebody_else(pair: Pair) -> None:
    directory = pair.directories("others")[1]
    kept = os.urandom(SIZE // 4)
    (directory / "kept").write_bytes(kept)
    fill(directory)
    assert shell(directory, "echo lost >new").returncode != 0
    assert subprocess.run(["sync", "-f", directory], check=False).returncode == 0
    drop_pages(directory)
    assert (directory / "kept").read_bytes() == kept
    (directory / "fill").unlink()
    wait_until(lambda: free(directory) > SIZE // 2, "the space comes back")
    assert shell(directory, "echo kept >new; cat new").stdout == "kept\n"


def test_who_stores_slowly_in_a_mapping_is_told_as_well(pair: Pair) -> None:
    """What was promised to him long ago is wanted back while he asks for more."""
    if not pair.abilities.mapped_writes:
        return
    script = """
        import mmap, os, sys, time
        descriptor = os.open("mapped", os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, 1 << 20)
        mapping = mmap.mmap(descriptor, 1 << 20)
        mapping[0] = 1
        time.sleep(float(sys.argv[1]))
        for page in range(0, 1 << 20, 4096):
            mapping[page] = 1
    """
    for directory, pause in zip(pair.directories("slow"), (0, 1.5), strict=True):
        fill(directory, leave=100 * PAGE)
        assert python(directory, script, pause).returncode == -signal.SIGBUS


def test_space_that_collected_data_needs_is_taken_by_nothing_else(pair: Pair) -> None:
    if not pair.abilities.fallocate:
        pytest.skip("there, posix_fallocate is a writer like any other")
    told = []
    for directory in pair.directories("collected"):
        descriptor = os.open(directory / "collected", os.O_RDWR | os.O_CREAT)
        other = os.open(directory / "other", os.O_RDWR | os.O_CREAT)
        content = bytes(range(1, 251)) * 800
        assert os.pwrite(descriptor, content, 0) == len(content)
        told.append(outcome(os.posix_fallocate, other, 0, SIZE - len(content) // 2))
        os.close(other)
        os.close(descriptor)
        drop_pages(directory)
        assert (directory / "collected").read_bytes() == content
    assert told == [Failed("ENOSPC")] * 2


def test_many_who_write_and_look_for_holes_do_not_stop_each_other(pair: Pair) -> None:
    """More of them than the kernel has requests under way."""
    directory = pair.directories("many")[1]
    script = """
        import os, sys
        children = []
        for number in range(60):
            child = os.fork()
            if child == 0:
                descriptor = os.open(f"{number}", os.O_RDWR | os.O_CREAT)
                for _ in range(30):
                    os.pwrite(descriptor, b"data" * 4096, 0)
                    assert os.lseek(descriptor, 0, os.SEEK_HOLE) == 16384
                os._exit(0)
            children.append(child)
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    """
    assert python(directory, script).returncode == 0


def test_a_page_that_was_promised_and_not_used_comes_back(pair: Pair) -> None:
    """Who asks for room and then fails to write, here for a bad address, takes none."""
    if pair.configuration.content == "shared":
        pytest.skip("tmpfs itself keeps such a page until the file is cut")
    directory = pair.directories("promise")[1]
    fill(directory, leave=4 * PAGE)
    script = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open("failed", os.O_WRONLY | os.O_CREAT)
        print(libc.pwrite(descriptor, ctypes.c_void_p(1 << 46), ctypes.c_size_t(4 * 4096), ctypes.c_long(0)))
    """
    assert python(directory, script).stdout == "-1\n"
    wait_until(
        lambda: shell(directory, "head -c 16384 /dev/zero | tr '\\0' k >kept").returncode == 0, "the pages are free"
    )
    drop_pages(directory)
    assert (directory / "kept").read_bytes() == b"k" * 4 * PAGE
