//! One structure for all threads, behind a lock of the standard library.

use std::sync::{Mutex, PoisonError, RwLock};

use crate::contender::{Contender, Structure};

impl<S: Structure> Contender<S> for Mutex<S> {
    type Handle = ();

    fn handle(&self, _thread: usize) {}

    fn read(&self, (): &mut (), operation: &S::ReadOperation) -> S::Response {
        self.lock().unwrap_or_else(PoisonError::into_inner).dispatch(operation)
    }

    fn write(&self, (): &mut (), operation: S::WriteOperation) -> S::Response {
        self.lock().unwrap_or_else(PoisonError::into_inner).dispatch_mut(&operation)
    }
}

impl<S: Structure> Contender<S> for RwLock<S> {
    type Handle = ();

    fn handle(&self, _thread: usize) {}

    fn read(&self, (): &mut (), operation: &S::ReadOperation) -> S::Response {
        RwLock::read(self).unwrap_or_else(PoisonError::into_inner).dispatch(operation)
    }

    fn write(&self, (): &mut (), operation: S::WriteOperation) -> S::Response {
        RwLock::write(self).unwrap_or_else(PoisonError::into_inner).dispatch_mut(&operation)
    }
}
