//! `nrfs._core.Connection`.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuse::connection::ChannelKind;
use fuse::protocol::opcode::Opcode;
use fuse::trace::Filter;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::convert::Number;
use crate::filesystem::Filesystem;
use crate::here::Here;
use crate::trace::Tracer;

/// A connection to the kernel, whose requests are answered natively or by pyfuse3.
#[pyclass(frozen, module = "nrfs")]
pub struct Connection {
    /// `None` after the connection has ended.
    connection: Here<Mutex<Option<Connected>>>,
    descriptor: RawFd,
}

/// A connection and its descriptor number. The number is freed after the connection has closed the descriptor.
struct Connected {
    connection: fuse::connection::Connection,
    _taken: Taken,
}

/// A descriptor number that belongs to a connection. No other connection can take it until it is closed.
struct Taken(RawFd);

static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

impl Taken {
    fn numbers() -> MutexGuard<'static, BTreeSet<RawFd>> {
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes ownership of a descriptor of /dev/fuse, or of a socket that stands for one. ENODEV for any other, which
    /// stays the caller's; EBUSY if another connection has it.
    fn take(number: RawFd) -> io::Result<(OwnedFd, Self)> {
        if !is_of_the_kernel(number)? {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        if !Self::numbers().insert(number) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        // SAFETY: it is open, and belongs to no other connection. This module gives such descriptors to Python only
        // together with their ownership; so the caller owns it, and gives it away, as the documentation says.
        Ok((unsafe { OwnedFd::from_raw_fd(number) }, Self(number)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        Self::numbers().remove(&self.0);
    }
}

/// Whether a descriptor is of /dev/fuse or a socket. EBADF if it is not open.
fn is_of_the_kernel(number: RawFd) -> io::Result<bool> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the call writes a `stat`; a number that is not a descriptor is only an error.
    if unsafe { libc::fstat(number, status.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled it.
    let status = unsafe { status.assume_init() };
    Ok(match status.st_mode & libc::S_IFMT {
        libc::S_IFCHR => status.st_rdev == libc::makedev(10, 229),
        kind => kind == libc::S_IFSOCK,
    })
}

impl Connection {
    fn connection(&self) -> PyResult<MutexGuard<'_, Option<Connected>>> {
        Ok(self.connection.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with<R>(&self, call: impl FnOnce(&fuse::connection::Connection) -> R) -> PyResult<R> {
        let connection = self.connection()?;
        connection
            .as_ref()
            .map(|connected| call(&connected.connection))
            .ok_or_else(|| PyValueError::new_err("the connection has ended"))
    }
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (filesystem, device, *, channel, caching, collected = 0))]
    fn new(
        filesystem: &Filesystem,
        device: Number<RawFd>,
        channel: &str,
        caching: bool,
        collected: u64,
    ) -> PyResult<Self> {
        let channel = match channel {
            "pyfuse3" => ChannelKind::Pyfuse3,
            "device" => ChannelKind::Device,
            "ring" => ChannelKind::Ring,
            _ => return Err(PyValueError::new_err(format!("there is no channel '{channel}'"))),
        };
        let service = Arc::clone(filesystem.service()?);
        let (device, _taken) = Taken::take(device.0)?;
        let (connection, theirs) = fuse::connection::Connection::start(service, device, channel, caching, collected)?;
        let connected = Connected { connection, _taken };
        Ok(Self { connection: Here::new(Mutex::new(Some(connected))), descriptor: theirs.into_raw_fd() })
    }

    #[getter]
    fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    #[getter]
    fn offers_passthrough(&self) -> PyResult<bool> {
        self.with(fuse::connection::Connection::offers_passthrough)
    }

    fn fileno(&self) -> PyResult<RawFd> {
        self.with(|connection| connection.ended().as_fd().as_raw_fd())
    }

    fn set_collected(&self, bytes: u64) -> PyResult<()> {
        self.with(|connection| connection.set_collected(bytes))
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
            shape.set_item("elsewhere", worker.elsewhere)?;
            Ok(shape)
        });
        PyList::new(py, shapes.collect::<PyResult<Vec<_>>>()?)
    }

    fn latencies(&self) -> PyResult<BTreeMap<&'static str, Vec<(u64, u64)>>> {
        self.with(fuse::connection::Connection::latencies)
    }

    #[pyo3(signature = (*, kinds = None, process = None, fails = false, nanoseconds = 0))]
    fn trace(
        &self,
        kinds: Option<Vec<String>>,
        process: Option<u32>,
        fails: bool,
        nanoseconds: u64,
    ) -> PyResult<Tracer> {
        let kinds = kinds.unwrap_or_default();
        if let Some(kind) = kinds.iter().find(|kind| Opcode::ALL.iter().all(|opcode| opcode.name() != **kind)) {
            return Err(PyValueError::new_err(format!("there is no kind of request '{kind}'")));
        }
        let filter = Filter { kinds, process, fails, longer: Duration::from_nanos(nanoseconds) };
        self.with(|connection| Tracer::new(connection.trace(filter)))
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let connection = self.connection.get()?;
        Ok(py.detach(|| {
            let connected = connection.lock().unwrap_or_else(PoisonError::into_inner).take();
            // This closes the descriptor, and frees its number after that.
            connected.map_or(Ok(()), |Connected { connection, _taken }| connection.end())
        })?)
    }
}
