//! Keeps things that belong to a node, for threads that come and go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{Topology, current_cpu};

/// Things that belong to a node and serve one thread at a time. It keeps those that are not in use.
pub struct Nearby<T> {
    /// By node.
    idle: Box<[Mutex<Vec<T>>]>,
    /// Counts calls, so that nodes that share a CPU take turns.
    turn: AtomicUsize,
}

impl<T> Nearby<T> {
    /// Keeps nothing yet.
    pub fn new(topology: &Topology) -> Self {
        Self { idle: topology.nodes().iter().map(|_| Mutex::default()).collect(), turn: AtomicUsize::new(0) }
    }

    /// Runs `call` with a thing of the node that the calling thread is on. If all of them are in use, `make` makes one.
    pub fn with<R>(&self, topology: &Topology, make: impl FnOnce(usize) -> T, call: impl FnOnce(&T) -> R) -> R {
        let node = topology.node_of(current_cpu(), || self.turn.fetch_add(1, Ordering::Relaxed));
        let idle = self.idle(node).pop();
        let used = idle.unwrap_or_else(|| make(node));
        let result = call(&used);
        self.idle(node).push(used);
        result
    }

    /// Calls `look` with each thing that is not in use.
    pub fn each_idle(&self, mut look: impl FnMut(&T)) {
        (0..self.idle.len()).for_each(|node| self.idle(node).iter().for_each(&mut look));
    }

    fn idle(&self, node: usize) -> MutexGuard<'_, Vec<T>> {
        self.idle[node].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
