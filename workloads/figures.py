"""What a pass of a workload over a directory measures, and the table in which directories are compared by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, Self, final

from rich.table import Table

from workloads.compared import Compared
from workloads.ratio import Ratio
from workloads.report import print_table

TIMES: Final = frozenset({"s", "us"})
"""Units of which less is better."""


@final
@dataclass(frozen=True)
class Figure:
    """One figure of one pass."""

    name: str
    value: float
    unit: str
    """``op/s``, ``MiB/s``, or one of ``TIMES``."""
    p50: float | None = None
    """The median latency of one call, in microseconds; None if calls were not timed one by one."""
    p99: float | None = None

    @property
    def speed(self) -> float:
        """The more, the faster. The value must not be 0."""
        return 1 / self.value if self.unit in TIMES else self.value


Pass = Sequence[Figure]
"""What one pass over one directory measures; the same names, in the same order, in every pass."""


@final
@dataclass(frozen=True)
class Summary:
    """One figure of all rounds."""

    name: str
    unit: str
    medians: tuple[Figure, ...]
    """Of each directory."""
    ratio: Ratio | None
    """How many times as fast the directory under test is as the other, within each round. None if there is no other,
    or if nothing was measured."""
    p50_ratio: Ratio | None
    """The same by the median latencies. Other load on the machine hardly affects it."""

    @classmethod
    def over(cls, rounds: Sequence[Sequence[Figure]]) -> Self:
        """From each round's figures, one for each directory."""
        medians = tuple(_median(column) for column in zip(*rounds, strict=True))
        pairs = [pair for pair in rounds if len(pair) == 2]
        ratios = [pair[0].speed / pair[1].speed for pair in pairs if pair[0].value and pair[1].value]
        return cls(
            medians[0].name,
            medians[0].unit,
            medians,
            Ratio.over(ratios),
            Ratio.over([pair[1].p50 / pair[0].p50 for pair in pairs if pair[0].p50 and pair[1].p50]),
        )


def summaries(rounds: Sequence[Sequence[Pass]]) -> list[Summary]:
    """By figure, what all rounds say; ``rounds`` has the pass over each directory."""
    return [Summary.over(figure) for figure in zip(*(zip(*passes, strict=True) for passes in rounds), strict=True)]


def as_json(configuration: Compared, rounds: Sequence[Sequence[Pass]]) -> dict[str, Any]:
    """Every round's figures, and the medians."""
    return {
        "rounds": [
            {"order": configuration.order(number), "figures": [list(map(asdict, each)) for each in passes]}
            for number, passes in enumerate(rounds)
        ],
        "summary": list(map(asdict, summaries(rounds))),
    }


def show(configuration: Compared, rounds: Sequence[Sequence[Pass]], title: str, *footer: str) -> None:
    """Prints the table."""
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("directory", overflow="fold")
    compared = ["ratio", "(lowest to highest)", "p50 ratio"] if configuration.against is not None else []
    for heading in ("median", "unit", "p50 us", "p99 us", *compared):
        table.add_column(heading, justify="left" if heading == "unit" else "right", no_wrap=True)
    for each in summaries(rounds):
        for side, figure in enumerate(each.medians):
            first = side == 0
            ratio = [*_ratio_cells(each)] if compared and first else []
            cells = [_number(figure.value), figure.unit, *map(_number, (figure.p50, figure.p99))]
            table.add_row(each.name if first else "", str(configuration.directories[side]), *cells, *ratio)
    print_table(table, "\n".join([*footer, *_explained(configuration)]))


def _explained(configuration: Compared) -> Iterator[str]:
    if configuration.against is not None:
        yield (
            f"Ratio: how many times as fast {configuration.directory} is as {configuration.against}, within each "
            "round; the median. p50 ratio: the same by the median latencies."
        )


def _ratio_cells(summary: Summary) -> Iterator[str]:
    ratio, latency = summary.ratio, summary.p50_ratio
    yield "-" if ratio is None else f"{ratio.median:.3f}"
    yield "" if ratio is None else ratio.extent
    yield "" if latency is None else f"{latency.median:.3f}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _median(column: Sequence[Figure]) -> Figure:
    def of(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    return Figure(
        column[0].name,
        median(figure.value for figure in column),
        column[0].unit,
        of([figure.p50 for figure in column]),
        of([figure.p99 for figure in column]),
    )
