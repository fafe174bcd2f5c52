"""Where a path leads: from the root, name by name, through symlinks, as path_resolution(7) has it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import PurePosixPath
from typing import NamedTuple, NoReturn, final

from nrfs._core import ROOT, Attributes, Filesystem

_MOST_SYMLINKS = 40


@final
class Place(NamedTuple):
    """Where a path leads: a name in a directory, and what has that name."""

    real: tuple[bytes, ...]
    """The names from the root to here, without symlinks."""
    parent: int
    """The directory."""
    name: bytes
    """Empty if there is none to be given: the path is the root, or ends with ``..``, or a symlink's target with "/"."""
    found: Attributes | None
    """None if nothing has that name."""

    def existing(self) -> Attributes:
        """What is there.

        Raises:
            FileNotFoundError: nothing is.

        """
        if self.found is None:
            fail(errno.ENOENT)
        return self.found

    def own_name(self, otherwise: int) -> bytes:
        """The name, to be given or taken away; fails with the errno ``otherwise`` if the path has none of its own."""
        if not self.name:
            fail(otherwise)
        return self.name


def fail(number: int) -> NoReturn:
    """Raises the ``OSError`` with this errno."""
    raise OSError(number, os.strerror(number))


def find(filesystem: Filesystem, path: PurePosixPath, *, follow: bool = True) -> Place:
    """Where a path leads; its last name may be missing. Relative paths begin at the root.

    Args:
        filesystem: where to look.
        path: the path.
        follow: whether a symlink is followed if it is the last.

    Raises:
        OSError: no such directory, no directory, too many symlinks, a name that is too long.
        ValueError: there is a NUL in it.

    """
    text = os.fsencode(path)
    if b"\0" in text:
        raise ValueError("embedded null byte")
    way: list[tuple[bytes, Attributes]] = [(b"", filesystem.attributes(ROOT))]
    names = [name for name in reversed(text.split(b"/")) if name not in (b"", b".")]
    symlinks = 0
    last = b""
    while names:
        directory = way[-1][1]
        last = names.pop()
        if last in (b"", b".", b".."):
            if not stat.S_ISDIR(directory.mode):
                fail(errno.ENOTDIR)
            if last == b".." and len(way) > 1:
                way.pop()
            last = b""
            continue
        try:
            found = filesystem.lookup(directory.ino, last)
        except FileNotFoundError:
            if any(names):
                raise
            return Place((*(name for name, _ in way[1:]), last), directory.ino, b"" if names else last, None)
        if stat.S_ISLNK(found.mode) and (names or follow):
            symlinks += 1
            if symlinks > _MOST_SYMLINKS:
                fail(errno.ELOOP)
            target = filesystem.readlink(found.ino)
            if target.startswith(b"/"):
                del way[1:]
            names += reversed(target.split(b"/"))  # An empty name, as after the slash of "name/", wants a directory.
            continue
        way.append((last, found))
    parent = way[-2][1] if len(way) > 1 else way[0][1]
    return Place(tuple(name for name, _ in way[1:]), parent.ino, last, way[-1][1])


def resolved(filesystem: Filesystem, path: PurePosixPath) -> list[str]:
    """The names from the root to where a path leads, without symlinks; those that lead nowhere stay as they are."""
    real: list[str] = []
    names = list(reversed(path.parts))
    symlinks = 0
    while names:
        name = names.pop()
        if name == "..":
            del real[-1:]
        elif name == "/":
            real.clear()
        else:
            try:
                ino = find(filesystem, PurePosixPath(*real, name), follow=False).existing().ino
                target = PurePosixPath(os.fsdecode(filesystem.readlink(ino)))  # EINVAL: it is no symlink.
                symlinks += 1
                if symlinks > _MOST_SYMLINKS:
                    fail(errno.ELOOP)
            except OSError:
                real.append(name)
            else:
                names += reversed(target.parts)
    return real
