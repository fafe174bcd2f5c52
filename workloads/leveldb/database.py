"""One LevelDB database, in a directory made for it and removed with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Self, cast, final

import plyvel

from workloads.directories import temporary_directory
from workloads.failure import WorkloadError
from workloads.leveldb.configuration import Compression
from workloads.leveldb.contents import Contents, Entries


class Batch(Protocol):
    """Writes that LevelDB applies together."""

    def put(self, key: bytes, value: bytes | memoryview) -> None: ...
    def delete(self, key: bytes) -> None: ...
    def write(self) -> None: ...


class RawIterator(Protocol):
    """LevelDB's own iterator: it is first placed, then read."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *failure: object) -> None: ...
    def seek(self, target: bytes) -> None: ...
    def valid(self) -> bool: ...
    def key(self) -> bytes: ...


class Handle(Protocol):
    """The part of ``plyvel.DB`` that is used here (plyvel has no type stubs)."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes | memoryview, *, sync: bool = False) -> None: ...
    def delete(self, key: bytes) -> None: ...
    def write_batch(self, *, sync: bool = False) -> Batch: ...
    def iterator(self, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...
    def raw_iterator(self) -> RawIterator: ...
    def compact_range(self) -> None: ...
    def close(self) -> None: ...


@final
class Database:
    """A database and the record of what it must hold. LevelDB's own defaults hold, except for compression."""

    def __init__(self, directory: Path, entries: Entries, compression: Compression) -> None:
        self.entries = entries
        self._directory = directory
        self._compression = compression
        self._opened = 0
        self.renew()

    def renew(self) -> None:
        """Deletes the database, and opens a new, empty one."""
        if self._opened:
            self.handle.close()
            shutil.rmtree(self._directory / str(self._opened))
        self._opened += 1
        self.contents = Contents(self.entries)
        compression = None if self._compression == "none" else self._compression
        path = str(self._directory / str(self._opened))
        self.handle: Handle = cast(Handle, plyvel.DB(path, create_if_missing=True, compression=compression))

    def close(self) -> None:
        """Waits for LevelDB's background work. The files stay."""
        self.handle.close()


@contextmanager
def leveldb_errors() -> Iterator[None]:
    """Turns LevelDB's errors (no space, corruption, input and output) into a ``WorkloadError``."""
    try:
        yield
    except plyvel.Error as failure:
        text = failure.args[0] if failure.args else type(failure).__name__
        raise WorkloadError(text.decode(errors="replace") if isinstance(text, bytes) else str(text)) from failure


@contextmanager
def temporary_database(parent: Path, entries: Entries, compression: Compression) -> Iterator[Database]:
    """A new database in a new subdirectory of ``parent``, which is removed in the end, also after an exception."""
    with temporary_directory(parent, "leveldb") as directory, leveldb_errors():
        database = Database(directory, entries, compression)
        try:
            yield database
        finally:
            database.close()
