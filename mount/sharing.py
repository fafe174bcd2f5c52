"""Whether the kernel can read and write the bytes of files itself (``--content shared``)."""

from __future__ import annotations

from pathlib import Path

from mount import rights
from mount.failure import MountError
from nrfs import Connection

NOT_OFFERED = "this kernel has no FUSE passthrough (Linux 6.9 or later has)"


def check(channel: str) -> None:
    """Checks, before anything is mounted, whether content can be shared on this channel.

    Raises:
        MountError: why content cannot be shared.

    """
    reason = rights_missing()
    if channel == "pyfuse3":
        reason = "not on the channel pyfuse3, which has no FUSE passthrough"
    if reason is not None:
        raise MountError(f"--content shared: {reason}")


def check_kernel(connection: Connection) -> None:
    """Checks, once there is a mount, whether its kernel offers FUSE passthrough.

    Raises:
        MountError: content cannot be shared.

    """
    if not connection.offers_passthrough:
        raise MountError(f"--content shared: {NOT_OFFERED}")


def rights_missing() -> str | None:
    """Why this process may not use FUSE passthrough; None if it may."""
    if not rights.has_capability(rights.SYS_ADMIN):
        return "only root may (CAP_SYS_ADMIN is missing)"
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", str(2**32 - 1)]:
        return "not in a user namespace (CAP_SYS_ADMIN in the first one is needed)"
    return None
