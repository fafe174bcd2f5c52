"""The owner of a mount: makes it, holds its descriptor, takes it away.

Who serves the requests that arrive at the descriptor is no matter here. Root mounts by mount(2);
anyone else through fusermount3, libfuse's set-user-id helper, which hands back the descriptor over a
socket (``_FUSE_COMMFD``).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from mount import mountinfo
from mount.failure import MountError
from mount.options import MountOptions

DEVICE = Path("/dev/fuse")

_MS_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "dirsync": 128, "noatime": 1024}
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


@final
@dataclass(frozen=True)
class Mount:
    """A mount that this process made. Whoever serves it closes ``descriptor``."""

    descriptor: int
    """Of /dev/fuse: requests are read there. The mount works as long as anyone holds it open."""
    entry: mountinfo.MountEntry

    def detach(self) -> None:
        """Takes the mount out of the tree at once, in use or not. Does nothing where it is gone already.

        The descriptor should be closed before: else the kernel may first send what it has to write.
        """
        for entry in self._entries():
            unmount(entry, lazy=True)

    def detach_if_dead(self) -> None:
        """Does the same after the kernel ended the connection: by an unmount, or else by an abort.

        After an unmount another mount may have got all the numbers of this one, and must stay.
        """
        for entry in self._entries():
            try:
                os.statvfs(entry.mountpoint)
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    unmount(entry, lazy=True)

    def _entries(self) -> list[mountinfo.MountEntry]:
        numbers = (self.entry.mount_id, self.entry.device)
        return [entry for entry in mountinfo.entries() if (entry.mount_id, entry.device) == numbers]


def attach(options: MountOptions) -> Mount:
    """Mounts at ``options.mountpoint``; the kernel's first request waits at the descriptor then.

    Raises:
        MountError: why it cannot be; nothing is left behind.

    """
    mountpoint = options.mountpoint
    _check_free(mountpoint)
    with _claimed(mountpoint):
        _check_free(mountpoint)
        descriptor = _mount_as_root(options) if os.geteuid() == 0 else _mount_by_fusermount(options)
        entry = mountinfo.topmost_at(mountpoint)
    if entry is None or not entry.is_ours:
        os.close(descriptor)
        raise MountError(f"{mountpoint}: the mount was taken away at once")
    return Mount(descriptor, entry)


def unmount(entry: mountinfo.MountEntry, *, lazy: bool) -> None:
    """Takes ``entry``'s mount out of the tree; a lazy one though it is in use.

    Raises:
        MountError: why it cannot be.

    """
    if os.geteuid() == 0:
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
        if _libc().umount2(os.fsencode(entry.mountpoint), flags) != 0:
            raise MountError(f"{entry.mountpoint}: {_unmount_failure(ctypes.get_errno())}")
        return
    if entry.owner != os.geteuid():
        raise MountError(f"{entry.mountpoint}: no right to unmount what another user (id {entry.owner}) mounted")
    command = [fusermount(), "-u", *(["-z"] if lazy else []), "--", entry.mountpoint]
    helper = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if helper.returncode != 0:
        said = _last_words(helper.stderr)
        raise MountError(f"{entry.mountpoint}: {'target is busy' if 'busy' in said else said}")


def _check_free(mountpoint: str) -> None:
    taken = mountinfo.topmost_at(mountpoint)
    if taken is not None and taken.is_ours:
        raise MountError(f"{mountpoint}: nrfs is mounted here already (nrfs umount ends it)")


@contextmanager
def _claimed(mountpoint: str) -> Iterator[None]:
    """Lets one nrfs at a time mount at a directory, which is checked to be one.

    The lock is on the directory itself and so leaves nothing behind.
    """
    descriptor = _open_directory(mountpoint)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MountError(f"{mountpoint}: another nrfs is just being mounted here") from None
        yield
    finally:
        os.close(descriptor)


def _open_directory(mountpoint: str) -> int:
    try:
        return os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountError(f"{mountpoint}: no such directory") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(f"{mountpoint}: the daemon of the mount that is here is dead") from None
        raise MountError(f"{mountpoint}: {_reason(error)}") from None


def _mount_as_root(options: MountOptions) -> int:
    descriptor = open_device()
    settings = f"fd={descriptor},rootmode={stat.S_IFDIR:o},user_id={os.geteuid()},group_id={os.getegid()}"
    settings += ",default_permissions" + (",allow_other" if options.allow_other else "")
    flags = sum(_MS_FLAGS[flag] for flag in options.flags)
    target = os.fsencode(options.mountpoint)
    filesystem_type = mountinfo.FILESYSTEM_TYPE.encode()
    if _libc().mount(b"nrfs", target, filesystem_type, ctypes.c_ulong(flags), settings.encode()) != 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise MountError(f"{options.mountpoint}: {_mount_failure(number)}")
    return descriptor


def open_device() -> int:
    """Opens the device; a new descriptor of it is no mount's yet.

    Raises:
        MountError: why it cannot be, and what would help.

    """
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            advice = f"the kernel needs FUSE (modprobe fuse; in a container: --device {DEVICE})"
            raise MountError(f"{DEVICE} is missing: {advice}") from None
        if error.errno == errno.EACCES:
            raise MountError(f"{DEVICE}: no right to open it (root can allow it to all: chmod 666 {DEVICE})") from None
        raise MountError(f"{DEVICE}: {_reason(error)}") from None


def _mount_by_fusermount(options: MountOptions) -> int:
    for flag in ("nosuid", "nodev"):
        if flag not in options.flags:
            raise MountError(f"-o {flag.removeprefix('no')}: only root may")
    # fusermount3 opens the device with the user's own rights, so what fails here fails there.
    os.close(open_device())
    settings = ["fsname=nrfs", "subtype=nrfs", "default_permissions", *sorted(options.flags)]
    if options.allow_other:
        settings.append("allow_other")
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            helper = subprocess.run(
                [fusermount(), "-o", ",".join(settings), "--", options.mountpoint],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        if helper.returncode != 0:
            raise MountError(f"{options.mountpoint}: {_last_words(helper.stderr)}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise MountError(f"{options.mountpoint}: fusermount3 handed over no descriptor")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def fusermount() -> str:
    """Where libfuse's helper is.

    Raises:
        MountError: it is missing.

    """
    path = shutil.which("fusermount3")
    if path is None:
        raise MountError("fusermount3 is missing: install fuse3 (only root does without)")
    return path


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].split("fusermount3: ", 1)[-1].strip() if lines else "fusermount3 failed without a word"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _mount_failure(number: int) -> str:
    if number in (errno.EPERM, errno.EACCES):
        return "no right to mount (CAP_SYS_ADMIN is missing)"
    if number == errno.ENODEV:
        return "the kernel has no FUSE (modprobe fuse)"
    return os.strerror(number).lower()


def _unmount_failure(number: int) -> str:
    match number:
        case errno.EBUSY:
            return "target is busy"
        case errno.EPERM | errno.EACCES:
            return "no right to unmount (CAP_SYS_ADMIN is missing)"
        case errno.EINVAL | errno.ENOENT:
            return "not mounted"
    return os.strerror(number).lower()
