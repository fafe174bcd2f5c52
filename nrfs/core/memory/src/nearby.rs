//! What threads that come and go use at the node they run on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Topology, current_cpu};

/// Things that belong to a node and serve one thread at a time: those that are not in use now.
pub struct Nearby<T> {
    /// By node.
    idle: Box<[Mutex<Vec<T>>]>,
    /// Counts calls, so that nodes that share a CPU take turns.
    turn: AtomicUsize,
}

impl<T> Nearby<T> {
    /// None yet, at any of the topology's nodes.
    pub fn new(topology: &Topology) -> Self {
        Self { idle: topology.nodes().iter().map(|_| Mutex::default()).collect(), turn: AtomicUsize::new(0) }
    }

    /// Calls with one of the node that the calling thread is on, made if all are in use.
    pub fn with<R>(&self, topology: &Topology, make: impl FnOnce(usize) -> T, call: impl FnOnce(&T) -> R) -> R {
        let node = topology.node_of(current_cpu(), || self.turn.fetch_add(1, Ordering::Relaxed));
        let idle = self.idle(node).pop();
        let used = idle.unwrap_or_else(|| make(node));
        let result = call(&used);
        self.idle(node).push(used);
        result
    }

    fn idle(&self, node: usize) -> MutexGuard<'_, Vec<T>> {
        self.idle[node].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
