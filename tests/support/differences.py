"""All known differences between a mount of nrfs and tmpfs. Everything else must be equal.

Tests check each ability below: if a difference goes away, or becomes another one, a test fails.

Further differences:

- under the writeback cache, a write(2) to a file system that is nearly full succeeds as a whole or fails; on tmpfs it
  writes as much as fits. If it is larger than the space that is left while that is not yet scarce, it succeeds, and
  fsync(2) or close(2) reports that it was not stored: see ``docs/full.md`` (``test_full``, ``test_limits``);
- ENOSPC comes up to 1 MiB early for writes through a pipe in the kernel, and for callers whose processes the daemon
  may not inspect;
- after collected data could not be stored, one syncfs(2), by any process, fails once, too: the kernel keeps one error
  for the whole mount;
- fanotify(7) cannot mark the whole file system with FAN_REPORT_FID: the kernel gives FUSE no fsid;
- time stamps have the resolution of the kernel's tick; on tmpfs they are finer if somebody has read the last one since
  (multigrain);
- targets of more than 128 bytes and access control lists of more than twelve entries take inode space, as many bytes
  as they are long; on tmpfs such a target takes a page, and lists are not counted (``test_limits``);
- under the writeback cache, st_blocks of an open file is the value of the time when the file was last closed;
- without the page cache, truncate(2) to the size that a file already has sets its times; on tmpfs only if the file has
  pages;
- reads and writes of a fifo do not change the times of its inode: the kernel does not report them to the file system;
- set-group-id of a file that its group may not execute stays when somebody outside the group changes the file: the
  kernel does not tell the file system to take it away, as it does if the group may execute the file;
- under the writeback cache, if a process is killed during a rename, link or unlink, the next close(2) of the file fails
  once with EIO: the kernel could not send a time stamp any more, and takes that for lost data. No data is lost;
- an access control list may have 4 KiB, as the kernel passes on no more; on tmpfs 64 KiB (``test_acl``);
- xattrs in ``trusted.`` are listed for root's processes with CAP_SYS_ADMIN, and set-user-id stays on a file that is
  copied into or allocated for root's processes with CAP_FSETID; on tmpfs for all processes with these. The kernel does
  not send capabilities, so the file system inspects the calling process, which may act for another one, as overlayfs
  does (``test_id_mapped_mounts``);
- with shared content: a file that is mapped for writing, and not open, can be executed (ETXTBSY on tmpfs); a file
  without a name, unlinked while space was nearly used up, cannot be opened again by a descriptor with O_PATH (ESTALE);
  set-user-id also goes if root writes to a file that has security.capability, too, and if a write fails at a limit
  of the process;
- statx(2) does not show flags of chattr(1): nrfs sends them, and the kernel ignores them (``test_inode_flags``);
- the kernel does not know which inodes are immutable or append-only. So access(2) says that such a directory may be
  written; if an operation is wrong in two ways, the errno may be the other one; a file that was opened for appending
  may be mapped, and fcntl(2) can clear O_APPEND. Under the writeback cache the native channels get no request to open
  a file, only one for its attributes, and inspect the system call of the process: they do not see what io_uring or a
  32-bit program opens, and the daemon of an ordinary user, which may not inspect other users' processes, sees nothing
  of theirs;
- under the writeback cache, by pyfuse3, access(2) also says that such a file may be written;
- a process that opens an immutable file by openat2(2) can change the arguments in another thread, after the kernel has
  read them and before the file system does;
- FS_IOC_GETFSUUID fails with ENOTTY: a FUSE mount has no UUID;
- lseek(2) with SEEK_END on a directory fails with EINVAL on tmpfs; on FUSE the kernel seeks from the directory's size;
- the order of entries in a directory is different: new entries take the places of removed ones, then come last.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Abilities:
    """The features that not every mount supports."""

    fallocate: bool = True
    """pyfuse3 does not support fallocate(2): it fails with EOPNOTSUPP, and changes nothing."""

    refusal_of_zero_ranges: bool = True
    """tmpfs refuses fallocate(2) with FALLOC_FL_ZERO_RANGE; the native channels support it."""

    xattr_flags_that_exclude_each_other: bool = True
    """setxattr(2) with both XATTR_CREATE and XATTR_REPLACE always fails; pyfuse3 treats it as XATTR_CREATE."""

    chown_of_nothing: bool = True
    """chown(2) with -1 for both ids takes set-user-id and set-group-id away on tmpfs. A FUSE file system is only
    asked to set ctime, or nothing, and also for callers to whom tmpfs refuses it.
    """

    removal_of_a_list_by_outsiders: bool = True
    """If an owner who is outside the file's group removes the access control list, set-group-id is taken away. The
    kernel tells this to a FUSE file system when a list is set, but not when it is removed.
    """

    mapped_writes: bool = True
    """Without the kernel's page cache there are no shared mappings: mmap(2) with MAP_SHARED fails with ENODEV."""

    nameless_files: bool = True
    """pyfuse3 does not support open(2) with O_TMPFILE: it fails with EOPNOTSUPP."""

    truncation_in_vain: bool = True
    """truncate(2) to the size that a file with pages already has sets its times on tmpfs. Under the writeback cache the
    kernel keeps the times and does not set them, whatever the file system does; ftruncate(2) always sets them.
    """


ALL = Abilities()
"""The abilities of tmpfs."""


def abilities_of(cache: str, channel: str, content: str) -> Abilities:
    """The abilities of a mount with this ``--cache``, ``--channel`` and ``--content``."""
    writeback = cache == "writeback" and content == "replicated"
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
