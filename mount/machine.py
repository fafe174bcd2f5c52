"""The CPUs and memory that this process may use, as the kernel reports them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_NODES = Path("/sys/devices/system/node")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def numbers(text: str) -> list[int]:
    """Parses a list in the format of cpuset(7): "0-3,8"."""
    runs = [run.partition("-") for run in text.strip().split(",") if run]
    return [number for first, _, last in runs for number in range(int(first), int(last or first) + 1)]


def cpus(kind: str) -> list[int]:
    """All CPUs that are "possible", "present" or "online"."""
    return numbers((_CPUS / kind).read_text())


def memory() -> dict[str, int]:
    """The fields of /proc/meminfo in bytes, such as "MemAvailable"."""
    return _fields(Path("/proc/meminfo"))


def available_on(node: int) -> int:
    """About as many bytes as can still be used on a NUMA node: what is free there, and what the kernel can free."""
    # The kernel has no MemAvailable of a node; this is what it counts for the whole machine (Linux, mm/show_mem.c).
    fields = {name.split()[-1]: size for name, size in _fields(_NODES / f"node{node}" / "meminfo").items()}
    gained = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    return sum(fields.get(name, 0) for name in gained)


def _fields(table: Path) -> dict[str, int]:
    """The fields in kB of a table in the format of /proc/meminfo, in bytes; those of a node begin with "Node 0"."""
    pairs = (line.rsplit(":", 1) for line in table.read_text().splitlines())
    return {name: int(value.split()[0]) << 10 for name, value in pairs if value.endswith("kB")}


def memory_limit() -> int | None:
    """The most bytes that the control groups of this process may use; None if there is no limit."""
    # The first version of control groups writes "no limit" as a number that is larger than any memory.
    limits = [int(text) for text in _control_group("memory", "memory.max", "memory.limit_in_bytes") if text != "max"]
    return min((limit for limit in limits if limit < memory()["MemTotal"]), default=None)


def cpu_quota() -> float | None:
    """The most CPU time that the control groups of this process may use, in CPUs; None if there is no limit."""
    older = (_control_group("cpu", None, name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    shares = [*(text.split() for text in _control_group("cpu", "cpu.max")), *zip(*older, strict=True)]
    return min((int(quota) / int(period) for quota, period in shares if quota not in ("max", "-1")), default=None)


def _control_group(controller: str, file: str | None, older_file: str | None = None) -> Iterator[str]:
    """The content of a file in each control group of this process, from the innermost to the outermost.

    Args:
        controller: what the group controls.
        file: the name in version 2 of control groups, if there is such a file.
        older_file: the name in version 1.

    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = older_file if controllers else file
        if name is None or (controllers and controller not in controllers.split(",")):
            continue
        top = _CONTROL_GROUPS / controller if controllers else _CONTROL_GROUPS
        innermost = top / path.lstrip("/")
        for directory in (innermost, *innermost.parents):
            with suppress(OSError):
                yield (directory / name).read_text().strip()
            if directory == top:
                break
