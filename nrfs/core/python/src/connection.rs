//! `nrfs._core.Connection`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse::connection::Channel;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::filesystem::Filesystem;

/// A connection to the kernel, whose requests are answered natively or by pyfuse3.
#[pyclass(frozen, module = "nrfs")]
pub struct Connection {
    /// Until its end.
    connection: Mutex<Option<fuse::connection::Connection>>,
    descriptor: RawFd,
}

impl Connection {
    fn connection(&self) -> MutexGuard<'_, Option<fuse::connection::Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, call: impl FnOnce(&fuse::connection::Connection) -> R) -> PyResult<R> {
        let connection = self.connection();
        connection.as_ref().map(call).ok_or_else(|| PyValueError::new_err("the connection has ended"))
    }
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (filesystem, device, *, channel, caching, collected = 0))]
    fn new(filesystem: &Filesystem, device: RawFd, channel: &str, caching: bool, collected: u64) -> PyResult<Self> {
        // SAFETY: the caller gives the descriptor away, as the documentation says: nobody else closes it.
        let device = unsafe { OwnedFd::from_raw_fd(device) };
        let channel = match channel {
            "pyfuse3" => Channel::Pyfuse3,
            "device" => Channel::Device,
            "ring" => Channel::Ring,
            _ => return Err(PyValueError::new_err(format!("there is no channel '{channel}'"))),
        };
        let service = Arc::clone(filesystem.service());
        let (connection, theirs) = fuse::connection::Connection::start(service, device, channel, caching, collected)?;
        Ok(Self { connection: Mutex::new(Some(connection)), descriptor: theirs.into_raw_fd() })
    }

    #[getter]
    fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    fn fileno(&self) -> PyResult<RawFd> {
        self.with(|connection| connection.ended().as_fd().as_raw_fd())
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let workers = self.with(fuse::connection::Connection::statistics)?;
        let shapes = workers.into_iter().map(|worker| {
            let shape = PyDict::new(py);
            shape.set_item("cpu", worker.cpu.map(|cpu| cpu.0))?;
            let requests = PyDict::new(py);
            for (name, count) in worker.requests {
                requests.set_item(name, count)?;
            }
            shape.set_item("requests", requests)?;
            Ok(shape)
        });
        PyList::new(py, shapes.collect::<PyResult<Vec<_>>>()?)
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.connection().take().map_or(Ok(()), fuse::connection::Connection::end))?)
    }
}
