"""Gives a workload a directory of its own, which is removed in the end."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from workloads.failure import WorkloadError


@contextmanager
def temporary_directory(parent: Path, workload: str) -> Iterator[Path]:
    """A new subdirectory of ``parent``, which is removed in the end, also after an exception or an interrupt."""
    made: list[Path] = []
    try:
        with _interrupts_held_back():
            made.append(_make(parent, workload))
        yield made[0]
    except BaseException:
        with _interrupts_held_back():
            for directory in made:
                # The user is told the first error, even if this fails, too, for the same reason.
                shutil.rmtree(directory, ignore_errors=True)
        raise
    with _interrupts_held_back():
        _remove(made[0])


def _make(parent: Path, workload: str) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f"nrfs-{workload}-", dir=parent))
    except OSError as failure:
        raise WorkloadError(f"{parent}: cannot create a directory here: {failure.strerror}") from failure


def _remove(directory: Path) -> None:
    try:
        shutil.rmtree(directory)
    except OSError as failure:
        raise WorkloadError(f"{directory}: cannot be removed: {failure.strerror}") from failure


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """An interrupt that comes meanwhile takes effect at the end. In other threads than the main one, none comes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda *interrupt: came.append(interrupt))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])
