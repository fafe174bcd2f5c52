"""The control socket of a daemon: how ``nrfs status`` and ``nrfs umount`` reach it.

It lies in the runtime directory of the user who mounted, which that user alone can enter, and is
named after the mount's device number, as /proc/self/mountinfo has it: so it is found without touching
the mount. A client sends one line of JSON, ``{"command": ...}``, and gets one line back.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

from mount import mountinfo
from mount.failure import MountError

if TYPE_CHECKING:
    import trio

Answer = Callable[[str], Awaitable[dict[str, Any]]]
"""What the daemon says to a command. A ``ValueError`` of it reaches the client as its message."""

_LONGEST_SOCKET_PATH = 107
_LONGEST_REQUEST = 4096
_PATIENCE_SECONDS = 5.0
_LONGEST_NAME = len("1048575-1048575.sock")
_PEER_CREDENTIALS = Struct("3i")


class DaemonUnreachableError(Exception):
    """Nobody answers at the control socket: the daemon is dead."""


# The runtime directory


def runtime_directories(user: int) -> list[Path]:
    """Where the sockets of a user's daemons can be, the best place first."""
    last_resort = Path("/tmp") / f"nrfs-{user}"
    if user == 0:
        return [Path("/run/nrfs"), last_resort]
    own = os.environ.get("XDG_RUNTIME_DIR") if user == os.geteuid() else f"/run/user/{user}"
    return [Path(own) / "nrfs", last_resort] if own and Path(own).is_absolute() else [last_resort]


def make_runtime_directory(mountpoint: str) -> Path:
    """Makes this user's runtime directory where it is not yet there.

    It is one that a mount at ``mountpoint`` does not cover: there the daemon would have to ask itself.

    Raises:
        MountError: there is no place that only this user can write to.

    """
    for directory in runtime_directories(os.geteuid()):
        if len(os.fsencode(directory)) + 1 + _LONGEST_NAME > _LONGEST_SOCKET_PATH:
            continue
        try:
            if directory.resolve().is_relative_to(mountpoint):
                continue
            directory.mkdir(mode=0o700, exist_ok=True)
            if _is_private(directory, os.geteuid()):
                return directory
        except OSError:
            continue
    places = " or ".join(map(str, runtime_directories(os.geteuid())))
    raise MountError(f"no directory for the control socket: {places} must be this user's own, mode 0700")


def _is_private(directory: Path, user: int) -> bool:
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077


# The daemon's side


@dataclass(frozen=True)
class ControlFiles:
    """The files a daemon keeps while it lives."""

    socket: Path
    log: Path
    """Its messages, unless they were wanted elsewhere."""

    @classmethod
    def of(cls, device: str, directory: Path) -> ControlFiles:
        """Those of the mount with this device number."""
        return cls(directory / f"{device}.sock", directory / f"{device}.log")

    def remove_empty_log(self) -> None:
        """Leaves a log only where there is something to read in it."""
        try:
            if self.log.stat().st_size == 0:
                self.log.unlink()
        except FileNotFoundError:
            return


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at ``path`` and is removed in the end.

    It gets its name once it listens, so that nobody takes it for a dead daemon's. What a killed
    daemon left under that name is replaced: the device number is ours now.
    """
    unfinished = path.with_suffix(".new")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        unfinished.unlink(missing_ok=True)
        listener.bind(os.fspath(unfinished))
        try:
            listener.listen()
            unfinished.rename(path)
            yield listener
        finally:
            unfinished.unlink(missing_ok=True)
            path.unlink(missing_ok=True)


async def serve(listener: socket.socket, answer: Answer) -> None:
    """Answers clients until cancelled."""
    import trio

    async def converse(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                with trio.fail_after(_PATIENCE_SECONDS):
                    request = await _receive_line(stream)
                if not request:
                    return
                reply = await _reply(request, answer)
                with trio.fail_after(_PATIENCE_SECONDS):
                    await stream.send_all(json.dumps(reply).encode() + b"\n")
            except (trio.BrokenResourceError, trio.TooSlowError):
                return  # The client went away, or sleeps.

    await trio.serve_listeners(converse, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


async def _receive_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) <= _LONGEST_REQUEST:
        received = await stream.receive_some(_LONGEST_REQUEST)
        if not received:
            break
        line += received
    return line


async def _reply(request: bytes, answer: Answer) -> dict[str, Any]:
    try:
        return await answer(json.loads(request)["command"])
    except Exception as error:  # Whatever a client sends, and however deeply nested, it ends no daemon.
        return {"error": f"{type(error).__name__}: {error}"}


# The client's side


@contextmanager
def _connected(entry: mountinfo.MountEntry) -> Iterator[socket.socket]:
    for directory in runtime_directories(entry.owner):
        path = directory / f"{entry.device}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                if not _is_private(directory, entry.owner):
                    continue
                connection.connect(os.fspath(path))
            except PermissionError:
                raise MountError(f"{entry.mountpoint}: no right to ask the daemon of another user") from None
            except OSError:
                continue
            yield connection
            return
    raise DaemonUnreachableError(entry.mountpoint)


def ask(entry: mountinfo.MountEntry, command: str, timeout: float | None = _PATIENCE_SECONDS) -> dict[str, Any]:
    """The daemon's answer to ``command``.

    Raises:
        DaemonUnreachableError: it is dead.
        MountError: it refused, or did not answer within ``timeout`` seconds.

    """
    with _connected(entry) as connection:
        connection.settimeout(timeout)
        try:
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except TimeoutError:
            raise MountError(f"{entry.mountpoint}: the daemon does not answer") from None
        except OSError:
            raise DaemonUnreachableError(entry.mountpoint) from None
    if not line.endswith(b"\n"):
        raise DaemonUnreachableError(entry.mountpoint)
    reply: dict[str, Any] = json.loads(line)
    if "error" in reply:
        raise MountError(f"{entry.mountpoint}: {reply['error']}")
    return reply


def daemon_of(entry: mountinfo.MountEntry) -> int:
    """The process id of the daemon, as the kernel tells it.

    Raises:
        DaemonUnreachableError: it is dead.

    """
    with _connected(entry) as connection:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    process_id: int = _PEER_CREDENTIALS.unpack(packed)[0]
    return process_id


def log_of(entry: mountinfo.MountEntry) -> Path | None:
    """What a dead daemon left written, if anything."""
    for directory in runtime_directories(entry.owner):
        path = directory / f"{entry.device}.log"
        try:
            if path.stat().st_size > 0:
                return path
        except OSError:
            continue
    return None


def stale_sockets(user: int) -> Iterator[Path]:
    """What killed daemons of ``user`` left, where their mounts are gone too."""
    mounted = {entry.device for entry in mountinfo.entries()}
    for directory in runtime_directories(user):
        try:
            if _is_private(directory, user):
                sockets = directory.glob("*.sock")
                yield from (path for path in sockets if path.stem not in mounted and not _is_alive(path))
        except OSError:
            continue


def clear_stale(user: int) -> None:
    """Removes it, and the logs beside it."""
    for path in stale_sockets(user):
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.with_suffix(".log").unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    """Whether anybody listens, be it in another mount namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE_SECONDS)
        try:
            connection.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True
