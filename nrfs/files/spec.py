"""fsspec's interface (``nrfs://``), by which pandas, dask and others read and write a file system.

It is fsspec's synchronous interface: a call is a copy in memory, releases the GIL and waits for no device, so there is
nothing to await. For an event loop, fsspec's ``AsyncFileSystemWrapper`` runs the calls in threads.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import secrets
import shutil
import stat
import threading
from typing import Any, cast, final

from fsspec.spec import AbstractFileSystem

from nrfs._core import Attributes, Filesystem
from nrfs.files.opened import RawFile, umask
from nrfs.files.path import Path

_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}

_lock = threading.Lock()
_shared: list[Filesystem] = []


def shared() -> Filesystem:
    """The file system that ``nrfs://`` means if none is given: one for the process, made when it is first used."""
    with _lock:
        if not _shared:
            _shared.append(Filesystem())
        return _shared[0]


@final
class FilesystemSpec(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no type hints.
    """A :class:`nrfs.Filesystem` with fsspec's methods.

    Args:
        filesystem: which; by default the process's own: see :func:`shared`.
        auto_mkdir: whether writing a file makes the directories that it is in, as of fsspec's local files.
        storage_options: as all of fsspec's have them.

    """

    protocol = "nrfs"
    root_marker = "/"
    cachable = False  # fsspec would keep each file system that it was ever given, with all its content.

    def __init__(
        self,
        filesystem: Filesystem | None = None,
        auto_mkdir: bool = False,
        **storage_options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(filesystem=filesystem, auto_mkdir=auto_mkdir, **storage_options)
        self.filesystem = shared() if filesystem is None else filesystem
        self.auto_mkdir = auto_mkdir

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401 (fsspec's own)
        plain = super()._strip_protocol(path)
        return plain if isinstance(plain, list) or plain.startswith("/") else f"/{plain}"

    def _at(self, path: str) -> Path:
        return Path(self.filesystem, self._strip_protocol(path))

    def _to_write(self, path: str) -> Path:
        there = self._at(path)
        if self.auto_mkdir:
            there.parent.mkdir(parents=True, exist_ok=True)
        return there

    # What is there

    def info(self, path: str, **_: object) -> dict[str, Any]:
        there = self._at(path)
        return _info(there, there.attributes(follow_symlinks=False))

    def ls(self, path: str, detail: bool = True, **_: object) -> list[Any]:
        there = self._at(path)
        if there.is_dir():
            infos = [_info(there / os.fsdecode(entry.name), entry.attributes) for entry in there.entries()]
            for info in infos:
                if info["islink"] and info["type"] == "directory":
                    info["type"] = "other"  # So that walks do not go in circles.
        else:
            infos = [self.info(path)]
        return infos if detail else [info["name"] for info in infos]

    def exists(self, path: str, **_: object) -> bool:
        return self._at(path).exists()

    def isdir(self, path: str) -> bool:
        return self._at(path).is_dir()

    def isfile(self, path: str) -> bool:
        return self._at(path).is_file()

    def lexists(self, path: str, **_: object) -> bool:
        return self._at(path).exists(follow_symlinks=False)

    def created(self, path: str) -> datetime.datetime:
        return _time(self.info(path)["created"])

    def modified(self, path: str) -> datetime.datetime:
        return _time(self.info(path)["mtime"])

    # Changes

    def mkdir(self, path: str, create_parents: bool = True, **_: object) -> None:
        self._at(path).mkdir(parents=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._at(path).mkdir(parents=True, exist_ok=exist_ok)

    def rmdir(self, path: str) -> None:
        self._at(path).rmdir()

    def rm_file(self, path: str) -> None:
        self._at(path).unlink()

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        for name in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            there = self._at(name)
            if there.is_dir(follow_symlinks=False):
                there.rmdir()
            else:
                there.unlink()

    def mv(self, path1: str, path2: str, recursive: bool = True, maxdepth: int | None = None, **_: object) -> None:
        """Renames; into ``path2`` if that is a directory. ``recursive`` and ``maxdepth`` mean nothing here."""
        old, new = self._at(path1), self._to_write(path2)
        old.rename(new / old.name if new.is_dir() else new)

    def cp_file(self, path1: str, path2: str, **_: object) -> None:
        old, new = self._at(path1), self._to_write(path2)
        if old.is_dir():
            new.mkdir(parents=True, exist_ok=True)
            return
        with old.open("rb") as source, new.open("wb") as sink:
            shutil.copyfileobj(source, sink, self.blocksize)

    def touch(self, path: str, truncate: bool = True, **_: object) -> None:
        there = self._to_write(path)
        there.touch()
        if truncate:
            there.open("wb").close()

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, autocommit: bool = True, **_: object
    ) -> io.IOBase:
        there = self._at(path) if "r" in mode else self._to_write(path)
        if autocommit or "w" not in mode:
            file: Any = there.open(mode)
            file.size = file.seek(0, os.SEEK_END)  # fsspec asks for it.
            if "a" not in mode:
                file.seek(0)
            return cast("io.IOBase", file)
        return Uncommitted(there)


@final
class Uncommitted(io.BufferedWriter):
    """A file of one of fsspec's transactions: it has no name until it is committed."""

    def __init__(self, path: Path) -> None:
        """A new file that will be at ``path``, whose directory exists."""
        self._path = path
        self._filesystem = path.filesystem
        self._directory = path.parent.attributes().ino
        self._ino = self._filesystem.mknod_nameless(self._directory, stat.S_IFREG | 0o666, umask=umask()).ino
        super().__init__(RawFile(self._filesystem, self._ino, str(path), "wb"))

    def commit(self) -> None:
        """Gives it its name, instead of what had that."""
        self.close()
        new = self._path.with_name(f".{secrets.token_hex(8)}")
        self._filesystem.link(self._ino, self._directory, os.fsencode(new.name))
        self._filesystem.forget(self._ino)
        new.replace(self._path)

    def discard(self) -> None:
        """Drops it."""
        self.close()
        self._filesystem.forget(self._ino)


def _info(path: Path, found: Attributes) -> dict[str, Any]:
    """What fsspec says of a file; of what a symlink leads to, if it leads somewhere."""
    links: dict[str, Any] = {"islink": stat.S_ISLNK(found.mode)}
    if links["islink"]:
        links["destination"] = str(path.readlink())
        with contextlib.suppress(OSError):
            found = path.attributes()
    return {
        "name": str(path),
        "size": found.size,
        "type": _TYPES.get(stat.S_IFMT(found.mode), "other"),
        "created": found.btime_ns / 1e9,
        "mtime": found.mtime_ns / 1e9,
        **{name: getattr(found, name) for name in ("mode", "uid", "gid", "ino", "nlink")},
        **links,
    }


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
