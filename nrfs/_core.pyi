"""The native module: the replicated file system service and what it is built on.

What works on files releases the GIL. Names and symlink targets are bytes, as the kernel
has them; times are nanoseconds since the epoch; inode numbers are never reused. An error of the file
system is an ``OSError`` with the errno that tmpfs would give.
"""

from typing import Any, Final, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

__all__ = [
    "ROOT",
    "AddressSpace",
    "AddressSpaceCore",
    "Attributes",
    "Capacity",
    "Connection",
    "Core",
    "DirectoryEntry",
    "Filesystem",
    "Frame",
    "Mapping",
    "Process",
    "Scheduler",
    "Upcall",
    "__version__",
    "probe_ring",
]

__version__: Final[str]

ROOT: Final[int]
"""The inode number of the root directory."""

def probe_ring() -> None:
    """Does nothing where this process can have an io_uring of the kind that the ring channel needs.

    Raises:
        OSError: it cannot, whatever FUSE offers.

    """

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
        inodes: how many inodes at the most; without it, as many as half the machine's memory has pages. What names,
            links, attributes and lists take beside counts, too: see docs/memory.md.
        mode: permission bits of the root directory.
        uid: its owner; without it, the caller.
        gid: its group, likewise.

    Raises:
        ValueError: an argument out of range, with the reason.
        MemoryError: there is no memory even for what operations under way may take.
        OSError: by the methods, ENOSPC where there is no space, or no memory, for what is to be made or written.
        RuntimeError: by all methods, in a process that was forked after the file system was made. The same holds for
            every other object here that has methods.

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
    def mknod_nameless(
        self, parent: int, mode: int, *, umask: int = 0, uid: int | None = None, gid: int | None = None
    ) -> Attributes:
        """Makes a regular file without a name, as open(2) with O_TMPFILE does, and holds it once. It goes when it is
        forgotten, unless it was linked before.
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

        A directory that changes while it is listed neither repeats nor skips entries that stayed. More than 1024 are
        not of one moment.
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
    @property
    def is_scarce(self) -> bool:
        """Whether so little space is left that a mount's kernel must ask before it collects data."""
    def status(self) -> dict[str, Any]:
        """Nodes with their CPUs, each replica's position in each log, batches, bytes and inodes used."""
    def release_memory(self, *, surplus: bool = False) -> None:
        """Gives memory that deleted files had, and that is kept to be used again, back to the system on every replica.

        All of it; or of the memory of their content only the surplus, which was not needed since the last call.
        """
    def verify(self) -> list[dict[str, Any]]:
        """Brings every replica to the same position in each log and returns each one's digest there:
        one ``{"log": str, "position": int, "digests": [str, ...]}`` a log.
        """

@final
class Connection:
    """A connection to the kernel: its workers answer requests natively, or hand them on to pyfuse3.

    Args:
        filesystem: the one that is mounted.
        device: a descriptor of /dev/fuse on which a mount was made. It is the connection's from then on, also if it
            cannot be had for the channel; what is no such descriptor, nor a socket in its place, stays the caller's.
        channel: ``"ring"`` or ``"device"``: a worker for each CPU answers what is frequent, and pyfuse3 the rest.
            ``"pyfuse3"``: it answers all.
        caching: whether the kernel may keep what it is told.
        collected: bytes of data that the kernel collects at the most before it writes them. When twice as much is not
            left any more, space is promised before data is collected.

    Raises:
        OSError: the channel cannot be had; EBADF for what is no descriptor, ENODEV for one of something else, EBUSY for
            another connection's.
        ValueError: there is no such channel.

    """

    def __new__(
        cls,
        filesystem: Filesystem,
        device: int,
        *,
        channel: Literal["ring", "device", "pyfuse3"],
        caching: bool,
        collected: int = 0,
    ) -> Self: ...
    @property
    def descriptor(self) -> int:
        """For pyfuse3, which closes it: it finds a device there that is mounted already."""
    def fileno(self) -> int:
        """A descriptor that is readable once no more requests will come."""
    def statistics(self) -> list[dict[str, Any]]:
        """What each worker has done: ``{"cpu": int | None, "requests": {kind: count}}``. Of FORGET, messages count."""
    def end(self) -> None:
        """Ends the connection, after pyfuse3 was ended.

        Raises:
            OSError: a worker had failed before, and why.

        """

