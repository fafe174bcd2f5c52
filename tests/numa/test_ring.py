"""On a machine of four nodes whose kernel has FUSE over io_uring.

Guest: ``--kernel ring --nodes 4``. Others are of a kernel that has the device alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from conftest import Mounts, daemon_of, in_a_guest, run_nrfs
from support.placement import assert_near, nodes_with_cpus

pytestmark = in_a_guest


def test_on_the_ring_content_is_on_the_nodes_of_its_replicas_and_the_digests_are_equal(mount_nrfs: Mounts) -> None:
    path = mount_nrfs(size="128M")
    assert mount_nrfs.status(path)["channel"] == "ring"
    before = os.sched_getaffinity(0)
    nodes = nodes_with_cpus()
    assert len(nodes) == 4
    try:
        for node, cpus in nodes.items():
            os.sched_setaffinity(0, cpus)
            write(path / f"{node}", 4)
    finally:
        os.sched_setaffinity(0, before)
    verified = run_nrfs("status", "--verify", path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert_near(daemon_of(path), set(nodes), 16 << 20)


def write(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
