"""``nrfs status``: shows what daemons report about themselves, for people or for programs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import nrfs
from mount import control, latency, mountinfo, replies, wording
from mount.failure import MountError
from mount.liveness import Life
from nrfs.terminal import plain

_WIDTH = 100
_CONTENT = {"replicated": "at every node", "shared": "once, read and written by the kernel itself"}
_ASKED_AT_ONCE = 32
_PATIENCE_WITH_DIGESTS = 600.0


@final
@dataclass(frozen=True)
class MountStatus:
    """What is known of one mount."""

    mountpoint: str
    daemon: dict[str, Any] | None
    """The daemon's reply; None if there is none."""
    verification: list[dict[str, Any]] | None
    """The digests of each log; None if they were not asked for."""
    problem: str | None = None
    """Why there is nothing to show of it, if that is so."""
    is_alive: bool | None = True
    """Whether the daemon is alive; None if that is not known."""

    @property
    def is_healthy(self) -> bool:
        return self.problem is None and all(_agree(log) for log in self.verification or ())

    def as_dictionary(self) -> dict[str, Any]:
        """The object that ``--json`` prints: fields of the mount, and those of the daemon's reply."""
        shape: dict[str, Any] = {"mountpoint": self.mountpoint, "alive": self.is_alive}
        if self.problem is not None:
            shape["problem"] = self.problem
        shape = {**shape, **(self.daemon or {}), **shape}
        if self.verification is not None:
            shape["verification"] = [{**log, "agree": _agree(log)} for log in self.verification]
        return shape


def show(path: str | None, *, as_json: bool, verify: bool) -> int:
    """Prints the status of the mount at ``path``, or of all mounts that this user may ask about.

    Returns:
        1 if a daemon is dead or cannot be asked, or if its replicas differ; else 0.

    Raises:
        MountError: there is no such mount, or this user may not ask.

    """
    statuses = of(path, verify=verify)
    if as_json:
        shapes = [status.as_dictionary() for status in statuses]
        print(json.dumps(shapes if path is None else shapes[0], indent=2))
    elif not statuses:
        print("nothing is mounted")
    else:
        print("\n\n".join("\n".join(map(plain, _lines(status))) for status in statuses))
    return 0 if all(status.is_healthy for status in statuses) else 1


def of(path: str | None, *, verify: bool = False) -> Sequence[MountStatus]:
    """The status of the mount at ``path``, or of all mounts that this user may ask about.

    Raises:
        MountError: as ``show`` does.

    """
    control.clear_stale()
    return _ask_all(_all_entries(), verify=verify) if path is None else [_ask(entry(path), verify=verify)]


def _agree(log: dict[str, Any]) -> bool:
    return len(set(log["digests"])) == 1


def entry(path: str) -> mountinfo.MountEntry:
    """The nrfs mount at ``path``.

    Raises:
        MountError: there is none.

    """
    found = mountinfo.topmost_at(mountinfo.locate(path))
    if found is None or not found.is_ours:
        raise MountError(f"{path}: no nrfs is mounted here")
    return found


def _all_entries() -> Sequence[mountinfo.MountEntry]:
    user = os.geteuid()
    by_device = {
        entry.device: entry for entry in reversed(mountinfo.entries()) if entry.is_ours and (user in (0, entry.owner))
    }
    return sorted(by_device.values(), key=lambda entry: entry.mountpoint)


def _ask_all(entries: Sequence[mountinfo.MountEntry], *, verify: bool) -> Sequence[MountStatus]:
    """Asks all daemons at the same time, this user's first. One that is slow or malformed does not affect others."""

    def ask(entry: mountinfo.MountEntry) -> MountStatus:
        try:
            return _ask(entry, verify=verify)
        except MountError as failure:
            reason = str(failure).removeprefix(f"{entry.mountpoint}: ")
            return MountStatus(entry.mountpoint, None, None, reason, is_alive=None)

    own_first = sorted(entries, key=lambda entry: entry.owner != os.geteuid())
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        answers = dict(zip(own_first, threads.map(ask, own_first), strict=True))
    return [answers[entry] for entry in entries]


