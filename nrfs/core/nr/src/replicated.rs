//! The replicas of a structure joined into one, and the tokens of the threads that use it.

use std::{
    cell::{RefCell, RefMut},
    fmt, mem, ptr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    Dispatch, LogId, LogMapper, LogPosition, NodeId, OneLog, Statistics,
    log::Log,
    replica::{Answer, Logged, Observation, Partition, Replica, Seat},
};

/// The size of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// NUMA nodes, and so replicas. At least 1.
    pub nodes: usize,
    /// Parallel logs, and so partitions of each replica. At least 1.
    pub logs: usize,
    /// Entries in each log, rounded up to a power of two. At least 1. The default is so large that a replica
    /// whose threads lose their CPUs for a moment stops nobody, even if the structure is small and changes
    /// fast. A single replica has no log.
    pub log_entries: usize,
    /// The most bytes of payload (see [`Dispatch::payload_bytes`]) that each log holds. An operation above
    /// the bound is appended when the log holds no other payload.
    pub log_payload_bytes: usize,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { nodes: 1, logs: 1, log_entries: 16384, log_payload_bytes: 64 << 20 }
    }
}

/// A structure `D`, replicated on every node. It is linearizable. Reads run concurrently, and so do changes
/// that go to different logs.
///
/// A function that runs on a replica (a read, an observation) must not use the instance: it would wait
/// for its own end.
pub struct NodeReplicated<D: Dispatch, M = OneLog> {
    replicas: Box<[Replica<D>]>,
    mapper: M,
}

/// The registration of a thread, with which it uses an instance: its place at the replica of its node.
///
/// It serves one call at a time, and may move to another thread between calls. It keeps the instance alive.
/// Dropping it unregisters the thread.
pub struct Token<D: Dispatch, M = OneLog> {
    instance: Arc<NodeReplicated<D, M>>,
    node: NodeId,
    /// By log. In a `RefCell` so that a call inside a call is caught.
    seats: RefCell<Box<[Seat<D>]>>,
}

impl<D: Dispatch, M> NodeReplicated<D, M> {
    /// Makes an instance. `make` returns a node's copy of what a log changes; the copies of all nodes must
    /// be equal.
    ///
    /// # Panics
    ///
    /// If a number in `configuration` is below its minimum.
    pub fn new(configuration: Configuration, mapper: M, mut make: impl FnMut(NodeId, LogId) -> D) -> Arc<Self> {
        let Configuration { nodes, logs, log_entries, log_payload_bytes } = configuration;
        assert!(nodes > 0, "an instance has at least one node");
        assert!(logs > 0, "an instance has at least one log");
        assert!(log_entries > 0, "a log has at least one entry");
        let entries = log_entries.next_power_of_two();
        let logs: Vec<_> = (0..logs).map(|_| Arc::new(Log::new(nodes, entries, log_payload_bytes))).collect();
        let replica = |node| {
            let partitions = logs
                .iter()
                .enumerate()
                .map(|(log, shared)| Partition::new(node, Arc::clone(shared), make(node, LogId(log))));
            Replica::new(node, partitions)
        };
        let replicas = (0..nodes).map(NodeId).map(replica).collect();
        Arc::new(Self { replicas, mapper })
    }

