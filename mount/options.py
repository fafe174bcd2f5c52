"""The options of ``nrfs mount`` as one value.

Settings can be given as long options (``--size 8G``) and, for lines of fstab, as mount options
(``-o size=8G,ro``). Both use the same table of converters. If both give a setting, the long option counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, cast

from mount.channel import Channel
from mount.failure import MountError, UsageError
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
    nodes: int | Literal["auto"] | Topology = "auto"
    logs: int = 4
    size: int | str = "50%"
    inodes: int | None = None
    content: Content = Content.REPLICATED
    huge: str | None = None
    """As tmpfs(5) has it, for shared content."""
    mpol: str | None = None
    """The same."""
    cache: Cache = Cache.WRITEBACK
    channel: Channel = Channel.AUTO
    allow_other: bool = False
    flags: frozenset[str] = frozenset({"nosuid", "nodev", "noatime"})
    """The mount flags that are on, by their names in mount(8)."""
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


_SETTINGS: dict[str, Callable[[str], object]] = {
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

_BOTH = "--nodes and --topology: only one of them can be given"

_FLAGS = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "nosuid": ("nosuid", True),
    "suid": ("nosuid", False),
    "nodev": ("nodev", True),
    "dev": ("nodev", False),
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "noatime": ("noatime", True),
    "sync": ("sync", True),
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
}
"""The flag that each mount option switches on or off. There is no ``atime``, as reading never changes atime."""

_ALWAYS_OR_FOR_OTHERS = frozenset({"defaults", "default_permissions", "auto", "noauto", "nofail", "_netdev"})
"""Options that always hold, or that other readers of fstab use, and are ignored. So are all that begin with "x-"."""


def from_arguments(arguments: argparse.Namespace, mountpoint: str) -> MountOptions:
    """Combines long options and ``-o``.

    Raises:
        UsageError: an unknown option, or an invalid value.
        MountError: a relative path in a directory that is gone.

    """
    settings: dict[str, Any] = {}
    flags = set(MountOptions.flags)
    allow_other = arguments.allow_other
    for option in _split(arguments.options):
        name, equals, value = option.partition("=")
        if equals and name in _SETTINGS:
            settings[name] = _convert(name, value, f"-o {option}")
        elif option in _FLAGS:
            flag, on = _FLAGS[option]
            (flags.add if on else flags.discard)(flag)
        elif option == "allow_other":
            allow_other = True
        elif option not in _ALWAYS_OR_FOR_OTHERS and not option.startswith("x-"):
            raise UsageError(f"-o {option}: unknown option")
    for name in _SETTINGS:
        text = getattr(arguments, name)
        if text is not None:
            settings[name] = _convert(name, text, f"--{name} {text}")
    if "topology" in settings:
        if "nodes" in settings:
            raise UsageError(_BOTH)
        settings["nodes"] = settings.pop("topology")
    for name in ("huge", "mpol"):
        if name in settings and settings.get("content") is not Content.SHARED:
            raise UsageError(f"{name}: it is for --content shared")
    return MountOptions(
        mountpoint=mountpoint,
        allow_other=allow_other,
        flags=frozenset(flags),
        foreground=arguments.foreground,
        **settings,
    )


def nodes_from(nodes: str | None, topology: str | None) -> int | Literal["auto"] | Topology:
    """What ``--nodes`` and ``--topology`` ask for.

    Raises:
        UsageError: an invalid value, or both are given.
        MountError: the map cannot be read.

    """
    if nodes is not None and topology is not None:
        raise UsageError(_BOTH)
    name, text = ("topology", topology) if topology is not None else ("nodes", "auto" if nodes is None else nodes)
    return cast("int | Literal['auto'] | Topology", _convert(name, text, f"--{name} {text}"))


def _split(lists: list[str]) -> list[str]:
    return [option for text in lists for option in text.split(",") if option]


def _convert(name: str, text: str, shown: str) -> object:
    try:
        return _SETTINGS[name](text)
    except ValueError as reason:
        raise UsageError(f"{shown}: {reason}") from None
    except OSError:
        raise MountError(f"{shown}: the current directory, to which it is relative, is gone") from None
