"""On a machine of any shape: replicas are where there are CPUs and memory, as the kernel has them.

Guests: ``--nodes 4 --cpus 1,1,0,1 --memory 768,0,512,768 --distance 15,30``, which has a node without memory and one
without CPUs, and ``--nodes 3 --cpus 1,2,1 --memory 512,768,512 --distance 15,30``, which is uneven. CPUs that are
offline, and sets of CPUs, are made here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY, Mounts, daemon_of, in_a_guest, run_nrfs
from support.placement import (
    assert_near,
    cpus_of_nodes,
    distances,
    nodes_with_cpus,
    nodes_with_memory,
    online_cpus,
    without,
)

import nrfs

pytestmark = in_a_guest

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def expected() -> dict[int, set[int]]:
    """The CPUs of each node that should have a replica: CPUs without memory belong to the nearest node that has some.

    Only CPUs that this process may use, and that are online.
    """
    allowed = os.sched_getaffinity(0) & online_cpus()
    usable = {node: cpus & allowed for node, cpus in nodes_with_cpus().items() if cpus & allowed}
    memory = nodes_with_memory()
    groups = {node: set(cpus) for node, cpus in usable.items() if node in memory}
    for node in usable.keys() - memory:
        far = distances(node)
        nearest = min(sorted(memory), key=lambda other: far[other])
        groups.setdefault(nearest, set()).update(usable[node])
    return dict(sorted(groups.items()))


def replicas() -> list[set[int]]:
    """The CPUs of each replica of a new file system."""
    status = nrfs.Filesystem(nodes="auto", size="16M").status()
    return [set(replica["cpus"]) for replica in status["replicas"]]


def test_this_is_the_machine_that_was_asked_for() -> None:
    """The kernel numbers nodes in its own order: those with CPUs come first."""
    asked: Counter[tuple[int, bool]] = Counter()
    for node in os.environ["NRFS_NUMA_VM"].split():
        cpus, memory = map(int, node.split(":"))
        asked[cpus, memory > 0] += 1
    memory_nodes = nodes_with_memory()
    assert Counter((len(cpus), node in memory_nodes) for node, cpus in cpus_of_nodes().items()) == asked


def test_there_is_a_replica_for_each_node_with_cpus_and_memory() -> None:
    assert replicas() == list(expected().values())


def test_a_node_whose_cpus_are_offline_has_no_replica_until_they_are_back() -> None:
    before = replicas()
    last = max(online_cpus())
    with without(last):
        assert replicas() == list(expected().values())
        assert last not in set().union(*replicas())
    assert replicas() == before


def test_a_process_that_is_bound_to_cpus_has_replicas_for_their_nodes_alone() -> None:
    before = os.sched_getaffinity(0)
    try:
        for cpu in before:
            os.sched_setaffinity(0, {cpu})
            assert replicas() == [{cpu}]
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def in_cpuset(cpus: set[int]) -> Iterator[None]:
    """Confines this process to a set of CPUs meanwhile."""
    group = CONTROL_GROUPS / "nrfs-test"
    (CONTROL_GROUPS / "cgroup.subtree_control").write_text("+cpuset")
    group.mkdir()
    try:
        (group / "cpuset.cpus").write_text(",".join(map(str, sorted(cpus))))
        (group / "cgroup.procs").write_text(f"{os.getpid()}")
        yield
    finally:
        (CONTROL_GROUPS / "cgroup.procs").write_text(f"{os.getpid()}")
        group.rmdir()


def test_a_process_in_a_cpuset_has_replicas_for_its_cpus_alone() -> None:
    first, *_, last = sorted(os.sched_getaffinity(0))
    with in_cpuset({first, last}):
        assert os.sched_getaffinity(0) == {first, last}
        assert replicas() == list(expected().values())


def test_what_nrfs_says_of_nodes_is_what_the_kernel_says() -> None:
    done = run_nrfs("topology", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    nodes = {node["node"]: node for node in shown["machine"]["nodes"]}
    assert {number: set(node["cpus"]) for number, node in nodes.items()} == cpus_of_nodes()
    assert {number for number, node in nodes.items() if node["memory_bytes"]} == nodes_with_memory()
    for number, node in nodes.items():
        assert node["distances"] == list(distances(number).values())
    assert {replica["physical"]: set(replica["cpus"]) for replica in shown["replicas"]} == expected()


def test_a_mounts_content_is_on_the_nodes_of_its_replicas_and_the_digests_are_equal(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(size="64M")
    for number in range(8):
        (path / f"{number}").write_bytes(os.urandom(1 << 20))
    os.sync()
    verified = run_nrfs("status", "--verify", path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert_near(daemon_of(path), set(expected()), 8 << 20)


FILL_UP = """
import ctypes, errno, os, sys, nrfs
SET_MEMPOLICY, MPOL_BIND = 238, 2
mask = ctypes.c_ulong(sum(1 << int(node) for node in sys.argv[1:]))
assert ctypes.CDLL(None).syscall(SET_MEMPOLICY, MPOL_BIND, ctypes.byref(mask), 64) == 0
filesystem = nrfs.Filesystem(nodes="auto", size="64G")
file, piece, written = filesystem.mknod(nrfs.ROOT, b"file", 0o644).ino, os.urandom(1 << 20), 0
try:
    while (got := filesystem.write(file, written, piece)) == len(piece):
        written += got
except OSError as error:
    assert error.errno == errno.ENOSPC
assert all(len(set(log["digests"])) == 1 for log in filesystem.verify())
print(written, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("several", [False, True], ids=["one node", "several nodes"])
def test_a_process_whose_memory_is_bound_to_nodes_has_no_space_when_they_are_full(several: bool) -> None:
    """Though the machine has memory on other nodes. It gets none of that, and is not killed."""
    memory = sorted(nodes_with_memory())
    bound = memory[:2] if several else memory[-1:]
    command = [sys.executable, "-c", FILL_UP, *map(str, bound)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        written = process.stdout.readline()
        assert written, f"it was ended: {process.wait()}"
        found: Counter[int] = Counter()
        for line in Path(f"/proc/{process.pid}/numa_maps").read_text().splitlines():
            if "anon=" in line:
                found.update({int(node): int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)})
        process.stdin.close()
    assert int(written) > 64 << 20
    # What the interpreter had before it was bound is anywhere.
    assert sum(found[node] for node in bound) > 0.9 * found.total(), found
