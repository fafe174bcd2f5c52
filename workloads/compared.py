"""A workload on a directory, or on two that take turns. Imports nothing heavy: the command line needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Compared:
    """What every such workload is told."""

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
        """What a title says of the rounds."""
        return f", medians of {self.rounds} rounds" if self.rounds > 1 else ""

    def order(self, number: int) -> tuple[int, ...]:
        """Which of the directories comes first, second, in a round: A B, B A, ...

        So what drifts with time falls on both alike.
        """
        sides = range(len(self.directories))
        return tuple(sides if number % 2 == 0 else reversed(sides))

    def in_turn(self, measure: Callable[[int, int], Measured]) -> list[tuple[Measured, ...]]:
        """Measures, told the round and the directory's number; of each round, each directory's (not in its order)."""
        rounds = []
        for number in range(self.rounds):
            measured = {side: measure(number, side) for side in self.order(number)}
            rounds.append(tuple(measured[side] for side in sorted(measured)))
        return rounds

    def where(self, number: int, side: int) -> str:
        """What a progress bar says of it."""
        return f"round {number + 1}/{self.rounds}  {self.directories[side]}"
