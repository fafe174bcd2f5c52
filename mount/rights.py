"""The rights that this process has, as the kernel shows them (capabilities(7))."""

from __future__ import annotations

from pathlib import Path

SYS_ADMIN = 21
SYS_RESOURCE = 24


def of_this_process(field: str) -> str:
    """A field of /proc/self/status (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))


def has_capability(number: int) -> bool:
    """Whether this process has the capability of this number, in its user namespace."""
    return bool(int(of_this_process("CapEff"), 16) >> number & 1)
