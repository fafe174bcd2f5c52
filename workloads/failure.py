"""The two ways in which a workload ends early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


class WorkloadError(Exception):
    """The workload cannot go on, or found wrong data: the text is the one line that the user reads."""

    status = 1
    """Of the command."""


@final
class UsageError(WorkloadError):
    """What was asked for cannot be."""

    status = 2


@final
class Cancelled(Exception):
    """A thread was told to stop before its work was done: the reason is another thread's, or the user's."""


@contextmanager
def said_plainly() -> Iterator[None]:
    """Makes what the system refuses the line that the user reads."""
    try:
        yield
    except OSError as failure:
        raise WorkloadError(failure.strerror or str(failure)) from failure
