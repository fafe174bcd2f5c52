"""How a daemon comes to life: by a fork of the command that asked for it, before any thread exists.

The command waits at a pipe for the child's word: that the mount can be used, or one line why not. A
fresh interpreter would cost the mount another tenth of a second. Modules that only the daemon needs
are imported on the child's side.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mount.failure import MountError
from mount.options import MountOptions
from mount.signals import ENDING_SIGNALS

_READY = b"ready"


class Interrupted(BaseException):
    """A signal told the waiting command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_in_foreground(options: MountOptions) -> None:
    """Mounts and serves in this process until the mount's end.

    Raises:
        MountError: why there is no mount, or what it died of.

    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    _redirect_output(options.log)

    from mount import daemon

    daemon.run(options, lambda log: None)


def run_in_background(options: MountOptions) -> None:
    """Starts a daemon and returns when its mount can be used.

    Raises:
        MountError: why there is no mount; the child has ended then.
        Interrupted: the same, because of a signal.

    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    child = os.fork()
    if child == 0:
        _live_as_daemon(options, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123
        try:
            with _interruptible():
                said = pipe.read()
        except Interrupted:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            raise
    if said != _READY:
        _, status = os.waitpid(child, 0)
        raise MountError(os.fsdecode(said) or f"the daemon ended before it was ready ({_manner(status)})")


@contextmanager
def _interruptible() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted(number)

    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)


def _manner(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else signal.Signals(-code).name


def _live_as_daemon(options: MountOptions, pipe: int) -> NoReturn:
    """The child's life. Its end skips what the parent registered for its own."""
    status = 1
    try:
        status = _serve(options, pipe)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _serve(options: MountOptions, pipe: int) -> int:
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    # A daemon that keeps what its caller had open, a lock or a pipe, keeps the caller's peers waiting.
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))

    with open(pipe, "wb", buffering=0) as command:

        def announce(log: Path) -> None:
            with open(os.devnull, "rb") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), 0)
            if options.log is None:
                _redirect_output(log, truncate=True)
            os.dup2(2, 1)
            command.write(_READY)
            command.close()

        try:
            _redirect_output(options.log)

            from mount import daemon

            daemon.run(options, announce)
        except MountError as failure:
            if not command.closed:  # Else it came later, and is in the log.
                command.write(os.fsencode(str(failure)))
            return failure.status
    return 0


def _redirect_output(log: Path | None, *, truncate: bool = False) -> None:
    """Sends what is written to standard error into a file; None leaves it."""
    if log is None:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0)
    try:
        descriptor = os.open(log, flags, 0o600)
    except OSError as error:
        raise MountError(f"{log}: {(error.strerror or str(error)).lower()}") from None
    os.dup2(descriptor, 2)
    os.close(descriptor)
