"""``nrfs top``: the requests, replicas, logs and threads of a mount, live.

All rates are differences between two states of the daemon (*looks*). To look takes no lock of a replica, so users of
the mount do not notice it.
"""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from mount import latency, status, wording
from mount.failure import MountError
from nrfs.terminal import plain

SORTS: Final = {"o": "per_second", "p": "p99_microseconds", "n": "kind"}
"""For each key that can be pressed: the column that the table of requests is sorted by."""

_KEYS: Final = "o, p, n: sort by operations, p99, name   space: pause   q: quit"


@final
@dataclass(frozen=True)
class _Look:
    """The daemon's status, and the CPU time of its threads, at one moment."""

    moment: float
    daemon: dict[str, Any]
    threads: dict[int, tuple[str, float]]
    """By thread: its name, and the seconds of CPU time that it has had."""


def show(path: str, *, interval: float, once: bool, as_json: bool) -> int:
    """Shows the mount at ``path`` until ``q`` or an interrupt: on a terminal in place, otherwise each look by itself.

    Raises:
        MountError: there is no such mount, this user may not ask, or the daemon is dead.

    """
    before = _look(path)
    if not once and not as_json and sys.stdin.isatty() and Console().is_terminal:
        return _live(path, interval, before)
    while True:
        time.sleep(interval)
        now = _look(path)
        view = _view(path, before, now)
        if as_json:
            print(json.dumps(view), flush=True)
        else:
            Console(highlight=False, width=None if Console().is_terminal else 120).print(_render(view, "per_second"))
            sys.stdout.flush()
        if once:
            return 0
        before = now


def _look(path: str) -> _Look:
    (each,) = status.of(path)
    if each.daemon is None or each.problem is not None:
        raise MountError(f"{path}: {each.problem}")
    return _Look(time.monotonic(), each.daemon, _threads(each.daemon["pid"]))


