"""Reads what a user has given: long options, and mount options as fstab(5) and mount(8) have them.

Settings can be given as long options (``--size 8G``) and as mount options (``-o size=8G,ro``). If both give one, the
long option counts. The mount options of tmpfs(5) have its names, suffixes and meanings here, so that a line of fstab
for a tmpfs works with another type. docs/fstab.md says for each option what it does, or why not.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from mount.failure import MountError, UsageError
from mount.options import SETTINGS, Content, MountOptions
from nrfs import Topology

_PAGE = 4096
_UNITS = "kmgtpe"
_UNLIMITED_SIZE = "1000%"
"""More than there is: so memory is what limits the size."""
_UNLIMITED_INODES = 1 << 53
_BOTH = "--nodes and --topology: only one of them can be given"
_SELINUX = Path("/sys/fs/selinux")


def _number(text: str) -> int:
    """A number as tmpfs(5) has it, with or without a suffix."""
    digits, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        raise ValueError("a number is wanted, with or without k, m, g, t behind it")
    return int(digits) << 10 * (_UNITS.index(unit) + 1 if unit else 0)


def _size(text: str) -> object:
    try:
        size = _number(text)
    except ValueError:
        return SETTINGS["size"](text)
    is_plain = size > 0 and size % _PAGE == 0 and text[-1] not in "pPeE"
    return text if is_plain else _pages(-(-size // _PAGE))


def _pages(count: int) -> str:
    return str(count * _PAGE) if count else _UNLIMITED_SIZE


def _octal(text: str) -> int:
    if re.fullmatch(r"[0-7]+", text) is None:
        raise ValueError("an octal number is wanted")
    return int(text, 8) & 0o7777


def _user(text: str) -> int:
    import pwd

    return _id(text, lambda: pwd.getpwnam(text).pw_uid)


def _group(text: str) -> int:
    import grp

    return _id(text, lambda: grp.getgrnam(text).gr_gid)


def _id(text: str, by_name: Callable[[], int]) -> int:
    try:
        number = int(text) if text.isascii() and text.isdigit() else by_name()
    except KeyError:
        raise ValueError("there is nobody of this name") from None
    if number > (1 << 32) - 2:
        raise ValueError("the largest id is 4294967294")
    return number


def _matching(pattern: str, wanted: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(wanted)
        return text

    return convert


_NODES = r"\d+(-\d+)?(,\d+(-\d+)?)*"
_WITH_VALUE: dict[str, tuple[str, Callable[[str], object]]] = {
    **{name: (name, convert) for name, convert in SETTINGS.items()},
    "size": ("size", _size),
    "nr_blocks": ("size", lambda text: _pages(_number(text))),
    "nr_inodes": ("inodes", lambda text: _number(text) or _UNLIMITED_INODES),
    "mode": ("mode", _octal),
    "uid": ("uid", _user),
    "gid": ("gid", _group),
    "huge": ("huge", _matching("never|always|within_size|advise", "it is one of never, always, within_size, advise")),
    "mpol": (
        "mpol",
        _matching(
            rf"(default|local|prefer( \(many\))?|bind|(weighted )?interleave)(=(static|relative))?(:{_NODES})?",
            "it is one of default, local, prefer:NODE, bind:NODES, interleave, interleave:NODES",
        ),
    ),
    "fsname": ("source", str),
}
"""The field of ``MountOptions`` that a mount option sets, and how its value is read."""

_SWITCHES = {"allow_other": "allow_other", "noswap": "noswap"}

_FLAGS = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "nosuid": ("nosuid", True),
    "suid": ("nosuid", False),
    "nodev": ("nodev", True),
    "dev": ("nodev", False),
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
    "noatime": ("noatime", True),
    "sync": ("sync", True),
    "async": ("sync", False),
    "dirsync": ("dirsync", True),
}
"""The flag that each mount option switches on or off. None switches ``noatime`` off, as reading never changes atime."""

_LABELS = frozenset({"context", "fscontext", "defcontext", "rootcontext"})

_IGNORED = frozenset(
    {
        # Other readers of fstab use them.
        *("defaults", "auto", "noauto", "nofail", "_netdev", "comment", "helper", "uhelper"),
        *("user", "users", "nouser", "owner", "noowner", "group", "nogroup"),
        # There are no times of access, and all times are kept in memory until the end.
        *("atime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
        *("lazytime", "nolazytime", "iversion", "noiversion"),
        # The kernel has no mandatory locks any more, and says nothing about a mount.
        *("mand", "nomand", "silent", "loud"),
        # They always hold. Inodes are numbered from 1.
        *("default_permissions", "auto_unmount", "nonempty", "subtype", "noquota", "inode64", "inode32"),
    }
)
"""So is all that begins with "x-"."""

_REFUSED = {
    **dict.fromkeys(("quota", "usrquota", "grpquota"), "there are no quotas"),
    **dict.fromkeys(("casefold", "strict_encoding"), "names are bytes, and compared as such"),
    "allow_root": "allow_other lets all in, by the files' modes",
}

_OF_THE_KERNEL = frozenset({"fd", "rootmode", "user_id", "group_id", "max_read", "blksize"})
"""What /proc/self/mountinfo shows besides; so mount(8) gives it to a remount."""


@dataclass(frozen=True)
class Words:
    """Mount options, read."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of ``MountOptions`` that were given."""
    flags: dict[str, bool] = field(default_factory=dict)
    """The flags that are to be switched on or off."""
    labels: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    """Options that change nothing here."""

    def applied_to(self, base: MountOptions) -> MountOptions:
        """The options of a mount: what was given, and else ``base``.

        Raises:
            UsageError: what was given does not fit together.

        """
        settings = dict(self.settings)
        if "topology" in settings:
            if "nodes" in settings:
                raise UsageError(_BOTH)
            settings["nodes"] = settings.pop("topology")
        options = replace(base, labels=tuple(self.labels.items()), **settings)
        if options.content is not Content.SHARED:
            if options.noswap:
                raise UsageError(
                    "noswap: it is for content=shared; replicated content is memory of the daemon, which may be swapped"
                )
            # Each replica has its content on its own node.
            options = replace(options, huge=None, mpol=None)
        on, off = ({flag for flag, is_on in self.flags.items() if is_on is wanted} for wanted in (True, False))
        return replace(options, flags=(base.flags - off) | on)


