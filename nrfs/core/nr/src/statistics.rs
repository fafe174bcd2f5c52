//! What an instance can say of itself at any time.

use crate::{LogPosition, NodeId};

/// A look at an instance while it works: each figure is exact, but not all are of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// By log.
    pub logs: Vec<LogStatistics>,
    /// By node.
    pub replicas: Vec<ReplicaStatistics>,
}

/// How far a log has come, and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStatistics {
    /// How many entries it has room for. A single replica needs none.
    pub entries: usize,
    /// Where the next operation goes.
    pub tail: LogPosition,
    /// Every operation before it has been applied by some replica.
    pub completed_tail: LogPosition,
    /// The payload of the operations that some replica has still to apply.
    pub payload_bytes: usize,
}

/// What one replica has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatistics {
    /// The node it serves.
    pub node: NodeId,
    /// How many threads are registered with it.
    pub threads: usize,
    /// By log.
    pub partitions: Vec<PartitionStatistics>,
}

/// What one replica has done with one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStatistics {
    /// Every operation before it has been applied here.
    pub local_tail: LogPosition,
    /// Batches that combiners of this node have appended.
    pub batches: u64,
    /// Operations in those batches.
    pub operations: u64,
    /// Entries that were applied here by threads of other nodes, which had found the log full.
    pub helped: u64,
    /// How often a combiner of this node found the log full.
    pub full: u64,
}
