//! Converts between Python objects and the types of the services.

use std::io;

use filesystem::status::Status;
use filesystem::{Digest, Errno, LogPosition, Size, Topology};
use memory::placement::Placement;
use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

/// The attributes of one inode, as stat(2) has them.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct Attributes {
    ino: u64,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    size: u64,
    blocks: u64,
    atime_ns: i128,
    mtime_ns: i128,
    ctime_ns: i128,
    btime_ns: i128,
}

impl From<filesystem::Attributes> for Attributes {
    fn from(attributes: filesystem::Attributes) -> Self {
        Self {
            ino: attributes.ino.0,
            mode: attributes.mode(),
            nlink: attributes.links,
            uid: attributes.owner.uid,
            gid: attributes.owner.gid,
            rdev: attributes.device,
            size: attributes.size,
            blocks: attributes.blocks,
            atime_ns: attributes.accessed.nanoseconds_since_epoch(),
            mtime_ns: attributes.modified.nanoseconds_since_epoch(),
            ctime_ns: attributes.changed.nanoseconds_since_epoch(),
            btime_ns: attributes.born.nanoseconds_since_epoch(),
        }
    }
}

#[pymethods]
impl Attributes {
    fn __repr__(&self) -> String {
        let Self { ino, mode, nlink, uid, gid, size, .. } = self;
        format!("Attributes(ino={ino}, mode={mode:#o}, nlink={nlink}, uid={uid}, gid={gid}, size={size})")
    }
}

/// One name in a directory listing.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct DirectoryEntry {
    name: Py<PyBytes>,
    cookie: u64,
    attributes: Py<Attributes>,
}

impl DirectoryEntry {
    pub fn new(py: Python<'_>, entry: filesystem::Entry) -> PyResult<Self> {
        Ok(Self {
            name: bytes(py, &entry.name)?.unbind(),
            cookie: entry.cookie.0,
            attributes: Py::new(py, Attributes::from(entry.attributes))?,
        })
    }
}

#[pymethods]
impl DirectoryEntry {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (name, attributes) = (self.name.bind(py).repr()?, self.attributes.borrow(py));
        Ok(format!("DirectoryEntry(name={name}, cookie={}, attributes={})", self.cookie, attributes.__repr__()))
    }
}

/// The capacity and what is left of it, as statvfs(3) reports them.
#[pyclass(frozen, get_all, module = "nrfs")]
pub struct Capacity {
    block_size: u64,
    blocks: u64,
    blocks_free: u64,
    inodes: u64,
    inodes_free: u64,
}

impl From<filesystem::Capacity> for Capacity {
    fn from(capacity: filesystem::Capacity) -> Self {
        let filesystem::Capacity { block_size, blocks, blocks_free, inodes, inodes_free } = capacity;
        Self { block_size, blocks, blocks_free, inodes, inodes_free }
    }
}

/// The `OSError` of an errno. Python picks the subclass.
pub fn os_error(errno: Errno) -> PyErr {
    PyOSError::new_err((errno.code(), error_text(errno.code())))
}

/// The text of an errno, as strerror(3) has it.
pub fn error_text(code: i32) -> String {
    let text = io::Error::from_raw_os_error(code).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// The `ValueError` for an invalid argument.
pub fn value_error(error: impl std::error::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A number. If it does not fit its type, the error is `ValueError`, as for any other number out of range.
pub struct Number<T>(pub T);

impl<'a, 'py, T: FromPyObject<'a, 'py>> FromPyObject<'a, 'py> for Number<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        object.extract().map(Self).map_err(|error: T::Error| {
            let error: PyErr = error.into();
            match error.is_instance_of::<PyOverflowError>(object.py()) {
                true => PyValueError::new_err("a number is far too large, or negative"),
                false => error,
            }
        })
    }
}

/// A number or a string; `TypeError` for any other object.
fn number_or_text(object: Borrowed<'_, '_, PyAny>) -> PyResult<Result<i64, String>> {
    match object.extract() {
        Ok(Number(number)) => Ok(Ok(number)),
        Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => object.extract().map(Err),
        Err(error) => Err(error),
    }
}

/// `"auto"`, a number, or an `nrfs.Topology`.
pub enum Nodes {
    Count(i64),
    Named(String),
    Given(Topology),
}

impl<'py> FromPyObject<'_, 'py> for Nodes {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<crate::topology::Topology>() {
            Ok(topology) => Ok(Self::Given(topology.get().to_replicate_on())),
            Err(_) => Ok(number_or_text(object)?.map_or_else(Self::Named, Self::Count)),
        }
    }
}

/// A number of bytes, or a string such as `"8G"` or `"50%"`.
pub enum Amount {
    Bytes(i64),
    Text(String),
}

impl<'py> FromPyObject<'_, 'py> for Amount {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(number_or_text(object)?.map_or_else(Self::Text, Self::Bytes))
    }
}