def _ask(entry: mountinfo.MountEntry, *, verify: bool) -> MountStatus:
    try:
        daemon = control.ask(entry, "status")
        problem = _difference(daemon)
        if problem is not None:
            return MountStatus(entry.mountpoint, daemon, None, problem)
        with control.understanding(entry):
            replies.check_status(daemon)
        verification = _verify(entry) if verify else None
    except control.DaemonUnreachableError as unreachable:
        problem, is_alive = _out_of_reach(entry, unreachable.life)
        return MountStatus(entry.mountpoint, None, None, problem, is_alive)
    return MountStatus(entry.mountpoint, daemon, verification)


def _verify(entry: mountinfo.MountEntry) -> list[dict[str, Any]]:
    # To compute digests of all that is stored takes long.
    reply = control.ask(entry, "verify", timeout=_PATIENCE_WITH_DIGESTS)
    with control.understanding(entry):
        replies.check_verification(reply)
    logs: list[dict[str, Any]] = reply["logs"]
    return logs


def _out_of_reach(entry: mountinfo.MountEntry, life: Life) -> tuple[str, bool | None]:
    """What to say of a daemon that cannot be reached, and whether it is alive."""
    match life:
        case Life.ALIVE:
            return "the daemon is alive, and cannot be reached from here", True
        case Life.UNKNOWN:
            return "the daemon cannot be reached, and may be alive", None
    log = control.log_of(entry)
    last_words = f"; its last words are in {log}" if log is not None else ""
    command = f"nrfs umount {wording.argument(entry.mountpoint)}"
    return f"the daemon is dead ({command} takes the mount away{last_words})", False


def _difference(daemon: dict[str, Any]) -> str | None:
    """Why a status cannot be understood, as it is of another version; None if it can."""
    version = daemon.get("version")
    if version == nrfs.__version__:
        return None
    theirs = f"nrfs {version}" if version is not None else "an older nrfs, which does not say which"
    return f"the daemon is of {theirs}, and this is nrfs {nrfs.__version__}: mount again to see its status"


# For people


def _lines(status: MountStatus) -> Iterable[str]:
    yield status.mountpoint
    if status.problem is not None or status.daemon is None:
        yield f"  {status.problem}"
        return
    daemon = status.daemon
    capacity = daemon["capacity"]
    space = f"{wording.amount(capacity['bytes_used'])} of {wording.amount(capacity['bytes'])}"
    inodes = f"{capacity['inodes_used']:,} of {capacity['inodes']:,} inodes"
    age = wording.duration(time.time() - daemon["started"])
    yield f"  daemon    process {daemon['pid']}, up {age}, cache {daemon['cache']}"
    reason = f" ({daemon['channel_reason']})" if daemon["channel_reason"] else ""
    yield f"  channel   {daemon['channel']}{reason}"
    yield f"  used      {space}, {inodes}"
    yield f"  content   {_CONTENT[daemon['content']]}"
    yield from _wrapped("  requests  ", _requests(daemon["requests"]))
    timed = {kind: each for kind, each in latency.histograms(daemon).items() if daemon["requests"].get(kind)}
    yield from _wrapped("  latency   ", _latencies(timed))
    yield from _wrapped("  workers   ", [_worker(worker) for worker in daemon["workers"]])
    elsewhere = sum(worker["elsewhere"] for worker in daemon["workers"])
    if elsewhere:
        yield f"  elsewhere {elsewhere:,} requests were answered by the replica of another node"
    yield from _memory(daemon)
    yield ""
    yield from _table(_positions(daemon))
    yield ""
    yield from _table(_combining(daemon))
    if status.verification is not None:
        yield ""
        yield from _table(_digests(status.verification))
        if daemon["content"] == "shared":
            yield "  content is not compared: there is one copy"


