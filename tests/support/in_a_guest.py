"""The short form of the tests in a guest, as a program: CPUs there are emulated, so pytest would take longer than it.

    python in_a_guest.py      # exits with 0, or an assertion's traceback

A mount with the device channel has a replica on each node. Each node's CPU writes, deletes and writes again; then each
replica's content must be on its node, and the digests equal.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT.parent), str(ROOT)]

from mount import control, mountinfo  # noqa: E402
from nrfs.cli import main  # noqa: E402
from support.placement import assert_near, nodes_with_cpus  # noqa: E402

MIB = 1 << 20


def write(path: Path, cpus: set[int], count: int, byte: int) -> None:
    """Writes files of 1 MiB from these CPUs."""
    os.sched_setaffinity(0, cpus)
    for number in range(count):
        with (path / f"{byte}-{number}").open("wb") as file:
            file.write(bytes([byte]) * MIB)
            file.flush()
            os.fsync(file.fileno())


def check(path: Path, nodes: dict[int, set[int]]) -> None:
    entry = mountinfo.topmost_at(str(path))
    assert entry is not None
    before = os.sched_getaffinity(0)
    for node, cpus in nodes.items():
        write(path, cpus, 4, node)
    for number in range(4):
        (path / f"0-{number}").unlink()
    write(path, nodes[max(nodes)], 4, 100)
    os.sched_setaffinity(0, before)
    status = control.ask(entry, "status", 60)
    assert status["channel"] == "device", status
    assert [set(replica["cpus"]) for replica in status["replicas"]] == list(nodes.values())
    for log in control.ask(entry, "verify", 60)["logs"]:
        assert len(log["digests"]) == len(nodes) and len(set(log["digests"])) == 1, log
    assert_near(status["pid"], set(nodes), 4 * len(nodes) * MIB)
    assert (path / "1-3").read_bytes() == bytes([1]) * MIB


if __name__ == "__main__":
    nodes = nodes_with_cpus()
    assert len(nodes) == len(os.environ["NRFS_NUMA_VM"].split()), nodes
    path = Path(tempfile.mkdtemp())
    assert main(["mount", str(path), "--channel", "device", "--size", "64M"]) == 0
    check(path, nodes)
    assert main(["umount", str(path)]) == 0
    print(f"in a guest: {len(nodes)} nodes, each with its content; the replicas are equal")
