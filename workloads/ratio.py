"""Compares two directories by the ratio of their figures in each round.

Two figures of one round are measured one after the other, so other load on the machine affects them more alike than
two medians over all rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self, final


@final
@dataclass(frozen=True)
class Ratio:
    """The ratio of two directories over all rounds. Each use says which is divided by which."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def over(cls, rounds: Sequence[float]) -> Self | None:
        """The ratio over these rounds; None if there are none."""
        return cls(median(rounds), min(rounds), max(rounds)) if rounds else None

    @property
    def extent(self) -> str:
        """The lowest and the highest ratio, as tables show them."""
        return f"({self.lowest:.3f} to {self.highest:.3f})"


@final
@dataclass(frozen=True)
class Times:
    """How long something takes, over all rounds."""

    medians: tuple[float, ...]
    """For each directory."""
    ratio: Ratio | None
    """The time in the directory under test, divided by that in the other: above 1 it is slower. None if there is no
    other."""

    @classmethod
    def over(cls, rounds: Sequence[Sequence[float]]) -> Self:
        """From each round's times, one for each directory. A time of 0 in the other directory gives no ratio."""
        ratios = [pair[0] / pair[1] for pair in rounds if len(pair) == 2 and pair[1]]
        return cls(tuple(map(median, zip(*rounds, strict=True))), Ratio.over(ratios))


def explained(directories: Sequence[Path]) -> list[str]:
    """The line below a table of times that explains their ratio, if there is one."""
    if len(directories) < 2:
        return []
    ours, theirs = directories
    return [f"Ratio: how many times longer it takes in {ours} than in {theirs}, within each round; the median."]
