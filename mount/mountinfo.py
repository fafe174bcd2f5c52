"""The kernel's table of mounts, as this thread sees it (proc_pid_mountinfo(5)).

All information about a mount comes from here, and never from the mount itself: if its daemon is stuck or
dead, a request to it would fail or wait for ever. Other users choose names in the table: they may contain
any bytes, except that the kernel escapes space, tab, newline and backslash.
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
    """The number of the mount that this one is mounted on."""
    device: str
    """The device number, in a form that can be part of a file name: "0-45"."""
    mountpoint: str
    filesystem_type: str
    owner: int
    """The user who mounted it. Only FUSE reports this; 0 for other types."""
    group: int
    """That user's group."""
    propagation: Sequence[str] = ()
    """The peer groups to and from which mounts on this one propagate: "shared:7", "master:3"."""

    @property
    def is_ours(self) -> bool:
        return self.filesystem_type == FILESYSTEM_TYPE


def entries() -> list[MountEntry]:
    """All mounts that this thread sees. Of several on one mount point, the topmost is last."""
    # Not splitlines(): a name may contain a carriage return.
    return [_parse(line) for line in Path("/proc/thread-self/mountinfo").read_bytes().split(b"\n") if line]


def topmost_at(mountpoint: str) -> MountEntry | None:
    """The mount that is visible at ``mountpoint``, an absolute path without symlinks."""
    return next((entry for entry in reversed(entries()) if entry.mountpoint == mountpoint), None)


def by_id(mount_id: int) -> MountEntry | None:
    """The mount with this number, if it is still there."""
    return next((entry for entry in entries() if entry.mount_id == mount_id), None)


def id_of(descriptor: int) -> int:
    """The number of the mount that an open file is on. Makes no request to the mount."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def locate(path: str) -> str:
    """The absolute path of a mount point, with symlinks resolved. Does not touch a mount that is there.

    Raises:
        MountError: the path is empty, or relative to a directory that no longer exists.

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
