"""The operations of the comparison with tmpfs, each a frozen dataclass.

An operation runs in a ``World``, which is one file system's side of the comparison: the working directory is the root
of its tree, and a few numbered slots have open files. What ``run`` returns must be the same on all file systems that
behave alike: so inode and device numbers are left out, listings are sorted, and of times only those are shown that a
program set (see ``shown_time``).

Every operation prints as the Python that makes it, so a failing sequence can be pasted into a test.
"""

# System calls are made by os, as pathlib hides which one is made. All results are compared, also None.
# ruff: noqa: PTH101, PTH102, PTH106, PTH108, PTH115, PTH116, PTH211
# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from .differences import ALL, Abilities
from .inode_flags import get_extended, get_flags, set_flags
from .syscalls import FALLOC_FL_ZERO_RANGE, fallocate, getdents, linkat, renameat2

Result: TypeAlias = object
Time: TypeAlias = int | Literal["now", "omit"]

ACCESS_LIST = b"system.posix_acl_access"
DEFAULT_LIST = b"system.posix_acl_default"

HOLES_SEEN_BELOW = (1 << 63) - (1 << 20)
"""For larger files tmpfs is no reference: its SEEK_HOLE overflows if the last possible page has data."""

_EXPLICIT_BEFORE = 1_600_000_000_000_000_000
_EXPLICIT_AFTER = 3_000_000_000_000_000_000


def shown_time(time_ns: int) -> int | str:
    """A time as it is compared: itself if a program set it to the far past or future, else "now".

    So a comparison notices if an operation sets a time that it should keep, or keeps one that it should set, and
    does not depend on a clock.
    """
    return "now" if _EXPLICIT_BEFORE < time_ns < _EXPLICIT_AFTER else time_ns


@dataclass(frozen=True)
class Shown:
    """The compared part of a stat."""

    kind: str
    mode: str
    links: int
    owner: tuple[int, int]
    size: int
    device: int
    accessed: int | str
    modified: int | str


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def shown(status: os.stat_result) -> Shown:
    """The compared part of a stat; ``differences.py`` says why the rest is left out."""
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    mode = stat.S_IMODE(status.st_mode)
    if kind == "file" and not mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return Shown(
        kind=kind,
        mode=oct(mode),
        links=status.st_nlink,
        owner=(status.st_uid, status.st_gid),
        size=status.st_size,
        device=status.st_rdev,
        accessed=shown_time(status.st_atime_ns),
        modified="not compared" if kind == "fifo" else shown_time(status.st_mtime_ns),
    )


@dataclass(frozen=True)
class Pattern:
    """Bytes to write, with a short repr. They depend on their place, so that a shifted page is noticed."""

    seed: int
    length: int
    _cycle: ClassVar[bytes] = bytes(range(1, 252))

    def bytes(self) -> bytes:
        start = self.seed % len(self._cycle)
        cycle = self._cycle[start:] + self._cycle[:start]
        return (cycle * (self.length // len(cycle) + 1))[: self.length]


@dataclass
class World:
    """One file system's side: its open files by slot, which ``close`` closes.

    ``abilities`` are those that both sides have.
    """

    handles: dict[int, int] = field(default_factory=dict)
    abilities: Abilities = ALL

    def put(self, slot: int, descriptor: int) -> None:
        self.drop(slot)
        self.handles[slot] = descriptor

    def drop(self, slot: int) -> bool:
        descriptor = self.handles.pop(slot, None)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def close(self) -> None:
        for slot in list(self.handles):
            self.drop(slot)


class Operation:
    """One call, or the shortest sequence of calls that shows an effect."""

    def needs(self) -> str | None:
        """The field of ``Abilities`` without which the operation is left out."""
        return None

    def run(self, world: World) -> Result:
        raise NotImplementedError


@dataclass(frozen=True)
class Nothing(Operation):
    """Does nothing. Shrinking replaces irrelevant operations by it."""

    def run(self, world: World) -> Result:
        return None


# -- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Make(Operation):
    """A regular file by open(O_CREAT | O_EXCL), closed at once."""

    path: bytes
    mode: int

    def run(self, world: World) -> Result:
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NONBLOCK, self.mode))
        return None


@dataclass(frozen=True)
class Mkdir(Operation):
    path: bytes
    mode: int

    def run(self, world: World) -> Result:
        return os.mkdir(self.path, self.mode)


@dataclass(frozen=True)
class Mknod(Operation):
    path: bytes
    mode: int
    device: int

    def run(self, world: World) -> Result:
        return os.mknod(self.path, self.mode, self.device)


