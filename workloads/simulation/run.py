"""Cores that use one way to share a structure, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from workloads.simulation.costs import Costs
from workloads.simulation.engine import Clock, Core, Program
from workloads.simulation.multikernel import Multikernel
from workloads.simulation.replication import Replicated
from workloads.simulation.ways import BehindMutex, BehindRwLock, Setup, Way

WAYS: Final[dict[str, Callable[[Setup, list[Core]], Way]]] = {
    "nr": Replicated,
    "mutex": lambda setup, _cores: BehindMutex(setup),
    "rwlock": lambda setup, _cores: BehindRwLock(setup, is_sharded=False),
    "sharded": lambda setup, _cores: BehindRwLock(setup, is_sharded=True),
    "multikernel": Multikernel,
}
"""The ways to share a structure, by name."""


@final
@dataclass(frozen=True)
class Scenario:
    """What to simulate."""

    way: str
    nodes: int
    cores: int
    """Of each node, with a thread on each."""
    write_ratio: int
    """Percent."""
    logs: int = 1
    batch: int | None = None
    """The most operations that a combiner takes at once; None for all that there are."""
    replicas: int | None = None
    """Of ``nr``; None for one for each node."""
    operations: int = 20_000
    """So many, or fewer if the simulation would need more than ``steps``."""
    steps: int = 300_000
    """A bound on the simulation's own work. What is under way then is not completed."""
    log_entries: int = 512
    """Room in each log. What helping others costs for each operation does not depend on it, so it is small: then it
    shows within few operations."""
    seed: int = 1


@final
@dataclass(frozen=True)
class Result:
    scenario: Scenario
    issued: int
    completed: int
    """As many as were issued, unless the simulation ended early: then those under way are missing."""
    elapsed: float
    """Nanoseconds until no more operations were begun, or the simulation ended."""
    operations_per_second: float
    """Of all cores together, over that time."""
    latencies: NDArray[np.float64]
    """Of all operations that were completed, in nanoseconds."""
    batch: float
    """Operations that a combiner of ``nr`` appended at once, on average; 0 if there was none."""
    way: Way
    """As it is at the end."""

    def latency(self, percent: float) -> float:
        """A percentile of the latencies, in nanoseconds; NaN if nothing was completed."""
        return float(np.percentile(self.latencies, percent)) if self.completed else float("nan")


def simulate(scenario: Scenario, costs: Costs) -> Result:
    """The same for the same arguments."""
    clock = Clock()
    setup = Setup(
        clock=clock,
        costs=costs,
        nodes=scenario.nodes,
        cores=scenario.cores,
        replicas=scenario.replicas or scenario.nodes,
        writes=scenario.write_ratio / 100,
        logs=scenario.logs,
        batch=scenario.batch,
        log_entries=scenario.log_entries,
    )
    slowdown = costs.beside if setup.threads > 1 else 1.0
    cores = [
        Core(number, scenario.cores, clock, costs, slowdown=slowdown, seed=scenario.seed)
        for number in range(setup.threads)
    ]
    way = WAYS[scenario.way](setup, cores)
    run = _Run(scenario, clock, way)
    for core in cores:
        clock.start(run.thread(core))
    clock.run(scenario.steps)
    run.end()
    batches = [
        size for each in (way.partitions if isinstance(way, Replicated) else []) for one in each for size in one.batches
    ]
    return Result(
        scenario=scenario,
        issued=run.issued,
        completed=len(run.latencies),
        elapsed=run.elapsed,
        operations_per_second=run.in_time * 1e9 / run.elapsed,
        latencies=np.array(run.latencies),
        batch=float(np.mean(batches)) if batches else 0.0,
        way=way,
    )


@final
class _Run:
    def __init__(self, scenario: Scenario, clock: Clock, way: Way) -> None:
        self._scenario = scenario
        self._clock = clock
        self._way = way
        self.issued = 0
        self.elapsed = 0.0
        self.in_time = 0
        """Operations that were completed until ``elapsed``."""
        self.latencies: list[float] = []

    def thread(self, core: Core) -> Program[None]:
        """Operations one after the other, and then what the others need."""
        scenario, clock, way = self._scenario, self._clock, self._way
        while self.issued < scenario.operations:
            number = core.random.getrandbits(40)
            percent, key = number % 100, number // 100
            self.issued += 1
            began = clock.now
            if percent < scenario.write_ratio:
                yield from way.write(core, key, self.issued)
            else:
                yield from way.read(core, key)
            self.latencies.append(clock.now - began)
        self.end()
        while len(self.latencies) < self.issued:
            yield from way.idle(core)

    def end(self) -> None:
        """No more operations are begun. Later calls do nothing."""
        if not self.elapsed:
            self.elapsed, self.in_time = self._clock.now, len(self.latencies)
