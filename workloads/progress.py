"""The progress bar on stderr: there for a person at a terminal, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_STEPS_BETWEEN_LOOKS = 1000
"""The bar is not to cost what it shows."""


@final
class ProgressBar:
    """One bar over all steps of a run. Drawn only when told of progress, so never by a thread of its own
    in the middle of a measurement.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)
        self._finished = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, description: str) -> None:
        """Names the step that runs now."""
        self._bar.update(self._task, description=description, refresh=True)

    def show(self, operations: int) -> None:
        """The step that runs now has come so far."""
        self._bar.update(self._task, completed=self._finished + operations, refresh=True)

    def end(self, operations: int) -> None:
        """The step is over; it had been planned with this many operations."""
        self._finished += operations
        self._bar.update(self._task, completed=self._finished, refresh=True)

    def count(self, description: str, operations: int) -> Iterator[int]:
        """The numbers of so many operations; each is asked for when the one before it is done."""
        self.begin(description)
        for number in range(operations):
            if number % _STEPS_BETWEEN_LOOKS == 0:
                self.show(number)
            yield number
        self.end(operations)
