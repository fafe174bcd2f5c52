"""The clock, the cores, and the cache lines that travel between them.

A *program* is what a thread does: a generator that yields how many nanoseconds pass, or a :class:`Signal` to wait for.
Between two yields no time passes and no other program runs. So a program may look at anything and change anything
there; what makes it slow is that it must first get the cache line where that stands.

A line is held by several cores that have read it, or by the one that has written it last. Whoever does not hold it
gets it by a transfer. Transfers of one line come one after the other, in the order in which they were asked for. The
first part of a transfer is the way of the request, and the line leaves its holder then, but not before that has kept it
for a while: so a core that wants a line again may make a few operations in a row before it loses it. This is the MESI
protocol without its messages, and with two distances: within a node, and between nodes.

Now and then a core is interrupted: by its own timer, and in a virtual machine by the host's. Who works on goes on
meanwhile, without the other's contention, or waits for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from random import Random
from typing import Final, TypeVar, final

from workloads.simulation.costs import Costs

_R = TypeVar("_R")

Program = Generator["float | Signal", None, _R]


@final
class Clock:
    """Runs programs and actions in the order of time; those of one moment in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        """Nanoseconds since the beginning."""
        self.steps = 0
        """How many programs and actions have been run."""
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._planned, (time, self._number, action))

    def start(self, program: Program[None]) -> None:
        """Has a program begin now."""

        def step() -> None:
            wait = next(program, None)
            if isinstance(wait, Signal):
                wait.then(step)
            elif wait is not None:
                self.at(self.now + wait, step)

        self.at(self.now, step)

    def run(self, steps: int) -> None:
        """Returns when all programs have ended or wait for a signal that nobody is left to give; or after so many
        steps.
        """
        while self._planned and self.steps < steps:
            self.now, _, action = heapq.heappop(self._planned)
            self.steps += 1
            action()


