"""The daemon's side of ``nrfs trace``: tells a client what requests come, until it ends its side or the mount ends.

Requests wait for nobody: what the client does not take in time is lost, and it is told how much.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import trio

from nrfs import Connection

_PAUSE = 0.02
"""Seconds between two looks, unless there is more than is taken at once."""

_AT_ONCE = 1000
"""Requests that are taken of each worker at once; more only in the end."""

_IN_LINE = 64
"""Requests in a line, so that it is not too long for the client, whatever their paths are."""

_NOT_TOLD = (1 << 32) - 1


async def tell(client: trio.SocketStream, connection: Connection, wanted: Mapping[str, Any], ended: trio.Event) -> None:
    """Sends lines of JSON: ``{"traced": [...], "lost": count, "last": bool}``, the first at once.

    Args:
        client: who asked. It has enough when it ends its side.
        connection: whose requests are traced.
        wanted: the arguments of ``Connection.trace``; and ``paths``, patterns of which a path must match one.
        ended: set when the mount has ended.

    """
    patterns = [str(pattern) for pattern in wanted["paths"]]
    tracer = connection.trace(
        kinds=wanted["kinds"], process=wanted["process"], fails=wanted["fails"], nanoseconds=wanted["nanoseconds"]
    )
    has_enough = trio.Event()

    async def send(traced: list[dict[str, Any]], lost: int, *, last: bool) -> None:
        await client.send_all(json.dumps({"traced": traced, "lost": lost, "last": last}).encode() + b"\n")

    async def send_what_has_come(most: int) -> bool:
        """Returns whether there may be more."""
        every, lost = await trio.to_thread.run_sync(tracer.take, most)
        traced = [each for each in every if not patterns or _matches(each, patterns)]
        _complete(traced)
        for first in range(0, len(traced), _IN_LINE):
            await send(traced[first : first + _IN_LINE], 0, last=False)
        if lost:
            await send([], lost, last=False)
        return len(every) >= most

    async def until_the_mounts_end() -> None:
        await ended.wait()
        has_enough.set()

    async def until_it_has_enough() -> None:
        with suppress(trio.BrokenResourceError):
            await client.receive_some(1)
        has_enough.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(until_the_mounts_end)
        nursery.start_soon(until_it_has_enough)
        with suppress(trio.BrokenResourceError):
            await send([], 0, last=False)
            while not has_enough.is_set():
                if not await send_what_has_come(_AT_ONCE):
                    with trio.move_on_after(_PAUSE):
                        await has_enough.wait()
            await send_what_has_come(sys.maxsize)
            await send([], 0, last=True)
        nursery.cancel_scope.cancel()


def _complete(every: list[dict[str, Any]]) -> None:
    """Adds users and groups. The kernel tells them only where a request makes something; of other callers /proc shows
    them, if they still run.
    """
    seen: dict[int, tuple[int | None, int | None]] = {}
    for each in every:
        if each["uid"] == _NOT_TOLD:
            process = each["pid"]
            if process not in seen:
                seen[process] = _user_and_group(process)
            each["uid"], each["gid"] = seen[process]


def _user_and_group(process: int) -> tuple[int | None, int | None]:
    """Those by which a process uses file systems."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None, None
    user, group = (int(line.split()[4]) for line in lines if line.startswith(("Uid:", "Gid:")))
    return user, group


def _matches(traced: dict[str, Any], patterns: list[str]) -> bool:
    """Whether a path of a request matches a pattern, or is below a directory that does."""
    paths = [each["path"] for each in traced["paths"] if each["path"] is not None]
    return any(
        fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*") for path in paths for pattern in patterns
    )
