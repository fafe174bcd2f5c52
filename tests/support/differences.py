"""Everything in which a mount of nrfs is known to differ from tmpfs. What is not listed here must be equal.

Each ability below is tested to be exactly what is said: a difference that goes away, or another one, fails a test.

Besides what a mount can do, it differs in this:

- under the writeback cache, a write(2) to a file system that is nearly full is taken whole or not at all; on tmpfs as
  much as fits. One that is larger than all that is left, and comes before little is left, is taken, and fsync(2) or
  close(2) tells that it was not stored: see ``docs/full.md`` (``test_full``, ``test_limits``);
- ENOSPC comes early, by up to 1 MiB, for what is written through a pipe in the kernel, and for callers at whom the
  daemon may not look;
- after data that was collected could not be stored, syncfs(2) of somebody else is told of it once: the kernel keeps one
  note for the whole mount;
- fanotify(7) cannot mark the whole file system with FAN_REPORT_FID: the kernel gives FUSE no fsid;
- times are those of the kernel's tick; on tmpfs they are finer where somebody looks in between (multigrain);
- targets of more than 128 bytes and access control lists of more than twelve entries take space of inodes, as many
  bytes as they have; on tmpfs such a target has a page, and lists are not counted (``test_limits``);
- under the writeback cache, st_blocks of an open file tells what it was when the file was last closed;
- without the page cache, truncate(2) to the size that a file has already stamps its times; on tmpfs not if it has no
  pages;
- what goes through a fifo does not change the times of its name: the kernel does not tell the file system;
- set-group-id on a file without the group's right to execute stays when somebody outside the group changes the file:
  the kernel does not tell the file system to take it away, as it does where the group may execute;
- under the writeback cache, if a process is killed in the midst of a rename, link or unlink, the next close(2) of the
  file fails once with EIO: the kernel takes the time stamp that it could not send any more for lost data. None is;
- an access control list has up to 4 KiB, no more than the kernel passes on; on tmpfs it has 64 KiB (``test_acl``);
- xattrs in ``trusted.`` are listed, and set-user-id stays where a file is copied into or allocated, for processes of
  root's that have CAP_SYS_ADMIN, or CAP_FSETID; on tmpfs for all that have it. The kernel does not say who asks, so the
  file system looks at the process: not at those for whom it acts, as overlayfs does (``test_id_mapped_mounts``);
- statx(2) does not show what chattr(1) has set: the kernel is told, and passes nothing on (``test_inode_flags``);
- of what is immutable or append-only the kernel knows nothing: access(2) says that a directory may be written; where an
  operation is wrong in two ways, the other errno may be told; what has been opened for appending may be mapped, and can
  be told by fcntl(2) to overwrite. The native channels under the writeback cache are not asked to open a file, but for
  its attributes, and look at what the process does: they do not see what io_uring or a program of 32 bits opens, and a
  daemon that may not look at others' processes, that of an ordinary user, sees nothing;
- under the writeback cache, by pyfuse3, access(2) says the same of files;
- who opens an immutable file by openat2(2) can change in another thread what it asks for, after the kernel has read
  it and before the file system does;
- FS_IOC_GETFSUUID is unknown (ENOTTY): a FUSE mount has no such number;
- lseek(2) with SEEK_END on a directory fails with EINVAL on tmpfs; on FUSE the kernel seeks, from its size;
- a directory lists its entries in an order of its own: new ones first where others went, then behind the last.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Abilities:
    """What a file system can do of that which not every mount can."""

    fallocate: bool = True
    """pyfuse3 has no request for fallocate(2): it fails with EOPNOTSUPP, and changes nothing."""

    refusal_of_zero_ranges: bool = True
    """fallocate(2) with FALLOC_FL_ZERO_RANGE: tmpfs refuses it, the native channels do it."""

    xattr_flags_that_exclude_each_other: bool = True
    """setxattr(2) with XATTR_CREATE and XATTR_REPLACE can only fail; pyfuse3 takes it for XATTR_CREATE."""

    chown_of_nothing: bool = True
    """chown(2) with -1 for both ids takes set-user-id and set-group-id away, also on tmpfs. The kernel does not tell
    the file system of it, but that ctime has changed.
    """

    removal_of_a_list_by_outsiders: bool = True
    """Who removes the access control list of his own file, but is outside the file's group, takes set-group-id away. Of
    a list that is set the kernel tells that to the file system, but not of one that is removed.
    """

    mapped_writes: bool = True
    """Without the kernel's page cache there is no shared mapping: mmap(2) with MAP_SHARED fails with ENODEV."""

    nameless_files: bool = True
    """pyfuse3 has no request for open(2) with O_TMPFILE: it fails with EOPNOTSUPP."""

    truncation_in_vain: bool = True
    """truncate(2) to the size that a file with pages has already stamps its times on tmpfs. Under the writeback cache
    the kernel keeps the times and does not, whatever the file system says; ftruncate(2) stamps them everywhere.
    """


ALL = Abilities()
"""What tmpfs can do."""


def abilities_of(cache: str, channel: str) -> Abilities:
    """What a mount can do with this ``--cache`` on this ``--channel``."""
    writeback = cache == "writeback"
    native = channel != "pyfuse3"
    return Abilities(
        fallocate=native,
        refusal_of_zero_ranges=not native,
        xattr_flags_that_exclude_each_other=native,
        chown_of_nothing=False,
        removal_of_a_list_by_outsiders=False,
        mapped_writes=writeback or native,
        nameless_files=native,
        truncation_in_vain=not writeback,
    )