@final
class Signal:
    """Something that happens once. Programs that wait for it go on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._happened = False
        self._waiting: list[Callable[[], None]] = []

    def then(self, action: Callable[[], None]) -> None:
        if self._happened:
            self._clock.at(self._clock.now, action)
        else:
            self._waiting.append(action)

    def give(self) -> None:
        """Makes the event happen now. Later calls do nothing."""
        self._happened = True
        while self._waiting:
            self._clock.at(self._clock.now, self._waiting.pop())


@final
class Line:
    """A cache line. At the beginning every core holds it."""

    def __init__(self) -> None:
        self.holders: set[int] | None = None
        """The numbers of the cores that hold it; None for all."""
        self.owner: int | None = None
        """The core that may write it."""
        self.free_at = 0.0
        """When the last transfer that was asked for ends, and its core has kept the line for as long as it may."""
        self.watches: list[Signal] = []
        """Given when somebody else is about to write it."""


@final
class Core:
    """A core, on which one thread runs."""

    def __init__(self, number: int, per_node: int, clock: Clock, costs: Costs, *, slowdown: float, seed: int) -> None:
        self.number: Final = number
        self.node: Final = number // per_node
        self.clock: Final = clock
        self.costs: Final = costs
        self._per_node = per_node
        self._slowdown = slowdown
        self.random: Final = Random((seed << 20) + number)
        self._stored_at = 0.0
        """When all its stores so far are done."""
        self._interrupted_at = costs.interruption_every * self.random.random()
        """When it is interrupted next."""

    def work(self, nanoseconds: float) -> float:
        """How long it takes to do once on this core what takes so long on average on a core alone: a fifth less to a
        fifth more, as entries are in different caches. Without it cores would fall into step.
        """
        return self.busy(max(0.0, nanoseconds) * self._slowdown * (0.8 + 0.4 * self.random.random()))

    def busy(self, nanoseconds: float) -> float:
        """How long it takes from now, with the interruptions meanwhile."""
        now, length = self.clock.now, self.costs.interruption
        end = now + nanoseconds
        while self._interrupted_at < end:
            # What of it has passed while the thread waited for another does not count.
            end += max(0.0, min(length, self._interrupted_at + length - now))
            self._interrupted_at += self.costs.interruption_every
        return end - now

    def load(self, line: Line) -> Program[None]:
        """Gets a line in order to read it."""
        if self._holds(line):
            return
        transfer = self._distance(line, farthest=False)
        arrival = transfer * (1 - self.costs.request)
        yield self._reserve(line, transfer) - arrival
        self._share(line)
        yield arrival

    def load_all(self, lines: Sequence[Line]) -> Program[None]:
        """Gets lines that are known beforehand: several transfers are under way at once."""
        missing = [line for line in lines if not self._holds(line)]
        if not missing:
            return
        distances = [self._distance(line, farthest=False) for line in missing]
        yield distances[0] + sum(distances[1:]) / self.costs.overlap
        for line in missing:
            self._share(line)

    def exchange(self, line: Line) -> Program[None]:
        """Gets a line in order to write it, at once, after all stores before are done: an atomic instruction."""
        if self._stored_at > self.clock.now:
            yield self._stored_at - self.clock.now
        if line.owner == self.number:
            yield self.costs.atomic
            if line.owner == self.number:
                return
        transfer = self._distance(line, farthest=True)
        arrival = transfer * (1 - self.costs.request)
        yield self._reserve(line, transfer) - arrival
        self._own(line)
        yield arrival

    def store(self, line: Line, effect: Callable[[], None]) -> None:
        """Writes a line. The core goes on meanwhile; ``effect`` is called when the store is done, after all before."""
        now = self.clock.now
        if line.owner == self.number and self._stored_at <= now:
            effect()
            return
        done = now
        if line.owner != self.number:
            transfer = self._distance(line, farthest=True)
            done = now + self._reserve(line, transfer)
            self.clock.at(done - transfer * (1 - self.costs.request), lambda: self._own(line))
        self._stored_at = done = max(done, self._stored_at)
        self.clock.at(done, effect)

    def spin(self, line: Line, is_ready: Callable[[], bool], turns: float) -> Program[bool]:
        """A loop of a pause and a look at a line, so many times or until ``is_ready``. Returns whether it is."""
        watched = False
        while turns >= 1:
            turns -= 1
            yield self.busy(self.costs.pause * self.random.random() if watched else self.costs.pause)
            yield from self.load(line)
            if is_ready():
                return True
            watched = turns >= 1 and self._holds(line)
            if watched:
                # Nothing changes before somebody takes the line away: the turns until then are one step.
                watch = Signal(self.clock)
                line.watches.append(watch)
                began = self.clock.now
                if turns != float("inf"):
                    self.clock.at(began + turns * self.costs.pause, watch.give)
                yield watch
                turns -= (self.clock.now - began) // self.costs.pause
        return False

    def is_near(self, other: int) -> bool:
        return other // self._per_node == self.node

    def _holds(self, line: Line) -> bool:
        return line.holders is None or self.number in line.holders

    def _distance(self, line: Line, *, farthest: bool) -> float:
        """Of the nearest core that holds the line, to read it; of the farthest, to have them all give it up."""
        holders = line.holders
        if holders is None:
            return self.costs.local
        nearest_is_near = any(self.is_near(holder) for holder in holders)
        all_near = all(self.is_near(holder) for holder in holders)
        return self.costs.local if (all_near if farthest else nearest_is_near) else self.costs.remote

    def _reserve(self, line: Line, transfer: float) -> float:
        """The next transfer of the line is for this core. Returns how long it takes from now until its end."""
        costs, now = self.costs, self.clock.now
        end = max(now + transfer * costs.request, line.free_at) + transfer * (1 - costs.request)
        line.free_at = end + self.random.expovariate(costs.local / (costs.kept * transfer))
        return end - now

    def _share(self, line: Line) -> None:
        line.owner = None
        if line.holders is not None:
            line.holders.add(self.number)

    def _own(self, line: Line) -> None:
        line.owner = self.number
        line.holders = {self.number}
        for watch in line.watches:
            watch.give()
        line.watches.clear()
