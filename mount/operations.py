"""The pyfuse3 channel: the operations that pyfuse3 offers, answered by the replicated file system.

A handler unpacks its request, calls the service, and packs the reply. The service makes the decisions.
Its calls take microseconds and never wait for Python, so they run on trio's thread.

File handles are inode numbers. The kernel's lookup counts and its open handles are holds at the
service: each reply that names an inode takes one; FORGET and RELEASE give them back.

Some requests are always answered natively and never come here: FORGET, which Python must not hold up; ioctl, which
pyfuse3 does not support; and LISTXATTR, whose answer depends on the caller's capabilities.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar, final

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileInfo,
    FUSEError,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    readdir_reply,
)

from mount.options import Cache
from nrfs import Attributes, Filesystem

Arguments = ParamSpec("Arguments")
Reply = TypeVar("Reply")

FOREVER = float(2**31)
"""Seconds that the kernel may keep what it was told: this mount is the only way in."""

_ENTRIES_AT_A_TIME = 128
"""Of a directory, from the service. An application's usual getdents(2) buffer holds 200."""

_LONGEST_NAME = 255

_SELF_AND_PARENT = frozenset({b".", b".."})

_log = logging.getLogger("nrfs")


def _request(
    handler: Callable[Concatenate[Operations, Arguments], Reply],
) -> Callable[Concatenate[Operations, Arguments], Coroutine[Any, Any, Reply]]:
    """Makes of a plain function what pyfuse3 calls for a request.

    An ``OSError`` becomes the errno of the reply; what else is raised is a fault of ours, which costs this
    caller an EIO and nobody else anything.
    """
    kind = handler.__name__

    async def answer(self: Operations, /, *arguments: Arguments.args, **keywords: Arguments.kwargs) -> Reply:
        try:
            return handler(self, *arguments, **keywords)
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        except FUSEError:
            raise
        except Exception as fault:
            self._report(kind, fault)
            raise FUSEError(errno.EIO) from None

    return answer


