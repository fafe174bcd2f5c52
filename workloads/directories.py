"""Where a workload works: in a directory of its own, which is gone when it ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workloads.failure import WorkloadError


@contextmanager
def temporary_directory(parent: Path, workload: str) -> Iterator[Path]:
    """A fresh subdirectory of ``parent``, removed at the end however the end comes."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=f"nrfs-{workload}-", dir=parent))
    except OSError as failure:
        raise WorkloadError(f"{parent}: cannot create a directory here: {failure.strerror}") from failure
    try:
        yield directory
    except BaseException:
        # What went wrong first is what the user is told, even when this fails for the same reason.
        shutil.rmtree(directory, ignore_errors=True)
        raise
    try:
        shutil.rmtree(directory)
    except OSError as failure:
        raise WorkloadError(f"{directory}: cannot be removed: {failure.strerror}") from failure
