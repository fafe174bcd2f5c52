"""``nrfs.AddressSpace``: what it promises, against a plain model."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nrfs
from tests.support.generating import generated

KIB_4, MIB_2, GIB_1 = 1 << 12, 1 << 21, 1 << 30
PageSize = Literal["4K", "2M", "1G"]
SIZES: dict[PageSize, int] = {"4K": KIB_4, "2M": MIB_2, "1G": GIB_1}
HALF = 1 << 47
RIGHTS = ["rw-", "r--", "r-x", "---"]


def bits(rights: str) -> int:
    return sum(bit for bit, letter in zip((1, 2, 4), rights, strict=True) if letter != "-")


@final
@dataclass(frozen=True)
class Page:
    """An entry of the page table."""

    size: int
    physical: int
    rights: str
    owned: bool


@final
class Refused(Exception):
    """By the model, with an errno."""


@final
@dataclass
class Model:
    """What an address space should be: its pages by their addresses."""

    nodes: int
    memory: int
    pages: dict[int, Page] = field(default_factory=dict)
    frames: list[nrfs.Frame] = field(default_factory=list)

    def check(self, va: int, length: int, size: int = KIB_4) -> None:
        if not (0 <= va < HALF or va >= 2**64 - HALF) or va < HALF < va + length or va + length > 2**64:
            raise Refused(errno.EINVAL)
        if va % size or length % size or not length:
            raise Refused(errno.EINVAL)

    def split(self, at: int) -> None:
        """Sees to it that no page is on both sides of an address."""
        for size in (GIB_1, MIB_2):
            start = at - at % size
            page = self.pages.get(start)
            if page is not None and page.size == size and at != start:
                del self.pages[start]
                for part in range(0, size, size // 512):
                    self.pages[start + part] = replace(page, size=size // 512, physical=page.physical + part)

    def within(self, va: int, length: int) -> list[int]:
        return [start for start, page in self.pages.items() if start < va + length and va < start + page.size]

    def used(self) -> Iterator[tuple[int, int]]:
        yield from ((page.physical, page.size) for page in self.pages.values() if page.owned)
        yield from ((frame.address, frame.size) for frame in self.frames)

    def free_frames(self, size: int) -> int:
        """Frames of a size that nothing uses a part of."""
        per_node = [((n + 1) * self.memory // size) - -(-n * self.memory // size) for n in range(self.nodes)]
        touched: set[int] = set()
        for physical, length in self.used():
            touched.update(range(physical // size, -(-(physical + length) // size)))
        return max(sum(per_node) - len(touched), 0)

    def map(self, va: int, length: int, size: int, rights: str, over: bool) -> None:
        """The frames are filled in when they are known."""
        self.check(va, length, size)
        if self.free_frames(size) < length // size:
            raise Refused(errno.ENOMEM)
        self.place(va, length, over)
        for start in range(va, va + length, size):
            self.pages[start] = Page(size, -1, rights, owned=True)

    def map_frame(self, va: int, frame: nrfs.Frame, rights: str, over: bool) -> None:
        self.check(va, frame.size, frame.size)
        self.place(va, frame.size, over)
        self.pages[va] = Page(frame.size, frame.address, rights, owned=False)

    def place(self, va: int, length: int, over: bool) -> None:
        if self.within(va, length):
            if not over:
                raise Refused(errno.EEXIST)
            self.unmap(va, length)

    def unmap(self, va: int, length: int) -> None:
        self.check(va, length)
        self.split(va)
        self.split(va + length)
        for start in self.within(va, length):
            del self.pages[start]

    def protect(self, va: int, length: int, rights: str) -> None:
        self.check(va, length)
        pages = [(start, self.pages[start].size) for start in self.within(va, length)]
        if sum(min(start + size, va + length) - max(start, va) for start, size in pages) != length:
            raise Refused(errno.EFAULT)
        self.split(va)
        self.split(va + length)
        for start in self.within(va, length):
            self.pages[start] = replace(self.pages[start], rights=rights)

    def find(self, va: int) -> tuple[int, Page]:
        self.check(va - va % KIB_4, KIB_4)
        for size in SIZES.values():
            start = va - va % size
            page = self.pages.get(start)
            if page is not None and page.size == size:
                return start, page
        raise Refused(errno.EFAULT)

    def access(self, va: int, right: str) -> int:
        start, page = self.find(va)
        if right not in page.rights:
            raise Refused(errno.EACCES)
        return page.physical + va - start

    def regions(self) -> list[tuple[int, int, int]]:
        regions: list[tuple[int, int, int]] = []
        for start in sorted(self.pages):
            page = self.pages[start]
            if regions and sum(regions[-1][:2]) == start and regions[-1][2] == bits(page.rights):
                first, length, rights = regions.pop()
                regions.append((first, length + page.size, rights))
            else:
                regions.append((start, page.size, bits(page.rights)))
        return regions


def answer(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[str, Any]:  # noqa: ANN401
    try:
        return "done", call(*arguments, **named)
    except OSError as refused:
        return "refused", refused.errno
    except Refused as refused:
        return "refused", refused.args[0]


def records(array: np.ndarray[Any, np.dtype[np.void]]) -> list[Any]:
    return list(array.tolist())


ADDRESSES = st.one_of(
    st.builds(
        lambda huge, large, small: huge * GIB_1 + large * MIB_2 + small * KIB_4,
        st.integers(0, 3),
        st.sampled_from([0, 1, 511]),
        st.sampled_from([0, 0, 1, 511]),
    ),
    st.sampled_from([HALF - KIB_4, HALF, 2**64 - HALF, 2**64 - KIB_4, 1, GIB_1 + 5]),
)
LENGTHS = st.one_of(
    st.integers(1, 4).map(lambda pages: pages * KIB_4),
    st.sampled_from([MIB_2, 2 * MIB_2, 3 * MIB_2, GIB_1, 2 * GIB_1, 0, 5]),
)
OPERATIONS = st.one_of(
    st.tuples(st.just("map"), ADDRESSES, LENGTHS, st.sampled_from(list(SIZES)), st.sampled_from(RIGHTS), st.booleans()),
    st.tuples(st.just("map frame"), ADDRESSES, st.integers(0, 2), st.sampled_from(RIGHTS), st.booleans()),
    st.tuples(st.just("unmap"), ADDRESSES, LENGTHS),
    st.tuples(st.just("protect"), ADDRESSES, LENGTHS, st.sampled_from(RIGHTS)),
    st.tuples(st.just("access"), ADDRESSES, st.integers(0, 3), st.sampled_from("rwx")),
)


def rounded(operation: tuple[Any, ...]) -> tuple[Any, ...]:
    """Most mappings of large pages are to be aligned, and none to have very many small ones."""
    if operation[0] == "map":
        name, va, length, page, rights, over = operation
        size = SIZES[page]
        if va % KIB_4 == 0 and length % KIB_4 == 0 and va < 8 * GIB_1:
            va, length = va - va % size, -(-length // size) * size
        return name, va, min(length, 512 * size), page, rights, over
    return operation


@generated()
@given(
    shape=st.sampled_from([(1, 1), (2, 2), (2, 3)]),
    memory=st.sampled_from([2 * MIB_2, 2 * GIB_1]),
    operations=st.lists(OPERATIONS.map(rounded), min_size=1, max_size=20),
)
def test_every_operation_does_what_the_model_says(
    shape: tuple[int, int], memory: int, operations: list[tuple[Any, ...]]
) -> None:
    nodes, logs = shape
    space = nrfs.AddressSpace(nodes=nodes, logs=logs, cores=4, memory=memory)
    model = Model(nodes, memory)
    model.frames = [space.frame("4K"), space.frame("2M")]
    cores = [space.core(cpu) for cpu in range(4)]
    for operation in operations:
        match operation:
            case "map", va, length, page, rights, over:
                done = answer(space.map, va, length, page=page, rights=rights, replace=over)
                assert done == answer(model.map, va, length, SIZES[page], rights, over)
            case "map frame", va, number, rights, over:
                frame = model.frames[number % 2]
                done = answer(space.map, va, frame, rights=rights, replace=over)
                assert done == answer(model.map_frame, va, frame, rights, over)
            case "unmap", va, length:
                done = answer(space.unmap, va, length)
                assert done == answer(model.unmap, va, length)
            case "protect", va, length, rights:
                done = answer(space.protect, va, length, rights)
                assert done == answer(model.protect, va, length, rights)
            case "access", va, cpu, right:
                access = {"r": cores[cpu].read, "w": cores[cpu].write, "x": cores[cpu].fetch}[right]
                done = answer(access, va)
                assert done == answer(model.access, va, right)
        if operation[0] == "map" and done[0] == "done":
            for va, _, physical, _, _ in records(space.page_table(0)):
                if model.pages[va].physical == -1:
                    model.pages[va] = replace(model.pages[va], physical=physical)
        assert records(space.regions()) == model.regions()
    pages = [(va, p.size, p.physical, bits(p.rights), p.owned) for va, p in sorted(model.pages.items())]
    for node in range(nodes):
        assert records(space.page_table(node)) == pages
    used = sorted(model.used())
    assert all(start + size <= following for (start, size), (following, _) in pairwise(used))
    assert space.statistics()["bytes_free"] == nodes * memory - sum(size for _, size in used)
    assert all(len(set(log["digests"])) == 1 for log in space.verify())


def test_an_address_resolves_to_its_page() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=4)
    space.map(GIB_1, 2 * MIB_2, page="2M", rights="r-x")
    mapping = space.resolve(GIB_1 + MIB_2 + 5)
    assert (mapping.address, mapping.page, mapping.rights) == (GIB_1 + MIB_2, MIB_2, "r-x")
    assert mapping.physical == mapping.frame + 5
    resolved = space.resolve_many(np.array([GIB_1 + 5, 0, GIB_1 + MIB_2 + 5, HALF], dtype=np.uint64))
    assert resolved["mapped"].tolist() == [True, False, True, False]
    assert resolved["physical"][2] == mapping.physical
    assert resolved["page"].tolist() == [MIB_2, 0, MIB_2, 0]
    assert resolved["rights"].tolist() == [5, 0, 5, 0]
    assert len(space.resolve_many(np.array([], dtype=np.uint64))) == 0


def test_a_frame_can_be_mapped_twice_and_stays_when_unmapped() -> None:
    space = nrfs.AddressSpace()
    frame = space.frame("2M")
    free = space.statistics()["bytes_free"]
    space.map(0, frame)
    space.map(GIB_1, frame, rights="r--")
    assert space.resolve(7).physical == space.resolve(GIB_1 + 7).physical == frame.address + 7
    space.unmap(0, MIB_2)
    assert space.resolve(GIB_1).page == frame.size
    assert space.statistics()["bytes_free"] == free


def test_what_there_is_not_is_refused() -> None:
    space = nrfs.AddressSpace(nodes=2, cores=2)
    of_other = nrfs.AddressSpace().frame()
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (ValueError, lambda: nrfs.AddressSpace(nodes=0)),
        (ValueError, lambda: nrfs.AddressSpace(logs=0)),
        (ValueError, lambda: nrfs.AddressSpace(memory=4095)),
        (ValueError, lambda: nrfs.AddressSpace(nodes=2, cores=1)),
        (ValueError, lambda: space.map(0, KIB_4, page="8K")),  # type: ignore[arg-type]
        (ValueError, lambda: space.map(0, KIB_4, rights="wr-")),
        (ValueError, lambda: space.map(0, of_other)),
        (IndexError, lambda: space.core(2)),
        (IndexError, lambda: space.page_table(2)),
    ]
    for error, call in calls:
        with pytest.raises(error, match=r"bad|another|needed|there is no"):
            call()


def test_no_thread_reads_what_was_unmapped() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=2, cores=4)
    stop = threading.Event()

    def read(cpu: int) -> None:
        core = space.core(cpu)
        while not stop.is_set():
            answer(core.read, GIB_1)

    threads = [threading.Thread(target=read, args=(cpu,)) for cpu in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(50):
            core = space.core(number % 4)
            space.map(GIB_1, KIB_4)
            assert core.read(GIB_1) == space.resolve(GIB_1).physical
            space.unmap(GIB_1, KIB_4)
            assert answer(core.read, GIB_1) == ("refused", errno.EFAULT)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
