"""``nrfs trace``: the requests of a mount as they come, as strace(1) shows system calls."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from threading import Event
from typing import Any, final

from mount import control, mountinfo, replies, status
from mount.failure import MountError, UsageError
from nrfs.terminal import complain, plain

_HEAD = f"{'time':<15} {'pid':>7} {'uid':>5} {'request':<15} {'result':<12} {'us':>9} {'node':>4}  {'log':<13} path"


@final
@dataclass(frozen=True)
class Wanted:
    """Which requests are shown."""

    kinds: Sequence[str] = ()
    process: int | None = None
    paths: Sequence[str] = ()
    """Paths, or patterns of them; also what is below is shown."""
    fails: bool = False
    microseconds: float = 0


def show(path: str, wanted: Wanted, *, most: int | None, as_json: bool) -> int:
    """Prints requests until there were ``most``, an interrupt, or the mount's end; then says how many there were.

    Raises:
        UsageError: there is no such kind of request.
        MountError: there is no such mount, or this user may not ask; or its daemon dies.

    """
    entry = status.entry(path)
    (each,) = status.of(path)
    if each.daemon is None or each.problem is not None:
        raise MountError(f"{path}: {each.problem}")
    unknown = [kind for kind in wanted.kinds if kind not in each.daemon["requests"]]
    if unknown:
        raise UsageError(f"--kind: there is no '{unknown[0]}', only {', '.join(sorted(each.daemon['requests']))}")
    shown = lost = 0
    is_last = False
    with _lines(entry, wanted) as lines, _finished_by_interrupt(lines) as interrupted:
        for line in lines:
            with control.understanding(entry):
                replies.check_trace(line)
            if not shown and not as_json and line["traced"]:
                print(_HEAD)
            left = None if most is None else most - shown
            for traced in line["traced"][:left]:
                print(json.dumps(_named(traced)) if as_json else _text(traced))
            shown += len(line["traced"][:left])
            if line["lost"]:
                lost += line["lost"]
                print(json.dumps({"lost": line["lost"]}) if as_json else f"... {_lost(line['lost'])}")
            sys.stdout.flush()
            is_last = line["last"]
            if is_last or shown == most:
                break
        else:
            raise MountError(f"{path}: the daemon has gone after {_requests(shown)}")
    end = f"{path}: the mount has ended; " if is_last and not interrupted.is_set() else ""
    complain("nrfs trace", f"{end}{_requests(shown)}, {_lost(lost)}")
    return 0


@contextmanager
def _lines(entry: mountinfo.MountEntry, wanted: Wanted) -> Iterator[control.Stream]:
    try:
        with control.stream(entry, _request(entry, wanted)) as lines:
            yield lines
    except control.DaemonUnreachableError:
        raise MountError(f"{entry.mountpoint}: the daemon cannot be reached") from None


@contextmanager
def _finished_by_interrupt(lines: control.Stream) -> Iterator[Event]:
    """Makes the first interrupt meanwhile end the lines, after what has come; the second ends the command."""
    interrupted = Event()

    def finish(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted.set()
        lines.finish()

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, finish)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _request(entry: mountinfo.MountEntry, wanted: Wanted) -> dict[str, Any]:
    """What the daemon is asked. Its paths begin at the mount's root."""

    def below(path: str) -> str:
        if path.startswith("/"):
            given = PurePosixPath(os.path.normpath(path))
            if not given.is_relative_to(entry.mountpoint):
                raise UsageError(f"--path {path}: not in {entry.mountpoint}")
            path = str(given.relative_to(entry.mountpoint))
        path = os.path.normpath(path)
        return "*" if path == "." else path

    return {
        "command": "trace",
        "kinds": list(wanted.kinds),
        "process": wanted.process,
        "paths": [below(path) for path in wanted.paths],
        "fails": wanted.fails,
        "nanoseconds": int(wanted.microseconds * 1000),
    }


def _named(traced: dict[str, Any]) -> dict[str, Any]:
    return {**traced, "error": _error(traced)}


def _error(traced: dict[str, Any]) -> str | None:
    number = traced["errno"]
    return None if number is None else errno.errorcode.get(number, str(number))


def _text(traced: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(traced["time"]).strftime("%H:%M:%S.%f")
    node, uid = ("-" if traced[key] is None else traced[key] for key in ("node", "uid"))
    log = ", ".join(f"{each['log']} x{each['operations']}" for each in traced["batches"]) or "-"
    row = (
        f"{moment} {traced['pid']:>7} {uid:>5} {traced['kind']:<15} {_error(traced) or 'ok':<12} "
        f"{traced['microseconds']:>9.1f} {node:>4}  {log:<13} {_object(traced)}"
    )
    return plain(row)


def _object(traced: dict[str, Any]) -> str:
    """What a request is about."""
    paths = [_path(each, traced["inode"]) for each in traced["paths"]]
    if traced["kind"] == "link":  # The new name comes first.
        paths.reverse()
    words = [" -> ".join(paths) or "-"]
    if traced["attribute"] is not None:
        words.append(traced["attribute"])
    if traced["offset"] is not None:
        words.append(f"{traced['length']} at {traced['offset']}")
    return "  ".join(words)


def _path(each: dict[str, Any], inode: int) -> str:
    path = f"inode {inode}" if each["path"] is None else each["path"] or "."
    return f"{path} (deleted)" if each["deleted"] else path


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _lost(count: int) -> str:
    return "none lost" if count == 0 else f"{count:,} lost: they came faster than they were taken"
