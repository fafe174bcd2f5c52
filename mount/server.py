"""The daemon's side of its control socket: it listens, and answers those who may ask.

There are two addresses: a file in the runtime directory, which only its owner and root can reach, and
an abstract name, which nobody can sweep away. Both are named after the mount's device number, as
/proc/self/mountinfo has it. Who connects is known to the kernel; only the owner and root are answered.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from mount import control

Answer = Callable[[str], Awaitable[dict[str, Any]]]
"""What the daemon says to a command. A ``ValueError`` of it reaches the client as its message."""

_LONGEST_REQUEST = 4096
_PATIENCE_SECONDS = 5.0


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
        with suppress(OSError):
            if self.log.stat().st_size == 0:
                self.log.unlink()


@contextmanager
def listening(path: Path, device: str) -> Iterator[Sequence[socket.socket]]:
    """Sockets that listen at ``path`` and at the abstract name; in the end ``path`` is removed.

    What a killed daemon left under that path is replaced: the device number is ours now. It is bound
    under its final name, because cleaners of /tmp spare what they find bound in /proc/net/unix.
    """
    with _new_socket() as by_file, _new_socket() as by_name:
        path.unlink(missing_ok=True)
        by_file.bind(os.fspath(path))
        by_file.listen()
        ours = path.lstat().st_ino
        listeners = [by_file]
        with suppress(OSError):  # Anybody can take that name; then there is only the file.
            by_name.bind(control.abstract_name(os.geteuid(), device))
            by_name.listen()
            listeners.append(by_name)
        try:
            yield listeners
        finally:
            # The next mount may have our device number and its socket in our place already.
            with suppress(OSError):
                if path.lstat().st_ino == ours:
                    path.unlink()


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def serve(listeners: Sequence[socket.socket], answer: Answer) -> None:
    """Answers clients until cancelled."""

    async def converse(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                # Whoever asks gets to hear the answer: not if the socket is closed before all was read.
                with trio.fail_after(_PATIENCE_SECONDS):
                    request = await _receive_line(stream)
                if not request:
                    return
                if control.peer_of(stream.socket).user in (0, os.geteuid()):
                    reply = await _reply(request, answer)
                else:
                    reply = {"error": control.NO_RIGHT}
                with trio.fail_after(_PATIENCE_SECONDS):
                    await stream.send_all(json.dumps(reply).encode() + b"\n")
            except (trio.BrokenResourceError, trio.TooSlowError):
                return  # The client went away, or sleeps.

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


async def _reply(request: bytes, answer: Answer) -> dict[str, Any]:
    try:
        return await answer(json.loads(request)["command"])
    except Exception as error:  # Whatever a client sends, and however deeply nested, it ends no daemon.
        return {"error": f"{type(error).__name__}: {error}"}