@dataclass(frozen=True)
class Symlink(Operation):
    target: bytes
    path: bytes

    def run(self, world: World) -> Result:
        return os.symlink(self.target, self.path)


@dataclass(frozen=True)
class Link(Operation):
    path: bytes
    new: bytes
    follow: bool

    def run(self, world: World) -> Result:
        return linkat(self.path, self.new, follow=self.follow)


@dataclass(frozen=True)
class LinkHandle(Operation):
    """linkat(2) of an open file, which may have lost its last name."""

    slot: int
    new: bytes

    def run(self, world: World) -> Result:
        if self.slot not in world.handles:
            return "no handle"
        return linkat(f"/proc/self/fd/{world.handles[self.slot]}".encode(), self.new, follow=True)


@dataclass(frozen=True)
class Unlink(Operation):
    path: bytes

    def run(self, world: World) -> Result:
        return os.unlink(self.path)


@dataclass(frozen=True)
class Rmdir(Operation):
    path: bytes

    def run(self, world: World) -> Result:
        return os.rmdir(self.path)


@dataclass(frozen=True)
class Rename(Operation):
    old: bytes
    new: bytes
    flags: int

    def run(self, world: World) -> Result:
        return renameat2(self.old, self.new, self.flags)


@dataclass(frozen=True)
class Readlink(Operation):
    path: bytes

    def run(self, world: World) -> Result:
        return os.readlink(self.path)


@dataclass(frozen=True)
class List(Operation):
    """The names in a directory, with the types that the listing reports."""

    path: bytes

    def run(self, world: World) -> Result:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
        try:
            return _listing(descriptor)
        finally:
            os.close(descriptor)


def _listing(descriptor: int) -> list[tuple[bytes, int]]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    entries = []
    while part := getdents(descriptor, 512):
        entries += [(entry.name, entry.kind) for entry in part]
    return sorted(entries)


@dataclass(frozen=True)
class Where(Operation):
    """An operation that needs an ability which its class does not need."""

    ability: str
    operation: Operation

    def needs(self) -> str | None:
        return self.operation.needs()

    def run(self, world: World) -> Result:
        return self.operation.run(world) if getattr(world.abilities, self.ability) else "not compared"


@dataclass(frozen=True)
class Refusable(Operation):
    """An operation that may fail for two reasons: because of a flag of chattr(1), and because of the inode's kind.

    Which errno it gets is not compared: the kernel knows the flags of tmpfs, but not those of a FUSE mount.
    """

    operation: Operation

    def needs(self) -> str | None:
        return self.operation.needs()

    def run(self, world: World) -> Result:
        try:
            return self.operation.run(world)
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EOPNOTSUPP):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from error
            raise


# -- attributes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stat(Operation):
    path: bytes
    follow: bool

    def run(self, world: World) -> Result:
        return shown(os.stat(self.path, follow_symlinks=self.follow))


@dataclass(frozen=True)
class Access(Operation):
    path: bytes
    mode: int

    def run(self, world: World) -> Result:
        return os.access(self.path, self.mode, effective_ids=True)


@dataclass(frozen=True)
class Chmod(Operation):
    path: bytes
    mode: int

    def run(self, world: World) -> Result:
        return os.chmod(self.path, self.mode)


@dataclass(frozen=True)
class Chown(Operation):
    path: bytes
    uid: int
    gid: int
    follow: bool

    def needs(self) -> str | None:
        return "chown_of_nothing" if (self.uid, self.gid) == (-1, -1) else None

    def run(self, world: World) -> Result:
        return os.chown(self.path, self.uid, self.gid, follow_symlinks=self.follow)


@dataclass(frozen=True)
class Utimens(Operation):
    path: bytes
    accessed: int
    modified: int
    follow: bool

    def run(self, world: World) -> Result:
        return os.utime(self.path, ns=(self.accessed, self.modified), follow_symlinks=self.follow)


@dataclass(frozen=True)
class UtimensNow(Operation):
    path: bytes

    def run(self, world: World) -> Result:
        return os.utime(self.path)


@dataclass(frozen=True)
class Truncate(Operation):
    """truncate(2). Left out if the file already has that size and the two differ in this: see ``differences``."""

    path: bytes
    size: int

    def run(self, world: World) -> Result:
        status = os.stat(self.path)
        if status.st_size == self.size and not (world.abilities.truncation_in_vain and status.st_blocks):
            return "in vain"
        return os.truncate(self.path, self.size)


@dataclass(frozen=True)
class SetFlags(Operation):
    """Sets the flags of chattr(1)."""

    path: bytes
    flags: int

    def run(self, world: World) -> Result:
        return set_flags(self.path, self.flags)


