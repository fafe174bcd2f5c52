"""The structure replicated by ``nr``: logs, flat combining, and a readers-writer lock with a flag for each reader.

Step by step as in ``nrfs/core/nr/src``: ``replica.rs`` (seats, combining, helping), ``log.rs`` (one appender at a time,
places, tails) and ``rwlock.rs`` (flags, ``writing``, the updater's mutex). Every cache line that threads share there is
a :class:`~workloads.simulation.engine.Line` here.
"""

from __future__ import annotations

from typing import Final, final

from workloads.simulation.engine import Core, Line, Program
from workloads.simulation.locks import Mutex
from workloads.simulation.ways import Moved, Setup

CROWDED = 16
"""So many requests go to the slot, without a try of the lock, after it was found taken."""

SPINS = 64
"""Looks at a slot or a lock before a thread sleeps."""

EVER = float("inf")


@final
class Log:
    """One log, which all replicas apply in order."""

    def __init__(self, nodes: int, entries: int) -> None:
        self.tail = 0
        self.tail_line: Final = Line()
        self.is_appending = False
        self.end_line: Final = Line()
        """The appender's: ``appending``, and what only appenders use."""
        self.room = entries
        """Positions before it may be written, as the last appender saw it."""
        self.places: Final = [Line() for _ in range(entries)]
        self.local_tails: Final = [0] * nodes
        self.local_tail_lines: Final = [Line() for _ in range(nodes)]
        self.operations: Final[list[int]] = []
        """The numbers of all operations, by position."""

    def lines(self, start: int, end: int) -> list[Line]:
        return [self.places[position % len(self.places)] for position in range(start, end)]


@final
class Seat:
    """A thread's place in a partition."""

    def __init__(self) -> None:
        self.flag_line: Final = Line()
        self.is_reading = False
        self.slot_line: Final = Line()
        self.posted: int | None = None
        """The number of the operation in the slot."""
        self.crowded = 0


