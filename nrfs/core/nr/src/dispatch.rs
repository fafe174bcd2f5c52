//! The traits that a replicated structure implements.

use crate::LogId;

/// A sequential data structure: no locks, no threads.
///
/// It must be deterministic: the same operations in the same order give the same state and the
/// same responses on every replica. An operation therefore carries all it depends on (times,
/// identities, grants), and a panic in [`dispatch_mut`](Dispatch::dispatch_mut) ends the process.
///
/// Reads need no type of their own: they never enter a log, so any function of `&Self` is one.
pub trait Dispatch: Send + Sync {
    /// An operation that changes the structure. Shared by all replicas while it is in the log.
    type WriteOperation: Send + Sync;

    /// The result of a write operation.
    type Response: Send;

    /// Applies one write operation.
    fn dispatch_mut(&mut self, operation: &Self::WriteOperation) -> Self::Response;

    /// The bytes that an operation owns besides its own fixed size, such as a buffer to be written. The
    /// answer for one operation is always the same. The log is bounded in these bytes as well as in entries.
    fn payload_bytes(_operation: &Self::WriteOperation) -> usize {
        0
    }
}

/// Chooses the log of each write operation. Operations in different logs must commute.
pub trait LogMapper<Operation>: Send + Sync {
    /// The log of `operation`, from 0 to `logs - 1`.
    fn log(&self, operation: &Operation, logs: usize) -> LogId;
}

/// The mapper of an instance with a single log.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneLog;

impl<Operation> LogMapper<Operation> for OneLog {
    fn log(&self, _operation: &Operation, _logs: usize) -> LogId {
        LogId(0)
    }
}
