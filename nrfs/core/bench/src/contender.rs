//! A structure that threads share, however they do.

use std::fmt::Debug;

use nr::Dispatch;

/// A sequential structure whose reads, too, are data: so that they can be sent anywhere.
pub trait Structure: Dispatch<WriteOperation: Clone + PartialEq + Debug, Response: Clone> + 'static {
    /// What changes nothing.
    type ReadOperation: Clone + PartialEq + Debug + Send;

    /// Answers a read.
    fn dispatch(&self, operation: &Self::ReadOperation) -> Self::Response;
}

/// A way to share a structure.
pub trait Contender<S: Structure>: Sync {
    /// What a thread uses it with.
    type Handle: Send;

    /// Lets one more thread in; `thread` counts them from 0.
    fn handle(&self, thread: usize) -> Self::Handle;

    /// Reads.
    fn read(&self, handle: &mut Self::Handle, operation: &S::ReadOperation) -> S::Response;

    /// Changes.
    fn write(&self, handle: &mut Self::Handle, operation: S::WriteOperation) -> S::Response;

    /// Does what the others need of a thread that has nothing to do itself. Called again and again by a thread
    /// that is done, until all are.
    fn idle(&self, _handle: &mut Self::Handle) {}
}
