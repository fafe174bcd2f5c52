"""Starts a daemon: the command forks before any thread exists, and the child becomes the daemon.

The command waits at a pipe until the child says that the mount can be used, or one line why not. Starting
a new interpreter would take another tenth of a second. Modules that only the daemon needs are imported
in the child.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mount import logs, surroundings
from mount.failure import MountError, UsageError
from mount.options import MountOptions
from mount.signals import ENDING_SIGNALS
from nrfs import terminal

_READY = b"ready"
_UNFORESEEN = 70
"""The exit status of a child that ended by an unexpected exception (EX_SOFTWARE of sysexits.h)."""

_log = logging.getLogger("nrfs")


class Interrupted(BaseException):
    """A signal told the waiting command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run_in_foreground(options: MountOptions, on_ready: Callable[[], None]) -> None:
    """Mounts and serves in this process until the mount's end.

    Args:
        options: what to mount.
        on_ready: called when the mount can be used.

    Raises:
        MountError: why the mount was not made, or why it ended.

    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    surroundings.leave_the_caller()
    if options.log is not None:
        logs.redirect_to(options.log)

    with _no_collection():
        from mount import daemon

    try:
        daemon.run(options, lambda log: on_ready())
    except MountError as failure:
        if failure.__cause__ is None:
            raise
        # Without a log, standard error is the caller's terminal: the traceback goes into a new file.
        place = options.log or terminal.keep(_traceback(failure))
        if options.log is not None:
            _log.error("%s", _traceback(failure))
        raise MountError(f"{failure} (the traceback is in {place})") from None


def run_in_background(options: MountOptions) -> None:
    """Starts a daemon and returns when its mount can be used.

    Raises:
        MountError: why the mount was not made. The child has ended.
        Interrupted: a signal told this process to end. The child has ended.

    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    messages = logs.hold_back()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    child = os.fork()
    if child == 0:
        _live_as_daemon(options, writing, messages)
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
        _raise(os.fsdecode(said), os.waitstatus_to_exitcode(status), options.log or messages)
    os.close(messages)


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


def _raise(said: str, code: int, messages: Path | int) -> NoReturn:
    """Raises the error that a child sent which made no mount; if it was unexpected, says where the details are."""
    if code == UsageError.status:
        raise UsageError(said)
    if code == MountError.status and said:
        raise MountError(said)
    said = said or f"the daemon ended before it was ready ({_manner(code)})"
    place = messages if isinstance(messages, Path) else terminal.keep(os.fsdecode(logs.held_back(messages)))
    raise MountError(f"{said} (more is in {place})" if place else said)


def _manner(code: int) -> str:
    return f"status {code}" if code >= 0 else signal.Signals(-code).name


def _live_as_daemon(options: MountOptions, pipe: int, messages: int) -> NoReturn:
    """Runs the daemon, and ends the process without the exit handlers that the parent registered."""
    status = 1
    try:
        status = _serve(options, pipe, messages)
    except BaseException:
        # The command sees that the pipe was closed with no message; the traceback goes to the log.
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _serve(options: MountOptions, pipe: int, messages: int) -> int:
    with open(pipe, "wb", buffering=0) as command:

        def announce(log: Path) -> None:
            with open(os.devnull, "rb") as nothing:  # noqa: PTH123
                os.dup2(nothing.fileno(), 0)
            if options.log is None:
                logs.begin_anew(log)
            os.dup2(2, 1)
            command.write(_READY)
            command.close()

        try:
            os.setsid()
            # Until the place of the log is known, messages are held in memory, and not shown at the caller's terminal.
            os.dup2(messages, 2)
            surroundings.leave_the_caller(pipe)
            if options.log is not None:
                logs.redirect_to(options.log)

            with _no_collection():
                from mount import daemon

            daemon.run(options, announce)
        except Exception as fault:
            is_foreseen = isinstance(fault, MountError) and fault.__cause__ is None
            if not is_foreseen:
                _log.error("%s", _traceback(fault))
            if not command.closed:  # If it is closed, the command has returned, and the error is in the log.
                said = str(fault) if isinstance(fault, MountError) else f"unforeseen: {type(fault).__name__}: {fault}"
                command.write(os.fsencode(said))
            return fault.status if isinstance(fault, MountError) and is_foreseen else _UNFORESEEN
    return 0


@contextmanager
def _no_collection() -> Iterator[None]:
    """Importing makes little garbage; to look for it takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _traceback(fault: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(fault)).rstrip()
