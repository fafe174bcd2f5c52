"""``mount -o remount``: changes the flags of a mount, and the limits of its file system, without losing its content.

The flags are the kernel's, as they are for tmpfs: mount(2) sets those that are given, and no others. The limits are the
daemon's, which is asked for them. As on tmpfs a limit cannot be lower than what is in use, and if anything is refused,
nothing has changed. What else a mount is made with cannot change; it may be given again, as fstab has it.
"""

from __future__ import annotations

import os

from mount import control, kernel, mountinfo, placement, replies
from mount.failure import MountError
from mount.options import MountOptions
from mount.words import Words

_PATIENCE_SECONDS = 30.0
"""For a smaller size the kernel must write first what it has collected."""

_FIXED = ("logs", "content", "huge", "mpol", "noswap", "cache", "channel", "log", "allow_other")


def fixed(options: MountOptions) -> dict[str, str]:
    """What a remount cannot change, as text that is equal if it is equal."""
    nodes = [(node.cpus, node.physical) for node in placement.of(options.nodes).nodes]
    return {"nodes": str(nodes), **{name: str(getattr(options, name)) for name in _FIXED}}


def remount(path: str, words: Words, base: MountOptions) -> None:
    """Changes the mount at ``path`` as ``words`` say. Without a flag there, it is as in ``base``.

    Raises:
        MountError: why nothing has changed.

    """
    entry = mountinfo.topmost_at(base.mountpoint)
    if entry is None:
        raise MountError(f"{path}: not mounted")
    if not entry.is_ours:
        raise MountError(f"{path}: not an nrfs mount but {entry.filesystem_type}")
    if os.geteuid() != 0:
        raise MountError(f"{path}: only root may remount")
    wanted = words.applied_to(base)
    flags = wanted.flags | ({"nosuid", "nodev"} if entry.owner != 0 else set())
    given = {"nodes" if name == "topology" else name for name in words.settings}
    asked = {name: value for name, value in fixed(wanted).items() if name in given}
    try:
        before = _resize(entry, wanted.size if "size" in given else None, wanted.inodes, asked)
        try:
            _change_flags(entry, flags)
        except OSError as refusal:
            _resize(entry, before["size"], before["inodes"], {})
            raise MountError(f"{path}: {(refusal.strerror or str(refusal)).lower()}") from None
    except control.DaemonUnreachableError:
        raise MountError(f"{path}: its daemon cannot be reached") from None


def _resize(
    entry: mountinfo.MountEntry, size: int | str | None, inodes: int | None, asked: dict[str, str]
) -> dict[str, int]:
    """Changes the limits that are given; returns those of before."""
    before = control.ask(entry, "remount", _PATIENCE_SECONDS, size=size, inodes=inodes, fixed=asked)
    with control.understanding(entry):
        replies.check_limits(before)
    return before


def _change_flags(entry: mountinfo.MountEntry, flags: frozenset[str]) -> None:
    descriptor = os.open(entry.mountpoint, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if mountinfo.id_of(descriptor) != entry.mount_id:
            raise MountError(f"{entry.mountpoint}: the path leads elsewhere by now")
        kernel.remount(kernel.path_of(descriptor), sum(kernel.MOUNT_FLAGS[flag] for flag in flags))
    finally:
        os.close(descriptor)
