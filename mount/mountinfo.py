"""The kernel's table of mounts, as this thread sees it (proc_pid_mountinfo(5)).

Everything about a mount is learnt here and never by touching the mount itself: a mount whose daemon
is stuck or dead would answer with an error or not at all. Names in the table are other users' choice;
only what the kernel escapes (space, tab, newline, backslash) is sure not to be in them as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mount.failure import MountError

FILESYSTEM_TYPE = "fuse.nrfs"

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_OWNER = re.compile(rb"(?:^|,)user_id=(\d+)(?:,|$)")
_GROUP = re.compile(rb"(?:^|,)group_id=(\d+)(?:,|$)")


@dataclass(frozen=True)
class MountEntry:
    """One line of the table."""

    mount_id: int
    parent_id: int
    """Of the mount that this one is mounted on."""
    device: str
    """The device number in a form fit for a file name: "0-45"."""
    mountpoint: str
    filesystem_type: str
    owner: int
    """The user who mounted it (FUSE alone tells; 0 elsewhere)."""
    group: int
    """That user's group."""
    propagation: Sequence[str] = ()
    """Which mounts hear of what is mounted here and taken away: "shared:7", "master:3"."""

    @property
    def is_ours(self) -> bool:
        return self.filesystem_type == FILESYSTEM_TYPE


def entries() -> list[MountEntry]:
    """All mounts that this thread sees; of those on one mount point the topmost comes last."""
    # Not splitlines(): a carriage return can be in a name.
    return [_parse(line) for line in Path("/proc/thread-self/mountinfo").read_bytes().split(b"\n") if line]


def topmost_at(mountpoint: str) -> MountEntry | None:
    """The mount that is visible at ``mountpoint``, an absolute path without symlinks."""
    return next((entry for entry in reversed(entries()) if entry.mountpoint == mountpoint), None)


def by_id(mount_id: int) -> MountEntry | None:
    """The mount with this number, if it is still there."""
    return next((entry for entry in entries() if entry.mount_id == mount_id), None)


def id_of(descriptor: int) -> int:
    """The number of the mount on which an open file lies. No request is made for it."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def locate(path: str) -> str:
    """The absolute path of a mount point, symlinks resolved, without touching a mount that is there.

    Raises:
        MountError: it is relative to a directory that is no more, or empty.

    """
    if not path:
        raise MountError("an empty path leads nowhere")
    try:
        absolute = os.path.abspath(path)  # noqa: PTH100 (Path.absolute() keeps "..")
    except OSError:
        raise MountError(f"{path}: the current directory, to which it is relative, is gone") from None
    mountpoints = {entry.mountpoint for entry in entries()}
    if absolute in mountpoints:
        return absolute
    parent, name = os.path.split(absolute)
    beside = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
    return beside if beside in mountpoints else os.path.realpath(beside)


def _parse(line: bytes) -> MountEntry:
    before, _, behind = line.partition(b" - ")
    mount_id, parent_id, device, _, mountpoint, _, *propagation = before.split(b" ")
    filesystem_type, _, options = behind.split(b" ", 2)
    owner, group = _OWNER.search(options), _GROUP.search(options)
    return MountEntry(
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=device.decode().replace(":", "-"),
        mountpoint=os.fsdecode(_OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), mountpoint)),
        filesystem_type=os.fsdecode(filesystem_type),
        owner=int(owner[1]) if owner else 0,
        group=int(group[1]) if group else 0,
        propagation=tuple(map(os.fsdecode, propagation)),
    )
