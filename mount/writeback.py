"""Sets how much data the kernel may collect in its cache for a mount before it writes them.

With a high limit writes are faster: more neighbouring pages become one request, and a page that is changed again is
written once. (Scattered writes were faster by half with 200 MiB than with 50.) With a low limit a mount can be fuller
before it becomes slower: a program has been told that collected data are written, so near the end of the space nrfs
must keep as much free as the kernel may have collected.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from mount import machine

_DEVICES = Path("/sys/class/bdi")
_LEAST = 1 << 19
_MOST = 1 << 29
"""A higher limit hardly makes writes faster. If the kernel's own is higher, it may stay higher."""

_PART_OF_SIZE = 32
_OVERSHOOT = 2
"""The kernel slows writers down above its limit, and lets them exceed it for a moment."""

_PART_OF_MEMORY = 500
"""By default a FUSE mount may collect 1% of what all file systems may, which is 20% of the memory."""


def collected_at_most(device: str, size: int, replicas: int) -> int:
    """The most bytes that the kernel may have collected for a mount. If this process may, it first sets the kernel's
    limit to a part of what the mount can hold.

    Args:
        device: the mount's device number, as :class:`mount.mountinfo.MountEntry` has it.
        size: bytes that the mount may hold.
        replicas: how many replicas take memory for each of them.

    """
    setting = _DEVICES / device.replace("-", ":") / "max_bytes"
    memory = min(machine.memory()["MemAvailable"], machine.memory_limit() or sys.maxsize)
    wanted = max(min(size, memory // replicas) // _PART_OF_SIZE, _LEAST)
    try:
        limit = int(setting.read_text())
        with suppress(OSError):  # Only root may, and not above half of what all file systems may collect.
            setting.write_text(f"{min(wanted, max(limit, _MOST))}\n")
            setting.with_name("strict_limit").write_text("1\n")
        return _OVERSHOOT * int(setting.read_text())
    except (OSError, ValueError):  # Linux before 6.2, or a container without /sys.
        return _OVERSHOOT * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _PART_OF_MEMORY
