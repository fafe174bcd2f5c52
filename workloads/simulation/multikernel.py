"""A copy for each core, kept equal by messages in two phases: step by step as ``nrfs/core/bench/src/multikernel.rs``.

A message takes its time to travel, and then costs its receiver a transfer when that looks. Who waits looks after longer
and longer pauses, and then offers the CPU, as ``Backoff`` of crossbeam does.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Final, Literal, final

from workloads.simulation.engine import Core, Program
from workloads.simulation.ways import Setup

Kind = Literal["prepare", "yes", "no", "commit", "abort"]

SPINNING = 6
"""After so many doublings of its pause, who waits offers the CPU instead."""

SEND = 10.0
"""Nanoseconds that a sender needs for a message: two stores, for which it does not wait."""

_NOBODY = -1


@final
class Member:
    """A core with its copy."""

    def __init__(self, core: Core) -> None:
        self.core: Final = core
        self.promised = _NOBODY
        """The core to whose change it is promised; this core's own number for its own."""
        self.votes: dict[int, bool] = {}
        self.inbox: Final[list[tuple[float, int, int, Kind]]] = []
        """A heap of messages: the time when each is here, its number, its sender, its kind."""
        self.applied = 0


@final
class Multikernel:
    def __init__(self, setup: Setup, cores: list[Core]) -> None:
        self._numbers = count()
        self.members: Final = [Member(core) for core in cores]
        costs = setup.costs
        self._flight = {True: costs.local, False: costs.remote}
        received = max(0.0, costs.message - costs.local)
        self._receipt = {True: received, False: received * costs.remote / costs.local}

    def read(self, core: Core, key: int) -> Program[None]:
        me = self.members[core.number]
        yield from self._wait_until_free(me)
        yield core.work(core.costs.multikernel_read)

    def write(self, core: Core, key: int, operation: int) -> Program[None]:
        me = self.members[core.number]
        waits = 0
        while not (yield from self._prepare(me)):
            yield from self._serve(me)
            yield self._snooze(core, waits)
            waits += 1
        me.promised = _NOBODY
        yield from self._tell_others(me, "commit")
        yield core.work(core.costs.multikernel_write)
        me.applied += 1

    def idle(self, core: Core) -> Program[None]:
        yield from self._serve(self.members[core.number])
        yield core.work(core.costs.offer)

    def _prepare(self, me: Member) -> Program[bool]:
        yield from self._wait_until_free(me)
        me.promised = me.core.number
        me.votes = {}
        yield from self._tell_others(me, "prepare")
        waits = 0
        while len(me.votes) < len(self.members) - 1:
            yield from self._serve(me)
            yield self._snooze(me.core, waits)
            waits += 1
        own = me.promised == me.core.number
        if own and all(me.votes.values()):
            return True
        for number, yes in me.votes.items():
            if yes:
                yield from self._tell(me, number, "abort")
        if own:
            me.promised = _NOBODY
        return False

    def _wait_until_free(self, me: Member) -> Program[None]:
        waits = 0
        yield from self._serve(me)
        while me.promised not in (_NOBODY, me.core.number):
            yield self._snooze(me.core, waits)
            waits += 1
            yield from self._serve(me)

    def _serve(self, me: Member) -> Program[None]:
        """Looks into all channels."""
        yield me.core.work((len(self.members) - 1) * me.core.costs.poll)
        while me.inbox and me.inbox[0][0] <= me.core.clock.now:
            _, _, sender, kind = heapq.heappop(me.inbox)
            yield self._receipt[me.core.is_near(sender)]
            yield from self._hear(me, sender, kind)

    def _hear(self, me: Member, sender: int, kind: Kind) -> Program[None]:
        if kind == "prepare":
            free = me.promised == _NOBODY or (me.promised == me.core.number and sender < me.core.number)
            if free:
                me.promised = sender
            yield from self._tell(me, sender, "yes" if free else "no")
        elif kind in ("yes", "no"):
            me.votes[sender] = kind == "yes"
        elif kind == "commit":
            me.promised = _NOBODY
            yield me.core.work(me.core.costs.write)
            me.applied += 1
        else:
            me.promised = _NOBODY

    def _tell_others(self, me: Member, kind: Kind) -> Program[None]:
        for member in self.members:
            if member is not me:
                yield from self._tell(me, member.core.number, kind)

    def _tell(self, me: Member, number: int, kind: Kind) -> Program[None]:
        yield me.core.work(SEND)
        arrives = me.core.clock.now + self._flight[me.core.is_near(number)]
        heapq.heappush(self.members[number].inbox, (arrives, next(self._numbers), me.core.number, kind))

    def _snooze(self, core: Core, waits: int) -> float:
        return core.work(core.costs.pause * (1 << waits) if waits <= SPINNING else core.costs.offer)