@final
class Core:
    """A core, as it is now."""

    core: int
    """Its number: the kernel's number of the CPU, unless cores are emulated."""
    node: int
    online: bool
    process: int | None
    """Whose it is."""
    executor: int | None
    """What the process runs with there."""

@final
class Process:
    """What a process wants and has."""

    wanted: int
    """Cores, in all."""
    cores: list[int]
    """Those it has, in ascending order."""
    cached_executors: int
    """Executors that it has on no core."""
    upcalls: int
    """Those it has not taken yet."""

@final
class Upcall:
    """What a process is told of one of its cores."""

    core: int
    executor: int
    """What it runs, or ran, with there."""
    given: bool
    """Whether the core was given; otherwise it was taken."""
    reason: Literal["share", "offline", "failed"] | None
    """Why it was taken: its share is smaller, or it wants fewer; the core stopped; core and executor are lost."""

@final
class Scheduler:
    """Gives cores to processes, alike on every node: for programs that share a machine by agreement, as the runs of
    ``nrfs bench`` do, and to study a replicated scheduler.

    It is coarse-grained and kernel-level, as that of NrOS (OSDI '21): which thread runs on a core is the
    process's own business, and it learns of each core given or taken by an *upcall*, after "Scheduler Activations"
    (Anderson et al., 1992). On each core it has an *executor*, made when first needed and then kept for the
    next core of the same node.

    The policy: shares are max-min fair by progressive filling (Bertsekas & Gallager, "Data Networks", 1992), so no
    core is idle that somebody wants, and nobody has two cores fewer than another unless it wants no more. Cores that
    cannot be shared out evenly go round: at each ``tick`` those who have waited longest get them, so of ``n``
    processes everyone who wants a core has one at some time within ``n`` ticks. A process gets cores of the nodes
    where it runs most, then where it has executors, then where most are idle; and it loses cores first where it has
    the fewest.

    Calls release the GIL; reads run at the replica of the node that the thread is on.

    Args:
        nodes: NUMA nodes to replicate on: ``"auto"`` for the machine's own, or a number of emulated
            ones that split the CPUs evenly.
        cores: None for the CPUs that this process may use; or a number of emulated ones, split evenly over the nodes.

    Raises:
        ValueError: an argument out of range, with the reason.

    """

    def __new__(cls, *, nodes: Literal["auto"] | int = "auto", cores: int | None = None) -> Self: ...

    # Processes. Without such a process: ProcessLookupError (ESRCH). Without such a core: OSError with ENODEV.
    def create(self) -> int:
        """A new process, which wants no core yet. Its number is never used again."""
    def exit(self, process: int) -> None:
        """Ends a process: its cores are free, its executors and upcalls are gone."""
    def request(self, process: int, cores: int) -> int:
        """The process wants ``cores`` cores in all, more or fewer than before. Returns how many it has now; it hears by
        upcalls of those that come and go later, too.

        Raises:
            OSError: EINVAL where there are not that many cores.

        """
    def release(self, process: int, core: int) -> None:
        """Gives a core back; the process wants one fewer. No upcall tells of it.

        Raises:
            PermissionError: the core is not the process's.

        """
    def upcalls(self, process: int) -> list[Upcall]:
        """Takes what the process has not been told yet, in the order in which it happened."""
    def free_executors(self, process: int) -> int:
        """Frees the executors that the process has on no core. Returns how many."""

    # Cores
    def tick(self) -> None:
        """A quantum is over: cores that cannot be shared out evenly go to those who have waited longest."""
    def offline(self, core: int) -> None:
        """The core stops, its executor saved. OSError with EALREADY where it is offline."""
    def fail(self, core: int) -> None:
        """The core is lost, and its executor with it. OSError with EALREADY where it is offline."""
    def online(self, core: int) -> None:
        """The core can be given to processes again. OSError with EALREADY where it is online."""

    # Looks, on this node's replica
    def executor(self, core: int) -> int | None:
        """The executor that runs on a core."""
    def cores(self) -> list[Core]:
        """All cores, in ascending order."""
    def processes(self) -> list[int]:
        """All processes, in ascending order."""
    def process(self, process: int) -> Process: ...
    def executors_made(self) -> int:
        """How many executors were ever made; each number up to it was one executor's."""
    def verify(self) -> dict[str, Any]:
        """Brings every replica to the same position in the log and returns each one's digest there:
        ``{"log": str, "position": int, "digests": [str, ...]}``.
        """

