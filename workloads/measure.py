"""Threads that time their own calls, and the figures that result from those times.

A call is timed between two readings of the monotonic clock, with nothing else between them: choosing a
key, building a value and checking what was read happen outside. So a ratio between two file systems is
that of the calls, not of the Python loop around them. :func:`clock_cost` measures what the two readings
add to every figure.

With several threads a call that released the interpreter lock waits for it on return, and that wait is part of
the figure: many short calls measure the interpreter as much as the file system.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from time import perf_counter_ns
from typing import final

import numpy as np

from workloads.cores import Cores
from workloads.failure import Cancelled
from workloads.figures import PERCENTILES

POLL_SECONDS = 0.25
"""How often the waiting thread shows progress: so rarely that it does not affect the figures."""


@final
class Lap:
    """One thread's share of a measurement, filled by that thread alone.

    Others may read ``operations`` while it runs, to show progress.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        """Set when the thread must end after its current call."""
        self.latencies: array[int] = array("q")
        """Nanoseconds of each call."""
        self.operations = 0
        """Operations finished so far. There are more of them than calls if a call has a batch."""
        self.payload = 0
        """Bytes of keys and values moved."""
        self.found: int | None = None
        """How many operations found the key that they looked for; None if none looks for one."""

    def slices(self, order: Sequence[int], length: int) -> Iterator[Sequence[int]]:
        """Yields ``order`` in pieces of ``length``. Raises ``Cancelled`` between two if the thread must stop."""
        for first in range(0, len(order), length):
            if self.stop.is_set():
                raise Cancelled
            piece = order[first : first + length]
            yield piece
            self.operations += len(piece)


Task = Callable[[Lap], None]


@final
@dataclass(frozen=True)
class Figures:
    """The result of a measurement with all its threads."""

    operations: int
    """Of all threads together."""
    operations_per_second: float
    """The sum of the threads' rates, each over the time it spent in calls."""
    microseconds_per_operation: float
    """The average in one thread."""
    mebibytes_per_second: float | None
    """Bytes of keys and values moved, divided by 2**20, per second; None if none are moved."""
    latency: Mapping[float, float]
    """By percentile, microseconds of one call."""
    wall_seconds: float
    """From the first call to the last, with everything the loop did between calls."""
    found: int | None
    """Keys found; None if none were looked for."""


def run(tasks: Sequence[Task], background: Sequence[Task], watch: Callable[[int], None]) -> Figures:
    """Runs each task in a thread of its own on the run's cores, all at once, and returns their joint figures.

    ``background`` tasks run beside them, are not measured, and are told to stop when they have finished.
    ``watch`` is called a few times a second with the number of operations finished. If a task or ``watch``
    raises, or the user interrupts, all threads are stopped, and the exception is raised here.
    """
    stop = threading.Event()
    laps = [Lap(stop) for _ in tasks]
    stop_background = threading.Event()
    runners = [*zip(tasks, laps, strict=True)]
    runners += [(task, Lap(stop_background)) for task in background]
    start = threading.Event()

    def work(task: Task, lap: Lap) -> None:
        cores.join()
        try:
            start.wait()
            if lap.stop.is_set():
                raise Cancelled
            task(lap)
        finally:
            cores.leave()

    with Cores(len(runners)) as cores, ThreadPoolExecutor(len(runners)) as pool:
        try:
            futures = [pool.submit(work, task, lap) for task, lap in runners]
            start.set()
            began = perf_counter_ns()
            unfinished = set(futures[: len(tasks)])
            failed = False
            while unfinished and not failed:
                finished, unfinished = wait(unfinished, POLL_SECONDS, FIRST_EXCEPTION)
                # A background task does not end by itself: if it is done, it failed.
                failed = any(future.exception() for future in finished) or any(
                    future.done() for future in futures[len(tasks) :]
                )
                cores.follow()
                watch(sum(lap.operations for lap in laps))
            wall = perf_counter_ns() - began
        finally:
            stop.set()
            stop_background.set()
            start.set()
    failures = [failure for future in futures if (failure := future.exception()) is not None]
    for failure in failures:
        if not isinstance(failure, Cancelled):
            raise failure
    return _figures(laps, wall / 1e9)


def _figures(laps: Sequence[Lap], wall_seconds: float) -> Figures:
    every = [np.frombuffer(lap.latencies, dtype=np.int64) for lap in laps if lap.latencies]
    operations = sum(lap.operations for lap in laps)
    if not every or not operations:
        return Figures(0, 0.0, 0.0, None, {}, wall_seconds, _found(laps))
    # A time below the resolution of the clock counts as one nanosecond.
    busy = [max(1, int(latencies.sum())) for latencies in every]
    done = [lap.operations for lap in laps if lap.latencies]
    rate = sum(count * 1e9 / spent for count, spent in zip(done, busy, strict=True))
    payload = sum(lap.payload for lap in laps)
    latency = np.percentile(np.maximum(np.concatenate(every), 1), PERCENTILES) / 1e3
    return Figures(
        operations=operations,
        operations_per_second=rate,
        microseconds_per_operation=sum(busy) / operations / 1e3,
        mebibytes_per_second=payload / operations * rate / 2**20 if payload else None,
        latency=dict(zip(PERCENTILES, latency.tolist(), strict=True)),
        wall_seconds=wall_seconds,
        found=_found(laps),
    )


def _found(laps: Sequence[Lap]) -> int | None:
    counts = [lap.found for lap in laps if lap.found is not None]
    return sum(counts) if counts else None


def clock_cost(calls: int = 20_000) -> float:
    """Microseconds that are measured for a call which does nothing: the least latency that can be measured."""
    nothing: dict[bytes, bytes] = {}
    key = b"0" * 16
    latencies: array[int] = array("q")
    record, get, clock = latencies.append, nothing.get, perf_counter_ns
    for _ in range(calls):
        began = clock()
        get(key)
        ended = clock()
        record(ended - began)
    return float(np.median(np.frombuffer(latencies, dtype=np.int64))) / 1e3
