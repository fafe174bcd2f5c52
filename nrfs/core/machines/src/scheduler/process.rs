//! One process: the cores that it wants and has, its executors, and its upcalls.

use std::collections::{BTreeMap, BTreeSet};

use super::{CoreId, ExecutorId, NodeId, Upcall};

/// A process, as the scheduler knows it.
pub(super) struct Process {
    /// Cores that it wants in all.
    pub wanted: usize,
    /// The cores that it runs on.
    pub cores: BTreeSet<CoreId>,
    /// Its place in the queue for an odd core: see [`policy`](super::policy).
    pub turn: u64,
    /// Executors that are on no core, by the node of their memory.
    pub cached: BTreeMap<NodeId, Vec<ExecutorId>>,
    /// What it has not been told yet. For each core: at most that it was taken, and then that it was given again.
    pub upcalls: Vec<Upcall>,
}

impl Process {
    pub fn new(turn: u64) -> Self {
        Self { wanted: 0, cores: BTreeSet::new(), turn, cached: BTreeMap::new(), upcalls: Vec::new() }
    }

    /// Notes that a core was taken. Drops the upcall that gave it, if the process has not taken that yet. Returns
    /// whether the process must be told that the core was taken: whether it knows that it had the core.
    pub fn forget_given(&mut self, gone: CoreId) -> bool {
        let before = self.upcalls.len();
        self.upcalls.retain(|upcall| !matches!(upcall, Upcall::Given { core, .. } if *core == gone));
        self.upcalls.len() == before
    }

    /// Keeps an executor for the next core of its node.
    pub fn cache(&mut self, node: NodeId, executor: ExecutorId) {
        self.cached.entry(node).or_default().push(executor);
    }

    /// Takes an executor of the node, if there is one.
    pub fn take_cached(&mut self, node: NodeId) -> Option<ExecutorId> {
        self.cached.get_mut(&node)?.pop()
    }

    /// How many executors are on no core.
    pub fn cached_count(&self) -> usize {
        self.cached.values().map(Vec::len).sum()
    }
}