@final
class Partition:
    """The part of a node's replica that one log changes."""

    def __init__(self, node: int, log: Log, setup: Setup) -> None:
        costs = setup.costs
        self._node = node
        self._log = log
        self._is_alone = setup.replicas == 1
        self._batch = setup.batch
        self._updater = Mutex(setup.clock)
        self._writing_line = Line()
        self._is_writing = False
        self._seats: dict[int, Seat] = {}
        self.applied: Final[list[int]] = []
        """The numbers of the operations that were applied here, in this order."""
        self.batches: Final[list[int]] = []
        """The sizes of the batches that were appended here."""
        # Every replica applies all writes, on any core of its own.
        cores = max(1, setup.threads // setup.replicas)
        self._moved = Moved(cores, 1, 1 - setup.writes, setup.writes * setup.threads / cores, costs)
        # What one thread alone measured is taken apart: an entry costs as much to append as to find in the log. Atomic
        # instructions are simulated.
        self._entry = costs.apply - costs.write
        self._apply = costs.write if self._is_alone else costs.apply
        self._read = (costs.nr_1_read if self._is_alone else costs.nr_2_read) - costs.atomic
        if self._is_alone:
            self._combine_cost = costs.nr_1_write - costs.write - 3 * costs.atomic
        else:
            self._combine_cost = costs.nr_2_write - costs.apply - self._entry - 4 * costs.atomic

    def join(self, core: Core) -> None:
        self._seats[core.number] = Seat()

    @property
    def local_tail(self) -> int:
        return self._log.local_tails[self._node]

    # Reads

    def read(self, core: Core) -> Program[None]:
        if not self._is_alone:
            yield from self._catch_up(core)
        seat = self._seats[core.number]
        while not (yield from self._enter(core, seat)):
            free = yield from core.spin(self._writing_line, lambda: not self._is_writing, SPINS)
            if not free:
                yield from self._updater.lock(core)
                seat.is_reading = True
                yield from self._updater.unlock(core)
                break
        yield core.work(self._read) + self._moved.read
        core.store(seat.flag_line, lambda: self._leave(seat))

    def _enter(self, core: Core, seat: Seat) -> Program[bool]:
        yield from core.exchange(seat.flag_line)
        seat.is_reading = True
        yield from core.load(self._writing_line)
        if self._is_writing:
            core.store(seat.flag_line, lambda: self._leave(seat))
            return False
        return True

    def _leave(self, seat: Seat) -> None:
        seat.is_reading = False

    def _catch_up(self, core: Core) -> Program[None]:
        yield from core.load(self._log.tail_line)
        position = self._log.tail
        line = self._log.local_tail_lines[self._node]
        yield from core.load(line)
        if self.local_tail >= position:
            return
        if not (yield from self._updater.try_lock(core)):
            if (yield from core.spin(line, lambda: self.local_tail >= position, SPINS)):
                return
            yield from self._updater.lock(core)
        if self.local_tail < position:
            yield from self._apply_log(core, [], 0)
        yield from self._updater.unlock(core)

    # Writes

    def write(self, core: Core, operation: int, others: list[Partition]) -> Program[None]:
        """``others``: the partitions of all nodes for this log, which are helped when it is full."""
        seat = self._seats[core.number]
        if seat.crowded:
            seat.crowded -= 1
        elif (yield from self._updater.try_lock(core)):
            done = yield from self._combine(core, operation)
            yield from self._updater.unlock(core)
            if done:
                return
            yield from self._help(core, others)
        else:
            seat.crowded = CROWDED

        def post() -> None:
            seat.posted = operation

        def is_answered() -> bool:
            return seat.posted is None

        yield from core.exchange(seat.slot_line)
        post()
        while True:
            if not (yield from self._updater.try_lock(core)):
                if (yield from core.spin(seat.slot_line, is_answered, SPINS)):
                    return
                yield from self._updater.lock(core)
            if is_answered():
                yield from self._updater.unlock(core)
                return
            yield from self._combine(core, None)
            yield from self._updater.unlock(core)
            if is_answered():
                return
            yield from self._help(core, others)
            yield core.costs.pause

    def _combine(self, core: Core, own: int | None) -> Program[bool]:
        """Appends and applies what is in slots, and its own; returns whether its own was among it. The caller has the
        updater's mutex.
        """
        seats = list(self._seats.values())
        yield from core.load_all([seat.slot_line for seat in seats])
        requested = [seat for seat in seats if seat.posted is not None]
        if self._batch is not None:
            requested = requested[: self._batch - (own is not None)]
            self._rotate(len(requested))
        yield core.work(self._combine_cost)
        if self._is_alone:
            yield from self._start_writing(core)
            for seat in requested:
                yield from self._run(core, seat)
            if own is not None:
                yield from self._run(core, own)
            self._log.tail = self._log.local_tails[0] = len(self.applied)
            self._stop_writing(core)
            self._count(len(requested) + (own is not None))
            return True
        log = self._log
        while True:
            yield from core.exchange(log.end_line)
            if not log.is_appending:
                break
            if not (yield from self._apply_log(core, [], 0)):
                yield from core.spin(log.end_line, lambda: not log.is_appending, SPINS)
        log.is_appending = True
        start = log.tail
        wanted = len(requested) + (own is not None)
        if start + wanted > log.room:
            yield from core.load_all(log.local_tail_lines)
            log.room = min(log.local_tails) + len(log.places)
        room = min(wanted, log.room - start)
        everything: list[Seat | int] = [*requested]
        everything += [] if own is None else [own]
        batch = everything[:room]
        for line, request in zip(log.lines(start, start + room), batch, strict=True):
            yield core.work(self._entry)
            core.store(line, _nothing)
            operation = request.posted if isinstance(request, Seat) else request
            assert operation is not None
            log.operations.append(operation)
        log.tail = start + room
        core.store(log.tail_line, _nothing)
        core.store(log.end_line, self._end_append)
        self._count(room)
        yield from self._apply_log(core, batch, start)
        return own is None or room == wanted

    def _end_append(self) -> None:
        self._log.is_appending = False

    def _apply_log(self, core: Core, batch: list[Seat | int], start: int) -> Program[int]:
        """Applies what is in the log; answers the batch that begins at position ``start``. Returns how much it was."""
        log = self._log
        begin = self.local_tail
        yield from core.load(log.tail_line)
        end = log.tail
        if begin == end:
            return 0
        yield from self._start_writing(core)
        yield from core.load_all(log.lines(begin, end))
        for position in range(begin, end):
            if start <= position < start + len(batch):
                yield from self._run(core, batch[position - start])
            else:
                yield core.work(self._apply) + self._moved.write
                self.applied.append(log.operations[position])
        log.local_tails[self._node] = end
        core.store(log.local_tail_lines[self._node], _nothing)
        self._stop_writing(core)
        return end - begin

    def _run(self, core: Core, request: Seat | int) -> Program[None]:
        """Applies a request, and answers it if it came by a slot."""
        yield core.work(self._apply) + self._moved.write
        if isinstance(request, int):
            self.applied.append(request)
            return
        assert request.posted is not None
        self.applied.append(request.posted)

        def answer() -> None:
            request.posted = None

        core.store(request.slot_line, answer)

    def _start_writing(self, core: Core) -> Program[None]:
        yield from core.exchange(self._writing_line)
        self._is_writing = True
        seats = self._seats.values()
        yield from core.load_all([seat.flag_line for seat in seats])
        for seat in seats:
            if seat.is_reading:
                yield from core.spin(seat.flag_line, lambda seat=seat: not seat.is_reading, EVER)  # type: ignore[misc]

    def _stop_writing(self, core: Core) -> None:
        def stop() -> None:
            self._is_writing = False

        core.store(self._writing_line, stop)

    def _help(self, core: Core, others: list[Partition]) -> Program[None]:
        """Brings every replica up to date that is behind and whose lock is free."""
        for partition in others:
            if partition.local_tail < partition._log.tail and (yield from partition._updater.try_lock(core)):
                yield from partition._apply_log(core, [], 0)
                yield from partition._updater.unlock(core)

    def _rotate(self, count: int) -> None:
        """Those that were served come last next time."""
        for number in list(self._seats)[:count]:
            self._seats[number] = self._seats.pop(number)

    def _count(self, operations: int) -> None:
        if operations:
            self.batches.append(operations)


def _nothing() -> None:
    pass


@final
class Replicated:
    """A replica for each node, with as many logs as wanted. A key's log is its number modulo the logs."""

    def __init__(self, setup: Setup, cores: list[Core]) -> None:
        self.logs: Final = [Log(setup.replicas, setup.log_entries) for _ in range(setup.logs)]
        self.partitions: Final = [[Partition(node, log, setup) for node in range(setup.replicas)] for log in self.logs]
        """By log, then by node."""
        # As many replicas as nodes: each node has one. Otherwise replicas are emulated, and cores take them in turn.
        is_real = setup.replicas == setup.nodes
        self._replica = {core.number: core.node if is_real else core.number % setup.replicas for core in cores}
        for partitions in self.partitions:
            for core in cores:
                partitions[self._replica[core.number]].join(core)

    def read(self, core: Core, key: int) -> Program[None]:
        yield from self.partitions[key % len(self.logs)][self._replica[core.number]].read(core)

    def write(self, core: Core, key: int, operation: int) -> Program[None]:
        partitions = self.partitions[key % len(self.logs)]
        yield from partitions[self._replica[core.number]].write(core, operation, partitions)

    def idle(self, core: Core) -> Program[None]:
        yield core.work(core.costs.offer)
