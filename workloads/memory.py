"""How much memory files take: makes them in this process by the service, and reads the process's resident memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import nrfs
from workloads.failure import UsageError, WorkloadError, said_plainly
from workloads.progress import ProgressBar
from workloads.report import write_json

_PAGE = 4096


@final
@dataclass(frozen=True)
class Configuration:
    """What to measure."""

    nodes: int
    files: int
    """How many empty files to make, all in one directory."""
    data: int
    """Bytes of content, in files of ``file_size``."""
    file_size: int
    json: Path | None


@final
@dataclass(frozen=True)
class Figures:
    """What was measured."""

    bytes_per_empty_file: float
    """On each replica."""
    bytes_per_byte: float
    """Bytes of memory per byte of content, on each replica."""
    bytes_left: int
    """Resident memory after all files were deleted, less that before any was made."""


def run(configuration: Configuration) -> Figures:
    """Makes the files, measures, and deletes them.

    Raises:
        WorkloadError: the replicas differ, or there is no room.

    """
    full = configuration.data // configuration.file_size
    filesystem = _filesystem(configuration, full)
    content = b"\xa5" * configuration.file_size
    with ProgressBar(2 * (configuration.files + full)) as bar, said_plainly():
        start = _resident(filesystem)
        for name in _names(bar, "writing files", full):
            filesystem.write(filesystem.mknod(nrfs.ROOT, name, 0o644).ino, 0, content)
        written = _resident(filesystem) - start
        for name in _names(bar, "deleting them", full):
            filesystem.unlink(nrfs.ROOT, name)
        emptied = _resident(filesystem)
        for name in _names(bar, "making empty files", configuration.files):
            filesystem.mknod(nrfs.ROOT, name, 0o644)
        empty = _resident(filesystem) - emptied
        for name in _names(bar, "deleting them", configuration.files):
            filesystem.unlink(nrfs.ROOT, name)
        left = _resident(filesystem) - start
    return Figures(
        bytes_per_empty_file=empty / configuration.files / configuration.nodes,
        bytes_per_byte=written / (full * configuration.file_size) / configuration.nodes,
        bytes_left=left,
    )


def _filesystem(configuration: Configuration, full: int) -> nrfs.Filesystem:
    """A file system with room for ``full`` files with content, and for all the empty ones."""
    size = full * (-(-configuration.file_size // _PAGE) * _PAGE)
    inodes = max(full, configuration.files) + 10
    try:
        return nrfs.Filesystem(nodes=configuration.nodes, size=size, inodes=inodes)
    except (ValueError, OverflowError, TypeError) as reason:
        raise UsageError(str(reason).partition("\n")[0]) from None
    except (MemoryError, OSError) as reason:
        raise WorkloadError(f"no memory for the file system: {reason}") from None


def show(configuration: Configuration, figures: Figures) -> None:
    """Prints the figures, and writes them to the JSON file if there is to be one."""
    nodes = f"{configuration.nodes} replica{'s' if configuration.nodes > 1 else ''}"
    print(f"{configuration.files:,} empty files on {nodes}: {figures.bytes_per_empty_file:.0f} bytes each per replica")
    print(
        f"{configuration.data:,} bytes in files of {configuration.file_size:,}: "
        f"{figures.bytes_per_byte:.3f} bytes per byte per replica"
    )
    print(f"left when all is deleted: {figures.bytes_left / 2**20:.1f} MiB")
    write_json("memory", configuration, figures=asdict(figures))


def _names(bar: ProgressBar, description: str, count: int) -> Iterator[bytes]:
    return (b"file-%08d" % number for number in bar.count(description, count))


def _resident(filesystem: nrfs.Filesystem) -> int:
    """Resident bytes of this process, after all replicas have applied all changes and freed memory was given back."""
    for log in filesystem.verify():
        if len(set(log["digests"])) != 1:
            raise WorkloadError(f"the replicas differ in log {log['log']}")
    filesystem.release_memory()
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise WorkloadError("the kernel does not tell what is resident")
