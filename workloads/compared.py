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
from workloads.figures import Figure, Pass
from workloads.progress import ProgressBar

Measure = Callable[[Path, str, int], Iterator[Figure]]
"""Does one pass, and yields its figures as they are known: in a new directory below this one, with this text for the
progress bar and for errors, in the round of this number. Leaves nothing there."""


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
    """Of each round that was completed, the figures by side, in the order in which they were measured. If none was, the
    only one is what was measured of the first."""
    is_cut_off: bool = False
    """Whether that is so."""
    failures: list[Failure] = field(default_factory=list)
    """A side that failed once is not measured again, and what was measured of it before counts for nothing."""

    @property
    def measured(self) -> list[int]:
        """The sides that have figures."""
        failed = {failure.side for failure in self.failures}
        return [side for side in sorted(self.rounds[0]) if side not in failed] if self.rounds else []

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
                done: dict[int, list[Figure]] = {}
                try:
                    for side in self._order(number):
                        each = self.sides[side]
                        where = f"round {number + 1}/{rounds}  {each.name}"
                        done[side] = []
                        try:
                            done[side].extend(measure(each.directory, where, number))
                        except (WorkloadError, OSError) as failure:
                            del done[side]
                            if not go_on:
                                raise
                            self.failures.append(Failure(side, number, str(failure).removeprefix(where).lstrip(" :")))
                except KeyboardInterrupt:
                    self._keep_what_there_is(done)
                    raise
                if done:
                    self.rounds.append(dict(done))

    def _keep_what_there_is(self, done: dict[int, list[Figure]]) -> None:
        """Of a first round that was cut off: the figures that all sides have which have any."""
        begun = {side: figures for side, figures in done.items() if figures}
        if begun and not self.rounds:
            common = min(map(len, begun.values()))
            self.rounds.append({side: figures[:common] for side, figures in begun.items()})
            self.is_cut_off = True

    def _order(self, number: int) -> Iterator[int]:
        failed = {failure.side for failure in self.failures}
        sides = range(len(self.sides))
        yield from (side for side in (sides if number % 2 == 0 else reversed(sides)) if side not in failed)
