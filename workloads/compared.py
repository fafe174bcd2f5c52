"""A workload on one directory, or on two that take turns. Imports little, as the command line needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Compared:
    """The options of all such workloads."""

    directory: Path
    against: Path | None
    rounds: int
    json: Path | None

    @property
    def directories(self) -> tuple[Path, ...]:
        """The directory under test, then the one it is compared with."""
        return (self.directory,) if self.against is None else (self.directory, self.against)

    @property
    def medians(self) -> str:
        """The end of a table's title, if there are several rounds."""
        return f", medians of {self.rounds} rounds" if self.rounds > 1 else ""

    def order(self, number: int) -> tuple[int, ...]:
        """The order of the directories in a round: A B, then B A, and so on.

        So anything that drifts with time affects both alike.
        """
        sides = range(len(self.directories))
        return tuple(sides if number % 2 == 0 else reversed(sides))

    def in_turn(self, measure: Callable[[int, int], Measured]) -> list[tuple[Measured, ...]]:
        """Calls ``measure`` with each round and directory number. Returns the results by round, then by directory."""
        rounds = []
        for number in range(self.rounds):
            measured = {side: measure(number, side) for side in self.order(number)}
            rounds.append(tuple(measured[side] for side in sorted(measured)))
        return rounds

    def where(self, number: int, side: int) -> str:
        """The progress bar's text for a round on a directory."""
        return f"round {number + 1}/{self.rounds}  {self.directories[side]}"
