"""A progress bar on stderr, shown only if that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_STEPS_BETWEEN_LOOKS = 1000
"""How many steps are between updates: so many that the bar costs little."""


@final
class ProgressBar:
    """One bar for all steps of a run. It has no thread of its own, which might disturb a measurement: it is
    drawn only when a method is called.
    """

    def __init__(self, total: int, before: str = "") -> None:
        """``before`` stands before each step's name."""
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
        self._before = before
        self._finished = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, description: str) -> None:
        """Shows the name of the step that begins."""
        self._bar.update(self._task, description=self._before + description, refresh=True)

    def show(self, operations: int) -> None:
        """Shows how many operations of the current step are done."""
        self._bar.update(self._task, completed=self._finished + operations, refresh=True)

    def end(self, operations: int) -> None:
        """Ends the current step, which counts as this many operations."""
        self._finished += operations
        self._bar.update(self._task, completed=self._finished, refresh=True)

    def count(self, description: str, operations: int) -> Iterator[int]:
        """A step of its own: counts from 0 to ``operations`` - 1, and shows how far the caller has come."""
        self.begin(description)
        for number in range(operations):
            if number % _STEPS_BETWEEN_LOOKS == 0:
                self.show(number)
            yield number
        self.end(operations)
