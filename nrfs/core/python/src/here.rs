//! What belongs to the process that made it: one that is forked from it has neither its threads nor a word in who holds
//! which lock.

use std::mem;

use memory::Process;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value that only the process which made it uses, and drops.
pub struct Here<T> {
    /// Always there, but in the midst of being dropped.
    value: Option<T>,
    process: Process,
}

impl<T> Here<T> {
    pub fn new(value: T) -> Self {
        Self { value: Some(value), process: Process::this() }
    }

    /// The value; `RuntimeError` in a process that was forked.
    pub fn get(&self) -> PyResult<&T> {
        let refused = || PyRuntimeError::new_err("it belongs to the process that this one was forked from");
        self.value.as_ref().filter(|_| self.process.is_this()).ok_or_else(refused)
    }
}

impl<T> Drop for Here<T> {
    fn drop(&mut self) {
        if !self.process.is_this() {
            // To drop it might wait for a thread that is not here. The memory goes with the process.
            mem::forget(self.value.take());
        }
    }
}
