//! A machine whose memory lies on one node.

use std::ops::Deref;

use memory::heap::Home;
use nr::Dispatch;

/// A machine, and where all lies that it allocates: also when a thread of another node applies an operation.
pub struct Placed<M> {
    home: Home,
    machine: M,
}

impl<M> Placed<M> {
    /// The machine that `make` makes, there.
    pub fn new(home: Home, make: impl FnOnce() -> M) -> Self {
        Self { home, machine: home.during(make) }
    }
}

impl<M> Deref for Placed<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.machine
    }
}

impl<M: Dispatch> Dispatch for Placed<M> {
    type WriteOperation = M::WriteOperation;
    type Response = M::Response;

    fn dispatch_mut(&mut self, operation: &M::WriteOperation) -> M::Response {
        self.home.during(|| self.machine.dispatch_mut(operation))
    }

    fn payload_bytes(operation: &M::WriteOperation) -> usize {
        M::payload_bytes(operation)
    }
}