@final
class Operations(pyfuse3.Operations):
    """Answers the kernel's requests from ``filesystem``.

    Args:
        filesystem: the replicated service.
        cache: what the kernel may keep.
        on_start: called once, when the kernel's handshake has come and the mount can be used.

    """

    def __init__(self, filesystem: Filesystem, cache: Cache, on_start: Callable[[], None]) -> None:
        super().__init__()
        self.enable_writeback_cache = cache is Cache.WRITEBACK
        self._filesystem = filesystem
        self._cached = cache is Cache.WRITEBACK
        self._timeout = FOREVER if self._cached else 0.0
        self._on_start = on_start
        self._faults: set[tuple[str, str]] = set()
        self._missing = EntryAttributes()
        self._missing.st_ino = 0
        self._missing.entry_timeout = self._timeout

    def init(self) -> None:
        self._on_start()

    # Names

    @_request
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        try:
            if name in _SELF_AND_PARENT:
                attributes = self._self_or_parent(parent_inode, name)
            else:
                attributes = self._filesystem.lookup(parent_inode, name)
        except FileNotFoundError:
            if self._cached:
                return self._missing
            raise
        return self._held_entry(attributes)

    @_request
    def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        attributes = self._filesystem.mknod(
            parent_inode, name, mode, rdev=rdev, umask=ctx.umask, uid=ctx.uid, gid=ctx.gid
        )
        return self._held_entry(attributes)

    @_request
    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        attributes = self._filesystem.mkdir(parent_inode, name, mode, umask=ctx.umask, uid=ctx.uid, gid=ctx.gid)
        return self._held_entry(attributes)

    @_request
    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._held_entry(self._filesystem.symlink(parent_inode, name, target, uid=ctx.uid, gid=ctx.gid))

    @_request
    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._held_entry(self._filesystem.link(inode, new_parent_inode, new_name))

    @_request
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._filesystem.unlink(parent_inode, name)

    @_request
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._filesystem.rmdir(parent_inode, name)

    @_request
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        self._filesystem.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, uid=ctx.uid, gid=ctx.gid)

    @_request
    def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self._filesystem.readlink(inode)

    # Attributes

    @_request
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(self._filesystem.attributes(inode))

    @_request
    def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        changes: dict[str, int] = {}
        if fields.update_mode:
            changes["mode"] = stat.S_IMODE(attr.st_mode)
        if fields.update_uid:
            changes["uid"] = attr.st_uid
        if fields.update_gid:
            changes["gid"] = attr.st_gid
        if fields.update_size:
            changes["size"] = attr.st_size
        if fields.update_atime:
            changes["atime_ns"] = attr.st_atime_ns
        if fields.update_mtime:
            changes["mtime_ns"] = attr.st_mtime_ns
        if fields.update_ctime:
            changes["ctime_ns"] = attr.st_ctime_ns
        return self._entry(self._filesystem.set_attributes(inode, **changes))

    @_request
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        return self._filesystem.getxattr(inode, name)

    @_request
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._filesystem.setxattr(inode, name, value)

    @_request
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self._filesystem.removexattr(inode, name)

    @_request
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        capacity = self._filesystem.capacity()
        reply = StatvfsData()
        reply.f_bsize = reply.f_frsize = capacity.block_size
        reply.f_blocks = capacity.blocks
        reply.f_bfree = reply.f_bavail = capacity.blocks_free
        reply.f_files = capacity.inodes
        reply.f_ffree = reply.f_favail = capacity.inodes_free
        reply.f_namemax = _LONGEST_NAME
        return reply

    # Files

    @_request
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        attributes = self._filesystem.mknod(parent_inode, name, mode, umask=ctx.umask, uid=ctx.uid, gid=ctx.gid)
        self._filesystem.hold(attributes.ino, 2)
        return self._opened(attributes.ino), self._entry(attributes)

    @_request
    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        if flags & os.O_TRUNC:
            self._filesystem.set_attributes(inode, size=0)
        self._filesystem.hold(inode)
        return self._opened(inode)

    @_request
    def read(self, fh: int, off: int, size: int) -> bytes:
        return self._filesystem.read(fh, off, size)

    @_request
    def write(self, fh: int, off: int, buf: bytes) -> int:
        return self._filesystem.write(fh, off, buf)

    @_request
    def flush(self, fh: int) -> None:
        raise FUSEError(errno.ENOSYS)  # Nothing to do, and the kernel need not ask again.

    @_request
    def fsync(self, fh: int, datasync: bool) -> None:
        raise FUSEError(errno.ENOSYS)

    @_request
    def release(self, fh: int) -> None:
        self._filesystem.forget(fh)

    # Directories

    @_request
    def opendir(self, inode: int, ctx: RequestContext) -> int:
        self._filesystem.hold(inode)
        return inode

    @_request
    def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        cookie = start_id
        while True:
            entries = self._filesystem.readdir(fh, cookie, _ENTRIES_AT_A_TIME)
            for entry in entries:
                if not self._list(token, entry.name, entry.attributes, entry.cookie):
                    return
                cookie = entry.cookie
            if len(entries) < _ENTRIES_AT_A_TIME:
                return

    @_request
    def releasedir(self, fh: int) -> None:
        self._filesystem.forget(fh)

    @_request
    def fsyncdir(self, fh: int, datasync: bool) -> None:
        raise FUSEError(errno.ENOSYS)

    # What more than one kind of request needs

    def _self_or_parent(self, inode: int, name: bytes) -> Attributes:
        """Answers the lookups by which the kernel finds a directory again from a file handle (exportfs)."""
        if name == b".":
            return self._filesystem.attributes(inode)
        return self._filesystem.readdir(inode, 0, 2)[1].attributes

    def _entry(self, attributes: Attributes) -> EntryAttributes:
        reply = EntryAttributes()
        reply.st_ino = attributes.ino
        reply.st_mode = attributes.mode
        reply.st_nlink = attributes.nlink
        reply.st_uid = attributes.uid
        reply.st_gid = attributes.gid
        reply.st_rdev = attributes.rdev
        reply.st_size = attributes.size
        reply.st_blocks = attributes.blocks
        reply.st_atime_ns = attributes.atime_ns
        reply.st_mtime_ns = attributes.mtime_ns
        reply.st_ctime_ns = attributes.ctime_ns
        reply.entry_timeout = self._timeout
        # While space is scarce the kernel has to ask before it collects data.
        reply.attr_timeout = 0.0 if self._filesystem.is_scarce else self._timeout
        return reply

    def _held_entry(self, attributes: Attributes) -> EntryAttributes:
        self._filesystem.hold(attributes.ino)
        return self._entry(attributes)

    def _opened(self, inode: int) -> FileInfo:
        return FileInfo(fh=inode, direct_io=not self._cached, keep_cache=self._cached)

    def _list(self, token: ReaddirToken, name: bytes, attributes: Attributes, cookie: int) -> bool:
        """Adds an entry to a listing; False where there is no room for it."""
        if name in _SELF_AND_PARENT:  # The kernel does not count these as looked up.
            return readdir_reply(token, name, self._entry(attributes), cookie)
        try:
            reply = self._held_entry(attributes)
        except FileNotFoundError:
            return True  # It went since the service listed it.
        if readdir_reply(token, name, reply, cookie):
            return True
        self._filesystem.forget(attributes.ino)
        return False

    def _report(self, kind: str, fault: Exception) -> None:
        """Logs a fault of ours, the first time it is seen."""
        seen = (kind, repr(fault))
        if seen not in self._faults:
            self._faults.add(seen)
            _log.error("%s failed; this is a fault of nrfs", kind, exc_info=fault)
