"""The most data that the kernel collects in its cache for a mount before it writes them.

A file system that is nearly full must know this: the kernel has already taken collected data from a program, so they
must be stored. The lower the limit is, the fuller a mount can be before it becomes slower.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_DEVICES = Path("/sys/class/bdi")
_LEAST = 1 << 19
_PART_OF_SIZE = 32
_OVERSHOOT = 2
"""The kernel slows writers down above its limit, and lets them exceed it for a moment."""

_PART_OF_MEMORY = 500
"""By default a FUSE mount may collect 1% of what all file systems may, which is 20% of the memory."""


def collected_at_most(device: str, size: int) -> int:
    """The most bytes that the kernel may have collected for a mount. If this process may, it first sets the kernel's
    limit to a part of the mount's size, unless that is higher than the limit.

    Args:
        device: the mount's device number, as :class:`mount.mountinfo.MountEntry` has it.
        size: bytes that the mount can hold.

    """
    setting = _DEVICES / device.replace("-", ":") / "max_bytes"
    wanted = max(size // _PART_OF_SIZE, _LEAST)
    try:
        if int(setting.read_text()) > wanted:
            with suppress(OSError):  # Only root may.
                setting.write_text(f"{wanted}\n")
                setting.with_name("strict_limit").write_text("1\n")
        return _OVERSHOOT * int(setting.read_text())
    except (OSError, ValueError):  # Linux before 6.2, or a container without /sys.
        return _OVERSHOOT * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _PART_OF_MEMORY
