"""Makes a mount, holds its descriptor, and takes it away.

Root mounts by system calls. Other users mount through fusermount3, libfuse's set-user-id helper, which
sends the descriptor over a socket (``_FUSE_COMMFD``). Other modules serve the requests that arrive at the
descriptor.

A path may lead elsewhere at any time: the owner of a directory on the way can rename things there, and make
symlinks. So root mounts at an open directory, and takes a mount away only after a check of its number.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from mount import covered, kernel, mountinfo, places, processes
from mount.failure import MountError
from mount.options import MountOptions

DEVICE = Path(processes.DEVICE)

_FLAGS_OF_THE_FILESYSTEM = frozenset({"ro", "sync", "dirsync"})
_USERS_NAMED = 3
_LED_ASTRAY = frozenset({errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""The errors of a path that leads elsewhere by now."""
_ATTEMPTS = 1000


@final
@dataclass(frozen=True)
class Mount:
    """A mount that this process made. The code that serves it must close ``descriptor``."""

    descriptor: int
    """A descriptor of /dev/fuse, from which requests are read. The mount works as long as it is open anywhere."""
    entry: mountinfo.MountEntry

    def is_there(self) -> bool:
        """Whether this process still sees the file system mounted anywhere, also by mount --bind."""
        return is_mounted(self.entry.device)

    def detach(self) -> None:
        """Takes the mount out of the tree at once, even if it is in use. Does nothing if it is already gone.

        A mount on top of it stays. The descriptor should be closed before: otherwise the kernel may first
        send data that it has to write.

        Raises:
            MountError: why the mount is still there.

        """
        entry = self._present()
        if entry is None:
            return
        try:
            _take_away(entry)
        except MountError:
            if self._present() is not None:  # Else somebody took it away at the same time.
                raise

    def detach_if_dead(self) -> None:
        """Like ``detach``, after the kernel ended the connection because of an unmount or an abort.

        After an unmount, another mount may have the same numbers as this one had; it is alive, and stays. If the kernel
        shows its daemon, it is not even touched: for that moment, nobody could unmount it.
        """
        entry = self._present()
        if entry is None or processes.daemon_of(entry.device) is not None:
            return
        if _is_covered(entry):
            covered.take_away(entry)
            return
        with suppress(OSError), _opened(entry) as descriptor:
            try:
                os.fstatvfs(descriptor)
            except OSError as error:
                if error.errno == errno.ENOTCONN:
                    _take_away(entry)

    def _present(self) -> mountinfo.MountEntry | None:
        entry = mountinfo.by_id(self.entry.mount_id)
        return entry if entry is not None and entry.device == self.entry.device else None


def attach(options: MountOptions, directory: Path) -> Mount:
    """Mounts at ``options.mountpoint``. Then the kernel's first request waits at the descriptor.

    Args:
        options: what to mount.
        directory: this user's runtime directory, whose lock makes mounts take turns.

    Raises:
        MountError: why it cannot mount. Nothing is left behind.

    """
    mountpoint = options.mountpoint
    with places.one_at_a_time(directory), _checked_directory(mountpoint) as target:
        if os.geteuid() == 0:
            descriptor, mount_id = _mount_as_root(options, target)
            entry = mountinfo.by_id(mount_id)
        else:
            descriptor = _mount_by_fusermount(options)
            entry = mountinfo.topmost_at(mountpoint)
    if entry is None or not entry.is_ours or entry.owner != os.geteuid():
        os.close(descriptor)
        raise MountError(f"{mountpoint}: the mount was taken away at once")
    below = mountinfo.by_id(entry.parent_id)
    if below is not None and below.is_ours and below.mountpoint == entry.mountpoint:
        # Another user has mounted here meanwhile. This later mount goes, as if it had found the other one.
        os.close(descriptor)
        _take_away(entry)
        raise MountError(_taken(mountpoint))
    return Mount(descriptor, entry)


