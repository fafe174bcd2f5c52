"""The kernel's table of mounts, as this process sees it (proc_pid_mountinfo(5)).

Everything about a mount is learnt here and never by touching the mount itself: a mount whose daemon
is stuck or dead would answer with an error or not at all.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

FILESYSTEM_TYPE = "fuse.nrfs"


@dataclass(frozen=True)
class MountEntry:
    """One line of the table."""

    mount_id: int
    device: str
    """The device number in a form fit for a file name: "0-45"."""
    mountpoint: str
    filesystem_type: str
    owner: int
    """The user who mounted it (FUSE alone tells; 0 elsewhere)."""

    @property
    def is_ours(self) -> bool:
        return self.filesystem_type == FILESYSTEM_TYPE


def entries() -> list[MountEntry]:
    """All mounts; of those on one mount point the topmost comes last."""
    return [_parse(os.fsdecode(line)) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def topmost_at(mountpoint: str) -> MountEntry | None:
    """The mount that is visible at ``mountpoint``, an absolute path without symlinks."""
    return next((entry for entry in reversed(entries()) if entry.mountpoint == mountpoint), None)


def locate(path: str) -> str:
    """The absolute path of a mount point, symlinks resolved, without touching a mount that is there."""
    absolute = os.path.abspath(path)  # noqa: PTH100 (Path.absolute() keeps "..")
    mountpoints = {entry.mountpoint for entry in entries()}
    if absolute in mountpoints:
        return absolute
    parent, name = os.path.split(absolute)
    beside = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
    return beside if beside in mountpoints else os.path.realpath(beside)


def _parse(line: str) -> MountEntry:
    before, _, behind = line.partition(" - ")
    mount_id, _, device, _, mountpoint, *_ = before.split(" ")
    filesystem_type, _, options = behind.split(" ", 2)
    owner = re.search(r"\buser_id=(\d+)", options)
    return MountEntry(
        mount_id=int(mount_id),
        device=device.replace(":", "-"),
        mountpoint=re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mountpoint),
        filesystem_type=filesystem_type,
        owner=int(owner[1]) if owner else 0,
    )
