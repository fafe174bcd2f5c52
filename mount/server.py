"""The daemon's side of the control socket: it listens, and answers the mount's owner and root.

There are two addresses: a file in the runtime directory, which only its owner and root can reach, and
an abstract name, which no cleaner of /tmp can delete. Both contain the mount's device number, as
/proc/self/mountinfo has it. The kernel tells which user a client is.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mount import control
from mount.failure import MountError

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Computes the reply to a request. The client gets the message of an exception as an error."""

Tell = Callable[[trio.SocketStream, dict[str, Any]], Awaitable[None]]
"""Answers the command ``trace``: sends lines until the client goes."""

_LONGEST_REQUEST = 4096
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class ControlFiles:
    """The files of a running daemon."""

    socket: Path
    log: Path
    """Its messages, unless another log was given."""

    @classmethod
    def of(cls, device: str, directory: Path) -> ControlFiles:
        """The files for the mount with this device number."""
        return cls(directory / f"{device}.sock", directory / f"{device}.log")

    def remove_empty_log(self) -> None:
        """Removes the log, to which standard error goes, if it is empty.

        Another mount may have this device number already, and its log at this path.
        """
        with suppress(OSError):
            log = os.fstat(2)
            if log.st_size == 0 and os.path.samestat(log, self.log.lstat()):
                self.log.unlink()


@contextmanager
def listening(path: Path, device: str) -> Iterator[Sequence[socket.socket]]:
    """Sockets that listen at ``path`` and at the abstract name. Removes ``path`` in the end.

    A file that a killed daemon left at that path is replaced, as this daemon has the device number now. The
    socket is bound under its final name, as cleaners of /tmp keep the paths that /proc/net/unix lists.
    """
    with _new_socket() as by_file, _new_socket() as by_name:
        path.unlink(missing_ok=True)
        by_file.bind(os.fspath(path))
        by_file.listen()
        ours = path.lstat().st_ino
        listeners = [by_file]
        with suppress(OSError):  # Another process may have taken the name; then there is only the file.
            by_name.bind(control.abstract_name(os.geteuid(), device))
            by_name.listen()
            listeners.append(by_name)
        try:
            yield listeners
        finally:
            # Another mount may have this device number already, and its socket at this path.
            with suppress(OSError):
                if path.lstat().st_ino == ours:
                    path.unlink()


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def serve(listeners: Sequence[socket.socket], answer: Answer, tell: Tell) -> None:
    """Answers clients until cancelled."""

    async def converse(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                # The whole request is read first: closing a socket with unread data would discard the reply.
                with trio.fail_after(_PATIENCE_SECONDS):
                    request = await _receive_line(stream)
                if not request:
                    return
                if control.peer_of(stream.socket).user in (0, os.geteuid()):
                    reply = await _reply(request, answer, partial(tell, stream))
                else:
                    reply = {"error": control.NO_RIGHT}
                if reply is not None:
                    with trio.fail_after(_PATIENCE_SECONDS):
                        await stream.send_all(json.dumps(reply).encode() + b"\n")
            except (trio.BrokenResourceError, trio.TooSlowError):
                return  # The client has gone, or is too slow.

    await trio.serve_listeners(
        converse, [trio.SocketListener(trio.socket.from_stdlib_socket(listener)) for listener in listeners]
    )


async def _receive_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) <= _LONGEST_REQUEST:
        received = await stream.receive_some(_LONGEST_REQUEST)
        if not received:
            break
        line += received
    return line


async def _reply(
    request: bytes, answer: Answer, tell: Callable[[dict[str, Any]], Awaitable[None]]
) -> dict[str, Any] | None:
    """The reply; None if the client has had lines."""
    try:
        asked = json.loads(request)
        if asked["command"] == "trace":
            await tell(asked)
            return None
        return await answer(asked)
    except MountError as refusal:
        return {"error": str(refusal)}
    except Exception as error:  # Nothing that a client sends may end the daemon, such as deeply nested JSON.
        return {"error": f"{type(error).__name__}: {error}"}