    /// Registers a thread with the replica of `node`. Any number of threads may be registered; for each of
    /// them, also an idle one, the writers of the node load two cache lines. Those are allocated here: so
    /// this is best called by a thread that runs on the node.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn register(self: &Arc<Self>, node: NodeId) -> Token<D, M> {
        assert!(node.0 < self.nodes(), "there is no node {}", node.0);
        let seats = RefCell::new(self.replicas[node.0].join());
        Token { instance: Arc::clone(self), node, seats }
    }

    /// Reads what `log` changes, on the replica of the token's node. The read sees every operation
    /// on that log that completed before it began. A panic in `read` propagates, and the instance stays usable.
    ///
    /// # Panics
    ///
    /// If there is no such log, or the token is of another instance or in use.
    pub fn execute_on<R>(&self, log: LogId, read: impl FnOnce(&D) -> R, token: &Token<D, M>) -> R {
        self.seat(log, token).read(read)
    }

    /// Reads what `log` changes, on the replica of the token's node, which may be behind: for callers to whom
    /// an old answer does no harm. Otherwise like [`execute_on`](Self::execute_on).
    ///
    /// # Panics
    ///
    /// As [`execute_on`](Self::execute_on).
    pub fn peek_on<R>(&self, log: LogId, read: impl FnOnce(&D) -> R, token: &Token<D, M>) -> R {
        self.seat(log, token).peek(read)
    }

    /// Runs `f` on every replica at the same position of `log`; returns its results, by node. All replicas
    /// are brought past that position, even if their threads are idle.
    ///
    /// A panic in `f` ends the process, as one in [`Dispatch::dispatch_mut`] does.
    ///
    /// # Panics
    ///
    /// As [`execute_on`](Self::execute_on).
    pub fn observe<T: Send + 'static>(
        &self,
        log: LogId,
        f: impl Fn(NodeId, LogPosition, &D) -> T + Send + Sync + 'static,
        token: &Token<D, M>,
    ) -> Vec<T> {
        let seen: Arc<Mutex<Vec<Option<T>>>> = Arc::new(Mutex::new((0..self.nodes()).map(|_| None).collect()));
        let observation: Observation<D> = Box::new({
            let seen = Arc::clone(&seen);
            move |node, position, structure| {
                let observed = f(node, position, structure);
                seen.lock().unwrap_or_else(PoisonError::into_inner)[node.0] = Some(observed);
            }
        });
        self.submit(log, Logged::Observation(observation), token);
        self.sync_all_on(log);
        let seen = mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        seen.into_iter().map(|observed| observed.expect("every replica has passed it")).collect()
    }

    /// Brings the replica of the token's node up to the tails of all logs.
    ///
    /// # Panics
    ///
    /// If the token is of another instance.
    pub fn sync(&self, token: &Token<D, M>) {
        drop(self.seats(token));
        for partition in &self.replicas[token.node.0].partitions {
            partition.catch_up();
        }
    }

    /// Brings the replicas of all nodes up to the tails of all logs, even if their threads are idle.
    pub fn sync_all(&self) {
        self.replicas.iter().flat_map(|replica| &replica.partitions).for_each(|partition| partition.catch_up());
    }

    /// Brings the replicas of all nodes up to the tail of one log, even if their threads are idle. When it returns, all
    /// operations on that log which completed before have been dropped.
    ///
    /// # Panics
    ///
    /// If there is no such log.
    pub fn sync_all_on(&self, log: LogId) {
        self.replicas.iter().for_each(|replica| replica.partitions[log.0].catch_up());
    }

    /// The state of the instance now. Takes no lock.
    pub fn statistics(&self) -> Statistics {
        let partitions = &self.replicas[0].partitions;
        Statistics {
            logs: partitions.iter().map(|partition| partition.log().statistics()).collect(),
            replicas: self.replicas.iter().map(Replica::statistics).collect(),
        }
    }

    /// The number of nodes, and so of replicas.
    pub fn nodes(&self) -> usize {
        self.replicas.len()
    }

    /// The number of parallel logs.
    pub fn logs(&self) -> usize {
        self.replicas[0].partitions.len()
    }

    fn submit(&self, log: LogId, logged: Logged<D>, token: &Token<D, M>) -> Answer<D> {
        let help_all = || self.replicas.iter().for_each(|replica| replica.partitions[log.0].help());
        self.seat(log, token).submit(logged, help_all)
    }

    fn seat<'a>(&self, log: LogId, token: &'a Token<D, M>) -> RefMut<'a, Seat<D>> {
        RefMut::map(self.seats(token), |seats| {
            seats.get_mut(log.0).unwrap_or_else(|| panic!("there is no log {}", log.0))
        })
    }

    fn seats<'a>(&self, token: &'a Token<D, M>) -> RefMut<'a, Box<[Seat<D>]>> {
        assert!(ptr::eq(self, &*token.instance), "the token is of another instance");
        token.seats.try_borrow_mut().expect("a token serves one call at a time")
    }
}

impl<D: Dispatch> NodeReplicated<D, OneLog> {
    /// Reads the structure, on the replica of the token's node. The read sees every operation that
    /// completed before it began. A panic in `read` propagates, and the instance stays usable.
    ///
    /// # Panics
    ///
    /// If the token is of another instance or in use.
    pub fn execute<R>(&self, read: impl FnOnce(&D) -> R, token: &Token<D>) -> R {
        self.execute_on(LogId(0), read, token)
    }
}

impl<D: Dispatch, M: LogMapper<D::WriteOperation>> NodeReplicated<D, M> {
    /// Has an operation applied to all replicas; returns its response on the token's node. Every read
    /// that begins after the return, on any node, sees the operation.
    ///
    /// # Panics
    ///
    /// If the mapper names a log that does not exist, or the token is of another instance or in use.
    pub fn execute_mut(&self, operation: D::WriteOperation, token: &Token<D, M>) -> D::Response {
        let log = self.log_of(&operation);
        let answer = self.submit(log, Logged::Operation(operation), token);
        answer.expect("an operation is answered with a response")
    }

    /// The log that the mapper names for `operation`.
    pub fn log_of(&self, operation: &D::WriteOperation) -> LogId {
        self.mapper.log(operation, self.logs())
    }
}

impl<D: Dispatch, M> Token<D, M> {
    /// The node it was registered for.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The batches that operations were appended in which this token was used for since the last such call: of each
    /// log the last one, with the number of operations in it.
    ///
    /// # Panics
    ///
    /// If the token is in use.
    pub fn take_batches(&self) -> Vec<(LogId, u64)> {
        let mut seats = self.seats.try_borrow_mut().expect("a token serves one call at a time");
        let batches = seats.iter_mut().map(Seat::take_batch).enumerate();
        batches.filter(|&(_, operations)| operations > 0).map(|(log, operations)| (LogId(log), operations)).collect()
    }

    /// The instance it was registered with.
    pub fn instance(&self) -> &Arc<NodeReplicated<D, M>> {
        &self.instance
    }
}

impl<D: Dispatch, M> Drop for Token<D, M> {
    fn drop(&mut self) {
        self.instance.replicas[self.node.0].leave();
    }
}

impl<D: Dispatch, M> fmt::Debug for NodeReplicated<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeReplicated").field(&self.statistics()).finish()
    }
}

impl<D: Dispatch, M> fmt::Debug for Token<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("node", &self.node).finish_non_exhaustive()
    }
}
