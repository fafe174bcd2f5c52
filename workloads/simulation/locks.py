"""The mutex and the readers-writer lock of Rust's standard library on Linux.

Step by step as in ``std::sys::sync``, files ``mutex/futex.rs`` and ``rwlock/futex.rs`` (Rust 1.85): who finds a lock
taken looks at it a hundred times, and then sleeps. What an uncontended lock costs is part of the whole operation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from workloads.simulation.engine import Clock, Core, Line, Program, Signal

SPINS = 100
"""Looks at a taken lock before a thread sleeps."""


@final
class Bed:
    """Where threads sleep until they are woken."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sleepers: deque[Signal] = deque()

    def sleep(self, core: Core, is_due: Callable[[], bool]) -> Program[None]:
        """Sleeps until woken. The kernel looks, in the middle of the call, whether it is still due to sleep."""
        yield core.busy(core.costs.refused / 2)
        if is_due():
            signal = Signal(self._clock)
            self._sleepers.append(signal)
            yield signal
            yield core.work(core.costs.wake)
        else:
            yield core.busy(core.costs.refused / 2)

    def wake(self, core: Core, count: int) -> Program[bool]:
        """Wakes so many sleepers, the first first; returns whether there was any."""
        woken = bool(self._sleepers)
        yield core.work(core.costs.offer if woken else core.costs.call)
        for _ in range(min(count, len(self._sleepers))):
            self._sleepers.popleft().give()
        return woken


@final
class Mutex:
    def __init__(self, clock: Clock) -> None:
        self.line = Line()
        self._state = "free"
        self._bed = Bed(clock)

    def try_lock(self, core: Core) -> Program[bool]:
        yield from core.exchange(self.line)
        if self._state != "free":
            return False
        self._state = "locked"
        return True

    def lock(self, core: Core) -> Program[None]:
        if (yield from self.try_lock(core)):
            return
        yield from self._spin(core)
        if self._state == "free" and (yield from self.try_lock(core)):
            return
        while True:
            yield from core.exchange(self.line)
            was, self._state = self._state, "contended"
            if was == "free":
                return
            yield from self._bed.sleep(core, lambda: self._state == "contended")
            yield from self._spin(core)

    def unlock(self, core: Core) -> Program[None]:
        yield from core.exchange(self.line)
        was, self._state = self._state, "free"
        if was == "contended":
            yield from self._bed.wake(core, 1)

    def _spin(self, core: Core) -> Program[None]:
        yield from core.load(self.line)
        if self._state == "locked":
            yield from core.spin(self.line, lambda: self._state != "locked", SPINS)


_WRITTEN = -1
"""So many readers has a lock that is locked to write."""


@final
@dataclass(frozen=True)
class _State:
    readers: int = 0
    readers_wait: bool = False
    writers_wait: bool = False

    @property
    def is_free(self) -> bool:
        return self.readers == 0

    @property
    def waits(self) -> bool:
        return self.readers_wait or self.writers_wait

    @property
    def is_readable(self) -> bool:
        return self.readers != _WRITTEN and not self.waits

    def add(self, readers: int) -> _State:
        return replace(self, readers=self.readers + readers)


@final
class RwLock:
    """Prefers writers: a reader waits while a writer does."""

    def __init__(self, clock: Clock) -> None:
        self.line = Line()
        self._state = _State()
        self._readers_bed = Bed(clock)
        self._writers_bed = Bed(clock)

    def read(self, core: Core) -> Program[None]:
        """Locks it to read."""
        yield from core.load(self.line)
        state = self._state
        if state.is_readable and (yield from self._change(core, state, state.add(1))):
            return
        yield from self._spin(core, lambda: self._state.readers != _WRITTEN or self._state.waits)
        state = self._state
        while True:
            if state.is_readable:
                if (yield from self._change(core, state, state.add(1))):
                    return
            elif state.readers_wait or (yield from self._change(core, state, replace(state, readers_wait=True))):
                due = replace(state, readers_wait=True)
                yield from self._readers_bed.sleep(core, lambda due=due: self._state == due)  # type: ignore[misc]
                yield from self._spin(core, lambda: self._state.readers != _WRITTEN or self._state.waits)
            state = self._state

    def read_unlock(self, core: Core) -> Program[None]:
        yield from core.exchange(self.line)
        self._state = self._state.add(-1)
        if self._state.is_free and self._state.writers_wait:
            yield from self._wake(core)

    def write(self, core: Core) -> Program[None]:
        """Locks it to write."""
        if (yield from self._change(core, _State(), _State(_WRITTEN))):
            return
        yield from self._spin(core, lambda: self._state.is_free or self._state.writers_wait)
        state, others_wait = self._state, False
        while True:
            if state.is_free:
                locked = replace(state, readers=_WRITTEN, writers_wait=state.writers_wait or others_wait)
                if (yield from self._change(core, state, locked)):
                    return
            elif state.writers_wait or (yield from self._change(core, state, replace(state, writers_wait=True))):
                others_wait = True
                yield from core.load(self.line)
                if not self._state.is_free and self._state.writers_wait:
                    yield from self._writers_bed.sleep(core, lambda: self._state.writers_wait)
                    yield from self._spin(core, lambda: self._state.is_free or self._state.writers_wait)
            state = self._state

    def write_unlock(self, core: Core) -> Program[None]:
        yield from core.exchange(self.line)
        self._state = replace(self._state, readers=0)
        if self._state.waits:
            yield from self._wake(core)

    def _wake(self, core: Core) -> Program[None]:
        """Wakes a writer, or all readers if no writer sleeps. If it is locked meanwhile, the new owner wakes them."""
        state = self._state
        if state.is_free and state.writers_wait:
            state = replace(state, writers_wait=False)
            if not (yield from self._change(core, replace(state, writers_wait=True), state)):
                return
            if (yield from self._writers_bed.wake(core, 1)):
                return
        if state == _State(readers_wait=True) and (yield from self._change(core, state, _State())):
            yield from self._readers_bed.wake(core, 1 << 30)

    def _change(self, core: Core, old: _State, new: _State) -> Program[bool]:
        """Changes the state, unless it is another than ``old`` by now: a compare-and-exchange."""
        yield from core.exchange(self.line)
        is_old = self._state == old
        if is_old:
            self._state = new
        return is_old

    def _spin(self, core: Core, is_ready: Callable[[], bool]) -> Program[None]:
        yield from core.load(self.line)
        if not is_ready():
            yield from core.spin(self.line, is_ready, SPINS)
