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
    MachineNode,
    Mapping,
    Process,
    Scheduler,
    Topology,
    TopologyNode,
    Tracer,
    Upcall,
    __version__,
    probe_ring,
)

TYPE_CHECKING = False  # To a type checker it is true; to import ``typing`` would take longer than all of this.
if TYPE_CHECKING:
    from nrfs.files.path import Path
else:

    def __getattr__(name: str) -> object:
        """Imports what not every program uses when it is first asked for."""
        if name == "Path":
            from nrfs.files.path import Path

            globals()[name] = Path
            return Path
        raise AttributeError(f"module 'nrfs' has no attribute {name!r}")


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
    "MachineNode",
    "Mapping",
    "Path",
    "Process",
    "Scheduler",
    "Topology",
    "TopologyNode",
    "Tracer",
    "Upcall",
    "__version__",
    "probe_ring",
]
