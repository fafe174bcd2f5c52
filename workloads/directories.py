"""Gives a workload a directory of its own, which is removed in the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workloads.failure import WorkloadError


@contextmanager
def temporary_directory(parent: Path, workload: str) -> Iterator[Path]:
    """A new subdirectory of ``parent``, which is removed in the end, also after an exception."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=f"nrfs-{workload}-", dir=parent))
    except OSError as failure:
        raise WorkloadError(f"{parent}: cannot create a directory here: {failure.strerror}") from failure
    try:
        yield directory
    except BaseException:
        # The user is told the first error, even if this fails, too, for the same reason.
        shutil.rmtree(directory, ignore_errors=True)
        raise
    try:
        shutil.rmtree(directory)
    except OSError as failure:
        raise WorkloadError(f"{directory}: cannot be removed: {failure.strerror}") from failure