def _threads(process: int) -> dict[int, tuple[str, float]]:
    """Empty if the process is not visible, as in another PID namespace."""
    threads = {}
    for place in Path(f"/proc/{process}/task").glob("*"):
        try:
            name, _, rest = (place / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # It has ended.
            continue
        if name.startswith("nrfs"):
            fields = rest.split()
            ticks = int(fields[11]) + int(fields[12])
            threads[int(place.name)] = (name, ticks / os.sysconf("SC_CLK_TCK"))
    return threads


def _view(path: str, before: _Look, now: _Look) -> dict[str, Any]:
    """The rates between two looks, with the state at the second, as ``--json`` prints them."""
    seconds = max(now.moment - before.moment, 1e-9)
    old, new = before.daemon, now.daemon
    if old["pid"] != new["pid"]:
        old = new  # Another daemon: nothing of it is known yet.
    replicas = []
    for earlier, replica in zip(old["replicas"], new["replicas"], strict=True):
        operations, batches = (
            sum(log[key] for log in replica["logs"]) - sum(log[key] for log in earlier["logs"])
            for key in ("operations", "batches")
        )
        tails = zip(new["logs"], replica["logs"], strict=True)
        replicas.append(
            {
                "node": replica["node"],
                "cpus": replica["cpus"],
                "position": sum(log["local_tail"] for log in replica["logs"]),
                "lag": sum(max(0, log["tail"] - of_log["local_tail"]) for log, of_log in tails),
                "operations_per_second": operations / seconds,
                "operations_per_batch": operations / batches if batches else None,
                "bytes_here": replica["bytes_here"],
                "bytes_elsewhere": replica["bytes_elsewhere"],
            }
        )
    logs = [
        {
            "log": log["name"],
            "tail": log["tail"],
            "per_second": (log["tail"] - earlier["tail"]) / seconds,
            "operations_per_batch": _per_batch(old, new, number),
        }
        for number, (earlier, log) in enumerate(zip(old["logs"], new["logs"], strict=True))
    ]
    workers = [
        {
            "cpu": worker["cpu"],
            "per_second": (sum(worker["requests"].values()) - sum(earlier["requests"].values())) / seconds,
        }
        for earlier, worker in zip(old["workers"], new["workers"], strict=True)
    ]
    threads = [
        {"thread": name, "cpu_percent": 100 * (spent - before.threads.get(number, (name, spent))[1]) / seconds}
        for number, (name, spent) in sorted(now.threads.items())
    ]
    return {
        "mountpoint": path,
        "seconds": seconds,
        "capacity": new["capacity"],
        "operations": _operations(old, new, seconds),
        "replicas": replicas,
        "logs": logs,
        "workers": workers,
        "threads": threads,
    }


def _per_batch(old: dict[str, Any], new: dict[str, Any], log: int) -> float | None:
    """Operations of each batch that was appended to a log meanwhile; None if none was."""
    operations, batches = (
        sum(replica["logs"][log][key] for replica in new["replicas"])
        - sum(replica["logs"][log][key] for replica in old["replicas"])
        for key in ("operations", "batches")
    )
    return operations / batches if batches else None


def _operations(old: dict[str, Any], new: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    earlier, later = latency.histograms(old), latency.histograms(new)
    operations = []
    for kind, count in new["requests"].items():
        done = count - old["requests"].get(kind, 0)
        if not count:
            continue
        meanwhile = latency.since(later.get(kind, []), earlier.get(kind, []))
        operations.append(
            {
                "kind": kind,
                "total": count,
                "per_second": done / seconds,
                "p50_microseconds": latency.microseconds(meanwhile, 50),
                "p99_microseconds": latency.microseconds(meanwhile, 99),
            }
        )
    return operations


# For people


def _render(view: dict[str, Any], sort: str) -> Group:
    capacity = view["capacity"]
    head = (
        f"{plain(view['mountpoint'])}   {wording.amount(capacity['bytes_used'])} of "
        f"{wording.amount(capacity['bytes'])}   {capacity['inodes_used']:,} of {capacity['inodes']:,} inodes"
    )
    return Group(
        head,
        "",
        _table(
            ("request", "op/s", "p50 us", "p99 us", "total"),
            (
                (each["kind"], _number(each["per_second"]), *map(_number, _latencies(each)), f"{each['total']:,}")
                for each in _sorted(view["operations"], sort)
            ),
        ),
        "",
        _table(
            ("node", "CPUs", "position", "lag", "op/s", "per batch", "memory here", "elsewhere"),
            (
                (
                    str(each["node"]),
                    wording.ranges(each["cpus"]),
                    f"{each['position']:,}",
                    f"{each['lag']:,}",
                    _number(each["operations_per_second"]),
                    _number(each["operations_per_batch"]),
                    wording.amount(each["bytes_here"]),
                    wording.amount(each["bytes_elsewhere"]),
                )
                for each in view["replicas"]
            ),
        ),
        "",
        _table(
            ("log", "tail", "op/s", "per batch"),
            (
                (
                    each["log"],
                    f"{each['tail']:,}",
                    _number(each["per_second"]),
                    _number(each["operations_per_batch"]),
                )
                for each in view["logs"]
            ),
        ),
        "",
        _table(
            ("worker", "requests/s"),
            (
                ("any CPU" if each["cpu"] is None else f"CPU {each['cpu']}", _number(each["per_second"]))
                for each in view["workers"]
            ),
        ),
        "",
        _table(("thread", "CPU %"), ((each["thread"], f"{each['cpu_percent']:.0f}") for each in view["threads"])),
    )


def _sorted(operations: Sequence[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    if sort == "kind":
        return sorted(operations, key=lambda each: str(each["kind"]))
    return sorted(operations, key=lambda each: (-(each[sort] or 0), -each["total"], each["kind"]))


def _latencies(operation: dict[str, Any]) -> tuple[float | None, float | None]:
    return operation["p50_microseconds"], operation["p99_microseconds"]


def _table(headings: Sequence[str], rows: Iterator[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(plain, row))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# On a terminal


def _live(path: str, interval: float, before: _Look) -> int:
    sort, is_paused = "per_second", False
    view = _view(path, before, before)
    with _keys(), Live(_with_help(view, sort, is_paused), screen=True, auto_refresh=False) as live:
        due = time.monotonic() + min(interval, 0.2)
        while True:
            pressed = _key(None if is_paused else max(0.0, due - time.monotonic()))
            if pressed in ("q", "\x03", ""):
                return 0
            if pressed == " ":
                is_paused = not is_paused
                due = time.monotonic()
            sort = SORTS.get(pressed or "", sort)
            if not is_paused and time.monotonic() >= due:
                now = _look(path)
                view, before, due = _view(path, before, now), now, time.monotonic() + interval
            live.update(_with_help(view, sort, is_paused), refresh=True)


def _with_help(view: dict[str, Any], sort: str, is_paused: bool) -> Group:
    return Group(_KEYS + ("   PAUSED" if is_paused else ""), "", _render(view, sort))


@contextmanager
def _keys() -> Iterator[None]:
    """Makes the terminal deliver each key at once, and not show it, until the end of the ``with`` block."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _key(seconds: float | None) -> str | None:
    """The next key, if one is pressed within so many seconds; "" at the end of the terminal."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else None
