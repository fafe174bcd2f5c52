"""Where the files of daemons lie: their control sockets and logs, in a directory that its user alone can enter.

The place depends on nothing but the user, so that a daemon is found from every session, and it does
not end with a session. Its name in /tmp can be taken by anybody: where it is, another one is made,
which is known by its owner. What others may look at there (root, of a user's) is opened one step at a
time, never followed through a symlink, and never on a file system that somebody serves himself.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mount import mountinfo
from mount.failure import MountError

_TEMPORARY = Path("/tmp")
_LONGEST_SOCKET_PATH = 107
_LONGEST_NAME = len("1048575-1048575.sock")
_PATIENCE_SECONDS = 10.0


def runtime_directories(user: int) -> list[Path]:
    """Where the files of a user's daemons can be, the best place first."""
    name = f"nrfs-{user}"
    if user == 0:
        return [Path("/run/nrfs"), _TEMPORARY / name, *_other_names(name, user)]
    return [_TEMPORARY / name, *_other_names(name, user), Path(f"/run/user/{user}/nrfs"), Path("/var/tmp") / name]


def _other_names(name: str, user: int) -> Sequence[Path]:
    """What was made because somebody else had taken the fixed name."""
    try:
        with os.scandir(_TEMPORARY) as entries:
            alike = [entry for entry in entries if entry.name.startswith(f"{name}-")]
            return sorted(Path(entry.path) for entry in alike if entry.stat(follow_symlinks=False).st_uid == user)
    except OSError:
        return []


def make_runtime_directory(mountpoint: str) -> Path:
    """Makes this user's runtime directory where it is not yet there.

    It is one that a mount at ``mountpoint`` does not cover: there the daemon would have to ask itself.

    Raises:
        MountError: there is no place that only this user can write to.

    """
    user = os.geteuid()
    for directory in runtime_directories(user):
        try:
            if not _is_fit(directory, mountpoint):
                continue
            directory.mkdir(mode=0o700, exist_ok=True)
            with opened(directory, user) as descriptor:
                if descriptor is not None:
                    return directory
        except OSError:
            continue
    import tempfile  # It takes a while, and this is seldom.

    try:
        if _is_fit(_TEMPORARY, mountpoint):
            return Path(tempfile.mkdtemp(prefix=f"nrfs-{user}-", dir=_TEMPORARY))
    except OSError:
        pass
    places = " or ".join(map(str, runtime_directories(user)))
    raise MountError(f"no directory for the control socket: {places} must be this user's own, mode 0700")


def _is_fit(directory: Path, mountpoint: str) -> bool:
    is_short = len(os.fsencode(directory)) + 1 + _LONGEST_NAME <= _LONGEST_SOCKET_PATH
    return is_short and not directory.resolve().is_relative_to(mountpoint)


@contextmanager
def opened(directory: Path, user: int) -> Iterator[int | None]:
    """A descriptor of a runtime directory to look names up in; None where it is not there, or not its user's alone."""
    descriptor = _open(directory, user)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(directory: Path, user: int) -> int | None:
    if user != os.geteuid() and _is_served(directory):
        return None
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if status.st_uid == user and not status.st_mode & 0o077:
        return descriptor
    os.close(descriptor)
    return None


def _is_served(directory: Path) -> bool:
    """Whether a process answers for it, perhaps never: it is on a FUSE file system."""
    within = (str(directory), *map(str, directory.parents))
    return any(entry.mountpoint in within and entry.filesystem_type.startswith("fuse") for entry in mountinfo.entries())


def names(directory: int, suffix: str) -> Sequence[str]:
    """Those in a directory of ``opened`` that end so."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(readable) as entries:
            return [entry.name for entry in entries if entry.name.endswith(suffix)]
    finally:
        os.close(readable)


def is_plain_file(directory: int, name: str) -> bool:
    """Whether there is something to read under a name in a directory of ``opened``."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Lets the processes of this user that have this runtime directory in only one after the other.

    The lock is on the directory, which nobody else can open.

    Raises:
        MountError: it takes too long.

    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise MountError(f"{directory}: another nrfs has locked it for {_PATIENCE_SECONDS:.0f} s") from None
                time.sleep(0.002)
        yield
    finally:
        os.close(descriptor)
