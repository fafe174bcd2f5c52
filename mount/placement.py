"""Where the replicas of a mount are, and whether there is memory for them."""

from __future__ import annotations

from typing import Literal

from mount import wording
from mount.failure import UsageError
from mount.options import Content, MountOptions
from nrfs import Topology


def of(nodes: int | Literal["auto"] | Topology) -> Topology:
    """The topology that ``nodes`` stands for, as ``nrfs.Filesystem`` takes it.

    Raises:
        UsageError: there can be none such.

    """
    if isinstance(nodes, Topology):
        return nodes
    try:
        return Topology.machine() if nodes == "auto" else Topology.emulated(nodes)
    except ValueError as reason:
        raise UsageError(str(reason)) from None


def shortfall(options: MountOptions) -> str | None:
    """A line that says which node has less memory than its replicas take when they are full; None if all have enough.

    Of several nodes the one is named that lacks the most. A machine with one node has nothing to divide: there, as on
    tmpfs, more can be promised than there is. Shared content is no replica's.

    Raises:
        ValueError: it is no size.

    """
    topology = of(options.nodes)
    if options.content is Content.SHARED or len(topology.machine_nodes) == 1:
        return None
    each = topology.replica_bytes(options.size)
    lacks = [(each * len(node.replicas) - node.memory_bytes, node) for node in topology.machine_nodes]
    lack, node = max(lacks, key=lambda pair: pair[0])
    if lack <= 0:
        return None
    count = len(node.replicas)
    whose = "its replica takes" if count == 1 else f"its {count} replicas take"
    has, needed = wording.amount(node.memory_bytes), wording.amount(each * count)
    return f"node {node.node} has {has} of memory, and {whose} {needed} when full"
