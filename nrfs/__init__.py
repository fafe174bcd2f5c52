"""nrfs: a node-replicated in-memory file system, as a mount and as a library."""

from nrfs._core import (
    ROOT,
    Attributes,
    Capacity,
    Connection,
    DirectoryEntry,
    Filesystem,
    probe_ring,
    release_memory,
)

__all__ = [
    "ROOT",
    "Attributes",
    "Capacity",
    "Connection",
    "DirectoryEntry",
    "Filesystem",
    "probe_ring",
    "release_memory",
]
