//! `nrfs._core.Tracer`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use filesystem::{LogId, NodeId};
use fuse::trace::Located;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::log_name;

/// Notes the requests of a connection as long as it exists.
#[pyclass(frozen, module = "nrfs")]
pub struct Tracer(Mutex<fuse::trace::Tracer>);

impl Tracer {
    pub fn new(tracer: fuse::trace::Tracer) -> Self {
        Self(Mutex::new(tracer))
    }
}

#[pymethods]
impl Tracer {
    fn take<'py>(&self, py: Python<'py>, most: usize) -> PyResult<(Vec<Bound<'py, PyDict>>, u64)> {
        let take = || self.0.lock().unwrap_or_else(PoisonError::into_inner).take(most);
        let (taken, lost) = py.detach(take);
        let shapes = taken.into_iter().map(|located| shape(py, located));
        Ok((shapes.collect::<PyResult<_>>()?, lost))
    }
}

fn shape<'py>(py: Python<'py>, (traced, paths): Located) -> PyResult<Bound<'py, PyDict>> {
    let shape = PyDict::new(py);
    let (pid, uid, gid) = traced.caller;
    let began = traced.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    shape.set_item("time", began.as_secs_f64())?;
    shape.set_item("kind", traced.opcode.name())?;
    shape.set_item("inode", traced.ino.0)?;
    let paths = paths.iter().map(|path| {
        let shape = PyDict::new(py);
        shape.set_item("path", path.names.as_deref().map(text))?;
        shape.set_item("deleted", path.is_deleted)?;
        Ok(shape)
    });
    shape.set_item("paths", paths.collect::<PyResult<Vec<_>>>()?)?;
    shape.set_item("attribute", traced.attribute.as_deref().map(text))?;
    shape.set_item("offset", traced.range.map(|(offset, _)| offset))?;
    shape.set_item("length", traced.range.map(|(_, length)| length))?;
    shape.set_item("pid", pid)?;
    shape.set_item("uid", uid)?;
    shape.set_item("gid", gid)?;
    shape.set_item("errno", traced.errno)?;
    shape.set_item("microseconds", traced.took.as_nanos() as f64 / 1e3)?;
    shape.set_item("node", traced.node.map(|NodeId(node)| node))?;
    let batches = traced.batches.iter().map(|&(LogId(log), operations)| {
        let shape = PyDict::new(py);
        shape.set_item("log", log_name(log))?;
        shape.set_item("operations", operations)?;
        Ok(shape)
    });
    shape.set_item("batches", batches.collect::<PyResult<Vec<_>>>()?)?;
    Ok(shape)
}
