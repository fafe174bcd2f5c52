//! Chooses the log for the content of a file.

use machines::content::WriteOperation;
use machines::types::Ino;
use nr::{LogId, LogMapper};

/// Spreads the content of files over the logs by inode number.
pub(crate) struct ByInode;

impl ByInode {
    pub fn log_of(ino: Ino, logs: usize) -> LogId {
        LogId((ino.0 % logs as u64) as usize)
    }

    /// For each log, one inode number that maps to it.
    pub fn one_of_each(logs: usize) -> impl Iterator<Item = Ino> {
        (0..logs as u64).map(Ino)
    }
}

impl LogMapper<WriteOperation> for ByInode {
    fn log(&self, operation: &WriteOperation, logs: usize) -> LogId {
        Self::log_of(operation.ino, logs)
    }
}
