"""Address spaces that threads share: ours, the same machine shared in other ways, and the kernel's: ``nrfs bench vm``.

Every thread uses pages of 4 KiB in a part of its own, as in figures 5 and 6 of the NrOS paper. In each round all
contenders are measured, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal, final

from rich.table import Table

from workloads import native
from workloads.report import print_table, write_json

Operation = Literal["map", "unmap", "protect", "resolve", "mix"]
PAPER: Final = {
    1: {"map": 703.0, "unmap": 2400.0},
    8: {"map": 9400.0, "unmap": 16_300.0},
    28: {"map": 33_400.0, "unmap": 40_200.0},
}
"""By cores: nanoseconds that half of the calls take at most in NrOS, as its paper (OSDI '21) tells, of another
machine; unmap with shootdown."""

OPERATIONS: Final[tuple[Operation, ...]] = ("map", "unmap", "protect", "resolve", "mix")


@final
@dataclass(frozen=True)
class Configuration:
    """What to measure."""

    threads: tuple[int, ...]
    """Numbers of threads. Each thread is a core."""
    nodes: tuple[int, ...]
    """Numbers of replicas of our address space."""
    logs: int
    against: tuple[str, ...]
    operation: Operation | None
    """The operation to show; None: all."""
    rounds: int
    json: Path | None

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations to show."""
        return OPERATIONS if self.operation is None else (self.operation,)


@final
@dataclass(frozen=True)
class Summary:
    """The result of one contender with one number of threads: medians of all rounds."""

    contender: str
    threads: int
    operations_per_second: dict[str, float | None]
    """By operation, of all threads together; None if the contender has no such call."""
    nanoseconds: dict[str, tuple[float, float, float]]
    """Median, 99th percentile and maximum of one map, and of one unmap of a page that all cores have used."""
    unmap_wait: tuple[float, float] | None
    """The nanoseconds of such an unmap in which it waited for other cores: average and longest. None if not known."""


def run(configuration: Configuration) -> tuple[list[Summary], int]:
    """Builds the native program, and measures.

    Returns:
        What was measured, and how many rounds were complete: fewer than wanted if the user interrupts.

    Raises:
        WorkloadError: it cannot be built, or fails.

    """
    rounds: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    contenders = len(configuration.nodes) + len(configuration.against)
    steps = len(configuration.threads) * contenders
    wanted = {
        "threads": configuration.threads,
        "nodes": configuration.nodes,
        "logs": configuration.logs,
        "against": configuration.against,
        "rounds": configuration.rounds,
    }
    label = "{threads} cores  {contender}".format_map
    threads = max(configuration.threads)
    measured, done = native.figures("vm", wanted, threads, configuration.rounds, steps, label)
    for figure in measured:
        rounds.setdefault((figure["threads"], figure["contender"]), []).append(figure)
    return [_summary(threads, contender, figures) for (threads, contender), figures in rounds.items()], done


def _summary(threads: int, contender: str, figures: Sequence[Mapping[str, Any]]) -> Summary:
    def rate(operation: Operation) -> float | None:
        rates = [figure[operation] for figure in figures]
        return None if None in rates else median(rates)

    def percentiles(operation: str) -> tuple[float, float, float]:
        p50, p99, most = (median(each) for each in zip(*(figure[operation] for figure in figures), strict=True))
        return p50, p99, most

    def wait() -> tuple[float, float] | None:
        waits = [figure["unmap_wait"] for figure in figures]
        if None in waits:
            return None
        average, longest = (median(each) for each in zip(*waits, strict=True))
        return average, longest

    return Summary(
        contender,
        threads,
        {operation: rate(operation) for operation in OPERATIONS},
        {"map": percentiles("map_latency"), "unmap": percentiles("unmap_latency")},
        wait(),
    )


def show(configuration: Configuration, summaries: Sequence[Summary]) -> None:
    """Prints the tables, and writes the JSON file if there is to be one."""
    write_json(
        "vm",
        configuration,
        summary=[asdict(summary) for summary in summaries],
        paper=PAPER,
    )
    title = f"4 KiB pages: million operations per second of all cores, medians of {configuration.rounds} rounds"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("cores", justify="right")
    table.add_column("", no_wrap=True)
    columns = [f"{operation} {which}" for operation in ("map", "unmap") for which in ("p50", "p99", "max")]
    for heading in (*configuration.operations, *columns, "wait"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        rates = (summary.operations_per_second[operation] for operation in configuration.operations)
        times = (each for operation in ("map", "unmap") for each in summary.nanoseconds[operation])
        table.add_row(
            str(summary.threads),
            summary.contender,
            *("-" if rate is None else f"{rate / 1e6:.2f}" for rate in rates),
            *(f"{each / 1e3:.2f}" for each in times),
            "-" if summary.unmap_wait is None else f"{summary.unmap_wait[0] / 1e3:.2f}",
        )
    for cores, published in PAPER.items():
        medians = [f"{published[operation] / 1e3:.2f}" for operation in ("map", "unmap")]
        latencies = [cell for each in medians for cell in (each, "-", "-")]
        table.add_row(str(cores), "NrOS, published", *("-" for _ in configuration.operations), *latencies, "-")
    footer = (
        "map and unmap p50, p99, max: microseconds of one call; unmap when all cores have used the page, with its "
        "shootdown; wait: of that, what it waits for the others, on average. "
        "NrOS, published: medians of its paper, OSDI '21, measured on another machine. "
        "linux maps with MAP_POPULATE. mutex, rwlock and multikernel share the page table alone: they have "
        "neither TLBs nor frames in common."
    )
    print_table(table, footer)
