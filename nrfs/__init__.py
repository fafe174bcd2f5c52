"""nrfs: a node-replicated in-memory file system, as a mount and as a library; and a scheduler and address spaces."""

from nrfs._core import (
    ROOT,
    AddressSpace,
    AddressSpaceCore,
    Attributes,
    Capacity,
    Connection,
    Core,
    DirectoryEntry,
    Filesystem,
    Frame,
    Mapping,
    Process,
    Scheduler,
    Upcall,
    __version__,
    probe_ring,
)

__all__ = [
    "ROOT",
    "AddressSpace",
    "AddressSpaceCore",
    "Attributes",
    "Capacity",
    "Connection",
    "Core",
    "DirectoryEntry",
    "Filesystem",
    "Frame",
    "Mapping",
    "Process",
    "Scheduler",
    "Upcall",
    "__version__",
    "probe_ring",
]
