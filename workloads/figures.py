"""Figures: what a pass of a workload over a directory measures, and what all rounds say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, final

TIMES: Final = frozenset({"s", "us"})
"""Units of which less is better."""

PERCENTILES: Final = (1, 10, 25, 50, 75, 90, 95, 99, 99.9)
"""The percentiles of latencies that are kept."""


@final
@dataclass(frozen=True)
class Figure:
    """One figure of one pass. Name and cores together identify it."""

    name: str
    value: float
    unit: str
    """``op/s``, ``MiB/s``, or one of ``TIMES``."""
    cores: int = 1
    """How many threads or processes did it at once."""
    latency: Mapping[float, float] = field(default_factory=dict)
    """By percentile, microseconds of one call; empty if calls were not timed one by one."""
    note: str = ""
    """What else there is to say of it, for the table."""
    more: Mapping[str, float | None] = field(default_factory=dict)
    """Other figures of the workload, which only the results have."""

    @property
    def speed(self) -> float | None:
        """The more, the faster; None if nothing was measured."""
        if not self.value:
            return None
        return 1 / self.value if self.unit in TIMES else self.value


Pass = Sequence[Figure]
"""What one pass over one directory measures; the same names, in the same order, in every pass."""


@final
@dataclass(frozen=True)
class Spread:
    """A median, and the least and the most that it is the median of."""

    median: float
    lowest: float
    highest: float

    @property
    def extent(self) -> str:
        """The lowest and the highest, as tables show them."""
        return f"({self.lowest:.3f} to {self.highest:.3f})"


def spread(values: Sequence[float]) -> Spread | None:
    """Over all rounds; None if there are none."""
    return Spread(median(values), min(values), max(values)) if values else None


@final
@dataclass(frozen=True)
class Summary:
    """One figure of all rounds, of one side."""

    name: str
    unit: str
    cores: int
    value: Spread
    latency: Mapping[float, float]
    """Medians over the rounds."""
    ratio: Spread | None
    """How many times as fast it is as the baseline, within each round. None of the baseline itself, and if nothing was
    measured."""
    p50_ratio: Spread | None
    """The same by the median latencies. Other load on the machine hardly affects it: so it shows differences where the
    ratio of rates is too noisy."""
    note: str
    """Of the first round."""


def summaries(rounds: Sequence[Pass], baseline: Sequence[Pass] | None) -> list[Summary]:
    """Sums up one side's figures over all rounds, with their ratios to the baseline's in the same rounds."""
    columns = list(zip(*rounds, strict=True))
    bases = [None] * len(columns) if baseline is None else list(zip(*baseline, strict=True))
    return [_summary(column, base) for column, base in zip(columns, bases, strict=True)]


def _summary(column: Sequence[Figure], base: Sequence[Figure] | None) -> Summary:
    value = spread([figure.value for figure in column])
    assert value is not None, "there is a round"
    pairs = [] if base is None else list(zip(column, base, strict=True))
    speeds = [(ours.speed, theirs.speed) for ours, theirs in pairs]
    calls = [(ours.latency.get(50), theirs.latency.get(50)) for ours, theirs in pairs]
    # Nothing may have been measured in a round, if there was nothing to read, say.
    known = set.intersection(*(set(figure.latency) for figure in column))
    return Summary(
        column[0].name,
        column[0].unit,
        column[0].cores,
        value,
        {percent: median(figure.latency[percent] for figure in column) for percent in sorted(known)},
        spread([ours / theirs for ours, theirs in speeds if ours and theirs]),
        spread([theirs / ours for ours, theirs in calls if ours and theirs]),
        column[0].note,
    )
