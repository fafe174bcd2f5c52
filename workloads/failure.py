"""The exceptions with which a workload ends early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


class WorkloadError(Exception):
    """The workload cannot continue, or found wrong data. Its text is the line that the user reads."""

    status = 1
    """The exit status of the command."""


@final
class UsageError(WorkloadError):
    """The options are invalid."""

    status = 2


@final
class Cancelled(Exception):
    """A thread was told to stop early, because another thread failed or the user interrupted the run."""


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turns an ``OSError`` of the enclosed statements into a ``WorkloadError``, which the user sees as one line."""
    try:
        yield
    except OSError as failure:
        raise WorkloadError(failure.strerror or str(failure)) from failure
