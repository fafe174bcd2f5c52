//! The integers of this crate, each with its own type.

/// A NUMA node, real or emulated, and with it the replica that serves the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One of the parallel logs, and with it the partition of each replica that follows the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub usize);

/// A position in a log, counted from the first operation ever appended; positions are not reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPosition(pub u64);
