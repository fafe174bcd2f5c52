"""The two ways in which a workload ends early."""

from __future__ import annotations

from typing import final


@final
class WorkloadError(Exception):
    """The workload cannot go on, or found wrong data: the text is the one line that the user reads."""


@final
class Cancelled(Exception):
    """A thread was told to stop before its work was done: the reason is another thread's, or the user's."""