@dataclass(frozen=True)
class GetFlags(Operation):
    """The flags that lsattr(1) shows, in both forms."""

    path: bytes

    def run(self, world: World) -> Result:
        return get_flags(self.path), get_extended(self.path)


@dataclass(frozen=True)
class Statvfs(Operation):
    path: bytes

    def run(self, world: World) -> Result:
        told = os.statvfs(self.path)
        return told.f_bsize, told.f_frsize, told.f_namemax


@dataclass(frozen=True)
class SetXattr(Operation):
    path: bytes
    name: bytes
    value: bytes
    flags: int
    follow: bool

    def needs(self) -> str | None:
        return _needs_of_flags(self.flags)

    def run(self, world: World) -> Result:
        return os.setxattr(self.path, self.name, self.value, self.flags, follow_symlinks=self.follow)


@dataclass(frozen=True)
class GetXattr(Operation):
    path: bytes
    name: bytes
    follow: bool

    def run(self, world: World) -> Result:
        return os.getxattr(self.path, self.name, follow_symlinks=self.follow)


@dataclass(frozen=True)
class ListXattr(Operation):
    path: bytes
    follow: bool

    def run(self, world: World) -> Result:
        return sorted(os.listxattr(self.path, follow_symlinks=self.follow))


@dataclass(frozen=True)
class RemoveXattr(Operation):
    path: bytes
    name: bytes
    follow: bool

    def run(self, world: World) -> Result:
        compared = self.name != ACCESS_LIST or world.abilities.removal_of_a_list_by_outsiders
        if not compared and os.stat(self.path, follow_symlinks=self.follow).st_mode & stat.S_ISGID:
            return "not compared"
        return os.removexattr(self.path, self.name, follow_symlinks=self.follow)


# -- open files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Open(Operation):
    """open(2), with O_NONBLOCK, so that a fifo does not wait for its other end."""

    slot: int
    path: bytes
    flags: int
    mode: int

    def run(self, world: World) -> Result:
        world.put(self.slot, os.open(self.path, self.flags | os.O_NONBLOCK, self.mode))
        return None

    def needs(self) -> str | None:
        return "nameless_files" if self.flags & os.O_TMPFILE == os.O_TMPFILE else None


class OnHandle(Operation):
    """An operation on an open file. On an empty slot the result says so, on both sides alike."""

    slot: int

    def run(self, world: World) -> Result:
        if self.slot not in world.handles:
            return "no handle"
        return self.call(world.handles[self.slot])

    def call(self, descriptor: int) -> Result:
        raise NotImplementedError


@dataclass(frozen=True)
class Close(Operation):
    slot: int

    def run(self, world: World) -> Result:
        return world.drop(self.slot)


@dataclass(frozen=True)
class Duplicate(Operation):
    """dup(2): two slots then share one file offset."""

    slot: int
    to: int

    def run(self, world: World) -> Result:
        if self.slot not in world.handles:
            return "no handle"
        if self.slot != self.to:
            world.put(self.to, os.dup(world.handles[self.slot]))
        return None


@dataclass(frozen=True)
class Read(OnHandle):
    slot: int
    size: int

    def call(self, descriptor: int) -> Result:
        return _digest(os.read(descriptor, self.size))


@dataclass(frozen=True)
class Pread(OnHandle):
    slot: int
    size: int
    offset: int

    def call(self, descriptor: int) -> Result:
        return _digest(os.pread(descriptor, self.size, self.offset))


@dataclass(frozen=True)
class Write(OnHandle):
    slot: int
    data: Pattern

    def call(self, descriptor: int) -> Result:
        return os.write(descriptor, self.data.bytes())


@dataclass(frozen=True)
class Pwrite(OnHandle):
    slot: int
    data: Pattern
    offset: int

    def call(self, descriptor: int) -> Result:
        return os.pwrite(descriptor, self.data.bytes(), self.offset)


@dataclass(frozen=True)
class MmapWrite(OnHandle):
    """Writes through a shared mapping, as far as the file reaches."""

    slot: int
    data: Pattern
    page: int

    def needs(self) -> str | None:
        return "mapped_writes"

    def call(self, descriptor: int) -> Result:
        room = os.fstat(descriptor).st_size - self.page * mmap.PAGESIZE
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or room <= 0:
            return "nothing to map"
        data = self.data.bytes()[:room]
        if not data:
            return "nothing to write"
        with mmap.mmap(descriptor, len(data), mmap.MAP_SHARED, offset=self.page * mmap.PAGESIZE) as mapping:
            mapping[:] = data
        return len(data)


