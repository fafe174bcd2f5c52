"""The options of a mount as one value, and how each setting is read. ``mount.words`` reads what a user has given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from mount.channel import Channel
from mount.failure import MountError
from nrfs import Topology


class Cache(StrEnum):
    """What the kernel may keep."""

    WRITEBACK = "writeback"
    """Names, attributes and pages, without limit of time; and it collects writes."""
    NONE = "none"
    """Nothing: every operation of an application reaches the replicas."""


class Content(StrEnum):
    """Where the bytes of files lie."""

    REPLICATED = "replicated"
    """At every node."""
    SHARED = "shared"
    """Once, in a tmpfs of the daemon's own, which the kernel reads and writes itself."""


@dataclass(frozen=True)
class MountOptions:
    """All settings of a mount, with their defaults."""

    mountpoint: str
    source: str = "nrfs"
    """The name that findmnt(8) and df(1) show."""
    nodes: int | Literal["auto"] | Topology = "auto"
    logs: int = 4
    size: int | str = "50%"
    inodes: int | None = None
    content: Content = Content.REPLICATED
    huge: str | None = None
    """As tmpfs(5) has it, for shared content."""
    mpol: str | None = None
    """The same."""
    noswap: bool = False
    """The same."""
    mode: int = 0o755
    """The root directory's permission bits."""
    uid: int | None = None
    """Its owner; None: who mounts."""
    gid: int | None = None
    """Its group; None: that of who mounts."""
    cache: Cache = Cache.WRITEBACK
    channel: Channel = Channel.AUTO
    allow_other: bool = False
    flags: frozenset[str] = frozenset({"nosuid", "nodev", "noatime"})
    """The mount flags that are on, by their names in mount(8)."""
    labels: tuple[tuple[str, str], ...] = ()
    """SELinux contexts, by their names in mount(8)."""
    foreground: bool = False
    log: Path | None = None
    """The file for the daemon's messages; None: a file beside its control socket."""


def _nodes(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else _count(text)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError("a positive whole number is wanted")
    return number


def _map(path: str) -> Topology:
    # Read now: the daemon may have another directory, and other descriptors.
    try:
        return Topology.from_file(path)
    except OSError as error:
        raise MountError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _one_of(choices: type[StrEnum]) -> Callable[[str], StrEnum]:
    def convert(text: str) -> StrEnum:
        try:
            return choices(text)
        except ValueError:
            raise ValueError(f"it is one of {', '.join(choices)}") from None

    return convert


def _size(text: str) -> str:
    if not text:
        raise ValueError("a size like 8G or 50% is wanted")
    return text  # The file system parses it.


def _text(text: str) -> str:
    return text  # tmpfs parses it.


SETTINGS: dict[str, Callable[[str], object]] = {
    "nodes": _nodes,
    "topology": _map,
    "logs": _count,
    "size": _size,
    "inodes": _count,
    "content": _one_of(Content),
    "huge": _text,
    "mpol": _text,
    "cache": _one_of(Cache),
    "channel": _one_of(Channel),
    "log": lambda text: Path(text).absolute(),
}
"""How the value of each long option is read. A ``ValueError`` says what is wrong with it."""
