"""The runtime directory: where a user's daemons have their control sockets and logs. Only that user can enter it.

Its path depends only on the user, so that a daemon is found from every session, and stays when a session
ends. Another user may have taken the name in /tmp: then a directory with another name is made, which is
recognised by its owner. When root looks into another user's directory, it follows no symlinks, neither to
the directory nor in it, and does not enter a FUSE file system, whose daemon might not answer.
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
    """All directories in which a user's daemons may have files, the preferred one first."""
    name = f"nrfs-{user}"
    if user == 0:
        return [Path("/run/nrfs"), _TEMPORARY / name, *_other_names(name, user)]
    return [_TEMPORARY / name, *_other_names(name, user), Path(f"/run/user/{user}/nrfs"), Path("/var/tmp") / name]


def _other_names(name: str, user: int) -> Sequence[Path]:
    """The directories of ``user`` in /tmp that were made because another user had taken the fixed name."""
    try:
        with os.scandir(_TEMPORARY) as entries:
            alike = [entry for entry in entries if entry.name.startswith(f"{name}-")]
            return sorted(Path(entry.path) for entry in alike if entry.stat(follow_symlinks=False).st_uid == user)
    except OSError:
        return []


def make_runtime_directory(mountpoint: str) -> Path:
    """The path of this user's runtime directory, which is made if it does not exist.

    It does not lie within ``mountpoint``: to use it there, the daemon would have to answer its own requests.

    Raises:
        MountError: no directory can be used.

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
    import tempfile  # Imported here, as it takes long and is rarely needed.

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
    """A descriptor of a runtime directory (O_PATH); None if it does not exist, or others than ``user`` can enter it."""
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
    """Whether a directory is on a FUSE file system, whose daemon might never answer."""
    within = (str(directory), *map(str, directory.parents))
    return any(entry.mountpoint in within and entry.filesystem_type.startswith("fuse") for entry in mountinfo.entries())


def names(directory: int, suffix: str) -> Sequence[str]:
    """The names with this suffix in a directory of ``opened``."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with os.scandir(readable) as entries:
            return [entry.name for entry in entries if entry.name.endswith(suffix)]
    finally:
        os.close(readable)


def is_plain_file(directory: int, name: str) -> bool:
    """Whether a name in a directory of ``opened`` is a plain file that is not empty."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


@contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """A lock that all processes of this user with this runtime directory share.

    It is on the directory, which other users cannot open.

    Raises:
        MountError: another process holds it for too long.

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
