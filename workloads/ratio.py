"""How two directories compare, taken within each round.

Two figures taken one after the other share more of the machine's mood than two medians do.
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
    """Of the directory under test and the other, over the rounds. Which way it goes is said where it is used."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def over(cls, rounds: Sequence[float]) -> Self | None:
        """None where there is nothing to compare."""
        return cls(median(rounds), min(rounds), max(rounds)) if rounds else None

    @property
    def extent(self) -> str:
        """From the lowest to the highest, as tables have it."""
        return f"({self.lowest:.3f} to {self.highest:.3f})"


@final
@dataclass(frozen=True)
class Times:
    """How long something takes, over the rounds."""

    medians: tuple[float, ...]
    """For each directory."""
    ratio: Ratio | None
    """How many times longer it takes in the directory under test than in the other: above 1 is slower. None without
    another."""

    @classmethod
    def over(cls, rounds: Sequence[Sequence[float]]) -> Self:
        """Of the times of each round, which are one for each directory; no ratio to what took no time at all."""
        ratios = [pair[0] / pair[1] for pair in rounds if len(pair) == 2 and pair[1]]
        return cls(tuple(map(median, zip(*rounds, strict=True))), Ratio.over(ratios))


def explained(directories: Sequence[Path]) -> list[str]:
    """The line below a table of times that says which way their ratio goes, if there is one."""
    if len(directories) < 2:
        return []
    ours, theirs = directories
    return [f"Ratio: how many times longer it takes in {ours} than in {theirs}, within each round; the median."]