def _requests(requests: dict[str, int]) -> Sequence[str]:
    frequent = sorted(((count, kind) for kind, count in requests.items() if count), reverse=True)
    return [f"{kind} {count:,}" for count, kind in frequent] or ["none yet"]


def _latencies(timed: dict[str, latency.Histogram]) -> Sequence[str]:
    """What half of the requests of each kind took at most, and all but a hundredth; the most frequent kinds first."""
    frequent = sorted(timed, key=lambda kind: -sum(count for _, count in timed[kind]))
    texts = []
    for kind in frequent:
        times = [latency.microseconds(timed[kind], percent) for percent in (50, 99)]
        texts.append(f"{kind} {' / '.join(f'{each:,.3g}' for each in times if each is not None)}")
    return [f"{texts[0]} us (p50 / p99)", *texts[1:]] if texts else ["none yet"]


def _worker(worker: dict[str, Any]) -> str:
    place = "any CPU" if worker["cpu"] is None else f"CPU {worker['cpu']}"
    return f"{place} {sum(worker['requests'].values()):,}"


def _wrapped(title: str, items: Sequence[str]) -> Iterable[str]:
    """A title and a list, in lines of limited length that are broken only between items."""
    line = title + items[0]
    for item in items[1:]:
        line += ","
        if len(line) + 1 + len(item) > _WIDTH:
            yield line
            line = " " * len(title) + item
        else:
            line += " " + item
    yield line


def _memory(daemon: dict[str, Any]) -> Iterable[str]:
    """Where the memory of each node of the hardware lies, if there are several."""
    replicas = [replica for replica in daemon["replicas"] if replica["physical"] is not None]
    for node in sorted({replica["physical"] for replica in replicas}):
        there = [replica for replica in replicas if replica["physical"] == node]
        here, elsewhere = there[0]["bytes_here"], there[0]["bytes_elsewhere"]
        share = f"{100 * here / (here + elsewhere):.1f}%" if here + elsewhere else "nothing yet"
        numbers = ", ".join(str(replica["node"]) for replica in there)
        yield f"  memory    of replica {numbers}: {share} on node {node} of the machine"
    if replicas and not daemon["placed"]:
        yield "  memory    the kernel does not let this daemon choose nodes (mbind(2) was refused)"


def _positions(daemon: dict[str, Any]) -> Iterable[Sequence[str]]:
    """A table: how far each replica has applied each log."""
    replicas = daemon["replicas"]
    yield "log", "tail", *(f"node {replica['node']}" for replica in replicas)
    for number, log in enumerate(daemon["logs"]):
        yield log["name"], f"{log['tail']:,}", *(f"{replica['logs'][number]['local_tail']:,}" for replica in replicas)


def _combining(daemon: dict[str, Any]) -> Iterable[Sequence[str]]:
    """A table: what each node's combiners have done, all logs together."""
    yield "node", "operations", "batches", "per batch", "helped", "log full", "CPUs"
    for replica in daemon["replicas"]:
        total = {key: sum(log[key] for log in replica["logs"]) for key in ("operations", "batches", "helped", "full")}
        per_batch = f"{total['operations'] / total['batches']:.2f}" if total["batches"] else "-"
        cpus = wording.ranges(replica["cpus"])
        counts = (f"{total[key]:,}" for key in ("operations", "batches"))
        rare = (f"{total[key]:,}" for key in ("helped", "full"))
        yield str(replica["node"]), *counts, per_batch, *rare, cpus


def _digests(verification: list[dict[str, Any]]) -> Iterable[Sequence[str]]:
    yield "log", "position", "replicas", "digest"
    for log in verification:
        if _agree(log):
            yield log["log"], f"{log['position']:,}", "agree", log["digests"][0]
        else:
            yield log["log"], f"{log['position']:,}", "DIFFER", " ".join(log["digests"])


def _table(rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Aligns columns: the first to the left, all others to the right."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        aligned = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  " + "  ".join([first.ljust(widths[0]), *aligned])
