"""The machine's nodes and what is on them, by the kernel's own account: /proc/PID/numa_maps and move_pages(2).

Nothing here asks nrfs. What is bound to a node says so in numa_maps: its policy is to prefer that node.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096
SHARE = 0.99
"""So much of a replica's memory must be on its node. Where a node is full, the kernel takes another: so not all."""

_CPUS = Path("/sys/devices/system/cpu")
_NODES = Path("/sys/devices/system/node")
_MOVE_PAGES = 279  # On x86-64, where the guests are.
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Mapping:
    """Memory of a process that prefers a node."""

    node: int
    start: int
    bytes_on: Counter[int]
    """How much of it is on which node."""


def mappings(process: int) -> Iterator[Mapping]:
    """What a process has of memory that prefers a node, as numa_maps has it."""
    for line in Path(f"/proc/{process}/numa_maps").read_text().splitlines():
        start, policy, *words = line.split()
        if preferred := re.fullmatch(r"prefer\w*(?:=\w+)?:(\d+)", policy):
            # Also huge pages of anonymous memory are counted in small ones.
            assert not words or words[-1] == f"kernelpagesize_kB={PAGE >> 10}", line
            pages = [re.fullmatch(r"N(\d+)=(\d+)", word) for word in words]
            bytes_on = Counter({int(found[1]): int(found[2]) * PAGE for found in pages if found})
            yield Mapping(int(preferred[1]), int(start, 16), bytes_on)


def bytes_by_node(process: int) -> dict[int, Counter[int]]:
    """For each node that memory of a process prefers: on which nodes that memory is."""
    by_node: dict[int, Counter[int]] = {}
    for mapping in mappings(process):
        by_node.setdefault(mapping.node, Counter()).update(mapping.bytes_on)
    return by_node


def bytes_without_node(process: int) -> int:
    """How much a process has of memory of its own, no files, that prefers no node."""
    lines = [line.split() for line in Path(f"/proc/{process}/numa_maps").read_text().splitlines()]
    words = [word for line in lines if not line[1].startswith("prefer") for word in line]
    return sum(int(word.removeprefix("anon=")) for word in words if word.startswith("anon=")) * PAGE


def bytes_of_pages(process: int, mapping: Mapping) -> Counter[int]:
    """On which nodes a mapping is, page by page, as move_pages(2) has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    found: Counter[int] = Counter()
    for first, end in _pieces(process, mapping.start):
        pages = range(first, end, PAGE)
        addresses = (ctypes.c_void_p * len(pages))(*pages)
        states = (ctypes.c_int * len(pages))()
        failed = libc.syscall(_MOVE_PAGES, process, ctypes.c_ulong(len(pages)), addresses, None, states, 0)
        assert failed == 0, os.strerror(ctypes.get_errno())
        found.update(state for state in states if state >= 0)  # The rest is not there, and says why.
    return Counter({node: count * PAGE for node, count in found.items()})


def _pieces(process: int, start: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        first, end = (int(address, 16) for address in line.split()[0].split("-"))
        if first == start:
            step = _AT_ONCE * PAGE
            yield from ((piece, min(piece + step, end)) for piece in range(first, end, step))


def assert_near(process: int, nodes: set[int], least: int) -> None:
    """Each of these nodes has its replica: at least so many bytes, nearly all of them on the node itself.

    Args:
        process: the one that has the replicas.
        nodes: the nodes that have one.
        least: the bytes of a replica.

    """
    found = bytes_by_node(process)
    assert set(found) == nodes, found
    for node, bytes_on in found.items():
        assert bytes_on.total() >= least, (node, bytes_on)
        assert bytes_on[node] >= SHARE * bytes_on.total(), (node, bytes_on)
    # The two accounts are of one moment only while nothing changes: so only of what is large, and nearly.
    largest = max(mappings(process), key=lambda mapping: mapping.bytes_on.total())
    by_page = bytes_of_pages(process, largest)
    assert by_page[largest.node] >= SHARE * largest.bytes_on.total(), (largest, by_page)


def numbers(text: str) -> list[int]:
    """Parses a list in the format of cpuset(7): "0-3,8"."""
    runs = [run.partition("-") for run in text.strip().split(",") if run]
    return [number for first, _, last in runs for number in range(int(first), int(last or first) + 1)]


def online_cpus() -> set[int]:
    return set(numbers((_CPUS / "online").read_text()))


def cpus_of_nodes() -> dict[int, set[int]]:
    """The online CPUs of each node."""
    nodes = numbers((_NODES / "online").read_text())
    return {node: set(numbers((_NODES / f"node{node}" / "cpulist").read_text())) for node in nodes}


def nodes_with_cpus() -> dict[int, set[int]]:
    """The online CPUs of each node that has some."""
    return {node: cpus for node, cpus in cpus_of_nodes().items() if cpus}


def nodes_with_memory() -> set[int]:
    return set(numbers((_NODES / "has_memory").read_text()))


def distances(node: int) -> dict[int, int]:
    """How far each node is from this one; 10 is the node itself."""
    far = map(int, (_NODES / f"node{node}" / "distance").read_text().split())
    return dict(zip(cpus_of_nodes(), far, strict=True))


@contextmanager
def without(cpu: int) -> Iterator[None]:
    """Takes a CPU away meanwhile."""
    switch = _CPUS / f"cpu{cpu}" / "online"
    switch.write_text("0")
    try:
        yield
    finally:
        switch.write_text("1")
