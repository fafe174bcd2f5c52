"""On a machine of four nodes with a CPU each: memory is where it is used, and CPUs may go.

Guest: ``--nodes 4``
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plyvel
import pytest
from conftest import Mounts, daemon_of, in_a_guest, run_nrfs, wait_until
from support.placement import (
    PAGE,
    SHARE,
    assert_near,
    bytes_by_node,
    bytes_without_node,
    nodes_with_cpus,
    nodes_with_memory,
    without,
)

import nrfs

pytestmark = in_a_guest

HEAP = 200
"""A file takes more heap than this in each replica: nrfs bench memory says how much."""
FILES = int(os.environ.get("NRFS_TEST_NUMA_FILES", "100000"))
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
NODES = {0: {0}, 1: {1}, 2: {2}, 3: {3}}


@pytest.fixture(autouse=True)
def _four_nodes() -> None:
    assert nodes_with_cpus() == NODES and nodes_with_memory() == set(NODES)
    assert "[always]" in HUGE_PAGES.read_text() or HUGE_PAGES.write_text("always")


def on(node: int, work: Callable[[], None]) -> None:
    """Does something on the CPU of a node. All others idle, so what their replicas miss is applied from there."""
    failures: list[BaseException] = []

    def pinned() -> None:
        os.sched_setaffinity(0, NODES[node])
        try:
            work()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=pinned)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@dataclass
class Files:
    """Small files in a directory, made from one node."""

    directory: int
    name: bytes
    inodes: array[int]

    @classmethod
    def made(cls, filesystem: nrfs.Filesystem, name: bytes, count: int, node: int) -> Files:
        files = cls(filesystem.mkdir(nrfs.ROOT, name, 0o755).ino, name, array("Q"))

        def work() -> None:
            for number in range(count):
                ino = filesystem.mknod(files.directory, b"%d" % number, 0o100644).ino
                filesystem.write(ino, 0, b"%d" % number * 10)
                files.inodes.append(ino)

        on(node, work)
        return files

    def remove(self, filesystem: nrfs.Filesystem, node: int) -> None:
        def work() -> None:
            for number, ino in enumerate(self.inodes):
                filesystem.unlink(self.directory, b"%d" % number)
                filesystem.forget(ino)
            filesystem.rmdir(nrfs.ROOT, self.name)

        on(node, work)


def assert_equal(filesystem: nrfs.Filesystem) -> None:
    for log in filesystem.verify():
        assert len(set(log["digests"])) == 1, log


def assert_said(replicas: list[dict[str, Any]], process: int) -> None:
    """What nrfs says of where the memory of its replicas is, is what the kernel says."""
    assert [replica["physical"] for replica in replicas] == list(NODES)
    for node, bytes_on in bytes_by_node(process).items():
        here, elsewhere = replicas[node]["bytes_here"], replicas[node]["bytes_elsewhere"]
        assert here >= SHARE * (here + elsewhere), replicas[node]
        assert abs(here - bytes_on[node]) <= (1 - SHARE) * here, (replicas[node], bytes_on)


def test_a_replica_stays_on_its_node_whoever_applies_and_after_deletion() -> None:
    each = FILES // len(NODES)
    filesystem = nrfs.Filesystem(nodes="auto", size="600M", inodes=4 * FILES)
    free = bytes_without_node(os.getpid())
    files = [Files.made(filesystem, b"%d" % node, each, node) for node in NODES]
    helped = [sum(log["helped"] for log in replica["logs"]) for replica in filesystem.status()["replicas"]]
    assert all(helped), "this test is about replicas that others help"
    assert_equal(filesystem)
    # A file has a page of content, and takes HEAP bytes at least in the tree and in the table of pages.
    least = 4 * each * (PAGE + HEAP)
    assert_near(os.getpid(), set(NODES), least)
    # What lies in the process's own heap, on no node in particular, would not be seen above.
    assert bytes_without_node(os.getpid()) - free <= (1 - SHARE) * 4 * least
    for node, made in enumerate(files):
        made.remove(filesystem, (node + 1) % 4)
    assert filesystem.capacity().blocks == filesystem.capacity().blocks_free
    files = [Files.made(filesystem, b"%d" % node, each, (node + 2) % 4) for node in NODES]
    assert_equal(filesystem)
    assert_near(os.getpid(), set(NODES), least)
    assert bytes_without_node(os.getpid()) - free <= (1 - SHARE) * 4 * least
    assert_said(filesystem.status()["replicas"], os.getpid())
    for made in files:
        ino = filesystem.lookup(made.directory, b"%d" % (each - 1)).ino
        assert filesystem.read(ino, 0, 1000) == b"%d" % (each - 1) * 10


def fill(path: Path, node: int, mebibytes: int) -> None:
    """Writes files of 1 MiB from a node, past the kernel's cache."""

    def work() -> None:
        folder = path / f"of node {node}"
        folder.mkdir(exist_ok=True)
        for number in range(mebibytes):
            with (folder / f"{number}").open("wb") as file:
                file.write(bytes([number, node]) * (1 << 19))
                file.flush()
                os.fsync(file.fileno())

    on(node, work)


def test_a_mounts_content_is_on_the_nodes_of_its_replicas_and_the_digests_are_equal(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(channel="device", size="256M")
    assert [replica["cpus"] for replica in mount_nrfs.status(path)["replicas"]] == [[cpu] for cpu in range(4)]
    for node in NODES:
        fill(path, node, 8)
    verified = run_nrfs("status", "--verify", path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert_near(daemon_of(path), set(NODES), 32 << 20)
    for file in path.glob("*/[0-3]"):
        file.unlink()
    fill(path, 1, 8)
    verified = run_nrfs("status", "--verify", path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert_near(daemon_of(path), set(NODES), 20 << 20)
    assert (path / "of node 3" / "7").read_bytes() == bytes([7, 3]) * (1 << 19)
    assert_said(mount_nrfs.status(path)["replicas"], daemon_of(path))


def test_the_cpus_of_a_node_may_go_and_come_back_while_leveldb_runs(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(size="256M")
    done = threading.Event()
    written: list[int] = []

    def work() -> None:
        with plyvel.DB(str(path / "database"), create_if_missing=True, write_buffer_size=1 << 18) as database:
            while not done.is_set():
                number = len(written)
                database.put(b"%09d" % number, b"%d" % number * 100, sync=number % 50 == 0)
                written.append(number)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for cpu in (1, 2, 3):
            before = len(written)
            with without(cpu):
                assert cpu not in set().union(*nodes_with_cpus().values())
                moved_on(written, before)
            moved_on(written, len(written))
    finally:
        done.set()
        writer.join()
    with plyvel.DB(str(path / "database")) as database:
        entries = list(database)
    assert entries == [(b"%09d" % number, b"%d" % number * 100) for number in written]
    verified = run_nrfs("status", "--verify", path)
    assert (verified.returncode, verified.stderr) == (0, "")


def moved_on(written: list[int], before: int) -> None:
    """LevelDB goes on."""
    wait_until(lambda: len(written) >= before + 500, "LevelDB to write")
