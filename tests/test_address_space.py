"""``nrfs.AddressSpace``: what it promises, against a plain model."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.generating import generated

import nrfs

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
    backed: bool
    pages: dict[int, Page] = field(default_factory=dict)
    frames: list[nrfs.Frame] = field(default_factory=list)
    content: dict[int, int] = field(default_factory=dict)
    """By physical address; elsewhere there are zeros."""

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

    def map_many(self, addresses: list[int], size: int, rights: str, over: bool) -> None:
        for va in addresses:
            self.check(va, size, size)
        pages = set(addresses)
        if self.free_frames(size) < len(pages):
            raise Refused(errno.ENOMEM)
        if not over and any(self.within(va, size) for va in pages):
            raise Refused(errno.EEXIST)
        for va in pages:
            self.place(va, size, over)
            self.pages[va] = Page(size, -1, rights, owned=True)

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
            page = self.pages.pop(start)
            if page.owned:
                gone = range(page.physical, page.physical + page.size)
                self.content = {at: byte for at, byte in self.content.items() if at not in gone}

    def unmap_many(self, addresses: list[int], size: int) -> None:
        for va in addresses:
            self.check(va, size)
        for va in addresses:
            self.unmap(va, size)

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

    def store(self, va: int, byte: int) -> int:
        """What was there before; it stays, where it may not be written."""
        start = va - va % KIB_4
        self.check(start, KIB_4)
        if not self.backed:
            raise Refused(errno.ENODEV)
        physical = self.access(start, "r") + va - start
        before = self.content.get(physical, 0)
        if "w" in self.find(va)[1].rights:
            self.content[physical] = byte
        return before

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


def store(space: nrfs.AddressSpace, va: int, byte: int) -> int:
    page = space.view(va - va % KIB_4, KIB_4)
    before = int(page[va % KIB_4])
    if page.flags.writeable:
        page[va % KIB_4] = byte
    return before


def records(array: np.ndarray[Any, np.dtype[np.void]]) -> list[Any]:
    return list(array.tolist())


def array(addresses: Iterable[int]) -> NDArray[np.uint64]:
    return np.array(list(addresses), dtype=np.uint64)


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
    st.tuples(
        st.just("map many"),
        st.lists(ADDRESSES, max_size=5),
        st.sampled_from(list(SIZES)),
        st.sampled_from(RIGHTS),
        st.booleans(),
    ),
    st.tuples(st.just("unmap many"), st.lists(ADDRESSES, max_size=5), st.sampled_from(list(SIZES))),
    st.tuples(st.just("store"), ADDRESSES, st.integers(1, 255)),
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
    if operation[0] == "map many":
        name, addresses, page, rights, over = operation
        whole = [va - va % SIZES[page] if va < 8 * GIB_1 and not va % KIB_4 else va for va in addresses]
        return name, whole, page, rights, over
    return operation


@generated()
@given(
    shape=st.sampled_from([(1, 1), (2, 2), (2, 3)]),
    memory=st.sampled_from([2 * MIB_2, 2 * GIB_1]),
    backed=st.booleans(),
    operations=st.lists(OPERATIONS.map(rounded), min_size=1, max_size=20),
)
def test_every_operation_does_what_the_model_says(
    shape: tuple[int, int], memory: int, backed: bool, operations: list[tuple[Any, ...]]
) -> None:
    nodes, logs = shape
    space = nrfs.AddressSpace(nodes=nodes, logs=logs, cores=4, memory=memory, backed=backed)
    model = Model(nodes, memory, backed)
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
            case "map many", addresses, page, rights, over:
                done = answer(space.map_many, array(addresses), page=page, rights=rights, replace=over)
                assert done == answer(model.map_many, addresses, SIZES[page], rights, over)
            case "unmap many", addresses, page:
                done = answer(space.unmap_many, array(addresses), page=page)
                assert done == answer(model.unmap_many, addresses, SIZES[page])
            case "store", va, byte:
                done = answer(store, space, va, byte)
                assert done == answer(model.store, va, byte)
            case "access", va, cpu, right:
                access = {"r": cores[cpu].read, "w": cores[cpu].write, "x": cores[cpu].fetch}[right]
                done = answer(access, va)
                assert done == answer(model.access, va, right)
        if operation[0] in ("map", "map many") and done[0] == "done":
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


def test_many_pages_are_mapped_and_unmapped_with_one_shootdown() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=4, cores=2)
    pages = [slice_ * GIB_1 + number * 2 * KIB_4 for number in range(3) for slice_ in (3, 0, 1)]
    space.map_many(array(pages + pages[:2]), rights="r--")
    assert space.regions()["address"].tolist() == sorted(pages)
    assert space.resolve_many(array(pages))["rights"].tolist() == [1] * len(pages)
    other = space.core(1)
    assert [other.read(va) for va in pages] == space.resolve_many(array(pages))["physical"].tolist()
    before = {key: sum(core[key] for core in space.statistics()["cores"]) for key in ("shootdowns", "requests")}
    space.unmap_many(array(pages[1:]))
    after = {key: sum(core[key] for core in space.statistics()["cores"]) for key in ("shootdowns", "requests")}
    assert after["shootdowns"] == before["shootdowns"] + 1
    # Where this thread stood for the other core, there was nobody to ask.
    assert after["requests"] - before["requests"] in (0, 1)
    assert answer(other.read, pages[-1]) == ("refused", errno.EFAULT)
    assert other.read(pages[0]) == space.resolve(pages[0]).physical
    assert all(len(set(log["digests"])) == 1 for log in space.verify())


def test_of_many_pages_all_are_changed_or_none() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=3, memory=8 * KIB_4)
    space.map(GIB_1, KIB_4)
    before, free = records(space.regions()), space.statistics()["bytes_free"]
    for error, addresses in [
        (errno.EEXIST, [0, 2 * GIB_1, GIB_1]),
        (errno.EINVAL, [0, GIB_1 + 5]),
        (errno.EINVAL, [0, HALF]),
        (errno.ENOMEM, list(range(2 * GIB_1, 2 * GIB_1 + 16 * KIB_4, KIB_4))),
    ]:
        assert answer(space.map_many, array(addresses)) == ("refused", error)
    assert answer(space.unmap_many, array([GIB_1, 5])) == ("refused", errno.EINVAL)
    assert answer(space.unmap_many, array([GIB_1]), page="2M") == ("done", None)
    assert (records(space.regions()), space.statistics()["bytes_free"]) == ([], free + KIB_4)
    space.map(GIB_1, KIB_4)
    space.map_many(array([0, GIB_1]), replace=True)
    space.map_many(array([]))
    assert records(space.regions()) == [(0, KIB_4, 3), *before]


def test_the_wait_for_other_cores_is_counted() -> None:
    space = nrfs.AddressSpace(cores=8)
    space.map(0, KIB_4)
    space.unmap(0, KIB_4)
    assert all(core["waited_ns"] == 0 for core in space.statistics()["cores"])
    for cpu in range(8):
        space.map(0, KIB_4)
        space.core(cpu).read(0)
        space.unmap(0, KIB_4)
    cores = space.statistics()["cores"]
    assert any(core["waited_ns"] > 0 for core in cores)
    assert all(core["waited_longest_ns"] <= core["waited_ns"] for core in cores)


def test_views_of_one_frame_see_each_others_writes() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=4, backed=True)
    space.map(GIB_1 - MIB_2, 2 * MIB_2, page="2M")
    frame = space.frame("2M")
    space.map(8 * MIB_2, frame)
    space.map(3 * GIB_1, frame, rights="r-x")
    space.unmap(3 * GIB_1 + KIB_4, KIB_4)
    whole = space.view(GIB_1 - MIB_2, 2 * MIB_2)
    assert whole.shape == (2 * MIB_2,)
    assert whole.dtype == np.uint8
    assert not whole.any()
    whole[:] = np.arange(2 * MIB_2, dtype=np.uint32).astype(np.uint8)
    assert np.array_equal(space.view(GIB_1 - KIB_4, 2 * KIB_4), whole[MIB_2 - KIB_4 :][: 2 * KIB_4])
    written, read = space.view(8 * MIB_2, MIB_2), space.view(3 * GIB_1 + 2 * KIB_4, 8 * KIB_4)
    written[2 * KIB_4 + 5] = 7
    assert read[5] == 7
    assert not read.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        read[5] = 8
    with pytest.raises(ValueError, match="WRITEABLE"):
        read.flags.writeable = True


def test_a_first_touch_is_resolved() -> None:
    space = nrfs.AddressSpace(nodes=2, backed=True)
    space.map(KIB_4, 4 * MIB_2)
    view = space.view(KIB_4, 4 * MIB_2)
    on_touch = space.statistics()["views"]["on_touch"]
    assert space.statistics()["views"] == {"on_touch": on_touch, "views": 1, "touches": 0}
    view[0] = view[1] = view[2 * MIB_2] = view[-1] = 1
    assert space.statistics()["views"]["touches"] == (3 if on_touch else 0)
    assert view.sum() == 4
    assert space.statistics()["views"]["touches"] == (5 if on_touch else 0)
    assert nrfs.AddressSpace().statistics()["views"] is None


def test_system_calls_and_many_threads_touch_a_view_first() -> None:
    space = nrfs.AddressSpace(nodes=4, cores=4, backed=True)
    space.map(0, 64 * MIB_2)
    view = space.view(0, 64 * MIB_2)
    with tempfile.TemporaryFile() as file:
        file.write(bytes([1]) * 3 * MIB_2)
        file.seek(0)
        assert file.readinto(view[: 3 * MIB_2]) == 3 * MIB_2  # type: ignore[arg-type]
    every_step = view[3 * MIB_2 :: MIB_2]

    def add() -> None:
        for number in range(len(every_step)):
            every_step[number] = 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert view.sum() == 3 * MIB_2 + len(every_step)


def test_what_a_view_shows_stays_mapped() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=2, backed=True)
    space.map(GIB_1 - 2 * KIB_4, 4 * KIB_4)
    view = space.view(GIB_1 - KIB_4, 2 * KIB_4)
    part = view[5:7]
    del view
    changes: list[Callable[[], object]] = [
        lambda: space.unmap(GIB_1, KIB_4),
        lambda: space.unmap(0, 8 * GIB_1),
        lambda: space.unmap_many(array([GIB_1 - 2 * KIB_4, GIB_1])),
        lambda: space.protect(GIB_1, KIB_4, "r--"),
        lambda: space.protect(GIB_1 - 2 * KIB_4, 4 * KIB_4, "r--"),
        lambda: space.map(GIB_1 - KIB_4, KIB_4, replace=True),
        lambda: space.map_many(array([0, GIB_1 - KIB_4]), replace=True),
    ]
    before = records(space.regions())
    for change in changes:
        assert answer(change) == ("refused", errno.EBUSY)
    assert records(space.regions()) == before
    space.protect(GIB_1, KIB_4, "rwx")
    space.protect(GIB_1 + KIB_4, KIB_4, "r--")
    part[0] = 9
    assert space.view(GIB_1 - KIB_4, KIB_4)[5] == 9
    del part
    for change in changes[3:] + changes[:3]:
        change()
    assert space.statistics()["views"]["views"] == 0


def test_a_frame_is_zeros_when_it_is_mapped_again() -> None:
    space = nrfs.AddressSpace(memory=4 * MIB_2, backed=True)
    for page in ("4K", "2M", "4K"):
        space.map(0, 4 * MIB_2, page=page)
        view = space.view(0, 4 * MIB_2)
        assert not view.any()
        view[:] = 0xFF
        del view
        space.unmap(0, 4 * MIB_2)


def test_views_come_and_go_while_others_unmap() -> None:
    space = nrfs.AddressSpace(nodes=2, logs=2, cores=4, memory=8 * MIB_2, backed=True)
    length = 2 * MIB_2
    stop = threading.Event()
    seen = [0, 0, 0]

    def scribble(thread: int) -> None:
        while not stop.is_set():
            done, view = answer(space.view, GIB_1 - MIB_2, length)
            if done == "done":
                view[thread::KIB_4] = 0xFF
                seen[thread] += int(view[thread] == view[-KIB_4 + thread] == 0xFF)
            del view
            # Sometimes there is to be no view.
            stop.wait(0.002)

    def unmapped() -> bool:
        return answer(space.unmap, GIB_1 - MIB_2, length) != ("refused", errno.EBUSY)

    threads = [threading.Thread(target=scribble, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    try:
        fresh = 0
        while fresh < 20 or not all(seen):
            space.map(GIB_1 - MIB_2, length, page="2M")
            assert not space.view(GIB_1 - MIB_2, length)[5::KIB_4].any()
            fresh += 1
            while not unmapped():
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    space.map(0, 16 * MIB_2)
    assert not space.view(0, 16 * MIB_2).any()


def test_there_is_no_view_of_what_may_not_be_read() -> None:
    space = nrfs.AddressSpace(backed=True)
    space.map(0, KIB_4, rights="r--")
    space.map(KIB_4, KIB_4)
    space.map(2 * KIB_4, KIB_4, rights="--x")
    assert not space.view(0, 2 * KIB_4).flags.writeable
    assert space.view(KIB_4, KIB_4).flags.writeable
    for error, va, length in [
        (errno.EACCES, KIB_4, 2 * KIB_4),
        (errno.EFAULT, 0, 4 * KIB_4),
        (errno.EFAULT, GIB_1, KIB_4),
        (errno.EINVAL, 1, KIB_4),
        (errno.EINVAL, 0, 5),
        (errno.EINVAL, HALF, KIB_4),
    ]:
        assert answer(space.view, va, length) == ("refused", error)
    assert answer(nrfs.AddressSpace().view, 0, KIB_4) == ("refused", errno.ENODEV)
    with pytest.raises(ValueError, match="at most 4 PiB"):
        nrfs.AddressSpace(memory=1 << 63, backed=True)


def test_frames_that_are_too_scattered_for_the_kernel_are_not_shown() -> None:
    bound = int(Path("/proc/sys/vm/max_map_count").read_text())
    if bound > 1 << 20:
        pytest.skip("this kernel allows very many mappings")
    space = nrfs.AddressSpace(backed=True)
    frame = space.frame()
    for number in range(bound // 2):
        space.map(number * KIB_4, frame)
    with pytest.raises(MemoryError):
        space.view(0, bound // 2 * KIB_4)
    assert space.view(0, bound // 4 * KIB_4).any() == 0


def test_a_view_keeps_its_address_space_and_a_forked_process_leaves_it_alone() -> None:
    space = nrfs.AddressSpace(backed=True)
    space.map(0, 2 * MIB_2)
    view = space.view(0, 2 * MIB_2)
    view[0] = 1
    child = os.fork()
    if child == 0:
        del space, view
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    del space
    view[MIB_2] = 2
    assert view.sum() == 3


def test_without_userfaultfd_all_of_a_view_is_there_at_once() -> None:
    program = """
import os, sys, numpy, nrfs
if os.geteuid() == 0:
    os.setuid(65534)
space = nrfs.AddressSpace(nodes=2, backed=True)
space.map(4096, 3 << 20)
view = space.view(4096, 3 << 20)
view[::4096] = 1
print(view.sum(), space.view(8192, 4096)[0], space.statistics()["views"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    expected = "768 1 {'on_touch': False, 'views': 1, 'touches': 0}\n"
    if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text() == "1\n":
        expected = "768 1 {'on_touch': True, 'views': 1, 'touches': 3}\n"
    assert (done.stdout, done.stderr) == (expected, "")
