"""The benchmarks: for each one its threads' timed loops, and what the database must hold afterwards.

Every loop has the same shape: take the clock, make one call of LevelDB, take the clock, record; then,
outside of the recorded time, compare what was read with what must be there. A key that is missing where it
must exist, that exists where it must not, or whose value differs by a byte, ends the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from time import perf_counter_ns
from typing import final

import numpy as np

from workloads import measure
from workloads.failure import WorkloadError
from workloads.leveldb.configuration import Configuration
from workloads.leveldb.contents import ABSENT, KEY_BYTES, KEY_STRIDE, MASK
from workloads.leveldb.database import Database, leveldb_errors
from workloads.measure import Figures, Lap, Task

SLICE_OPERATIONS = 1000
SLICE_BYTES = 4 << 20
"""A thread checks whether to stop after this many operations or bytes, whichever comes first."""
ZIPF_EXPONENT = 0.99
"""That of YCSB (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC '10)."""
SPREAD = 7
"""Seeds the order of the keys by rank, which is the same for all threads."""
HOT_DIVISOR = 100
"""readhot reads only the first NUM/100 keys."""


@final
@dataclass(frozen=True)
class Plan:
    """One benchmark, ready to run."""

    tasks: list[Task]
    after: Callable[[], None] = lambda: None
    """Brings the record of the database's contents up to date with what was written."""
    background: Task | None = None


def run(
    name: str,
    databases: Sequence[Database],
    configuration: Configuration,
    seed: Sequence[int],
    watch: Callable[[int], None],
) -> Figures:
    """Runs one benchmark on databases, which must be filled if the benchmark needs that; fill* empties them first.
    Thread by thread they are used in turn.

    The same ``seed`` gives the same operations. Raises WorkloadError for LevelDB's errors and for wrong data.
    """
    with leveldb_errors():
        plans = []
        for number, database in enumerate(databases):
            threads = len(range(number, configuration.threads, len(databases)))
            plans.append(_plan(name, database, configuration, threads, (*seed, number)))
        background = [plan.background for plan in plans if plan.background is not None and plan.tasks]
        try:
            figures = measure.run([task for plan in plans for task in plan.tasks], background, watch)
        except WorkloadError as failure:
            raise WorkloadError(f"{name}: {failure}") from failure
        for plan in plans:
            plan.after()
        return figures


def fill(database: Database, watch: Callable[[int], None]) -> None:
    """Writes every key of the range, untimed, for a benchmark that needs a filled database."""
    with leveldb_errors():
        order = range(database.entries.num)
        generation = database.contents.next_generation()
        measure.run([partial(_put, database, order, generation, 1, False)], [], watch)
        database.contents.written(order, generation)


def needs_filled_database(name: str) -> bool:
    return not name.startswith("fill")


def _plan(name: str, database: Database, configuration: Configuration, threads: int, seed: Sequence[int]) -> Plan:
    """Random key numbers for the threads that use one database."""
    count, num = configuration.operations(name), configuration.num

    def random_orders(limit: int) -> list[list[int]]:
        """The random key numbers of each thread."""
        generators = [np.random.default_rng([*seed, thread]) for thread in range(threads)]
        draw = _zipfian if configuration.keys == "zipfian" else _uniform
        return [draw(generator, limit, count) for generator in generators]

    def same_for_all(task: Task) -> Plan:
        return Plan([task] * threads)

    def write(orders: Sequence[Sequence[int]], batch: int, *, sync: bool = False) -> Plan:
        if name.startswith("fill"):
            database.renew()
        generation = database.contents.next_generation()
        return Plan(
            [partial(_put, database, order, generation, batch, sync) for order in orders],
            lambda: database.contents.written([*chain.from_iterable(orders)], generation),
        )

    match name:
        case "fillseq":
            return write([range(num)] * threads, configuration.batch_size)
        case "fillrandom" | "overwrite":
            return write(random_orders(num), configuration.batch_size)
        case "fillsync":
            return write(random_orders(num), 1, sync=True)
        case "deleteseq":
            plan = same_for_all(partial(_delete, database, range(num), configuration.batch_size))
            return Plan(plan.tasks, lambda: database.contents.deleted(range(num)))
        case "readrandom":
            return Plan([partial(_get, database, order, None) for order in random_orders(num)])
        case "readhot":
            return Plan([partial(_get, database, order, None) for order in random_orders(-(-num // HOT_DIVISOR))])
        case "readseq":
            return same_for_all(partial(_scan, database, count, False))
        case "readreverse":
            return same_for_all(partial(_scan, database, count, True))
        case "seekrandom":
            following = database.contents.at_or_after()
            return Plan([partial(_seek, database, order, following) for order in random_orders(num)])
        case "readwhilewriting":
            generation = database.contents.next_generation()
            changed: list[int] = []
            return Plan(
                [partial(_get, database, order, generation) for order in random_orders(num)],
                lambda: database.contents.written(changed, generation),
                partial(_overwrite_until_stopped, database, seed, generation, changed),
            )
        case "compact":
            return Plan([partial(_compact, database)])
        case _:
            raise WorkloadError(f"unknown benchmark {name!r}")


def _uniform(generator: np.random.Generator, limit: int, count: int) -> list[int]:
    numbers: list[int] = generator.integers(0, limit, count).tolist()
    return numbers


def _zipfian(generator: np.random.Generator, limit: int, count: int) -> list[int]:
    """Of the number with rank r the probability is proportional to 1 / r**0.99; ranks are spread over the range."""
    order = np.random.default_rng(SPREAD).permutation(limit)
    reached = np.cumsum(1 / np.arange(1, limit + 1) ** ZIPF_EXPONENT)
    ranks = np.searchsorted(reached, generator.random(count) * reached[-1])
    numbers: list[int] = order[ranks].tolist()
    return numbers


def _slice_length(database: Database, batch: int = 1) -> int:
    """How many operations a thread does between checks whether to stop: a multiple of ``batch``."""
    length = max(1, min(SLICE_OPERATIONS, SLICE_BYTES // database.entries.value_size))
    return max(1, length // batch) * batch


def _put(database: Database, order: Sequence[int], generation: int, batch: int, sync: bool, lap: Lap) -> None:
    keys, view, size = database.entries.keys, database.entries.view, database.entries.value_size
    shift = database.entries.shift(generation)
    put, write_batch = database.handle.put, database.handle.write_batch
    record, clock = lap.latencies.append, perf_counter_ns
    for numbers in lap.slices(order, _slice_length(database, batch)):
        if batch == 1:
            for number in numbers:
                key = keys[number]
                begin = (number * KEY_STRIDE + shift) & MASK
                value = view[begin : begin + size]
                began = clock()
                put(key, value, sync=sync)
                ended = clock()
                record(ended - began)
        else:
            for first in range(0, len(numbers), batch):
                together = numbers[first : first + batch]
                began = clock()
                writes = write_batch(sync=sync)
                for number in together:
                    begin = (number * KEY_STRIDE + shift) & MASK
                    writes.put(keys[number], view[begin : begin + size])
                writes.write()
                ended = clock()
                record(ended - began)
        lap.payload += len(numbers) * (KEY_BYTES + size)


def _delete(database: Database, order: Sequence[int], batch: int, lap: Lap) -> None:
    keys, delete, write_batch = database.entries.keys, database.handle.delete, database.handle.write_batch
    record, clock = lap.latencies.append, perf_counter_ns
    for numbers in lap.slices(order, _slice_length(database, batch)):
        if batch == 1:
            for number in numbers:
                key = keys[number]
                began = clock()
                delete(key)
                ended = clock()
                record(ended - began)
        else:
            for first in range(0, len(numbers), batch):
                together = numbers[first : first + batch]
                began = clock()
                writes = write_batch()
                for number in together:
                    writes.delete(keys[number])
                writes.write()
                ended = clock()
                record(ended - began)


def _get(database: Database, order: Sequence[int], being_written: int | None, lap: Lap) -> None:
    """Random reads. ``being_written``: a generation that another thread writes meanwhile; its values are right, too."""
    entries, expected = database.entries, database.contents.expected
    keys, size, matches = entries.keys, entries.value_size, entries.pool.startswith
    get, record, clock = database.handle.get, lap.latencies.append, perf_counter_ns
    lap.found = 0
    for numbers in lap.slices(order, _slice_length(database)):
        found = 0
        for number in numbers:
            key = keys[number]
            began = clock()
            value = get(key)
            ended = clock()
            record(ended - began)
            if value is not None:
                found += 1
                begin = expected[number]
                right = begin != ABSENT and matches(value, begin)
                if not right and being_written is not None:
                    right = matches(value, (number * KEY_STRIDE + entries.shift(being_written)) & MASK)
                if not right or len(value) != size:
                    raise _wrong(key, begin != ABSENT or being_written is not None)
            elif expected[number] != ABSENT:
                raise _missing(key)
        lap.found += found
        lap.payload += found * (KEY_BYTES + size)


def _scan(database: Database, count: int, reverse: bool, lap: Lap) -> None:
    """Reads entries in order, and checks that they are exactly those that must exist."""
    entries, expected = database.entries, database.contents.expected
    keys, size, matches = entries.keys, entries.value_size, entries.pool.startswith
    order = database.contents.present()
    if reverse:
        order.reverse()
    pairs = database.handle.iterator(reverse=reverse)
    record, clock = lap.latencies.append, perf_counter_ns
    for numbers in lap.slices(order[:count], _slice_length(database)):
        for number in numbers:
            began = clock()
            pair = next(pairs, None)
            ended = clock()
            record(ended - began)
            if pair is None:
                raise _missing(keys[number])
            key, value = pair
            if key != keys[number]:
                raise WorkloadError(f"key {_text(key)} was read where key {_text(keys[number])} must follow")
            if len(value) != size or not matches(value, expected[number]):
                raise _wrong(key, True)
        lap.payload += len(numbers) * (KEY_BYTES + size)
    if count >= len(order) and (pair := next(pairs, None)) is not None:
        raise _wrong(pair[0], False)


def _seek(database: Database, order: Sequence[int], following: Sequence[int], lap: Lap) -> None:
    """Makes an iterator, places it at a random key, reads the key there, and closes it; the whole is one call."""
    keys, raw_iterator = database.entries.keys, database.handle.raw_iterator
    record, clock = lap.latencies.append, perf_counter_ns
    lap.found = 0
    for numbers in lap.slices(order, _slice_length(database)):
        for number in numbers:
            target = keys[number]
            began = clock()
            with raw_iterator() as iterator:
                iterator.seek(target)
                key = iterator.key() if iterator.valid() else None
            ended = clock()
            record(ended - began)
            must_be = following[number]
            if key != (None if must_be == ABSENT else keys[must_be]):
                raise WorkloadError(f"a seek to key {_text(target)} led to {'the end' if key is None else _text(key)}")
            lap.found += key == target


def _overwrite_until_stopped(
    database: Database, seed: Sequence[int], generation: int, changed: list[int], lap: Lap
) -> None:
    """Overwrites random keys until the readers are done; appends their numbers to ``changed``."""
    keys, view, size = database.entries.keys, database.entries.view, database.entries.value_size
    shift, put = database.entries.shift(generation), database.handle.put
    random = np.random.default_rng([*seed, 1 << 31])
    while not lap.stop.is_set():
        for number in random.integers(0, len(keys), 100).tolist():
            if lap.stop.is_set():
                return
            begin = (number * KEY_STRIDE + shift) & MASK
            changed.append(number)
            put(keys[number], view[begin : begin + size])


def _compact(database: Database, lap: Lap) -> None:
    began = perf_counter_ns()
    database.handle.compact_range()
    lap.latencies.append(perf_counter_ns() - began)
    lap.operations = 1


def _text(key: bytes) -> str:
    return key.decode("ascii", "backslashreplace")


def _wrong(key: bytes, must_exist: bool) -> WorkloadError:
    if must_exist:
        return WorkloadError(f"key {_text(key)}: the value read is not the one that was written")
    return WorkloadError(f"key {_text(key)} was read but must not exist")


def _missing(key: bytes) -> WorkloadError:
    return WorkloadError(f"key {_text(key)} was written but is missing")
