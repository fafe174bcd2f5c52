//! The native module `nrfs._core`. Each method unpacks its arguments, releases the GIL, calls a service, and converts
//! the result.

mod address_space;
mod allocator;
mod connection;
mod convert;
mod filesystem;
mod heaps;
mod here;
mod scheduler;
mod topology;
mod trace;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

#[pyo3::pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::address_space::{AddressSpace, AddressSpaceCore, Frame, Mapping};
    #[pymodule_export]
    use super::connection::Connection;
    #[pymodule_export]
    use super::convert::{Attributes, Capacity, DirectoryEntry};
    #[pymodule_export]
    use super::filesystem::Filesystem;
    #[pymodule_export]
    use super::scheduler::{Core, Process, Scheduler, Upcall};
    #[pymodule_export]
    use super::topology::{MachineNode, Topology, TopologyNode};
    #[pymodule_export]
    use super::trace::Tracer;

    /// Raises `OSError` if this process cannot have an io_uring, whether or not FUSE supports the ring.
    #[pyfunction]
    fn probe_ring() -> PyResult<()> {
        Ok(::fuse::ring::probe()?)
    }

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const ROOT: u64 = ::filesystem::Ino::ROOT.0;
}
