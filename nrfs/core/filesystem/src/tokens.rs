//! Places at the replicas, for threads that come and go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machines::content::Content;
use machines::namespace::Namespace;
use memory::{Topology, current_cpu};
use nr::NodeId;

use crate::by_inode::ByInode;

/// A place at the replica of one node. It serves one thread at a time.
pub struct Token {
    pub(crate) namespace: nr::Token<Namespace>,
    pub(crate) content: nr::Token<Content, ByInode>,
}

/// Places that are registered and not in use now.
pub(crate) struct Tokens {
    idle: Box<[Mutex<Vec<Token>>]>,
    /// Counts calls, so that nodes that share a CPU take turns.
    turn: AtomicUsize,
}

impl Tokens {
    pub fn new(nodes: usize) -> Self {
        Self { idle: (0..nodes).map(|_| Mutex::default()).collect(), turn: AtomicUsize::new(0) }
    }

    /// The node whose replica a call from this thread should use now.
    pub fn nearest_node(&self, topology: &Topology) -> NodeId {
        NodeId(topology.node_of(current_cpu(), || self.turn.fetch_add(1, Ordering::Relaxed)))
    }

    /// An idle place at `node`, if there is one.
    pub fn take(&self, node: NodeId) -> Option<Token> {
        self.idle(node).pop()
    }

    /// Keeps a place for the next call.
    pub fn give_back(&self, token: Token) {
        self.idle(token.namespace.node()).push(token);
    }

    fn idle(&self, node: NodeId) -> MutexGuard<'_, Vec<Token>> {
        self.idle[node.0].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
