"""The native module: the replicated services, and the connection to the kernel.

Methods that use a service release the GIL. Names and symlink targets are bytes, as for the kernel. Times are
nanoseconds since the epoch. Inode numbers are never reused. A file system error is an ``OSError`` with the errno
that tmpfs would return.
"""

from collections.abc import Sequence
from os import PathLike
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
    "MachineNode",
    "Mapping",
    "Process",
    "Scheduler",
    "Topology",
    "TopologyNode",
    "Tracer",
    "Upcall",
    "__version__",
    "probe_ring",
]

__version__: Final[str]

ROOT: Final[int]
"""The inode number of the root directory."""

def probe_ring() -> None:
    """Checks that this process can have an io_uring as the ring channel needs, whether or not FUSE offers the ring.

    Raises:
        OSError: it cannot.

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
    """Bytes. A directory's size grows with its entries; a symlink's is the length of its target."""
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
    """Pass this to ``readdir`` to continue the listing after this entry."""
    attributes: Attributes

@final
class Capacity:
    """The capacity and what is left of it, as statvfs(3) reports them."""

    block_size: int
    blocks: int
    blocks_free: int
    inodes: int
    inodes_free: int

@final
class TopologyNode:
    """A node to replicate on."""

    node: int
    """Its number, from 0: its index in ``Topology.nodes``."""
    cpus: list[int]
    """The CPUs whose threads use its replica, in ascending order. If nodes outnumber CPUs, several nodes have one."""
    physical: int
    """The number of the machine's NUMA node that its memory is on."""
    memory_bytes: int
    """Bytes of memory of that NUMA node, for all nodes that share it."""

@final
class MachineNode:
    """A NUMA node of the machine."""

    node: int
    """The kernel's number of it."""
    cpus: list[int]
    """Its CPUs that are online, in ascending order. There are nodes without any."""
    memory_bytes: int
    """Bytes of its memory; 0 if it has none."""
    free_bytes: int
    """Bytes of its memory that nobody used when the topology was made."""
    usable: bool
    """Whether it has memory that this process may use, by its cpuset and its memory policy (``numactl --membind``)."""
    distances: list[int]
    """How far the memory of each NUMA node is, in the order of ``Topology.machine_nodes``, in the firmware's units: 10
    is a node's own."""
    replicas: list[int]
    """The numbers of the nodes to replicate on whose memory is here, and who share it."""

@final
class Topology:
    """Where replicas are: which CPUs belong to each node, and which NUMA node of the machine has its memory.

    To be given as ``nodes`` to :class:`Filesystem`, :class:`Scheduler` and :class:`AddressSpace`. It is what the kernel
    said when it was made, and does not change. There are four ways to make one; all but ``from_file`` and ``from_json``
    use every CPU that is online and that this process may run on.

    Raises:
        ValueError: by all ways to make one, with the reason in one line: not 1 to 1024 nodes; and of a map, that it has
            another form, a node without CPUs, a CPU or NUMA node that is not there, or that this process may not use,
            or a CPU twice.

    """

    @staticmethod
    def machine() -> Topology:
        """The machine's own NUMA nodes: each that has CPUs and memory for this process. The CPUs of a NUMA node without
        memory, or whose memory this process may not use, belong to the nearest that has some.
        """
    @staticmethod
    def emulated(nodes: int) -> Topology:
        """So many nodes. Each of the machine's NUMA nodes is divided, into more parts where it has more CPUs. If the
        machine has more NUMA nodes than that, neighbours become one, with its memory on the first of them.
        """
    @staticmethod
    def from_file(path: str | PathLike[str]) -> Topology:
        """The map in a file: see ``from_json``.

        Raises:
            OSError: the file cannot be read.

        """
    @staticmethod
    def from_json(text: str) -> Topology:
        """An explicit map: JSON, in the form that ``as_dictionary`` has and ``nrfs topology --json`` prints.

        It suffices to give ``{"replicas": [{"cpus": [0, 1], "physical": 0}, ...]}``: CPUs for each node to replicate
        on, and optionally the NUMA node for its memory, by default that of its first CPU. CPUs can be left out. A CPU
        can be given to several nodes only where it is the only one of each.
        """
    @property
    def nodes(self) -> list[TopologyNode]:
        """The nodes to replicate on."""
    @property
    def machine_nodes(self) -> list[MachineNode]:
        """All NUMA nodes of the machine, in ascending order; if the kernel knows of none, one with all CPUs."""
    @property
    def allowed_cpus(self) -> list[int]:
        """The CPUs that are online and that this process may run on, in ascending order."""
    @property
    def offline_cpus(self) -> list[int]:
        """The CPUs that the machine has and that are offline, in ascending order."""
    def replica_bytes(self, size: int | str) -> int:
        """The bytes of content that a ``size`` as for :class:`Filesystem` allows each replica.

        Raises:
            ValueError: it is no size.

        """
    def as_dictionary(self) -> dict[str, Any]:
        """All of it, ready for JSON: ``{"replicas": [...], "machine": {"nodes": [...], "allowed_cpus": [int, ...],
        "offline_cpus": [int, ...]}}``, with the attributes of :class:`TopologyNode` and :class:`MachineNode`.
        """

