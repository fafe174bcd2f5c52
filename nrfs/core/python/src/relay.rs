//! `nrfs._core.Relay`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::filesystem::Filesystem;

/// Stands between the kernel and pyfuse3.
#[pyclass(frozen, module = "nrfs")]
pub struct Relay {
    /// Until its end.
    relay: Mutex<Option<fuse::relay::Relay>>,
    descriptor: RawFd,
}

impl Relay {
    fn relay(&self) -> MutexGuard<'_, Option<fuse::relay::Relay>> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Relay {
    #[new]
    #[pyo3(signature = (filesystem, device, *, caching))]
    fn new(filesystem: &Filesystem, device: RawFd, caching: bool) -> PyResult<Self> {
        // SAFETY: the caller gives the descriptor away, as the documentation says: nobody else closes it.
        let device = unsafe { OwnedFd::from_raw_fd(device) };
        let (relay, theirs) = fuse::relay::Relay::start(Arc::clone(filesystem.service()), device, caching)?;
        Ok(Self { relay: Mutex::new(Some(relay)), descriptor: theirs.into_raw_fd() })
    }

    #[getter]
    fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    fn fileno(&self) -> PyResult<RawFd> {
        let relay = self.relay();
        let relay = relay.as_ref().ok_or_else(|| PyValueError::new_err("the relay has ended"))?;
        Ok(relay.ended().as_fd().as_raw_fd())
    }

    fn end(&self, py: Python<'_>) {
        py.detach(|| drop(self.relay().take()));
    }
}
