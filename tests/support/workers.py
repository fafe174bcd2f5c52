"""Processes, forked from the test, that work on a file system at the same time. If one fails, the test fails."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 120


def run_at_once(bodies: Sequence[Callable[[], object]]) -> None:
    """Runs each body in a process of its own, and waits for all. Fails with the messages of those that failed."""
    workers = [_fork(body) for body in bodies]
    failures = []
    for process, reading in workers:
        with open(reading, "rb") as pipe:  # noqa: PTH123
            said = pipe.read().decode(errors="replace")
        _, status = os.waitpid(process, 0)
        if status:
            failures.append(said or f"process {process}: {os.waitstatus_to_exitcode(status)}")
    assert not failures, "\n".join(failures)


def as_user(user: int, groups: Sequence[int], body: Callable[[], Answer]) -> Answer:
    """Runs ``body`` in a process of ``user``, with the group of the same number, and ``groups``; returns its result."""
    reading, writing = os.pipe()

    def become_and_tell() -> None:
        os.setgroups(groups)
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        os.write(writing, pickle.dumps(body()))

    run_at_once([become_and_tell])
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123
        told: Answer = pickle.load(pipe)
    return told


def _fork(body: Callable[[], object]) -> tuple[int, int]:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _work(body, writing)
    os.close(writing)
    return process, reading


def _work(body: Callable[[], object], pipe: int) -> NoReturn:
    """Runs a body and ends the process, which must never return into the test."""
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_SECONDS)
        body()
        status = 0
    except BaseException:
        os.write(pipe, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        os._exit(status)


def start(body: Callable[[], object]) -> int:
    """Starts a process that runs a body until it is killed; returns its id."""
    process, reading = _fork(body)
    os.close(reading)
    return process


def end(process: int) -> None:
    """Kills a process of ``start``, and waits for its end."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def pause(seconds: float) -> None:
    """Sleeps, to let others work. No test may depend on how long it really takes."""
    time.sleep(seconds)