@dataclass(frozen=True)
class MmapRead(OnHandle):
    """Reads through a private mapping, as far as the file reaches."""

    slot: int
    size: int
    page: int

    def call(self, descriptor: int) -> Result:
        room = os.fstat(descriptor).st_size - self.page * mmap.PAGESIZE
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or room <= 0:
            return "nothing to map"
        length = min(room, self.size)
        where = self.page * mmap.PAGESIZE
        with mmap.mmap(descriptor, length, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=where) as mapping:
            return _digest(mapping[:])


@dataclass(frozen=True)
class Seek(OnHandle):
    """lseek(2). Not in directories, where each file system defines offsets for itself."""

    slot: int
    offset: int
    whence: int

    def call(self, descriptor: int) -> Result:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return "a directory"
        if self.whence in (os.SEEK_DATA, os.SEEK_HOLE) and status.st_size > HOLES_SEEN_BELOW:
            return "too large"
        return os.lseek(descriptor, self.offset, self.whence)


@dataclass(frozen=True)
class Ftruncate(OnHandle):
    slot: int
    size: int

    def call(self, descriptor: int) -> Result:
        return os.ftruncate(descriptor, self.size)


@dataclass(frozen=True)
class Fallocate(OnHandle):
    slot: int
    mode: int
    offset: int
    length: int

    def needs(self) -> str | None:
        return "refusal_of_zero_ranges" if self.mode & FALLOC_FL_ZERO_RANGE else "fallocate"

    def call(self, descriptor: int) -> Result:
        return fallocate(descriptor, self.mode, self.offset, self.length)


@dataclass(frozen=True)
class Fsync(OnHandle):
    slot: int
    data_only: bool

    def call(self, descriptor: int) -> Result:
        return os.fdatasync(descriptor) if self.data_only else os.fsync(descriptor)


@dataclass(frozen=True)
class Fstat(OnHandle):
    slot: int

    def call(self, descriptor: int) -> Result:
        return shown(os.fstat(descriptor))


@dataclass(frozen=True)
class Fchmod(OnHandle):
    slot: int
    mode: int

    def call(self, descriptor: int) -> Result:
        return os.fchmod(descriptor, self.mode)


@dataclass(frozen=True)
class Fchown(OnHandle):
    slot: int
    uid: int
    gid: int

    def needs(self) -> str | None:
        return "chown_of_nothing" if (self.uid, self.gid) == (-1, -1) else None

    def call(self, descriptor: int) -> Result:
        return os.fchown(descriptor, self.uid, self.gid)


@dataclass(frozen=True)
class Futimens(OnHandle):
    slot: int
    accessed: int
    modified: int

    def call(self, descriptor: int) -> Result:
        return os.utime(descriptor, ns=(self.accessed, self.modified))


@dataclass(frozen=True)
class FsetXattr(OnHandle):
    slot: int
    name: bytes
    value: bytes
    flags: int

    def needs(self) -> str | None:
        return _needs_of_flags(self.flags)

    def call(self, descriptor: int) -> Result:
        return os.setxattr(descriptor, self.name, self.value, self.flags)


@dataclass(frozen=True)
class FgetXattr(OnHandle):
    slot: int
    name: bytes

    def call(self, descriptor: int) -> Result:
        return os.getxattr(descriptor, self.name)


@dataclass(frozen=True)
class ListHandle(OnHandle):
    """The listing of an open directory, which may be removed by now."""

    slot: int

    def call(self, descriptor: int) -> Result:
        return _listing(descriptor)


@dataclass(frozen=True)
class CopyRange(Operation):
    """copy_file_range(2) between two open files, at explicit offsets."""

    source: int
    target: int
    count: int
    source_offset: int
    target_offset: int

    def run(self, world: World) -> Result:
        if self.source not in world.handles or self.target not in world.handles:
            return "no handle"
        return os.copy_file_range(
            world.handles[self.source], world.handles[self.target], self.count, self.source_offset, self.target_offset
        )


def _needs_of_flags(flags: int) -> str | None:
    both = os.XATTR_CREATE | os.XATTR_REPLACE
    return "xattr_flags_that_exclude_each_other" if flags & both == both else None


def _digest(data: bytes) -> tuple[int, str]:
    """A short representation of bytes that were read, for messages."""
    if len(data) <= 16:
        return len(data), data.hex(" ")
    zeros = "zeros" if not data.strip(b"\0") else hashlib.md5(data, usedforsecurity=False).hexdigest()
    return len(data), zeros
