"""``nrfs topology``: the nodes of this machine, and the replicas that a mount would have on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from mount import machine, wording
from nrfs import MachineNode, Topology, TopologyNode


def show(topology: Topology, *, as_json: bool) -> int:
    """Prints a topology, for people or for programs; returns the exit status."""
    granted, share = _limits()
    if as_json:
        shape: dict[str, Any] = topology.as_dictionary()
        shape["machine"] |= {"memory_limit_bytes": granted, "cpu_quota": share}
        print(json.dumps(shape, indent=2))
        return 0
    replicas, count = topology.nodes, len(topology.machine_nodes)
    tree = Tree(Text(f"this machine: {count} {'node' if count == 1 else 'nodes'}"))
    for node in topology.machine_nodes:
        branch = tree.add(_node(topology, node))
        if count > 1:
            pairs = zip(topology.machine_nodes, node.distances, strict=True)
            branch.add(Text("distance " + ", ".join(f"to node {other.node} {distance}" for other, distance in pairs)))
        for number in node.replicas:
            branch.add(_replica(replicas[number], node))
    if topology.offline_cpus:
        tree.add(Text(f"{_cpus(topology.offline_cpus)}: offline", style="yellow"))
    for limit in _limits_in_words(granted, share):
        tree.add(Text(f"the control group grants {limit}", style="yellow"))
    Console(highlight=False, soft_wrap=True).print(tree)
    return 0


def _node(topology: Topology, node: MachineNode) -> Text:
    usable = set(topology.allowed_cpus).intersection(node.cpus)
    cpus = _cpus(node.cpus)
    if len(usable) < len(node.cpus):
        cpus += f" (this process may use {wording.ranges(usable) or 'none'})"
    line = Text(f"node {node.node}", style="bold" if node.replicas else "dim")
    return line.append(f": {cpus}, {_memory(node)}", style="not bold not dim")


def _memory(node: MachineNode) -> str:
    if node.memory_bytes == 0:
        return "no memory"
    said = f"{wording.amount(node.memory_bytes)} of memory, {wording.amount(node.free_bytes)} free"
    return said if node.usable else f"{said} (this process may use none)"


def _replica(replica: TopologyNode, node: MachineNode) -> Text:
    line = Text(f"replica {replica.node}", style="green").append(f": {_cpus(replica.cpus)}", style="default")
    others = [other for other in node.replicas if other != replica.node]
    if others:
        which = "replica" if len(others) == 1 else "replicas"
        line.append(f", shares node {node.node} with {which} {wording.ranges(others)}", style="default")
    return line


def _cpus(cpus: Sequence[int]) -> str:
    return f"{'CPU' if len(cpus) == 1 else 'CPUs'} {wording.ranges(cpus)}" if cpus else "no CPUs"


def _limits() -> tuple[int | None, float | None]:
    """Bytes of memory, and the time of so many CPUs, that the control groups of this process grant."""
    with suppress(OSError, ValueError):
        return machine.memory_limit(), machine.cpu_quota()
    return None, None


def _limits_in_words(granted: int | None, share: float | None) -> Iterable[str]:
    if granted is not None:
        yield f"{wording.amount(granted)} of memory"
    if share is not None:
        yield f"the time of {share:.1f} CPUs"
