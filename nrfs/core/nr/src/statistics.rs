//! Figures about an instance, available at any time.

use crate::{LogPosition, NodeId};

/// Figures about an instance while it works. Each is exact, but they belong to different moments.
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
    /// How many entries it has room for; 0 with a single replica.
    pub entries: usize,
    /// The position of the next entry to be appended.
    pub tail: LogPosition,
    /// The highest local tail of any replica.
    pub completed_tail: LogPosition,
    /// Bytes of payload of the operations that some replica has yet to apply.
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
    /// The position of the next entry that this replica will apply.
    pub local_tail: LogPosition,
    /// Batches that combiners of this node have appended.
    pub batches: u64,
    /// Operations in those batches.
    pub operations: u64,
    /// Entries that threads of other nodes, having found the log full, have applied here.
    pub helped: u64,
    /// How often a combiner of this node found the log full.
    pub full: u64,
}
