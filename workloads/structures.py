"""Structures that threads share, by node replication and in other ways: ``nrfs bench nr`` and ``nrfs bench sched``.

In each round all contenders are measured, one after the other. Ratios compare figures of the same round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal, final

from rich.table import Table

from workloads import native
from workloads.failure import UsageError, WorkloadError
from workloads.report import print_table, write_json

Structure = Literal["hashmap", "stack", "queue", "scheduler"]


@final
@dataclass(frozen=True)
class Configuration:
    """What to measure."""

    structure: Structure
    write_ratios: tuple[int, ...]
    """Percentages of writes."""
    threads: tuple[int, ...]
    nodes: tuple[int, ...]
    """Numbers of nodes, for contenders that replicate on nodes."""
    against: tuple[str, ...]
    rounds: int
    milliseconds: int
    """The duration of each measurement."""
    json: Path | None

    @property
    def contenders(self) -> tuple[str, ...]:
        """The names of the contenders, in the order in which they take turns."""
        names = [f"nr {nodes}" for nodes in self.nodes]
        for against in self.against:
            names += [f"{against} {nodes}" for nodes in self.nodes] if against == "node-replication" else [against]
        return tuple(names)


@final
@dataclass(frozen=True)
class Summary:
    """The result of one contender with one number of threads and one ratio of writes."""

    contender: str
    threads: int
    write_ratio: int
    operations_per_second: float
    """The median of all rounds."""
    ratio: float
    """The rate of ``nr`` divided by the contender's, in each round; the median. Above 1, ``nr`` is faster. ``nr`` is on
    as many nodes as the contender; if that does not use nodes, on the number with which ``nr`` is fastest."""


def run(configuration: Configuration) -> tuple[list[Summary], int]:
    """Builds the native program, and measures.

    Returns:
        What was measured, and how many rounds were complete: fewer than wanted if the user interrupts.

    Raises:
        WorkloadError: it cannot be built, or fails.

    """
    if "sharded" in configuration.against and configuration.structure != "hashmap":
        raise UsageError("--against sharded: there is a sharded hash map, and no other sharded structure")
    rounds: dict[tuple[int, int, str], list[float]] = {}
    steps = len(configuration.threads) * len(configuration.write_ratios) * len(configuration.contenders)
    wanted = asdict(configuration)
    del wanted["json"]
    label = "{threads} threads  {write_ratio}% writes  {contender}".format_map
    threads = max(configuration.threads)
    figures, done = native.figures("structures", wanted, threads, configuration.rounds, steps, label)
    for figure in figures:
        key = figure["threads"], figure["write_ratio"], figure["contender"]
        rounds.setdefault(key, []).append(figure["operations_per_second"])
    return [_summary(configuration, rounds, *key) for key in rounds], done


def _summary(
    configuration: Configuration,
    rounds: Mapping[tuple[int, int, str], list[float]],
    threads: int,
    writes: int,
    contender: str,
) -> Summary:
    rates = rounds[threads, writes, contender]
    if not all(rates):
        raise WorkloadError(f"{contender} did nothing in {configuration.milliseconds} ms: give --milliseconds more")
    ours = {nodes: rounds[threads, writes, f"nr {nodes}"] for nodes in configuration.nodes}
    _, _, nodes = contender.partition(" ")
    nearest = ours[int(nodes)] if nodes else max(ours.values(), key=median)
    ratio = median(mine / theirs for mine, theirs in zip(nearest, rates, strict=True))
    return Summary(contender, threads, writes, median(rates), ratio)


def show(configuration: Configuration, summaries: Sequence[Summary]) -> None:
    """Prints the table, and writes the JSON file if there is to be one."""
    write_json(
        "structures",
        configuration,
        summary=[asdict(summary) for summary in summaries],
    )
    title = f"{configuration.structure}: million operations per second, medians of {configuration.rounds} rounds"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for heading in ("threads", "writes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for contender in configuration.contenders:
        table.add_column(contender, justify="right", no_wrap=True)
    for threads in configuration.threads:
        for writes in configuration.write_ratios:
            cells = {
                each.contender: each for each in summaries if (each.threads, each.write_ratio) == (threads, writes)
            }
            table.add_row(str(threads), f"{writes}%", *(_cell(cells[name]) for name in configuration.contenders))
    footer = (
        "In brackets: how many times faster nr is, within each round, the median. On as many nodes, or where the other "
        "is on none, on those where nr is fastest."
    )
    print_table(table, footer)


def _cell(summary: Summary) -> str:
    ratio = "" if summary.contender.startswith("nr ") else f" ({summary.ratio:.2f})"
    return f"{summary.operations_per_second / 1e6:.2f}{ratio}"
