"""The file system service itself, without a mount, with more threads against one: ``nrfs bench service``.

Every operation is measured in each round with every number of threads on every number of nodes, and what is compared
was measured one after the other.

On a node without a thread there is a replica all the same, which those who write bring up to date. So on two nodes one
thread applies its changes twice, and two threads may do more than twice as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import final

from rich.table import Table

from workloads import native
from workloads.failure import UsageError, WorkloadError
from workloads.report import print_table, write_json

_PAGE = 4096


@final
@dataclass(frozen=True)
class Configuration:
    """What to measure."""

    operations: tuple[str, ...]
    threads: tuple[int, ...]
    """In ascending order, and 1 is among them: what more of them do is compared with it."""
    nodes: tuple[int, ...]
    """Replicas of the file system."""
    size: int
    """Bytes of one read."""
    file_size: int
    """Bytes of each file that is read and written."""
    rounds: int
    milliseconds: int
    """Of each measurement."""
    json: Path | None


@final
@dataclass(frozen=True)
class Summary:
    """One operation, with one number of threads on one number of nodes."""

    operation: str
    threads: int
    nodes: int
    operations_per_second: float
    """Of all threads together; the median of all rounds."""
    scaling: float | None
    """How many times as much as one thread does on as many nodes, within each round; the median. None of one thread."""


def run(configuration: Configuration) -> tuple[list[Summary], int]:
    """Builds what measures, and measures.

    Returns:
        What was measured, and how many rounds were complete: fewer than wanted if the user interrupts.

    Raises:
        UsageError: the sizes do not fit together.
        WorkloadError: it cannot be built, or fails; what was read was wrong, or the replicas differ at the end.

    """
    if configuration.file_size % _PAGE:
        raise UsageError(f"--file-size: {configuration.file_size} is not a multiple of {_PAGE}")
    if configuration.size > configuration.file_size:
        raise UsageError("--size is more than a file of --file-size has")
    rounds: dict[tuple[str, int, int], list[float]] = {}
    steps = len(configuration.operations) * len(configuration.threads) * len(configuration.nodes)
    wanted = asdict(configuration)
    del wanted["json"]
    label = "{nodes} nodes  {threads} threads  {operation}".format_map
    threads = max(configuration.threads)
    figures, done = native.figures("service", wanted, threads, configuration.rounds, steps, label)
    for figure in figures:
        key = figure["operation"], figure["threads"], figure["nodes"]
        rounds.setdefault(key, []).append(figure["operations_per_second"])
    return [_summary(configuration, rounds, *key) for key in rounds], done


def _summary(
    configuration: Configuration,
    rounds: Mapping[tuple[str, int, int], list[float]],
    operation: str,
    threads: int,
    nodes: int,
) -> Summary:
    rates, alone = rounds[operation, threads, nodes], rounds[operation, 1, nodes]
    if not all(rates) or not all(alone):
        raise WorkloadError(f"{operation} did nothing in {configuration.milliseconds} ms: give --milliseconds more")
    scaling = median(together / one for together, one in zip(rates, alone, strict=True)) if threads > 1 else None
    return Summary(operation, threads, nodes, median(rates), scaling)


def show(configuration: Configuration, summaries: Sequence[Summary]) -> None:
    """Prints the table, and writes the JSON file if there is to be one."""
    write_json(
        "service",
        configuration,
        summary=[asdict(summary) for summary in summaries],
    )
    title = f"file system service: million operations per second, medians of {configuration.rounds} rounds"
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    for heading in ("nodes", "threads", *configuration.operations):
        table.add_column(heading, justify="right", no_wrap=True)
    for nodes in configuration.nodes:
        for threads in configuration.threads:
            cells = {each.operation: each for each in summaries if (each.nodes, each.threads) == (nodes, threads)}
            table.add_row(str(nodes), str(threads), *(_cell(cells[name]) for name in configuration.operations))
    footer = (
        "In brackets: how many times as much as one thread does on as many nodes, within each round, the median. "
        f"Reads are of {configuration.size} bytes, writes of {_PAGE} bytes that are there, in files of "
        f"{configuration.file_size}. shared: all threads on one file; apart: each on a file of its own, in a log of "
        "its own. create: an empty file is made and unlinked, by each thread in a directory of its own; both are one "
        "operation."
    )
    print_table(table, footer)


def _cell(summary: Summary) -> str:
    scaling = "" if summary.scaling is None else f" ({summary.scaling:.2f})"
    return f"{summary.operations_per_second / 1e6:.3f}{scaling}"
