"""The client's side of the control socket, by which ``nrfs status`` and ``nrfs umount`` reach a daemon.

The socket's name contains the mount's device number, as /proc/self/mountinfo has it. So a daemon is found
without touching the mount, from every session. A client sends one line of JSON, ``{"command": ...}``, with
what else the command needs, and gets one line back. Any program may listen under that name. So the client
asks the kernel which user it belongs to before it sends anything, and bounds the reply in length and time
(``mount.replies`` checks it).
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any

from mount import liveness, mountinfo, places, replies
from mount.failure import MountError
from mount.liveness import Life

NO_RIGHT = "no right to ask the daemon of another user"

_PATIENCE_SECONDS = 5.0
_LONGEST_REPLY = 4 << 20
_PEER_CREDENTIALS = Struct("3i")
_SO_PEERPIDFD = 77


class DaemonUnreachableError(Exception):
    """No daemon can be reached for a mount. ``life`` is what the kernel knows of the daemon."""

    def __init__(self, life: Life) -> None:
        super().__init__(life)
        self.life = life


@dataclass(frozen=True)
class Peer:
    """The process at the other end of a socket, as the kernel reports it."""

    process: int
    """0 if it is in a PID namespace that this process does not see."""
    user: int


def peer_of(connection: Any) -> Peer:  # noqa: ANN401 (Python's sockets and trio's)
    """The process that connected to a socket, or that listens at it."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    process, user, _ = _PEER_CREDENTIALS.unpack(packed)
    return Peer(process, user)


def abstract_name(user: int, device: str) -> str:
    """The address in the abstract namespace. Any process may have taken it, so the client must check who listens."""
    return f"\0nrfs/{user}/{device}"


# Connecting


@contextmanager
def _connected(entry: mountinfo.MountEntry) -> Iterator[socket.socket]:
    """A connection to the daemon of a mount, by the first of its addresses that works.

    Raises:
        MountError: this user may not ask it, or it does not accept connections.
        DaemonUnreachableError: none of the addresses works.

    """
    is_forbidden = False
    for directory in places.runtime_directories(entry.owner):
        with places.opened(directory, entry.owner) as descriptor:
            if descriptor is None:
                continue
            try:
                connection = _connect_in(descriptor, f"{entry.device}.sock", entry)
            except PermissionError:
                is_forbidden = True
                continue
        if connection is not None:
            with connection:
                yield connection
            return
    if is_forbidden:
        raise MountError(f"{entry.mountpoint}: {NO_RIGHT}")
    connection = _connect(abstract_name(entry.owner, entry.device), entry)
    if connection is None:
        raise DaemonUnreachableError(liveness.of(entry))
    with connection:
        yield connection


def _connect_in(directory: int, name: str, entry: mountinfo.MountEntry) -> socket.socket | None:
    """Like ``_connect``, to a name in a directory; None if the name is not a socket itself.

    Another user may have put a symlink there that leads to a socket of another service, which would obey root.
    """
    try:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except PermissionError:
        raise
    except OSError:
        return None
    try:
        return _connect(f"/proc/self/fd/{place}", entry) if stat.S_ISSOCK(os.fstat(place).st_mode) else None
    finally:
        os.close(place)


