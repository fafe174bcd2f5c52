"""The processes that serve or use a mount, as /proc shows them. Only root sees other users' processes.

The mount itself is not touched: open files are recognised by the number of their mount, and mappings by
their device number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mount import mountinfo

DEVICE = "/dev/fuse"

_CONNECTION = re.compile(r"^fuse_connection:\s*(\d+)$", re.MULTILINE)
_MOUNT = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class User:
    """A process that keeps a mount busy."""

    process: int
    name: str
    path: str
    """One of the paths that it uses."""


def daemon_of(device: str) -> int | None:
    """The process that has the descriptor of a FUSE mount with this device number ("0-45").

    None if no such process is seen: there is none, or this user may not see it, or the kernel does not
    show the connection (before Linux 6.18).
    """
    for process in _processes():
        for descriptor, target in _links(process / "fd"):
            if target == DEVICE:
                found = _CONNECTION.search(_text(process / "fdinfo" / descriptor))
                if found is not None and f"0-{found[1]}" == device:
                    return int(process.name)
    return None


def users_of(entry: mountinfo.MountEntry) -> list[User]:
    """The visible processes that keep a mount busy, each once."""
    users = []
    for process in _processes():
        path = _path_in(process, entry)
        if path is not None:
            users.append(User(int(process.name), _text(process / "comm").removesuffix("\n"), path))
    return users


def _path_in(process: Path, entry: mountinfo.MountEntry) -> str | None:
    for name, target in _links(process, "cwd", "root"):
        # readlink and O_PATH ask the kernel only for the path and the mount: no request is made to the mount.
        if _is_within(target, entry) and _lies_on(process / name, entry):
            return target
    for descriptor, target in _links(process / "fd"):
        if _is_within(target, entry):
            found = _MOUNT.search(_text(process / "fdinfo" / descriptor))
            if found is not None and int(found[1]) == entry.mount_id:
                return target
    major, minor = map(int, entry.device.split("-"))
    mapped = re.search(rf"^\S+ \S+ \S+ {major:02x}:{minor:02x} \d+ +(.+)$", _text(process / "maps"), re.MULTILINE)
    return mapped[1] if mapped is not None and _is_within(mapped[1], entry) else None


def _lies_on(link: Path, entry: mountinfo.MountEntry) -> bool:
    try:
        descriptor = os.open(link, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return mountinfo.id_of(descriptor) == entry.mount_id
    finally:
        os.close(descriptor)


def _is_within(path: str, entry: mountinfo.MountEntry) -> bool:
    return path == entry.mountpoint or path.startswith(entry.mountpoint.rstrip("/") + "/")


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != own:
            yield process


def _links(directory: Path, *names: str) -> Iterator[tuple[str, str]]:
    """The symlinks in a directory, with their targets, as far as this user may read them."""
    try:
        for link in (directory / name for name in names) if names else directory.iterdir():
            try:
                yield link.name, str(link.readlink())
            except OSError:
                continue
    except OSError:
        return


def _text(file: Path) -> str:
    try:
        return os.fsdecode(file.read_bytes())
    except OSError:
        return ""