def is_mounted(device: str) -> bool:
    """Whether the file system of this device number is mounted anywhere."""
    return any(entry.device == device for entry in mountinfo.entries())


@contextmanager
def _checked_directory(mountpoint: str) -> Iterator[int]:
    """A descriptor of the directory to mount at; it exists, and nrfs is not mounted there yet."""
    try:
        target = os.open(mountpoint, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountError(f"{mountpoint}: no such directory") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(f"{mountpoint}: the daemon of the mount that is here is dead") from None
        raise MountError(f"{mountpoint}: {_reason(error)}") from None
    try:
        # The path was resolved before. If it leads elsewhere now, somebody has changed a directory on the way.
        if str(Path(f"/proc/self/fd/{target}").readlink()) != mountpoint:
            raise MountError(f"{mountpoint}: the path leads elsewhere by now")
        here = mountinfo.by_id(mountinfo.id_of(target))
        if here is not None and here.is_ours and here.mountpoint == mountpoint:
            raise MountError(_taken(mountpoint))
        yield target
    finally:
        os.close(target)


def _taken(mountpoint: str) -> str:
    return f"{mountpoint}: nrfs is mounted here already (nrfs umount ends it)"


def unmount(entry: mountinfo.MountEntry, *, lazy: bool) -> None:
    """Takes a mount out of the tree; with ``lazy``, even if it is in use.

    Raises:
        MountError: why it cannot unmount.

    """
    if os.geteuid() == 0:
        try:
            _unmount_as_root(entry, _detach if lazy else _unmount)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise MountError(_busy(entry)) from None
            raise MountError(f"{entry.mountpoint}: {_unmount_failure(error)}") from None
        return
    if entry.owner != os.geteuid():
        raise MountError(f"{entry.mountpoint}: no right to unmount what another user (id {entry.owner}) mounted")
    command = [fusermount(), "-u", *(["-z"] if lazy else []), "--", entry.mountpoint]
    helper = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if helper.returncode != 0:
        said = _last_words(helper.stderr)
        raise MountError(_busy(entry) if "busy" in said else f"{entry.mountpoint}: {said}")


def _take_away(entry: mountinfo.MountEntry) -> None:
    if _is_covered(entry):
        covered.take_away(entry)
    else:
        unmount(entry, lazy=True)


def _is_covered(entry: mountinfo.MountEntry) -> bool:
    """Whether something is mounted on top of a mount, so that the mount's path leads to that."""
    return any(
        other.parent_id == entry.mount_id and other.mountpoint == entry.mountpoint for other in mountinfo.entries()
    )


@contextmanager
def _opened(entry: mountinfo.MountEntry) -> Iterator[int]:
    """A descriptor of a mount's root. Raises ``OSError`` (EINVAL) if the mount's path leads elsewhere."""
    descriptor = os.open(entry.mountpoint, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if mountinfo.id_of(descriptor) != entry.mount_id:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        yield descriptor
    finally:
        os.close(descriptor)


def _unmount_as_root(entry: mountinfo.MountEntry, unmount: Callable[[mountinfo.MountEntry], None]) -> None:
    """Calls ``unmount``; tries again with the mount's new path if directories on the way are moved meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            return unmount(entry)
        except OSError as error:
            now = mountinfo.by_id(entry.mount_id)
            if error.errno not in _LED_ASTRAY or now is None or now.device != entry.device or _is_covered(now):
                raise
            entry = now
    raise OSError(errno.EAGAIN, "the path to it does not stay the same for a moment")


def _detach(entry: mountinfo.MountEntry) -> None:
    with _opened(entry) as descriptor:
        kernel.umount(kernel.path_of(descriptor), kernel.MNT_DETACH)


def _unmount(entry: mountinfo.MountEntry) -> None:
    """Unmounts by a name in the open parent directory, where the kernel lets nobody rename a mount point.

    A descriptor of the mount itself would keep it busy, and so would a working directory within it: so the
    parent becomes the working directory.
    """
    parent, name = os.path.split(entry.mountpoint)
    if not name:
        kernel.umount(b"/", kernel.UMOUNT_NOFOLLOW)
        return
    above = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchdir(above)
        with _opened(replace(entry, mountpoint=name)):
            pass
        kernel.umount(os.fsencode(name), kernel.UMOUNT_NOFOLLOW)
    finally:
        os.close(above)


def _busy(entry: mountinfo.MountEntry) -> str:
    """The message that a mount is in use, and by which processes as far as this user may know."""
    said = f"{entry.mountpoint}: target is busy"
    within = [other.mountpoint for other in mountinfo.entries() if other.parent_id == entry.mount_id]
    users = [f"process {user.process} ({user.name}) has {user.path}" for user in processes.users_of(entry)]
    reasons = [*(f"something is mounted at {mountpoint}" for mountpoint in within), *users]
    if len(reasons) > _USERS_NAMED:
        reasons = [*reasons[:_USERS_NAMED], f"{len(reasons) - _USERS_NAMED} more"]
    return f"{said}: {', '.join(reasons)}" if reasons else said


def _mount_as_root(options: MountOptions, target: int) -> tuple[int, int]:
    """Mounts by system calls; returns the descriptor for requests, and the new mount's number."""
    descriptor = open_device()
    try:
        return descriptor, _mount_at(target, descriptor, options)
    except OSError as error:
        os.close(descriptor)
        raise MountError(f"{options.mountpoint}: {_mount_failure(error)}") from None


def _mount_at(target: int, descriptor: int, options: MountOptions) -> int:
    settings = {"source": options.source, "subtype": "nrfs", "fd": str(descriptor), "rootmode": f"{stat.S_IFDIR:o}"}
    settings |= {"user_id": str(os.geteuid()), "group_id": str(os.getegid()), **dict(options.labels)}
    flags = {"default_permissions", *(options.flags & _FLAGS_OF_THE_FILESYSTEM)}
    flags |= {"allow_other"} if options.allow_other else set()
    with _closing(kernel.new_filesystem(mountinfo.FILESYSTEM_TYPE)) as filesystem:
        for name, value in settings.items():
            kernel.configure(filesystem, name, value)
        for name in sorted(flags):
            kernel.configure(filesystem, name)
        kernel.create(filesystem)
        attributes = sum(kernel.MOUNT_ATTRIBUTES.get(flag, 0) for flag in options.flags)
        with _closing(kernel.mount_of(filesystem, attributes)) as mount:
            kernel.put_mount(mount, target)
            return mountinfo.id_of(mount)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_device() -> int:
    """Opens /dev/fuse. The new descriptor does not belong to a mount yet.

    Raises:
        MountError: why it cannot be opened, and what would help.

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
    # fusermount3 opens the device with the user's own rights. If that fails, it fails here with a better message.
    os.close(open_device())
    source = options.source.replace("\\", "\\\\").replace(",", "\\,")
    settings = [f"fsname={source}", "subtype=nrfs", "default_permissions", *sorted(options.flags)]
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
    """The path of libfuse's helper.

    Raises:
        MountError: it is missing.

    """
    path = shutil.which("fusermount3")
    if path is None:
        raise MountError("fusermount3 is missing: install fuse3 (only root does without)")
    return path


def _last_words(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].split("fusermount3: ", 1)[-1].strip() if lines else "fusermount3 failed without a word"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _mount_failure(error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "no right to mount (CAP_SYS_ADMIN is missing)"
        case errno.ENODEV:
            return "the kernel has no FUSE (modprobe fuse)"
        case errno.ENOSYS:
            return "the kernel is too old (Linux 5.4 or later is wanted)"
    return _reason(error)


def _unmount_failure(error: OSError) -> str:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "no right to unmount (CAP_SYS_ADMIN is missing)"
        case errno.EINVAL | errno.ENOENT | errno.ENOTDIR | errno.ELOOP:
            return "not mounted"
    return _reason(error)