@final
class Mapping:
    """What translates an address."""

    address: int
    """The first of its page."""
    page: int
    """Bytes in the page: 4 KiB, 2 MiB or 1 GiB."""
    frame: int
    """Where the page begins in memory."""
    physical: int
    """Where the address is in memory."""
    rights: str
    """As "rwx", with a dash for what may not be done."""

@final
class Frame:
    """A frame that no mapping owns: it can be mapped at many addresses, and stays as long as its address space."""

    @property
    def address(self) -> int:
        """Where it is in memory."""
    @property
    def size(self) -> int:
        """Bytes."""

@final
class AddressSpace:
    """The address space of one process, node-replicated: regions, a four-level page table, and cores with their TLBs.

    For those who want to see what node replication does for virtual memory, as in "NrOS: Effective Replication and
    Sharing in an Operating System" (OSDI '21). It is a model: frames have numbers, and no content, unless it is
    *backed*.

    The frames of one that is backed are real memory, of the node that they are of: a file in memory (memfd), of which
    :meth:`view` gives numpy arrays. A frame is all zeros when it is mapped.

    Changes are all or nothing, and happen in one order for all. The address space is cut into slices of 1 GiB, which
    are dealt out to the logs in turn; changes in slices of different logs do not wait for each other. A change of
    several slices may be seen in some of them before it is in others, until it has returned.

    Every call without a core works on the one that stands for the CPU of the calling thread.

    Args:
        nodes: NUMA nodes to replicate on: ``"auto"`` for the machine's own, or a number of emulated ones.
        logs: parallel logs, at most 1024.
        cores: emulated cores, dealt out to the nodes evenly, at least one each; at most 8192, and 65536 with their logs
            counted one by one. Without it, as many as CPUs.
        memory: bytes of each node, rounded down to 4 KiB; at most 4 PiB on all.
        backed: whether the frames are real memory.

    Raises:
        ValueError: an argument out of range, with the reason. So do all methods, for a page size or rights that
            there are not.
        OSError: the system cannot give that much memory. By the methods, and nothing is changed then: EINVAL for an
            address or length that is no positive multiple of the page size, or not canonical; EEXIST where something is
            mapped; EFAULT where nothing is; EACCES without the right; ENOMEM without free memory; EBUSY where a view
            shows what is mapped.

    """

    def __new__(
        cls,
        *,
        nodes: int | Literal["auto"] = "auto",
        logs: int = 4,
        cores: int | None = None,
        memory: int = 1073741824,
        backed: bool = False,
    ) -> Self: ...
    def map(
        self,
        va: int,
        frame_or_size: Frame | int,
        *,
        page: Literal["4K", "2M", "1G"] = "4K",
        rights: str = "rw-",
        replace: bool = False,
    ) -> None:
        """Maps that many bytes of free memory, of the calling thread's node if it has them; or a frame.

        Args:
            va: where, a multiple of the page size.
            frame_or_size: a frame, mapped as one page of its size; or bytes, a multiple of the page size.
            page: the size of the pages.
            rights: "rwx", with a dash for what may not be done.
            replace: what is mapped there goes (MAP_FIXED), instead of being an error (MAP_FIXED_NOREPLACE). When the
                call returns, no core can use the old translations.

        """
    def map_many(
        self,
        addresses: NDArray[np.uint64],
        *,
        page: Literal["4K", "2M", "1G"] = "4K",
        rights: str = "rw-",
        replace: bool = False,
    ) -> None:
        """Maps a page to free memory at each of an array of ``uint64`` addresses: all of them or, where one is refused,
        none. Their order does not matter, and an address that is given twice counts once. Otherwise as :meth:`map`.

        Other changes wait meanwhile; the cores are asked once to forget what was replaced.
        """
    def unmap_many(self, addresses: NDArray[np.uint64], *, page: Literal["4K", "2M", "1G"] = "4K") -> None:
        """Removes what is mapped in a page of that size at each of an array of ``uint64`` addresses, as
        :meth:`map_many` maps: all or none, and with one shootdown. Otherwise as :meth:`unmap`.
        """
    def view(self, va: int, length: int) -> NDArray[np.uint8]:
        """What is mapped in ``length`` bytes, as real memory: an array of them, which can be written if all of the
        pages may be, and whose writes all other views of the same frames see.

        The memory is there when it is touched first: whoever does so waits until the replica of the node where the view
        was made has resolved the address, for 2 MiB at once. Where the process may not have userfaultfd(2), that
        happens here for all of it. ``statistics()["views"]["on_touch"]`` says which.

        While the array lives, or one that was made of it, what it shows stays mapped, with the rights that it needs:
        what would change that is refused with EBUSY. The array keeps the address space. A process that is forked has a
        copy, as of other memory: what it writes there nobody else sees. The rest it may see as it is in the first now.

        Raises:
            OSError: EFAULT if it is not mapped everywhere; EACCES if it may not be read everywhere; ENODEV if the
                address space is not backed.
            MemoryError: the system has no more memory, or mappings: all views together can have half of
                vm.max_map_count, and need one for each run of frames that are not next to each other.

        """
    def frame(self, page: Literal["4K", "2M", "1G"] = "4K") -> Frame:
        """A frame of free memory, to be mapped. It stays as long as the address space."""
    def unmap(self, va: int, length: int) -> None:
        """Removes what is mapped in ``length`` bytes; it need not be mapped everywhere. Large pages of which a part
        stays are split. When it returns, no core can use the old translations.
        """
    def protect(self, va: int, length: int, rights: str) -> None:
        """Changes the rights of ``length`` bytes, which must be mapped everywhere. When it returns, no core can use the
        old rights.
        """
    def resolve(self, va: int) -> Mapping:
        """What translates an address."""
    def resolve_many(self, addresses: NDArray[np.uint64]) -> NDArray[np.void]:
        """Resolves an array of ``uint64`` addresses: one record each.

        Fields: ``mapped`` (bool; the others are 0 where it is False), ``rights`` (read 1, write 2, execute 4), ``page``
        (bytes), ``physical`` (where the address is in memory).
        """
    def regions(self) -> NDArray[np.void]:
        """Pages next to each other with the same rights, ascending: ``address``, ``length`` (bytes), ``rights`` (read
        1, write 2, execute 4). Not of one moment if there are several logs.
        """
    def page_table(self, node: int) -> NDArray[np.void]:
        """All pages in a node's table, ascending: ``address``, ``page`` (bytes), ``frame`` (where it is in memory),
        ``rights`` (as for ``regions``), ``owned`` (whether the frame becomes free with the page).

        Raises:
            IndexError: there is no such node.

        """
    def core(self, cpu: int) -> AddressSpaceCore:
        """One of the cores, from 0.

        Raises:
            IndexError: there is no such core.

        """
    def statistics(self) -> dict[str, Any]:
        """Bytes free, and by core: TLB hits; walks of the node's table, and how many of them were refused by a replica
        that was behind, and allowed by the log; faults; shootdowns; requests to other cores for them; answers to
        such requests, each to all there were; and the nanoseconds that its shootdowns waited for the answers of others,
        in all, and the longest of them. Of the views of one that is backed: whether memory is shown on the first touch,
        how many views there are, and how many touches were answered.
        """
    def verify(self) -> list[dict[str, Any]]:
        """Brings every replica to the same position in each log and returns each one's digest there, as
        :meth:`Filesystem.verify` does.
        """

@final
class AddressSpaceCore:
    """A core that uses an address space through its TLB, and its node's page table where that does not help.

    Each access returns where the address is in memory. The errors are the address space's: EFAULT, EACCES, EINVAL.
    """

    def read(self, va: int) -> int:
        """Loads."""
    def write(self, va: int) -> int:
        """Stores."""
    def fetch(self, va: int) -> int:
        """Fetches an instruction."""