impl Amount {
    /// The size that it stands for; a negative number of bytes is none.
    pub fn size(self) -> PyResult<Size> {
        match self {
            Self::Bytes(bytes) => Ok(Size::Bytes(u64::try_from(bytes).unwrap_or(0))),
            Self::Text(text) => text.parse().map_err(value_error),
        }
    }
}

/// A Python `bytes`; `MemoryError` if there is no memory for it.
pub fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |copy| {
        copy.copy_from_slice(bytes);
        Ok(())
    })
}

/// A copy of a buffer's content, as other threads may change it while the GIL is released.
pub fn copied<T: Element + Copy + Default>(py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    let buffer = PyBuffer::<T>::get(buffer)?;
    let mut copy = Vec::new();
    copy.try_reserve_exact(buffer.item_count()).map_err(|_| PyMemoryError::new_err(()))?;
    copy.resize(buffer.item_count(), T::default());
    buffer.copy_to_slice(py, &mut copy)?;
    Ok(copy)
}

impl Nodes {
    /// The topology with these nodes.
    pub fn topology(self) -> PyResult<Topology> {
        match self {
            Self::Count(count) => Topology::emulated(usize::try_from(count).unwrap_or(0)).map_err(value_error),
            Self::Named(name) if name == "auto" => Topology::machine().map_err(value_error),
            Self::Given(topology) => Ok(topology),
            Self::Named(name) => {
                Err(PyValueError::new_err(format!("bad number of nodes '{name}': give a number, or 'auto'")))
            }
        }
    }
}

/// A status as plain dictionaries, ready for JSON.
pub fn status<'py>(py: Python<'py>, status: &Status) -> PyResult<Bound<'py, PyDict>> {
    let content = status.content.as_ref();
    let logs = status.namespace.logs.iter().chain(content.iter().flat_map(|content| &content.logs));
    let logs = logs.enumerate().map(|(index, log)| {
        let dict = PyDict::new(py);
        dict.set_item("name", log_name(index))?;
        dict.set_item("tail", log.tail.0)?;
        dict.set_item("completed_tail", log.completed_tail.0)?;
        dict.set_item("entries", log.entries)?;
        dict.set_item("payload_bytes", log.payload_bytes)?;
        Ok(dict)
    });
    let replicas = status.namespace.replicas.iter().enumerate().map(|(node, namespace)| {
        let of_content = content.iter().flat_map(|content| &content.replicas[node].partitions);
        let partitions = namespace.partitions.iter().chain(of_content);
        let partitions = partitions.enumerate().map(|(index, partition)| {
            let dict = PyDict::new(py);
            dict.set_item("log", log_name(index))?;
            dict.set_item("local_tail", partition.local_tail.0)?;
            dict.set_item("batches", partition.batches)?;
            dict.set_item("operations", partition.operations)?;
            dict.set_item("helped", partition.helped)?;
            dict.set_item("full", partition.full)?;
            Ok(dict)
        });
        let dict = PyDict::new(py);
        dict.set_item("node", namespace.node.0)?;
        let node = &status.nodes[namespace.node.0];
        dict.set_item("cpus", node.cpus.iter().map(|cpu| cpu.0).collect::<Vec<_>>())?;
        let (physical, placement) = node.memory.unzip();
        let Placement { here, elsewhere } = placement.unwrap_or_default();
        dict.set_item("physical", physical.map(|node| node.0))?;
        dict.set_item("bytes_here", here)?;
        dict.set_item("bytes_elsewhere", elsewhere)?;
        dict.set_item("threads", namespace.threads)?;
        dict.set_item("logs", partitions.collect::<PyResult<Vec<_>>>()?)?;
        Ok(dict)
    });
    let capacity = status.capacity;
    let space = PyDict::new(py);
    space.set_item("bytes", capacity.blocks * capacity.block_size)?;
    space.set_item("bytes_used", (capacity.blocks - capacity.blocks_free) * capacity.block_size)?;
    space.set_item("inodes", capacity.inodes)?;
    space.set_item("inodes_used", capacity.inodes - capacity.inodes_free)?;
    let dict = PyDict::new(py);
    dict.set_item("capacity", space)?;
    dict.set_item("content", if content.is_some() { "replicated" } else { "shared" })?;
    dict.set_item("placed", status.is_placed)?;
    dict.set_item("logs", logs.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("replicas", replicas.collect::<PyResult<Vec<_>>>()?)?;
    Ok(dict)
}

/// The digests of all replicas at one position of a log, as a plain dictionary, ready for JSON.
pub fn verification<'py>(
    py: Python<'py>,
    log: &str,
    position: LogPosition,
    digests: &[Digest],
) -> PyResult<Bound<'py, PyDict>> {
    let digests: Vec<String> = digests.iter().map(|digest| format!("{:032x}", digest.0)).collect();
    let dict = PyDict::new(py);
    dict.set_item("log", log)?;
    dict.set_item("position", position.0)?;
    dict.set_item("digests", digests)?;
    Ok(dict)
}

/// The name of a log: the first is the namespace's, the others are the content's.
pub fn log_name(index: usize) -> String {
    match index {
        0 => "namespace".into(),
        log => format!("content {}", log - 1),
    }
}
