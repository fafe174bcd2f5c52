"""``nrfs.Scheduler``: what it promises, against a plain model, under any operations and core failures."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import nrfs

CORES = 5


def given(scheduler: nrfs.Scheduler, process: int) -> list[int]:
    """The cores that a process is told it has, nothing being taken."""
    upcalls = scheduler.upcalls(process)
    assert all(upcall.given and upcall.reason is None for upcall in upcalls)
    return [upcall.core for upcall in upcalls]


def test_a_process_gets_cores_and_hears_when_they_are_shared() -> None:
    scheduler = nrfs.Scheduler(nodes=2, cores=4)
    first, second = scheduler.create(), scheduler.create()
    assert scheduler.request(first, 4) == 4
    assert given(scheduler, first) == [0, 1, 2, 3]
    assert scheduler.request(second, 1) == 1
    (taken,) = scheduler.upcalls(first)
    assert (taken.core, taken.given, taken.reason) == (3, False, "share")
    assert given(scheduler, second) == [3]
    scheduler.fail(3)
    lost, instead = scheduler.upcalls(second)
    assert (lost.core, lost.reason) == (3, "failed")
    assert (instead.core, instead.given) == (2, True), "the other has more than its share now"
    assert scheduler.executor(2) != scheduler.executor(1)
    assert scheduler.executor(3) is None
    scheduler.exit(first)
    assert [core.process for core in scheduler.cores()] == [None, None, second, None]


def test_misuse_is_refused_with_its_errno() -> None:
    scheduler = nrfs.Scheduler(cores=2)
    process = scheduler.create()
    calls: list[tuple[Callable[[], object], int]] = [
        (lambda: scheduler.exit(7), errno.ESRCH),
        (lambda: scheduler.process(7), errno.ESRCH),
        (lambda: scheduler.request(process, 3), errno.EINVAL),
        (lambda: scheduler.release(process, 0), errno.EPERM),
        (lambda: scheduler.release(process, 2), errno.ENODEV),
        (lambda: scheduler.executor(2), errno.ENODEV),
        (lambda: scheduler.online(0), errno.EALREADY),
    ]
    for call, expected in calls:
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == expected
    for number, reason in (
        (0, "a number of cores from 1 to"),
        (-1, "negative"),
        (10_000, "a number of cores from 1 to"),
    ):
        with pytest.raises(ValueError, match=reason):
            nrfs.Scheduler(cores=number)


def test_the_cores_of_the_machine_are_those_this_process_may_use() -> None:
    assert {core.core for core in nrfs.Scheduler().cores()} == os.sched_getaffinity(0)


class AnyUse(RuleBasedStateMachine):
    """Processes come, go, ask and release; cores fail and return. The model knows only what the upcalls tell."""

    @initialize(nodes=st.sampled_from([1, 2, 4]))
    def make(self, nodes: int) -> None:
        self.scheduler = nrfs.Scheduler(nodes=nodes, cores=CORES)
        self.wanted: dict[int, int] = {}
        self.has: dict[int, dict[int, int]] = {}

    def hear(self) -> None:
        for process, has in self.has.items():
            for upcall in self.scheduler.upcalls(process):
                if upcall.given:
                    assert upcall.core not in has
                    has[upcall.core] = upcall.executor
                else:
                    assert has.pop(upcall.core) == upcall.executor

    def online(self) -> set[int]:
        return {core.core for core in self.scheduler.cores() if core.online}

    @rule()
    def create(self) -> None:
        process = self.scheduler.create()
        assert process not in self.has
        self.wanted[process], self.has[process] = 0, {}

    @precondition(lambda self: self.has)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(sorted(self.has)))
        self.scheduler.exit(process)
        del self.wanted[process], self.has[process]

    @precondition(lambda self: self.has)
    @rule(data=st.data(), cores=st.integers(0, CORES))
    def request(self, data: st.DataObject, cores: int) -> None:
        process = data.draw(st.sampled_from(sorted(self.has)))
        count = self.scheduler.request(process, cores)
        self.wanted[process] = cores
        assert count == len(self.scheduler.process(process).cores)

    @precondition(lambda self: any(self.has.values()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(sorted(process for process, has in self.has.items() if has)))
        core = data.draw(st.sampled_from(sorted(self.has[process])))
        self.scheduler.release(process, core)
        self.wanted[process] -= 1
        del self.has[process][core]

    @rule(core=st.integers(0, CORES - 1), kindly=st.booleans())
    def stop_or_start(self, core: int, kindly: bool) -> None:
        if core not in self.online():
            self.scheduler.online(core)
        elif kindly:
            self.scheduler.offline(core)
        else:
            self.scheduler.fail(core)

    @precondition(lambda self: self.has)
    @rule(data=st.data())
    def free_executors(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(sorted(self.has)))
        cached = self.scheduler.process(process).cached_executors
        assert self.scheduler.free_executors(process) == cached

    @rule()
    def everyone_runs_in_as_many_ticks_as_there_are_processes(self) -> None:
        waiting = {process for process, wanted in self.wanted.items() if wanted and self.online()}
        for _ in self.wanted:
            self.scheduler.tick()
            waiting = {process for process in waiting if not self.scheduler.process(process).cores}
        assert not waiting

    @invariant()
    def every_core_is_where_the_upcalls_say_and_shares_are_fair(self) -> None:
        self.hear()
        online, owned = self.online(), [core for has in self.has.values() for core in has]
        assert len(owned) == len(set(owned))
        assert set(owned) <= online
        executors = [executor for has in self.has.values() for executor in has.values()]
        assert len(executors) == len(set(executors)) <= self.scheduler.executors_made()
        for process, has in self.has.items():
            assert all(self.scheduler.executor(core) == executor for core, executor in has.items())
            hungry = len(has) < self.wanted[process]
            assert len(has) <= self.wanted[process]
            assert not hungry or (set(owned) == online and len(has) + 1 >= max(map(len, self.has.values())))
        assert len(set(self.scheduler.verify()["digests"])) == 1


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
