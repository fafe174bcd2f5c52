//! A wrapper for values that a forked process must not use: their threads do not exist there, and their locks may be
//! held for ever.

use std::mem;

use memory::Process;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value that is used and dropped only in the process that made it.
pub struct Here<T> {
    /// `None` only during `drop`.
    value: Option<T>,
    process: Process,
}

impl<T> Here<T> {
    pub fn new(value: T) -> Self {
        Self { value: Some(value), process: Process::this() }
    }

    /// The value; `RuntimeError` in a forked process.
    pub fn get(&self) -> PyResult<&T> {
        let refused = || PyRuntimeError::new_err("it belongs to the process that this one was forked from");
        self.value.as_ref().filter(|_| self.process.is_this()).ok_or_else(refused)
    }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        if !self.process.is_this() {
            // Dropping it might wait for a thread that does not exist here. The process's end frees the memory.
            mem::forget(self.value.take());
        }
    }
}
