"""``nrfs.Path``: the operations of :class:`pathlib.Path`, in a :class:`nrfs.Filesystem`."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import grp
import io
import os
import pwd
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, Self, final, overload

from nrfs._core import ROOT, Attributes, DirectoryEntry
from nrfs.files.lookup import Place, fail, find, resolved
from nrfs.files.names import PurePath
from nrfs.files.opened import RawFile, open_file, umask

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CLOCK_REALTIME_COARSE = 5
"""The clock of the file system, which is behind the usual one by up to a tick."""

TextMode = Literal["r", "r+", "w", "w+", "a", "a+", "x", "x+", "rt", "wt", "at", "xt"]
ReadMode = Literal["rb"]
WriteMode = Literal["wb", "ab", "xb"]
UpdateMode = Literal["rb+", "r+b", "wb+", "w+b", "ab+", "a+b", "xb+", "x+b"]


@final
class Path(PurePath):
    """A path in a file system: as :class:`pathlib.Path`, with the same methods, results and errors.

    A relative path begins at the root. Permission bits are kept and not checked, as for root: who has the
    :class:`~nrfs.Filesystem` may do all. What is made belongs to the caller, and its mode is as the umask leaves it.
    Calls release the GIL, and wait for no device; whoever moves much data in an event loop calls them in a thread.

    Raises:
        OSError: as pathlib's methods, with the same errno and ``filename``. A path of another file system is EXDEV.

    """

    __slots__ = ()

    # What is there

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """The status. ``st_dev`` is another number for each :class:`~nrfs.Filesystem` that there is now."""
        return _status(self.attributes(follow_symlinks=follow_symlinks), id(self._filesystem))

    def attributes(self, *, follow_symlinks: bool = True) -> Attributes:
        """What ``stat`` tells, and the time of birth."""
        with self._named():
            return self._place(follow=follow_symlinks).existing()

    def lstat(self) -> os.stat_result:
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._mode(follow=follow_symlinks) is not None

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISDIR(self._mode(follow=follow_symlinks) or 0)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISREG(self._mode(follow=follow_symlinks) or 0)

    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self._mode(follow=False) or 0)

    def is_fifo(self) -> bool:
        return stat.S_ISFIFO(self._mode() or 0)

    def is_socket(self) -> bool:
        return stat.S_ISSOCK(self._mode() or 0)

    def is_block_device(self) -> bool:
        return stat.S_ISBLK(self._mode() or 0)

    def is_char_device(self) -> bool:
        return stat.S_ISCHR(self._mode() or 0)

    def samefile(self, other: str | os.PathLike[str] | Self) -> bool:
        other = other if isinstance(other, Path) else self.with_segments(other)
        return os.path.samestat(self.stat(), other.stat())

    def owner(self) -> str:
        return pwd.getpwuid(self.stat().st_uid).pw_name

    def group(self) -> str:
        return grp.getgrgid(self.stat().st_gid).gr_name

    def readlink(self) -> Self:
        with self._named():
            there = self._place(follow=False).existing()
            return self.with_segments(os.fsdecode(self._filesystem.readlink(there.ino)))

    def resolve(self, strict: bool = False) -> Self:
        """The path without symlinks and ``..``; if not ``strict``, names that lead nowhere stay as they are."""
        if strict:
            self.stat()
        return self.with_segments("/", *resolved(self._filesystem, self._pure))

    # Directories

    def iterdir(self) -> Iterator[Self]:
        return map(self.joinpath, [os.fsdecode(entry.name) for entry in self.entries()])

    def entries(self) -> list[DirectoryEntry]:
        """What is in a directory, with its attributes: sooner than by ``iterdir`` and ``stat``."""
        entries: list[DirectoryEntry] = []
        with self._named():
            ino = self._place().existing().ino
            while more := self._filesystem.readdir(ino, entries[-1].cookie if entries else 0):
                entries += more
        return [entry for entry in entries if entry.name not in (b".", b"..")]

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Iterator[tuple[Self, list[str], list[str]]]:
        left: list[Self | tuple[Self, list[str], list[str]]] = [self]
        while left:
            here = left.pop()
            if isinstance(here, tuple):
                yield here
                continue
            try:
                entries = here.entries()
            except OSError as error:
                if on_error is not None:
                    on_error(error)
                continue
            directories: list[str] = []
            others: list[str] = []
            for entry in entries:
                name, is_directory = os.fsdecode(entry.name), stat.S_ISDIR(entry.attributes.mode)
                if follow_symlinks and stat.S_ISLNK(entry.attributes.mode):
                    is_directory = (here / name).is_dir()
                (directories if is_directory else others).append(name)
            if top_down:
                yield here, directories, others
            else:
                left.append((here, directories, others))
            left += [here / name for name in reversed(directories)]

    def glob(self, pattern: str) -> Iterator[Self]:
        parts = PurePosixPath(pattern).parts
        if not parts:
            raise ValueError(f"Unacceptable pattern: {pattern!r}")
        if parts[0] == "/":
            raise NotImplementedError("Non-relative patterns are unsupported")
        found = dict.fromkeys(self._matches(parts))
        return (path for path in found if not pattern.endswith("/") or path.is_dir())

    def rglob(self, pattern: str) -> Iterator[Self]:
        return self.glob(f"**/{pattern}")

    def _matches(self, parts: tuple[str, ...]) -> Iterator[Self]:
        if not parts:
            yield self
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            for path, _, others in self.walk():
                yield from path._matches(rest)
                if not rest and sys.version_info >= (3, 13):  # Before, it stood for directories alone.
                    yield from map(path.joinpath, others)
        elif part == ".." or not re.search(r"[*?\[]", part):
            if (self / part).exists():
                yield from (self / part)._matches(rest)
        else:
            is_match = re.compile(fnmatch.translate(part)).match
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for path in self.iterdir():
                    if is_match(path.name) and (not rest or path.is_dir()):
                        yield from path._matches(rest)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        try:
            with self._named():
                place = self._place(follow=False)
                self._filesystem.mkdir(place.parent, place.own_name(errno.EEXIST), mode & 0o1777, umask=umask())
        except FileNotFoundError:
            if not parents or self.parent == self:
                raise
            self.parent.mkdir(parents=True, exist_ok=True)
            self.mkdir(mode, exist_ok=exist_ok)
        except OSError:
            if not exist_ok or not self.is_dir():
                raise

    def rmdir(self) -> None:
        with self._named():
            place = self._place(follow=False)
            there = place.existing()
            busy = errno.EBUSY if there.ino == ROOT else errno.ENOTEMPTY
            self._filesystem.rmdir(place.parent, place.own_name(busy))

    # Content

    @overload
    def open(
        self,
        mode: TextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(
        self,
        mode: ReadMode | WriteMode | UpdateMode,
        buffering: Literal[0],
    ) -> RawFile: ...
    @overload
    def open(
        self,
        mode: ReadMode,
        buffering: Literal[-1, 1] = -1,
    ) -> io.BufferedReader: ...
    @overload
    def open(
        self,
        mode: WriteMode,
        buffering: Literal[-1, 1] = -1,
    ) -> io.BufferedWriter: ...
    @overload
    def open(
        self,
        mode: UpdateMode,
        buffering: Literal[-1, 1] = -1,
    ) -> io.BufferedRandom: ...
    @overload
    def open(
        self,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase: ...
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.IOBase:
        """Opens a file, in the modes of the builtin ``open``: a :class:`RawFile` if ``buffering`` is 0, else what
        ``open`` returns. It has no descriptor. Fifos, sockets and devices cannot be opened (ENXIO).
        """
        if "b" not in mode:
            encoding = io.text_encoding(encoding)
        with self._named():
            return open_file(self._filesystem, self._pure, mode, buffering, encoding, errors, newline)

    def read_bytes(self) -> bytes:
        with self.open("rb", buffering=0) as file:
            return file.read()

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        with self.open("r", -1, io.text_encoding(encoding), errors, newline) as file:
            return file.read()

    def write_bytes(self, data: Buffer) -> int:
        view = memoryview(data)
        with self.open("wb") as file:
            return file.write(view)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        with self.open("w", -1, io.text_encoding(encoding), errors, newline) as file:
            return file.write(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        with self._named():
            while not self._touched(mode, exist_ok):
                pass  # Another thread has made it, or unlinked it, meanwhile.

    def _touched(self, mode: int, exist_ok: bool) -> bool:
        place = self._place(follow=exist_ok)
        if place.found is not None and not exist_ok:
            fail(errno.EEXIST)
        try:
            if place.found is None:
                self._filesystem.mknod(
                    place.parent, place.own_name(errno.EISDIR), stat.S_IFREG | stat.S_IMODE(mode), umask=umask()
                )
            else:
                now = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
                self._filesystem.set_attributes(place.found.ino, atime_ns=now, mtime_ns=now)
        except (FileExistsError, FileNotFoundError):
            return False
        return True

    # Changes

    def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        with self._named():
            there = self._place(follow=follow_symlinks).existing()
            if stat.S_ISLNK(there.mode):
                fail(errno.EOPNOTSUPP)
            self._filesystem.set_attributes(there.ino, mode=stat.S_IMODE(mode))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._named():
                place = self._place(follow=False)
                place.existing()
                self._filesystem.unlink(place.parent, place.own_name(errno.EISDIR))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: str | os.PathLike[str] | Self) -> Self:
        """Gives it another name, also one that is taken, as the system call does; returns the new path."""
        new = self._other(target)
        with self._named(self, new):
            if isinstance(target, Path) and target.filesystem is not self._filesystem:
                fail(errno.EXDEV)
            here, there = self._place(follow=False), new._place(follow=False)
            names = here.own_name(errno.EBUSY), there.own_name(errno.EBUSY)
            here.existing()
            if there.real == here.real[: len(there.real)] and len(there.real) < len(here.real):
                fail(errno.ENOTEMPTY)  # The kernel says so of a directory that this is in, whatever this is.
            self._filesystem.rename(here.parent, names[0], there.parent, names[1])
        return new

    replace = rename

    def symlink_to(self, target: str | os.PathLike[str] | Self, target_is_directory: bool = False) -> None:
        text = str(target) if isinstance(target, Path) else os.fspath(target)
        with self._named(text, self):
            place = self._place(follow=False)
            self._filesystem.symlink(place.parent, place.own_name(errno.EEXIST), os.fsencode(text))

    def hardlink_to(self, target: str | os.PathLike[str] | Self) -> None:
        old = self._other(target)
        with self._named(old, self):
            if isinstance(target, Path) and target.filesystem is not self._filesystem:
                fail(errno.EXDEV)
            there, place = old._place(follow=False).existing(), self._place(follow=False)
            if place.found is not None:
                fail(errno.EEXIST)  # Also where a link to ``there`` is impossible anyway.
            self._filesystem.link(there.ino, place.parent, place.name)

    # What they share

    def _place(self, *, follow: bool = True) -> Place:
        return find(self._filesystem, self._pure, follow=follow)

    def _mode(self, *, follow: bool = True) -> int | None:
        try:
            found = self._place(follow=follow).found
        except (OSError, ValueError):
            return None
        return None if found is None else found.mode

    def _other(self, target: str | os.PathLike[str] | Self) -> Self:
        return target if isinstance(target, Path) else self.with_segments(target)

    @contextlib.contextmanager
    def _named(self, *names: object) -> Iterator[None]:
        """Gives errors of the file system the names that they are about: by default this path's."""
        try:
            yield
        except OSError as error:
            error.filename, *second = [str(name) for name in names or [self]]
            if second:
                error.filename2 = second[0]
            raise


def _status(there: Attributes, device: int) -> os.stat_result:
    times = {name: getattr(there, f"{name}_ns") for name in ("atime", "mtime", "ctime")}
    plain = (there.mode, there.ino, device, there.nlink, there.uid, there.gid, there.size)
    more: dict[str, object] = {"st_blksize": 4096, "st_blocks": there.blocks, "st_rdev": there.rdev}
    for name, nanoseconds in times.items():
        more |= {f"st_{name}": nanoseconds / 1e9, f"st_{name}_ns": nanoseconds}
    return os.stat_result((*plain, *(value // 10**9 for value in times.values())), more)
