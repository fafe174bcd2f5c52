"""How much data the kernel collects in its cache before it writes it to a mount.

A file system that is nearly full must know: what the kernel has collected has been taken from a program, and must be
stored. The less that can be, the closer to its limit a mount is as fast as ever.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_DEVICES = Path("/sys/class/bdi")
_LEAST = 1 << 19
_PART_OF_SIZE = 32
_OVERSHOOT = 2
"""The kernel slows writers down when there is too much, and lets them exceed its limit for a moment."""

_PART_OF_MEMORY = 500
"""What FUSE may have collected is 1% of what all may, and that is 20% of the memory, unless somebody changes it."""


def collected_at_most(device: str, size: int) -> int:
    """The bytes that the kernel may have collected for a mount; where it lets us, it is told to keep to a part of the
    size of a small one.

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
    except (OSError, ValueError):  # Linux before 6.2, or a container without it.
        return _OVERSHOOT * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _PART_OF_MEMORY
