"""``nrfs simulate --check``: the simulation against this machine, with one thread and two.

In each turn the costs are calibrated, and then every way is measured, all on the same two CPUs. Each turn also measures
threads that share nothing, *alone*. What is compared is how many times as slow as these a way is, within each turn: so
it does not matter that a busy or virtual machine is sometimes slower. It does matter that such a machine takes a CPU
from one of two threads for a moment: that slows who waits for the other, and speeds up who does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import final

from rich.table import Table

from workloads import calibrate, native
from workloads.cores import Cores
from workloads.failure import WorkloadError
from workloads.progress import ProgressBar
from workloads.report import print_table, write_json
from workloads.simulation.costs import Costs
from workloads.simulation.run import Scenario, simulate

TOLERANCE = 0.15
"""By how much the simulation may deviate from what is measured."""

THREADS = (1, 2)
WRITE_RATIOS = (0, 10, 60, 100)
CONTENDERS = ("nr 1", "nr 2", "mutex", "rwlock", "sharded", "multikernel")
"""As the program ``structures`` calls them; the number is that of replicas."""


@final
@dataclass(frozen=True)
class Configuration:
    rounds: int
    """Turns of calibrating and measuring."""
    milliseconds: int
    """Of each measurement. Short ones are undisturbed more often."""
    operations: int
    seed: int
    json: Path | None


@final
@dataclass(frozen=True)
class Compared:
    """One way with so many threads."""

    contender: str
    threads: int
    write_ratio: int
    measured: float
    """Operations per second: the median of its share of what threads alone do, times what those do by the costs."""
    simulated: float
    """Operations per second."""

    @property
    def deviation(self) -> float:
        """Of the simulation, as a part of what was measured."""
        return self.simulated / self.measured - 1

    @property
    def is_close(self) -> bool:
        return abs(self.deviation) <= TOLERANCE


Key = tuple[int, int, str]
"""Threads, percent of writes, contender."""

SAME_CORE = 15.0
"""Nanoseconds to take a line from the other CPU, below which these are no two cores, but hyperthreads of one."""

ALIKE = 1.25
"""By how much distances differ at most that count as the same."""


@final
@dataclass(frozen=True)
class Turn:
    costs: tuple[Mapping[str, float], Mapping[str, float]]
    """Before the ways were measured, and after."""
    shares: Mapping[Key, float]

    @property
    def distances(self) -> tuple[float, float]:
        """What a transfer takes, before and after. The host of a virtual machine moves its CPUs, so it may differ."""
        return self.costs[0]["line-take"], self.costs[1]["line-take"]

    @property
    def distance(self) -> float:
        return max(self.distances)


def run(configuration: Configuration) -> tuple[dict[str, float], list[Compared], int]:
    """Measures and simulates. Returns the medians of the costs, the comparison, and how many turns count.

    Raises:
        WorkloadError: the programs cannot be built, or fail.

    """
    turns: list[Turn] = []
    with ProgressBar(configuration.rounds) as progress, Cores(max(THREADS)) as cores:
        progress.begin("building")
        programs = native.build("calibrate"), native.build("structures")
        for turn in range(configuration.rounds):
            progress.begin(f"turn {turn + 1}")
            before = calibrate.measure(programs[0], 1, configuration.milliseconds, cores.held)
            shares = _measure(programs[1], configuration, cores.held)
            after = calibrate.measure(programs[0], 1, configuration.milliseconds, cores.held)
            turns.append(Turn((before, after), shares))
            progress.end(1)
    like = alike(turns)
    medians = {name: median(costs[name] for turn in like for costs in turn.costs) for name in before}
    costs = Costs.measured(medians)
    compared = [_compare(configuration, costs, key, median(turn.shares[key] for turn in like)) for key in shares]
    return medians, compared, len(like)


def alike(turns: Sequence[Turn]) -> list[Turn]:
    """The turns that count: those in which the two CPUs are two cores, equally far apart before and after. If the
    distance differs from turn to turn, those at the most common one.
    """
    steady = [turn for turn in turns if min(turn.distances) > SAME_CORE and _are_alike(*turn.distances)]
    if not steady:
        raise WorkloadError("in no turn the two CPUs were two cores that stayed where they are: try again later")
    return max(([each for each in steady if _are_alike(each.distance, turn.distance)] for turn in steady), key=len)


def _are_alike(one: float, other: float) -> bool:
    return max(one, other) < ALIKE * min(one, other)


def _measure(program: Path, configuration: Configuration, cpus: list[int]) -> dict[Key, float]:
    """What each way does as a share of what threads alone do, once."""
    wanted = {
        "structure": "hashmap",
        "write_ratios": WRITE_RATIOS,
        "threads": THREADS,
        "nodes": (1, 2),
        "against": ("alone", *CONTENDERS[2:]),
        "rounds": 1,
        "milliseconds": configuration.milliseconds,
        "cpus": cpus,
    }
    rates: dict[Key, float] = {
        (figure["threads"], figure["write_ratio"], figure["contender"]): figure["operations_per_second"]
        for figure in native.run(program, wanted)
    }
    if not all(rates.values()):
        raise WorkloadError(f"a thread did nothing in {configuration.milliseconds} ms: give --milliseconds more")
    return {
        (threads, writes, contender): rates[threads, writes, contender] / rates[threads, writes, "alone"]
        for threads in THREADS
        for writes in WRITE_RATIOS
        for contender in CONTENDERS
    }


def _compare(configuration: Configuration, costs: Costs, key: Key, share: float) -> Compared:
    threads, write_ratio, contender = key
    way, _, replicas = contender.partition(" ")
    scenario = Scenario(
        way=way,
        nodes=1,
        cores=threads,
        write_ratio=write_ratio,
        replicas=int(replicas) if replicas else None,
        operations=configuration.operations,
        steps=2_000_000,
        seed=configuration.seed,
    )
    writes = write_ratio / 100
    operation = (1 - writes) * costs.read + writes * costs.write
    alone = threads * 1e9 / (operation * (costs.beside if threads > 1 else 1))
    alone *= 1 - costs.interruption / costs.interruption_every
    rate = simulate(scenario, costs).operations_per_second
    return Compared(contender, threads, write_ratio, share * alone, rate)


def show(
    configuration: Configuration, medians: Mapping[str, float], compared: Sequence[Compared], counted: int
) -> bool:
    """Prints the table, and writes the JSON file if there is to be one. Returns whether all are close."""
    write_json(
        "simulate --check",
        configuration,
        turns=counted,
        nanoseconds=dict(medians),
        compared=[asdict(each) | {"deviation": each.deviation} for each in compared],
    )
    title = f"million operations per second: measured, simulated, deviation; medians of {counted} turns"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for heading in ("threads", "writes", *CONTENDERS):
        table.add_column(heading, justify="right", no_wrap=True)
    for threads in THREADS:
        for writes in WRITE_RATIOS:
            cells = {each.contender: each for each in compared if (each.threads, each.write_ratio) == (threads, writes)}
            table.add_row(str(threads), f"{writes}%", *(_cell(cells[name]) for name in CONTENDERS))
    close = sum(each.is_close for each in compared)
    print_table(
        table,
        f"{close} of {len(compared)} are within {TOLERANCE:.0%}. Left out: {configuration.rounds - counted} of "
        f"{configuration.rounds} turns, in which the CPUs shared a core, or were at another distance, or moved.",
    )
    return close == len(compared)


def _cell(each: Compared) -> str:
    mark = "" if each.is_close else " !"
    return f"{each.measured / 1e6:.2f} {each.simulated / 1e6:.2f} {each.deviation:+.0%}{mark}"
