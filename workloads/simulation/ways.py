"""Ways to share a structure: the interface; and the structure behind a lock, and sharded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, final

from workloads.simulation.costs import Costs
from workloads.simulation.engine import Clock, Core, Program
from workloads.simulation.locks import Mutex, RwLock


@final
@dataclass(frozen=True)
class Setup:
    """What all ways need to know."""

    clock: Clock
    costs: Costs
    nodes: int
    cores: int
    """Of each node, with a thread on each."""
    replicas: int
    """Of ``nr``: one for each node, except where a machine with one node emulates others."""
    writes: float
    """The part of operations that are writes: 0 to 1."""
    logs: int
    batch: int | None
    """The most operations that a combiner takes at once; None for all that there are."""
    log_entries: int
    """Room in each log."""

    @property
    def threads(self) -> int:
        return self.nodes * self.cores


class Way(Protocol):
    """A way to share a structure. The programs use ``key`` to choose a log or a shard."""

    def read(self, core: Core, key: int) -> Program[None]: ...

    def write(self, core: Core, key: int, operation: int) -> Program[None]:
        """``operation`` is the number of the write, which no other has."""
        ...

    def idle(self, core: Core) -> Program[None]:
        """What a thread that is done does for the others. Called again and again until all are done."""
        ...


@final
class Moved:
    """How long reads and writes of one copy wait, on average, because other cores have changed the entry's line.

    Each of ``cores`` cores reads and writes entries at random, at these rates. What a core has in its cache was taken
    away if another core wrote since; it may write without asking if nobody else used the line since its own last write.
    Of the events that count, the chance that a certain one came last is its share of the rates.
    """

    def __init__(self, cores: int, nodes: int, reads: float, writes: float, costs: Costs) -> None:
        others = cores * nodes - 1
        uses = reads + writes
        near = (cores - 1) / others if others else 1.0
        transfer = near * costs.local + (1 - near) * costs.remote
        self.read: Final = transfer * (others * writes / (others * writes + uses)) if uses else 0.0
        self.write: Final = transfer * (others * uses / (others * uses + writes)) if writes else 0.0


class _Shared:
    """One copy that all cores use."""

    def __init__(self, setup: Setup, read: float, write: float) -> None:
        moved = Moved(setup.cores, setup.nodes, 1 - setup.writes, setup.writes, setup.costs)
        # The two atomic instructions of a lock are simulated. To make the operation takes no time of its own: a core
        # does it while it waits for the atomic instruction before.
        self._read, self._moved_read = read - 2 * setup.costs.atomic, moved.read
        self._write, self._moved_write = write - 2 * setup.costs.atomic, moved.write

    def _reading(self, core: Core) -> float:
        return core.work(self._read) + self._moved_read

    def _writing(self, core: Core) -> float:
        return core.work(self._write) + self._moved_write

    def idle(self, core: Core) -> Program[None]:
        yield core.work(core.costs.offer)


@final
class BehindMutex(_Shared):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, setup.costs.mutex_read, setup.costs.mutex_write)
        self._lock = Mutex(setup.clock)

    def read(self, core: Core, key: int) -> Program[None]:
        yield from self._lock.lock(core)
        yield self._reading(core)
        yield from self._lock.unlock(core)

    def write(self, core: Core, key: int, operation: int) -> Program[None]:
        yield from self._lock.lock(core)
        yield self._writing(core)
        yield from self._lock.unlock(core)


@final
class BehindRwLock(_Shared):
    """With one lock, or with one for each shard: as many shards as DashMap makes, four for each thread."""

    def __init__(self, setup: Setup, *, is_sharded: bool) -> None:
        costs = setup.costs
        read = costs.sharded_read if is_sharded else costs.rwlock_read
        super().__init__(setup, read, costs.sharded_write if is_sharded else costs.rwlock_write)
        shards = 1 << (4 * setup.threads - 1).bit_length() if is_sharded else 1
        self._locks = [RwLock(setup.clock) for _ in range(shards)]

    def read(self, core: Core, key: int) -> Program[None]:
        lock = self._locks[key % len(self._locks)]
        yield from lock.read(core)
        yield self._reading(core)
        yield from lock.read_unlock(core)

    def write(self, core: Core, key: int, operation: int) -> Program[None]:
        lock = self._locks[key % len(self._locks)]
        yield from lock.write(core)
        yield self._writing(core)
        yield from lock.write_unlock(core)
