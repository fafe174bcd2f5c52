"""The mutex and the readers-writer lock of Rust's standard library on Linux.

Step by step as in ``std::sys::sync``, files ``mutex/futex.rs`` and ``rwlock/futex.rs`` (Rust 1.85): who finds a lock
taken looks at it a hundred times, and then sleeps. What an uncontended lock costs is part of the whole operation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
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

    def sleep(self, core: Core) -> Program[None]:
        signal = Signal(self._clock)
        self._sleepers.append(signal)
        yield signal
        yield core.work(core.costs.wake)

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
            yield core.work(core.costs.call)
            if self._state == "contended":
                yield from self._bed.sleep(core)
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


@final
class RwLock:
    """Prefers writers: a reader waits while a writer does."""

    def __init__(self, clock: Clock) -> None:
        self.line = Line()
        self._readers = 0
        self._is_written = False
        self._readers_wait = False
        self._writers_wait = False
        self._readers_bed = Bed(clock)
        self._writers_bed = Bed(clock)

    @property
    def _is_free(self) -> bool:
        return not self._readers and not self._is_written

    @property
    def _waits(self) -> bool:
        return self._readers_wait or self._writers_wait

    def read(self, core: Core) -> Program[None]:
        """Locks it to read."""
        yield from core.load(self.line)
        is_first = True
        while True:
            if not self._is_written and not self._waits:
                yield from core.exchange(self.line)
                if not self._is_written and not self._waits:
                    self._readers += 1
                    return
                continue
            if is_first:
                is_first = False
            else:
                yield from core.exchange(self.line)
                if not self._is_written and not self._waits:
                    continue
                self._readers_wait = True
                yield core.work(core.costs.call)
                if self._readers_wait:
                    yield from self._readers_bed.sleep(core)
            yield from self._spin(core, lambda: not self._is_written or self._waits)

    def read_unlock(self, core: Core) -> Program[None]:
        yield from core.exchange(self.line)
        self._readers -= 1
        if self._is_free and self._writers_wait:
            yield from self._wake(core)

    def write(self, core: Core) -> Program[None]:
        """Locks it to write."""
        yield from core.exchange(self.line)
        if self._is_free and not self._waits:
            self._is_written = True
            return
        others_wait = False
        while True:
            yield from self._spin(core, lambda: self._is_free or self._writers_wait)
            while self._is_free:
                yield from core.exchange(self.line)
                if self._is_free:
                    self._is_written = True
                    self._writers_wait = self._writers_wait or others_wait
                    return
            yield from core.exchange(self.line)
            if self._is_free:
                continue
            self._writers_wait = others_wait = True
            yield core.work(core.costs.call)
            if self._writers_wait:
                yield from self._writers_bed.sleep(core)

    def write_unlock(self, core: Core) -> Program[None]:
        yield from core.exchange(self.line)
        self._is_written = False
        if self._waits:
            yield from self._wake(core)

    def _wake(self, core: Core) -> Program[None]:
        """Wakes a writer, or all readers if no writer sleeps."""
        yield from core.exchange(self.line)
        if not self._is_free:
            return  # Whoever has it now wakes them.
        if self._writers_wait:
            self._writers_wait = False
            if (yield from self._writers_bed.wake(core, 1)) or not self._readers_wait:
                return
            yield from core.exchange(self.line)
        if self._readers_wait:
            self._readers_wait = False
            yield from self._readers_bed.wake(core, 1 << 30)

    def _spin(self, core: Core, is_ready: Callable[[], bool]) -> Program[None]:
        yield from core.load(self.line)
        if not is_ready():
            yield from core.spin(self.line, is_ready, SPINS)
