//! The traits of a structure that threads share, and of a way to share it (a *contender*).

use std::fmt::Debug;

use nr::Dispatch;

/// A sequential structure whose reads are data, too, as some contenders send them elsewhere.
pub trait Structure: Dispatch<WriteOperation: Clone + PartialEq + Debug, Response: Clone> + 'static {
    /// A read.
    type ReadOperation: Clone + PartialEq + Debug + Send;

    /// Answers a read.
    fn dispatch(&self, operation: &Self::ReadOperation) -> Self::Response;
}

/// A way to share a structure.
pub trait Contender<S: Structure>: Sync {
    /// What a thread needs to use it.
    type Handle: Send;

    /// Registers thread `thread`, counted from 0.
    fn handle(&self, thread: usize) -> Self::Handle;

    /// Reads.
    fn read(&self, handle: &mut Self::Handle, operation: &S::ReadOperation) -> S::Response;

    /// Changes.
    fn write(&self, handle: &mut Self::Handle, operation: S::WriteOperation) -> S::Response;

    /// Does what other threads need of this one. A thread that has finished calls this repeatedly, until all have
    /// finished.
    fn idle(&self, _handle: &mut Self::Handle) {}
}