@final
class Filesystem:
    """A node-replicated in-memory file system.

    Args:
        nodes: NUMA nodes to replicate on: ``"auto"`` for the machine's own, a number of emulated ones, or a
            :class:`Topology`.
        content: where the bytes of files lie: ``"replicated"``, at every node; or ``"shared"``, once, in a tmpfs that
            no path leads to.
        logs: parallel logs for replicated content. The tree has one more.
        size: the most bytes of file content: an int, or a string such as ``"8G"``. Each replica holds a copy, so the
            machine needs ``nodes`` times as much. Or ``"50%"``: that part of the memory of each NUMA node, for all
            replicas there together; of the node that has the least for each, as all replicas have the same content.
        inodes: the most inodes; by default as many as a size of ``"50%"`` has pages. Further names and long
            attributes and lists count, too: see docs/memory.md.
        mode: permission bits of the root directory.
        uid: owner of the root directory; by default the caller.
        gid: group of the root directory; by default the caller's.
        huge: huge pages for shared content, as tmpfs(5) has them.
        mpol: its memory policy, as tmpfs(5) has it; by default pages come from all nodes in turn.
        noswap: its pages are never swapped out (Linux 6.4 or later).

    Raises:
        ValueError: an argument out of range, with the reason.
        PermissionError: shared content needs CAP_SYS_ADMIN.
        MemoryError: there is not even memory for the reserves.
        OSError: by methods that make or write something: ENOSPC if there is no space, or no memory, for it.
        RuntimeError: by all methods, in a process that was forked after the file system was made. This is so for all
            objects of this module that have methods, but :class:`Topology`.

    """

    def __new__(
        cls,
        *,
        nodes: int | Literal["auto"] | Topology = "auto",
        content: str = "replicated",
        logs: int = 4,
        size: int | str = "50%",
        inodes: int | None = None,
        mode: int = 0o755,
        uid: int | None = None,
        gid: int | None = None,
        huge: str | None = None,
        mpol: str | None = None,
        noswap: bool = False,
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
        """Makes a regular file, fifo, socket or device node, according to the type in ``mode``.

        If the directory has a default access control list, the inode gets that list, and ``umask`` is ignored.
        """
    def mknod_nameless(
        self, parent: int, mode: int, *, umask: int = 0, uid: int | None = None, gid: int | None = None
    ) -> Attributes:
        """Makes a regular file without a name, as open(2) with O_TMPFILE does, and holds it once. It is dropped when it
        is forgotten, unless it was linked before.
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
        """``flags`` as for renameat2(2): RENAME_NOREPLACE 1, RENAME_EXCHANGE 2, RENAME_WHITEOUT 4.

        ``uid`` and ``gid`` will own the whiteout.
        """
    def readlink(self, ino: int) -> bytes: ...
    def readdir(self, ino: int, cookie: int = 0, limit: int = 1024) -> list[DirectoryEntry]:
        """At most ``limit`` entries after ``cookie`` (0: from the start), "." and ".." first.

        If the directory changes while it is listed, entries that existed all the time are listed exactly once. More
        than 1024 entries may belong to different moments.
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

        ``system.posix_acl_access`` and ``system.posix_acl_default`` are access control lists in Linux's binary form.
        The first changes the mode, and the mode changes it. For both, ``flags`` is ignored.
        """
    def listxattr(self, ino: int, *, uid: int = 0) -> list[bytes]:
        """The names that user ``uid`` sees; only root sees those that begin with ``trusted.``."""
    def removexattr(self, ino: int, name: bytes) -> None: ...

    # Content
    def read(self, ino: int, offset: int, size: int) -> bytes: ...
    def write(self, ino: int, offset: int, data: Buffer) -> int:
        """Returns the number of bytes written: fewer than given if the file system becomes full.

        Raises:
            OSError: ENOSPC if not one byte fits, EFBIG beyond the largest offset.

        """
    def fallocate(self, ino: int, offset: int, length: int, mode: int = 0) -> None:
        """``mode`` as for Linux: 0, or KEEP_SIZE 1, PUNCH_HOLE 2 (with KEEP_SIZE), ZERO_RANGE 16."""
    def seek(self, ino: int, offset: int, whence: int) -> int:
        """The next offset with data (``whence``: os.SEEK_DATA) or in a hole (os.SEEK_HOLE); ENXIO if there is none."""

    # The life of an inode: an unlinked one exists as long as it is held.
    def hold(self, ino: int, count: int = 1) -> None:
        """Adds ``count`` holds, which keep the inode after its last name is removed (lookups of the kernel, open
        files).
        """
    def forget(self, ino: int, count: int = 1) -> None:
        """Removes ``count`` holds. An inode without names and holds is dropped with its content."""

    # The whole
    def capacity(self) -> Capacity: ...
    def resize(self, *, size: int | str | None = None, inodes: int | None = None) -> None:
        """Changes the limits on content and on inodes, both or neither. None leaves one as it is.

        A lower size may have to wait until the kernel has written what it has collected for a mount.

        Raises:
            OSError: EINVAL: more is in use.
            ValueError: ``size`` is not an amount.

        """
    @property
    def is_scarce(self) -> bool:
        """Whether so little space is left that the kernel of a mount must ask before it collects data."""
    def status(self) -> dict[str, Any]:
        """Nodes with their CPUs, each replica's position and counters in each log, and space and inodes used."""
    def release_memory(self, *, surplus: bool = False) -> None:
        """Gives memory of deleted files, which is kept for reuse, back to the system, on every replica.

        With ``surplus``, only memory of content, and only as much as was not needed since the last call.
        """
    def verify(self) -> list[dict[str, Any]]:
        """Brings all replicas to the same position in each log, and returns their digests there:
        ``{"log": str, "position": int, "digests": [str, ...]}`` for each log.
        """

@final
class Connection:
    """A connection to the kernel. Its workers answer requests natively, or forward them to pyfuse3.

    Args:
        filesystem: the file system that is mounted.
        device: a descriptor of /dev/fuse on which a mount was made, or a socket that stands for one. The connection
            owns and closes it from then on, also if the channel cannot be started. Any other descriptor stays the
            caller's.
        channel: ``"ring"`` or ``"device"``: a worker for each CPU answers frequent requests, and pyfuse3 the rest.
            ``"pyfuse3"``: pyfuse3 answers nearly all requests.
        caching: whether the kernel may cache replies and data.
        collected: the most bytes of data that the kernel collects before it writes them. When less than twice as much
            is left, space is promised before data is collected.

    Raises:
        OSError: the channel cannot be started. EBADF if ``device`` is not open, ENODEV if it is of something else,
            EBUSY if another connection owns it.
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
        """A descriptor for pyfuse3, which closes it. For pyfuse3 it is a FUSE device that is already mounted."""
    @property
    def offers_passthrough(self) -> bool:
        """Whether the kernel offers to read and write the bytes of files itself. Known when pyfuse3 gets INIT."""
    def fileno(self) -> int:
        """A descriptor that becomes readable when no more requests will come."""
    def set_collected(self, bytes: int) -> None:
        """Changes ``collected``."""
    def statistics(self) -> list[dict[str, Any]]:
        """What each worker has done: ``{"cpu": int | None, "requests": {kind: count}}``.

        A message that forgets several inodes counts once.
        """
    def latencies(self) -> dict[str, list[tuple[int, int]]]:
        """By kind of request: ``(nanoseconds, count)`` in ascending order.

        So many requests took at most so long, and longer than the entry before says. The first 64 requests of a kind
        are timed, and then one of 8. They are timed from when a worker has a request to when the kernel has its reply.
        """
    def trace(
        self,
        *,
        kinds: Sequence[str] | None = None,
        process: int | None = None,
        fails: bool = False,
        nanoseconds: int = 0,
    ) -> Tracer:
        """Begins to trace requests: of these kinds, of this process, that fail, that take longer. By default all.

        Raises:
            ValueError: there is no such kind of request.

        """
    def end(self) -> None:
        """Ends the connection. pyfuse3 must have been closed before.

        Raises:
            OSError: why a worker failed before.

        """

@final
class Tracer:
    """Notes requests of a connection as long as it exists. It has room for 4096 of each worker."""

    def take(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """What has come since the last call, at most so many of each worker; and how many were lost, for want of room.

        Each is a dictionary: ``time`` (in seconds since 1970), ``kind``, ``inode``, ``paths`` (``{"path": str | None,
        "deleted": bool}`` for each name or inode in the request, None if it is not known), ``attribute`` (extended),
        ``offset``, ``length``, ``pid``, ``uid``, ``gid`` (all ones if the kernel does not tell), ``errno``,
        ``microseconds``, ``node`` (whose replica answered, None if it is not known) and ``batches`` (``{"log": str,
        "operations": int}`` for each log that has changed: how many operations the combiner appended together).
        """

@final
class Core:
    """A core, as it is now."""

    core: int
    """The number of the core: the kernel's number of the CPU, unless cores are emulated."""
    node: int
    online: bool
    process: int | None
    """The process that has it."""
    executor: int | None
    """The executor of the process there."""

@final
class Process:
    """What a process wants and has."""

    wanted: int
    """How many cores it wants in all."""
    cores: list[int]
    """The cores it has, in ascending order."""
    cached_executors: int
    """How many executors it has that are on no core."""
    upcalls: int
    """How many upcalls it has not taken yet."""

@final
class Upcall:
    """What a process is told of one of its cores."""

    core: int
    executor: int
    """The executor of the process there."""
    given: bool
    """Whether the core was given; if not, it was taken."""
    reason: Literal["share", "offline", "failed"] | None
    """Why the core was taken: the process's share became smaller or it wants fewer; the core stopped; the core and the
    executor are lost."""

@final
class Scheduler:
    """A scheduler that gives cores to processes, replicated on every node.

    It is for programs that share a machine by agreement, as the runs of ``nrfs bench`` do, and to study a replicated
    scheduler. It does not control the kernel: a process must itself run only on its cores.

    It is coarse-grained, like that of NrOS (OSDI '21): a process itself decides which thread runs on a core. An
    *upcall* tells it of each core given or taken, after "Scheduler Activations" (Anderson et al., 1992). On each core
    it has an *executor*, which is made when it is first needed, and then kept for the next core of the same node.

    The policy: shares are max-min fair by progressive filling (Bertsekas & Gallager, "Data Networks", 1992). So no core
    is idle while a process wants one, and no process has two cores fewer than another unless it wants no more. Cores
    that are left over after an even division go round: at each ``tick`` the processes that have waited longest get
    them. So each of ``n`` processes that wants a core has one at some time within ``n`` ticks. A process gets cores on
    nodes where it has the most, then where it has executors, then where most are idle. It loses cores where it has the
    fewest.

    Calls release the GIL. Reads use the replica of the node that the thread is on.

    Args:
        nodes: NUMA nodes to replicate on: ``"auto"`` for the machine's own, a number of emulated ones, or a
            :class:`Topology`.
        cores: None: the CPUs that this process may use. Otherwise so many emulated cores, split evenly over the nodes.

    Raises:
        ValueError: an argument out of range, with the reason.

    """

    def __new__(cls, *, nodes: int | Literal["auto"] | Topology = "auto", cores: int | None = None) -> Self: ...

    # Processes. If there is no such process: ProcessLookupError (ESRCH). If there is no such core: OSError (ENODEV).
    def create(self) -> int:
        """Makes a process, which wants no core yet; returns its number, which is never reused."""
    def exit(self, process: int) -> None:
        """Ends a process: frees its cores, and drops its executors and upcalls."""
    def request(self, process: int, cores: int) -> int:
        """Sets how many cores the process wants in all, more or fewer than before. Returns how many it has now. Upcalls
        tell it of these, and of later changes.

        Raises:
            OSError: EINVAL if there are fewer cores.

        """
    def release(self, process: int, core: int) -> None:
        """Gives a core back; the process wants one fewer. It gets no upcall for this.

        Raises:
            PermissionError: the process does not have the core.

        """
    def upcalls(self, process: int) -> list[Upcall]:
        """Takes the upcalls that the process has not taken yet, in the order of the events."""
    def free_executors(self, process: int) -> int:
        """Frees the executors of the process that are on no core; returns how many."""

    # Cores
    def tick(self) -> None:
        """Ends a quantum: cores that are left over go to the processes that have waited longest."""
    def offline(self, core: int) -> None:
        """The core stops; its executor is saved. OSError (EALREADY) if it is offline."""
    def fail(self, core: int) -> None:
        """The core is lost, and its executor with it. OSError (EALREADY) if it is offline."""
    def online(self, core: int) -> None:
        """The core can be given to processes again. OSError (EALREADY) if it is online."""

    # Reads, on this node's replica
    def executor(self, core: int) -> int | None:
        """The executor that runs on a core."""
    def cores(self) -> list[Core]:
        """All cores, in ascending order."""
    def processes(self) -> list[int]:
        """All processes, in ascending order."""
    def process(self, process: int) -> Process: ...
    def executors_made(self) -> int:
        """How many executors have been made. Their numbers are 1 to this."""
    def verify(self) -> dict[str, Any]:
        """Brings all replicas to the same position in the log, and returns their digests there:
        ``{"log": str, "position": int, "digests": [str, ...]}``.
        """

@final
class Mapping:
    """The mapping of an address."""

    address: int
    """The first address of the page."""
    page: int
    """Bytes in the page: 4 KiB, 2 MiB or 1 GiB."""
    frame: int
    """The physical address of the page."""
    physical: int
    """The physical address of the address that was resolved."""
    rights: str
    """Such as "rw-": a letter of "rwx" for each right, or a dash."""

@final
class Frame:
    """A frame that no mapping owns. It can be mapped at many addresses, and exists as long as its address space."""

    @property
    def address(self) -> int:
        """The physical address."""
    @property
    def size(self) -> int:
        """Bytes."""

@final
class AddressSpace:
    """The address space of one process, node-replicated: regions, a four-level page table, and cores with their TLBs.

    It shows what node replication does for virtual memory, as in "NrOS: Effective Replication and Sharing in an
    Operating System" (OSDI '21). It is a model: frames are only numbers, unless the address space is *backed*.

    The frames of a backed address space are memory of their node: a file in memory (memfd), which :meth:`view` shows as
    numpy arrays. A frame is all zeros when it is mapped.

    Each change succeeds as a whole or changes nothing, and all nodes see changes in the same order. The address space
    is cut into slices of 1 GiB, which belong to the logs in turn. Changes in slices of different logs do not wait for
    each other. Until a change of several slices has returned, reads may see it in only some of them.

    Methods of this class use the core that stands for the calling thread's CPU.

    Args:
        nodes: NUMA nodes to replicate on: ``"auto"`` for the machine's own, a number of emulated ones, or a
            :class:`Topology`.
        logs: parallel logs, at most 1024.
        cores: emulated cores, divided evenly among the nodes, at least one for each. At most 8192, and ``cores`` times
            ``logs`` at most 65536. By default as many as CPUs.
        memory: bytes of each node, rounded down to 4 KiB; at most 4 PiB in all.
        backed: whether the frames are real memory.

    Raises:
        ValueError: an argument out of range, with the reason. By methods: an unknown page size, or unknown rights.
        OSError: the system cannot give that much memory. By methods, which then change nothing: EINVAL for an address
            or length that is not a positive multiple of the page size, or not canonical; EEXIST if something is mapped
            there; EFAULT if nothing is; EACCES without the right; ENOMEM without free memory; EBUSY if a view shows
            what is mapped there.

    """

    def __new__(
        cls,
        *,
        nodes: int | Literal["auto"] | Topology = "auto",
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
        """Maps a frame, or free memory, preferably of the calling thread's node.

        Args:
            va: the address, a multiple of the page size.
            frame_or_size: a frame, which is mapped as one page of its size; or a number of bytes, a multiple of the
                page size.
            page: the size of the pages.
            rights: such as "rw-": a letter of "rwx" for each right, or a dash.
            replace: whether existing mappings are removed (MAP_FIXED) or an error (MAP_FIXED_NOREPLACE). When the call
                returns, no core can use the old translations.

        """
    def map_many(
        self,
        addresses: NDArray[np.uint64],
        *,
        page: Literal["4K", "2M", "1G"] = "4K",
        rights: str = "rw-",
        replace: bool = False,
    ) -> None:
        """Maps a page of free memory at each of an array of ``uint64`` addresses. If one is refused, none is mapped.
        The order does not matter, and an address that occurs twice counts once. Otherwise like :meth:`map`.

        Other changes wait meanwhile. There is one shootdown for all replaced mappings.
        """
    def unmap_many(self, addresses: NDArray[np.uint64], *, page: Literal["4K", "2M", "1G"] = "4K") -> None:
        """Removes all mappings in a page of this size at each of an array of ``uint64`` addresses: all or none, with
        one shootdown. Otherwise like :meth:`unmap`.
        """
    def view(self, va: int, length: int) -> NDArray[np.uint8]:
        """The memory that is mapped in ``length`` bytes, as an array. The array is writable if all of the pages are.
        All views of a frame see what is written by one of them.

        The memory is mapped into this process on first touch: the touching thread waits until the replica of the node
        where the view was made has resolved the address, for 2 MiB at once. If the process may not use userfaultfd(2),
        all of it is mapped when the view is made. ``statistics()["views"]["on_touch"]`` says which.

        While the array lives, or an array made from it, what it shows stays mapped, with the rights that it needs:
        changes that would take that away are refused with EBUSY. The array also keeps the memory if the address space
        is dropped. A forked process has a private copy: nobody else sees what it writes there. Pages that it has not
        written may still show later writes of the first process.

        Raises:
            OSError: EFAULT if it is not mapped everywhere; EACCES if it may not be read everywhere; ENODEV if the
                address space is not backed.
            MemoryError: the system has no more memory, or mappings: all views together can have half of
                vm.max_map_count, and a view needs one for each run of contiguous frames.

        """
    def frame(self, page: Literal["4K", "2M", "1G"] = "4K") -> Frame:
        """Allocates a frame, to be mapped. It exists as long as the address space."""
    def unmap(self, va: int, length: int) -> None:
        """Removes all mappings in ``length`` bytes, if there are any. Large pages of which a part stays are split. When
        it returns, no core can use the old translations.
        """
    def protect(self, va: int, length: int, rights: str) -> None:
        """Changes the rights of ``length`` bytes, which must be mapped everywhere. When it returns, no core can use the
        old rights.
        """
    def resolve(self, va: int) -> Mapping:
        """The mapping of an address."""
    def resolve_many(self, addresses: NDArray[np.uint64]) -> NDArray[np.void]:
        """Resolves an array of ``uint64`` addresses; returns one record for each.

        Fields: ``mapped`` (bool; if False, the others are 0), ``rights`` (read 1, write 2, execute 4), ``page`` (in
        bytes), ``physical`` (the physical address).
        """
    def regions(self) -> NDArray[np.void]:
        """Contiguous pages with the same rights, in ascending order: ``address``, ``length`` (bytes), ``rights`` (read
        1, write 2, execute 4). With several logs they may belong to different moments.
        """
    def page_table(self, node: int) -> NDArray[np.void]:
        """All pages in a node's page table, in ascending order: ``address``, ``page`` (bytes), ``frame`` (its physical
        address), ``rights`` (as for ``regions``), ``owned`` (whether the frame is freed with the page).

        Raises:
            IndexError: there is no such node.

        """
    def core(self, cpu: int) -> AddressSpaceCore:
        """A core, by its number from 0.

        Raises:
            IndexError: there is no such core.

        """
    def statistics(self) -> dict[str, Any]:
        """Bytes free, and for each core: TLB hits; walks of the node's page table; walks that failed because the
        replica was behind, and succeeded after it had caught up; faults; shootdowns; requests to other cores to forget
        translations; answers to such requests, each to all that had come; and the nanoseconds that its shootdowns
        waited for others, in all, and the longest. If the address space is backed: whether memory is shown on first
        touch, how many views there are, and how many first touches were answered.
        """
    def verify(self) -> list[dict[str, Any]]:
        """Brings all replicas to the same position in each log, and returns their digests there, like
        :meth:`Filesystem.verify`.
        """

@final
class AddressSpaceCore:
    """A core that uses an address space through its TLB, and by walks of its node's page table.

    Each access returns the physical address. The errors are those of the address space: EFAULT, EACCES, EINVAL.
    """

    def read(self, va: int) -> int:
        """Loads."""
    def write(self, va: int) -> int:
        """Stores."""
    def fetch(self, va: int) -> int:
        """Fetches an instruction."""
