"""Much of something: files in a directory, directories in each other, holes in a file, bytes that come and go.

The sizes that take minutes are a person's to run (``nrfs bench files``); no test asserts a time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Mounts, daemon_of, wait_until
from support.mounts import configurations, mounted_nrfs

import nrfs

CONFIGURATIONS = configurations([1, 2], ("writeback", "none"))
PAGE = 4096


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=str)
def mount(request: pytest.FixtureRequest) -> Iterator[Path]:
    with mounted_nrfs(nodes=request.param.nodes, cache=request.param.cache) as path:
        yield path


def test_a_directory_of_many_files_is_made_listed_and_emptied(mount: Path) -> None:
    place = mount / "many"
    place.mkdir()
    names = {f"file-{number}" for number in range(1500)}
    for name in names:
        (place / name).touch()
    assert {path.name for path in place.iterdir()} == names
    assert place.stat().st_size == 20 * (2 + len(names))
    for name in names:
        (place / name).unlink()
    place.rmdir()


def test_a_tree_a_thousand_deep_is_made_walked_moved_and_removed(mount: Path) -> None:
    depth = 1000
    script = f"""
        mkdir top other && cd top
        i=0; while [ $i -lt {depth} ]; do mkdir d && cd -P d; i=$((i + 1)); done
        echo deep >file
        while [ $i -gt 0 ]; do cd -P ..; i=$((i - 1)); done
        [ -d ../top ] && cd .. && mv top other/top
        find other | wc -l
        find other -name file -execdir cat {{}} +
        rm -rf other && echo removed
    """
    done = subprocess.run(["sh", "-euc", script], cwd=mount, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([str(depth + 3), "deep", "removed"], "")


def test_a_file_of_many_holes_keeps_every_byte_between_them(mount: Path) -> None:
    path, pieces = mount / "holes", 4000
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        for number in range(pieces):
            os.pwrite(descriptor, number.to_bytes(4, "little"), 2 * number * PAGE)
        os.fsync(descriptor)
        assert os.fstat(descriptor).st_size == 2 * (pieces - 1) * PAGE + 4
        for number in range(0, pieces - 1, 7):
            assert os.pread(descriptor, 8, 2 * number * PAGE) == number.to_bytes(4, "little") + bytes(4)
    finally:
        os.close(descriptor)
    assert path.stat().st_blocks == pieces * PAGE // 512
    path.unlink()


def test_a_hundred_thousand_holes_cost_what_lies_between_them() -> None:
    filesystem = nrfs.Filesystem(nodes=2, size="1G")
    ino = filesystem.mknod(nrfs.ROOT, b"holes", 0o644).ino
    pieces = 100_000
    for number in range(pieces):
        filesystem.write(ino, 2 * number * PAGE, b"x")
    assert filesystem.attributes(ino).blocks == pieces * PAGE // 512
    for number in range(0, pieces, 1000):
        assert filesystem.seek(ino, 2 * number * PAGE, os.SEEK_HOLE) == (2 * number + 1) * PAGE
        assert filesystem.seek(ino, (2 * number - 1) * PAGE if number else 0, os.SEEK_DATA) == 2 * number * PAGE
    for log in filesystem.verify():
        assert len(set(log["digests"])) == 1
    filesystem.set_attributes(ino, size=0)
    assert filesystem.attributes(ino).blocks == 0


def resident(process: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


def test_the_daemon_gives_memory_back_when_files_are_deleted(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(nodes=2, cache="none")
    process, data = daemon_of(path), 256 << 20

    def fill(size: int) -> None:
        for number in range(16):
            with (path / f"{number}").open("wb", buffering=0) as file:
                for _ in range(size // 16 >> 20):
                    file.write(bytes(1 << 20))

    fill(32 << 20)
    before = resident(process) - 2 * (32 << 20)  # What a daemon needs that has worked at all.
    fill(data)
    assert resident(process) > before + 2 * data * 0.9
    subprocess.run(f"rm -f {path}/*", shell=True, check=True)
    wait_until(lambda: resident(process) < before * 1.1, "the daemon to give memory back")


def test_what_is_written_and_deleted_over_and_over_needs_the_memory_of_once(mount_nrfs: Mounts) -> None:
    """However fast large files come and go, and whichever logs they belong to; also on the node that nobody uses."""
    path = mount_nrfs(nodes=2, logs=4, cache="none", size="64M")
    process, cpu = daemon_of(path), min(os.sched_getaffinity(0))
    before = most = resident(process)
    for number in range(16):
        file = path / f"{number}"
        write = ("dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=48", "status=none")
        subprocess.run(["taskset", "--cpu-list", str(cpu), *write], check=True)
        most = max(most, resident(process))
        file.unlink()
    assert most < before + 2 * (64 << 20) + (64 << 20)