def read(lists: Sequence[str], *, is_remount: bool = False, sloppy: bool = False) -> Words:
    """Reads lists of mount options.

    Args:
        lists: each as behind ``-o``, with commas.
        is_remount: the kernel's own options are ignored then.
        sloppy: options that nobody knows are ignored.

    Raises:
        UsageError: an option that is unknown or refused, or a value that is wrong.
        MountError: a relative path in a directory that is gone.

    """
    words = Words()
    for option in (option for text in lists for option in split(text)):
        name, equals, value = option.partition("=")
        if equals and name in _WITH_VALUE:
            setting, convert = _WITH_VALUE[name]
            words.settings[setting] = _convert(convert, value, f"-o {option}")
        elif option in _SWITCHES:
            words.settings[_SWITCHES[option]] = True
        elif option in _FLAGS:
            flag, on = _FLAGS[option]
            words.flags[flag] = on
        elif equals and name in _LABELS and _SELINUX.exists():
            words.labels[name] = value
        elif name in _IGNORED or name in _LABELS or name.lower().startswith("x-"):
            words.ignored.append(option)
        elif name in _OF_THE_KERNEL:
            if not is_remount:
                raise UsageError(f"-o {option}: nrfs sets it itself")
            words.ignored.append(option)
        elif name in _REFUSED or name.startswith(("usrquota_", "grpquota_")):
            raise UsageError(f"-o {option}: {_REFUSED.get(name, _REFUSED['quota'])}")
        elif sloppy:
            words.ignored.append(option)
        else:
            raise UsageError(f"-o {option}: {_unknown(name, has_value=bool(equals))}")
    return words


def split(text: str) -> list[str]:
    """The options of a list. Commas in double quotes, and between the nodes of ``mpol``, are part of an option."""
    options: list[str] = []
    for option in re.findall(r'(?:"[^"]*"|[^,])+', text):
        plain = option.replace('"', "")
        if plain[:1].isdigit() and options and options[-1].startswith("mpol="):
            options[-1] += f",{plain}"
        else:
            options.append(plain)
    return options


def _unknown(name: str, *, has_value: bool) -> str:
    if has_value and (name in _FLAGS or name in _SWITCHES):
        return "it has no value"
    if not has_value and name in _WITH_VALUE:
        return f"unknown option ({name}=... has a value)"
    near = difflib.get_close_matches(name, [*_WITH_VALUE, *_SWITCHES, *_FLAGS, *_LABELS, *_IGNORED], 1)
    return f"unknown option ({near[0]}?)" if near else "unknown option"


def from_arguments(arguments: argparse.Namespace, mountpoint: str) -> MountOptions:
    """The options of ``nrfs mount``.

    Raises:
        UsageError: an unknown option, or an invalid value.
        MountError: a relative path in a directory that is gone.

    """
    words = read(arguments.options)
    for name, convert in SETTINGS.items():
        text = getattr(arguments, name)
        if text is not None:
            words.settings[name] = _convert(convert, text, f"--{name} {text}")
    if arguments.allow_other:
        words.settings["allow_other"] = True
    wanted = words.applied_to(MountOptions(mountpoint, foreground=arguments.foreground))
    for name in ("huge", "mpol"):
        if getattr(arguments, name) is not None and wanted.content is not Content.SHARED:
            raise UsageError(f"{name}: it is for --content shared")
    return wanted


def nodes_from(nodes: str | None, topology: str | None) -> int | Literal["auto"] | Topology:
    """What ``--nodes`` and ``--topology`` ask for.

    Raises:
        UsageError: an invalid value, or both are given.
        MountError: the map cannot be read.

    """
    if nodes is not None and topology is not None:
        raise UsageError(_BOTH)
    name, text = ("topology", topology) if topology is not None else ("nodes", "auto" if nodes is None else nodes)
    return cast("int | Literal['auto'] | Topology", _convert(SETTINGS[name], text, f"--{name} {text}"))


def _convert(convert: Callable[[str], object], text: str, shown: str) -> object:
    try:
        return convert(text)
    except ValueError as reason:
        raise UsageError(f"{shown}: {reason}") from None
    except OSError:
        raise MountError(f"{shown}: the current directory, to which it is relative, is gone") from None
