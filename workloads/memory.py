"""How much memory files take: in this process, through the service itself, by what the kernel counts as resident."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import nrfs
from workloads.failure import WorkloadError
from workloads.progress import ProgressBar
from workloads.report import write_json

_CALLS_BETWEEN_LOOKS = 1000
"""Of the progress bar, which is not to cost what it shows."""


@final
@dataclass(frozen=True)
class Configuration:
    """What to measure."""

    nodes: int
    files: int
    """Empty ones, all in one directory."""
    data: int
    """Bytes, in files of ``file_size``."""
    file_size: int
    json: Path | None


@final
@dataclass(frozen=True)
class Figures:
    """What was measured."""

    bytes_per_empty_file: float
    """On each replica."""
    bytes_per_byte: float
    """Of file content, on each replica."""
    bytes_left: int
    """Resident after all was deleted, beyond what was before anything was made."""


def run(configuration: Configuration) -> Figures:
    """Makes the files, measures, and deletes them.

    Raises:
        WorkloadError: the replicas differ, or there is no room.

    """
    filesystem = nrfs.Filesystem(nodes=configuration.nodes, size=configuration.data, inodes=configuration.files + 10)
    full = configuration.data // configuration.file_size
    content = b"\xa5" * configuration.file_size
    with ProgressBar(2 * (configuration.files + full)) as bar, _said_plainly():
        start = _resident(filesystem)
        for name in _steps(bar, "writing files", full):
            filesystem.write(filesystem.mknod(nrfs.ROOT, name, 0o644).ino, 0, content)
        written = _resident(filesystem) - start
        for name in _steps(bar, "deleting them", full):
            filesystem.unlink(nrfs.ROOT, name)
        emptied = _resident(filesystem)
        for name in _steps(bar, "making empty files", configuration.files):
            filesystem.mknod(nrfs.ROOT, name, 0o644)
        empty = _resident(filesystem) - emptied
        for name in _steps(bar, "deleting them", configuration.files):
            filesystem.unlink(nrfs.ROOT, name)
        left = _resident(filesystem) - start
    return Figures(
        bytes_per_empty_file=empty / configuration.files / configuration.nodes,
        bytes_per_byte=written / (full * configuration.file_size) / configuration.nodes,
        bytes_left=left,
    )


def show(configuration: Configuration, figures: Figures) -> None:
    """Prints the figures, and writes them to the JSON file if there is to be one."""
    nodes = f"{configuration.nodes} replica{'s' if configuration.nodes > 1 else ''}"
    print(f"{configuration.files:,} empty files on {nodes}: {figures.bytes_per_empty_file:.0f} bytes each per replica")
    print(
        f"{configuration.data:,} bytes in files of {configuration.file_size:,}: "
        f"{figures.bytes_per_byte:.3f} bytes per byte per replica"
    )
    print(f"left when all is deleted: {figures.bytes_left / 2**20:.1f} MiB")
    if configuration.json is not None:
        document = {"workload": "memory", "configuration": asdict(configuration), "figures": asdict(figures)}
        write_json(document, configuration.json)


def _steps(bar: ProgressBar, description: str, count: int) -> Iterator[bytes]:
    bar.begin(description)
    for number in range(count):
        if number % _CALLS_BETWEEN_LOOKS == 0:
            bar.show(number)
        yield b"file-%08d" % number
    bar.end(count)


def _resident(filesystem: nrfs.Filesystem) -> int:
    """Bytes of memory that this process holds when all replicas have applied all changes."""
    for log in filesystem.verify():
        if len(set(log["digests"])) != 1:
            raise WorkloadError(f"the replicas differ in log {log['log']}")
    filesystem.release_memory()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise WorkloadError("the kernel does not tell what is resident")


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise WorkloadError(failure.strerror or str(failure)) from failure
