//! The structure replicated on nodes: by `nr`, and by the crate `node-replication`.

use std::sync::Arc;

use node_replication::{Dispatch as PublishedDispatch, Log, Replica, ReplicaToken};
use nr::{Configuration, NodeId, NodeReplicated, OneLog, Token};

use crate::contender::{Contender, Structure};

/// Threads are registered with the nodes in turn.
impl<S: Structure> Contender<S> for Arc<NodeReplicated<S>> {
    type Handle = Token<S>;

    fn handle(&self, thread: usize) -> Token<S> {
        self.register(NodeId(thread % self.nodes()))
    }

    fn read(&self, token: &mut Token<S>, operation: &S::ReadOperation) -> S::Response {
        self.execute(|structure| structure.dispatch(operation), token)
    }

    fn write(&self, token: &mut Token<S>, operation: S::WriteOperation) -> S::Response {
        self.execute_mut(operation, token)
    }
}

/// The structure replicated by `nr`, with its default configuration.
pub fn by_nr<S: Structure>(nodes: usize, make: impl Fn() -> S) -> Arc<NodeReplicated<S>> {
    NodeReplicated::new(Configuration { nodes, ..Configuration::default() }, OneLog, |_, _| make())
}

/// A structure with the trait of `node-replication`.
struct Published<S>(S);

impl<S: Structure> PublishedDispatch for Published<S> {
    type ReadOperation = S::ReadOperation;
    type WriteOperation = S::WriteOperation;
    type Response = S::Response;

    fn dispatch(&self, operation: S::ReadOperation) -> S::Response {
        self.0.dispatch(&operation)
    }

    fn dispatch_mut(&mut self, operation: S::WriteOperation) -> S::Response {
        self.0.dispatch_mut(&operation)
    }
}

/// The structure replicated by the crate `node-replication`.
pub struct ByNodeReplication<S: Structure> {
    replicas: Vec<Arc<Replica<'static, Published<S>>>>,
    threads: usize,
}

/// A thread's registration with its own replica, and with the replicas that no thread uses.
pub struct Places {
    own: (usize, ReplicaToken),
    unused: Vec<(usize, ReplicaToken)>,
    writes: usize,
}

impl<S: Structure> ByNodeReplication<S> {
    /// The size of the log in the crate's own examples.
    const LOG_BYTES: usize = 2 << 20;
    /// A replica that no thread uses applies nothing. When the log is full of what it has yet to apply, all threads
    /// wait. So a thread brings such replicas up to date each time it has made this many writes. (`nr` needs no such
    /// help.)
    const WRITES_BETWEEN_HELP: usize = 512;

    /// For `threads` threads on `nodes` nodes. `make` returns a node's copy.
    pub fn new(nodes: usize, threads: usize, make: impl Fn() -> S) -> Self {
        let log = Arc::new(Log::new(Self::LOG_BYTES));
        Self { replicas: (0..nodes).map(|_| Replica::with_data(&log, Published(make()))).collect(), threads }
    }

    fn place(&self, node: usize) -> (usize, ReplicaToken) {
        (node, self.replicas[node].register().expect("a replica has room for 256 threads"))
    }
}

impl<S: Structure> Contender<S> for ByNodeReplication<S> {
    type Handle = Places;

    fn handle(&self, thread: usize) -> Places {
        let nodes = self.replicas.len();
        let unused = if thread == 0 { self.threads.min(nodes)..nodes } else { 0..0 };
        let unused = unused.map(|node| self.place(node)).collect();
        Places { own: self.place(thread % nodes), unused, writes: 0 }
    }

    fn read(&self, places: &mut Places, operation: &S::ReadOperation) -> S::Response {
        let (node, token) = places.own;
        self.replicas[node].execute(operation.clone(), token)
    }

    fn write(&self, places: &mut Places, operation: S::WriteOperation) -> S::Response {
        places.writes += 1;
        if places.writes % Self::WRITES_BETWEEN_HELP == 0 {
            places.unused.iter().for_each(|&(node, token)| self.replicas[node].sync(token));
        }
        let (node, token) = places.own;
        self.replicas[node].execute_mut(operation, token)
    }

    fn idle(&self, places: &mut Places) {
        let (node, token) = places.own;
        self.replicas[node].sync(token);
    }
}
