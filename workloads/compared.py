"""Workloads on directories that take turns: what such a workload is, and how it is measured.

Figures of one round are measured one after the other, so other load on the machine affects them more alike than
medians over all rounds. So directories are compared by the ratio of their figures in each round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, final

from workloads.failure import WorkloadError, said_plainly
from workloads.figures import Pass
from workloads.progress import ProgressBar

Measure = Callable[[Path, str, int], Pass]
"""Does one pass: in a new directory below this one, with this text for the progress bar and for errors, in the round
of this number. Leaves nothing there."""


class Workload(Protocol):
    """A benchmark that runs in a directory; a dataclass of its options.

    All data that it reads is checked. It raises a ``WorkloadError`` if something is wrong.
    """

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def title(self) -> str:
        """The heading of its table."""

    @property
    def notes(self) -> Sequence[str]:
        """Notes below its table: what must be known to read the figures."""

    @property
    def steps(self) -> int:
        """How many steps of the progress bar one pass takes."""

    def measuring(self, bar: ProgressBar) -> AbstractContextManager[Measure]:
        """Prepares what all passes share."""


@final
@dataclass(frozen=True)
class Side:
    """A directory that is compared."""

    name: str
    directory: Path
    mount: str = ""
    """Type and options of the mount that it is on, as the kernel shows them."""


@final
@dataclass(frozen=True)
class Failure:
    """Why a side has no figures."""

    side: int
    round: int
    reason: str


@final
@dataclass
class Results:
    """The results of a workload: all rounds that have been measured so far."""

    workload: Workload
    sides: Sequence[Side]
    baseline: int | None
    """The side that others are compared with; None if there is only one."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    rounds: list[dict[int, Pass]] = field(default_factory=list)
    """Of each round that was completed, the figures by side, in the order in which they were measured."""
    failures: list[Failure] = field(default_factory=list)
    """A side that failed once is not measured again, and what was measured of it before counts for nothing."""

    @property
    def measured(self) -> list[int]:
        """The sides that have figures."""
        failed = {failure.side for failure in self.failures}
        return [side for side in range(len(self.sides)) if side not in failed] if self.rounds else []

    def measure(self, rounds: int, bar: ProgressBar, *, go_on: bool = False) -> None:
        """Measures every side in each round.

        The order is A B C, then C B A, and so on, so that what drifts with time affects all alike.

        Args:
            rounds: how many.
            bar: has ``workload.steps`` steps for each pass.
            go_on: if a side fails, keep why, and go on with the others.

        Raises:
            WorkloadError: the workload failed. What was measured stays here, as it does after any other exception.

        """
        with said_plainly(), self.workload.measuring(bar) as measure:
            for number in range(rounds):
                done: dict[int, Pass] = {}
                for side in self._order(number):
                    each = self.sides[side]
                    where = f"round {number + 1}/{rounds}  {each.name}"
                    try:
                        done[side] = measure(each.directory, where, number)
                    except (WorkloadError, OSError) as failure:
                        if not go_on:
                            raise
                        self.failures.append(Failure(side, number, str(failure).removeprefix(where).lstrip(" :")))
                if done:
                    self.rounds.append(done)

    def _order(self, number: int) -> Iterator[int]:
        failed = {failure.side for failure in self.failures}
        sides = range(len(self.sides))
        yield from (side for side in (sides if number % 2 == 0 else reversed(sides)) if side not in failed)
