"""nrfs: a node-replicated in-memory file system, as a mount and as a library; and a scheduler beside it."""

from nrfs._core import (
    ROOT,
    Attributes,
    Capacity,
    Core,
    DirectoryEntry,
    Filesystem,
    Process,
    Relay,
    Scheduler,
    Upcall,
    release_memory,
)

__all__ = [
    "ROOT",
    "Attributes",
    "Capacity",
    "Core",
    "DirectoryEntry",
    "Filesystem",
    "Process",
    "Relay",
    "Scheduler",
    "Upcall",
    "release_memory",
]
