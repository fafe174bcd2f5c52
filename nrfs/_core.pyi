"""The native module: the replicated file system service and what it is built on.

What works on files releases the GIL. Names and symlink targets are bytes, as the kernel
has them; times are nanoseconds since the epoch; inode numbers are never reused. An error of the file
system is an ``OSError`` with the errno that tmpfs would give.
"""

from typing import Any, Final, Literal, Self, final

from typing_extensions import Buffer

__all__ = [
    "ROOT",
    "Attributes",
    "Capacity",
    "Connection",
    "DirectoryEntry",
    "Filesystem",
    "probe_ring",
    "release_memory",
]

ROOT: Final[int]
"""The inode number of the root directory."""

def probe_ring() -> None:
    """Does nothing where this process can have an io_uring of the kind that the ring channel needs.

    Raises:
        OSError: it cannot, whatever FUSE offers.

    """

def release_memory() -> None:
    """Gives memory that is free, and kept to be used again, back to the system."""

@final
class Attributes:
    """The attributes of one inode, as stat(2) has them."""

    ino: int
    mode: int
    """Type and permission bits."""
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    """Bytes. A directory's grows with its entries; a symlink's is its target's length."""
    blocks: int
    """Units of 512 bytes, as st_blocks."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int

@final
class DirectoryEntry:
    """One name in a directory listing."""

    name: bytes
    cookie: int
    """Where the listing goes on behind this entry: pass it to ``readdir``."""
    attributes: Attributes

@final
class Capacity:
    """What statvfs(3) tells."""

    block_size: int
    blocks: int
    blocks_free: int
    inodes: int
    inodes_free: int

@final
class Filesystem:
    """A node-replicated in-memory file system.

    Args:
        nodes: NUMA nodes to replicate on: ``"auto"`` for the machine's own, or a number of emulated
            ones that split the CPUs evenly.
        logs: parallel logs for the content of files. The tree has one more.
        size: bytes of file content at the most: an int, or ``"8G"``. Each replica holds a copy, so the machine
            needs ``nodes`` times as much. Or ``"50%"``: that part of the machine's memory, for all replicas together.
        inodes: how many inodes at the most; without it, as many as half the machine's memory has pages.

    Raises:
        ValueError: an argument out of range, with the reason.

    """

    def __new__(
        cls,
        *,
        nodes: int | Literal["auto"] = "auto",
        logs: int = 4,
        size: int | str = "50%",
        inodes: int | None = None,
        mode: int = 0o755,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Self: ...

    # Names
    def lookup(self, parent: int, name: bytes) -> Attributes: ...
    def mknod(
        self,
        parent: int,
        name: bytes,
        mode: int,
        *,
        rdev: int = 0,
        umask: int = 0,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Attributes:
        """Makes a regular file, fifo, socket or device node: the type is in ``mode``.

        Where the directory has a default access control list, the inode begins with that, and ``umask`` is ignored.
        """
    def mkdir(
        self,
        parent: int,
        name: bytes,
        mode: int,
        *,
        umask: int = 0,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Attributes:
        """Makes a directory; ``umask`` as for ``mknod``."""
    def symlink(
        self, parent: int, name: bytes, target: bytes, *, uid: int | None = None, gid: int | None = None
    ) -> Attributes: ...
    def link(self, ino: int, parent: int, name: bytes) -> Attributes: ...
    def unlink(self, parent: int, name: bytes) -> None: ...
    def rmdir(self, parent: int, name: bytes) -> None: ...
    def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int = 0,
        *,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        """``flags`` as renameat2(2): RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, RENAME_WHITEOUT 4 (the caller's)."""
    def readlink(self, ino: int) -> bytes: ...
    def readdir(self, ino: int, cookie: int = 0, limit: int = 1024) -> list[DirectoryEntry]:
        """At most ``limit`` entries behind ``cookie`` (0: from the start), "." and ".." first.

        A directory that changes while it is listed neither repeats nor skips entries that stayed.
        """

    # Attributes
    def attributes(self, ino: int) -> Attributes: ...
    def set_attributes(
        self,
        ino: int,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
    ) -> Attributes: ...
    def getxattr(self, ino: int, name: bytes) -> bytes: ...
    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """``flags``: os.XATTR_CREATE or os.XATTR_REPLACE.

        ``system.posix_acl_access`` and ``system.posix_acl_default`` are access control lists, in Linux's binary form:
        they change the mode as the mode changes them, and are there or not whatever ``flags`` says.
        """
    def listxattr(self, ino: int, *, uid: int = 0) -> list[bytes]:
        """The names that user ``uid`` sees: those in ``trusted.`` are root's."""
    def removexattr(self, ino: int, name: bytes) -> None: ...

    # Content
    def read(self, ino: int, offset: int, size: int) -> bytes: ...
    def write(self, ino: int, offset: int, data: Buffer) -> int:
        """Returns the bytes written: fewer than given where the file system is full behind them.

        Raises:
            OSError: ENOSPC where not one byte fits, EFBIG past the largest offset.

        """
    def fallocate(self, ino: int, offset: int, length: int, mode: int = 0) -> None:
        """``mode`` as for Linux: 0, or KEEP_SIZE 1, PUNCH_HOLE 2 (with KEEP_SIZE), ZERO_RANGE 16."""
    def seek(self, ino: int, offset: int, whence: int) -> int:
        """``whence``: os.SEEK_DATA or os.SEEK_HOLE; ENXIO where there is none."""

    # The life of an inode: an unlinked one lives until nobody holds it.
    def hold(self, ino: int, count: int = 1) -> None:
        """Keeps the inode alive though its last name goes (the kernel's lookups, open files)."""
    def forget(self, ino: int, count: int = 1) -> None:
        """Gives up ``count`` holds; an inode without names and holds is dropped with its content."""

    # The whole
    def capacity(self) -> Capacity: ...
    def status(self) -> dict[str, Any]:
        """Nodes with their CPUs, each replica's position in each log, batches, bytes and inodes used."""
    def catch_up(self) -> None:
        """Applies on every replica what has been logged: it frees what was deleted there, too."""
    def verify(self) -> list[dict[str, Any]]:
        """Brings every replica to the same position in each log and returns each one's digest there:
        one ``{"log": str, "position": int, "digests": [str, ...]}`` a log.
        """

@final
class Connection:
    """A connection to the kernel: its workers answer requests natively, or hand them on to pyfuse3.

    Args:
        filesystem: the one that is mounted.
        device: a descriptor of /dev/fuse on which a mount was made. It is the connection's from then on.
        channel: ``"ring"`` or ``"device"``: a worker for each CPU answers what is frequent, and pyfuse3 the rest.
            ``"pyfuse3"``: it answers all.
        caching: whether the kernel may keep what it is told.

    Raises:
        OSError: the channel cannot be had.

    """

    def __new__(
        cls, filesystem: Filesystem, device: int, *, channel: Literal["ring", "device", "pyfuse3"], caching: bool
    ) -> Self: ...
    @property
    def descriptor(self) -> int:
        """For pyfuse3, which closes it: it finds a device there that is mounted already."""
    def fileno(self) -> int:
        """A descriptor that is readable once no more requests will come."""
    def statistics(self) -> list[dict[str, Any]]:
        """What each worker has done: ``{"cpu": int | None, "requests": {kind: count}}``. Of FORGET, messages count."""
    def end(self) -> None:
        """Ends the connection, after pyfuse3 was ended."""
