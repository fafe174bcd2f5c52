//! The native module `nrfs._core`. Thin: unpack, release the GIL, call the service, convert.

mod convert;
mod filesystem;
mod relay;

/// A tree of a million files that is deleted leaves nothing behind in this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use super::convert::{Attributes, Capacity, DirectoryEntry};
    #[pymodule_export]
    use super::filesystem::Filesystem;
    #[pymodule_export]
    use super::relay::Relay;

    #[pymodule_export]
    const ROOT: u64 = ::filesystem::Ino::ROOT.0;
}