def _connect(address: str, entry: mountinfo.MountEntry) -> socket.socket | None:
    """A connection to a socket at which the mount's owner listens; None if nobody does, or another user."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_PATIENCE_SECONDS)
        connection.connect(address)
        if peer_of(connection).user == entry.owner:
            return connection
    except PermissionError:
        connection.close()
        raise
    except BlockingIOError:
        connection.close()
        raise MountError(f"{entry.mountpoint}: the daemon does not answer") from None
    except OSError:
        pass
    connection.close()
    return None


# Asking


def ask(
    entry: mountinfo.MountEntry, command: str, timeout: float = _PATIENCE_SECONDS, **more: object
) -> dict[str, Any]:
    """The daemon's answer to ``command``; ``more`` is sent with it.

    Raises:
        DaemonUnreachableError: none of its addresses works.
        MountError: it refused, or did not answer within ``timeout`` seconds, or its reply is malformed.

    """
    with _connected(entry) as connection:
        end = time.monotonic() + timeout
        try:
            connection.sendall(json.dumps({"command": command, **more}).encode() + b"\n")
            line = _receive_line(connection, end)
        except TimeoutError:
            raise MountError(f"{entry.mountpoint}: the daemon does not answer") from None
        except OSError:
            line = b""
    if not line:
        raise DaemonUnreachableError(liveness.of(entry))
    with understanding(entry):
        return replies.understood(line)


class Stream:
    """An answer of many lines, which is an iterator of them. Only the first must come in time."""

    def __init__(self, entry: mountinfo.MountEntry, connection: socket.socket, request: dict[str, Any]) -> None:
        self._entry = entry
        self._connection = connection
        self._request = request

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises ``MountError`` as ``ask`` does."""
        try:
            self._connection.sendall(json.dumps(self._request).encode() + b"\n")
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(_LONGEST_REPLY):
                    self._connection.settimeout(None)
                    with understanding(self._entry):
                        yield replies.understood(line)
        except TimeoutError:
            raise MountError(f"{self._entry.mountpoint}: the daemon does not answer") from None
        except ConnectionError:
            return

    def finish(self) -> None:
        """Tells the daemon that only what it has already is wanted."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


@contextmanager
def stream(entry: mountinfo.MountEntry, request: dict[str, Any]) -> Iterator[Stream]:
    """The daemon's answer to a request that it answers by many lines.

    Raises:
        DaemonUnreachableError, MountError: as ``ask`` does.

    """
    with _connected(entry) as connection:
        yield Stream(entry, connection, request)


@contextmanager
def understanding(entry: mountinfo.MountEntry) -> Iterator[None]:
    """Turns the exceptions of ``mount.replies`` into ``MountError``."""
    try:
        yield
    except replies.RefusedError as refusal:
        raise MountError(f"{entry.mountpoint}: {refusal}") from None
    except replies.NonsenseError as reason:
        raise MountError(f"{entry.mountpoint}: what answers for the daemon does not speak as one: {reason}") from None


def _receive_line(connection: socket.socket, end: float) -> bytes:
    """A line, or the beginning of one that is too long; empty if the other end closes before the line's end."""
    received = bytearray()
    while not received.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(65536)
        if not part:
            return b""
        received += part
        if len(received) > _LONGEST_REPLY:
            break
    return bytes(received)


def daemon_of(entry: mountinfo.MountEntry) -> int:
    """The process id of the daemon, as the kernel reports it; 0 if it has none in this PID namespace.

    Raises:
        DaemonUnreachableError, MountError: as ``ask`` does.

    """
    with _connected(entry) as connection:
        return peer_of(connection).process


def descriptor_of_daemon(entry: mountinfo.MountEntry) -> int | None:
    """A pidfd of the daemon, also if it is in another PID namespace; None if the kernel cannot give one.

    Raises:
        DaemonUnreachableError, MountError: as ``ask`` does.

    """
    with _connected(entry) as connection:
        with suppress(OSError):  # Linux 6.5 or later.
            return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        process = peer_of(connection).process
    with suppress(ProcessLookupError):
        return os.pidfd_open(process) if process else None
    return None


# What killed daemons leave


def log_of(entry: mountinfo.MountEntry) -> Path | None:
    """The log of a dead daemon, if there is one with anything in it."""
    name = f"{entry.device}.log"
    for directory in places.runtime_directories(entry.owner):
        with places.opened(directory, entry.owner) as descriptor:
            if descriptor is not None and places.is_plain_file(descriptor, name):
                return directory / name
    return None


def stale_sockets() -> list[Path]:
    """The sockets that killed daemons of this user left, if their mounts are gone, too."""
    return [directory / name for directory, _, name in _stale()]


def clear_stale() -> None:
    """Removes these sockets, and the logs beside them. Those of other users stay."""
    for _, descriptor, name in _stale():
        for left in (name, f"{name.removesuffix('.sock')}.log"):
            with suppress(OSError):
                os.unlink(left, dir_fd=descriptor)


def _stale() -> Iterator[tuple[Path, int, str]]:
    """The stale sockets: the path of the directory, a descriptor of it, and the name."""
    mounted = {entry.device for entry in mountinfo.entries()}
    user = os.geteuid()
    for directory in places.runtime_directories(user):
        with places.opened(directory, user) as descriptor:
            if descriptor is None:
                continue
            for name in places.names(descriptor, ".sock"):
                if name.removesuffix(".sock") not in mounted and not _listens(descriptor, name):
                    yield directory, descriptor, name


def _listens(directory: int, name: str) -> bool:
    """Whether a process listens at a socket, also in another mount namespace. Tries twice, as it may just be bound."""
    for pause in (0.05, 0.0):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_SECONDS)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{name}")
            except ConnectionRefusedError:
                time.sleep(pause)
            except OSError:
                return True
            else:
                return True
    return False
