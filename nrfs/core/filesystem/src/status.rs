//! Operations on the whole service: its status, verification of the replicas, and giving memory back.

use machines::digest::Digest;
use memory::placement::{self, Placement};
use memory::{Cpu, Node, PhysicalNode};
use nr::{LogId, LogPosition, Statistics};

use crate::capacity::Capacity;
use crate::filesystem::Filesystem;
use crate::tokens::Token;

/// The state of the service at one time.
#[derive(Clone, Debug)]
pub struct Status {
    /// What each replica has of the machine.
    pub nodes: Vec<NodeStatus>,
    /// Whether the kernel has let this process choose the nodes that memory comes from.
    pub is_placed: bool,
    /// The whole space and the space that is left.
    pub capacity: Capacity,
    /// The tree's log, and how far each replica has applied it.
    pub namespace: Statistics,
    /// The logs of replicated content, and how far each replica has applied them.
    pub content: Option<Statistics>,
}

/// What the replica of one node has of the machine.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The CPUs of the node.
    pub cpus: Vec<Cpu>,
    /// The node of the hardware that its memory is to come from, and where the memory lies that this process has asked of
    /// it, for all its replicas there. `None` if the hardware has only one node.
    pub memory: Option<(PhysicalNode, Placement)>,
}

/// The digests of all replicas at one position of one log.
#[derive(Clone, Debug)]
pub struct Verification {
    /// `namespace`, or `content` and the log's number.
    pub log: String,
    /// The position at which they were taken.
    pub position: LogPosition,
    /// By node.
    pub digests: Vec<Digest>,
}

impl Filesystem {
    /// The state of the service. Does not wait.
    pub fn status(&self) -> Status {
        Status {
            nodes: self.topology.nodes().iter().map(NodeStatus::of).collect(),
            is_placed: !placement::was_refused(),
            capacity: self.capacity_now(),
            namespace: self.namespace.statistics(),
            content: self.contents.status(),
        }
    }

    /// Brings all replicas up to date, and gives memory back to the system that is kept for later use: with `surplus`
    /// only what was not needed since the last such call, otherwise all of it.
    pub fn give_back_memory(&self, surplus: bool, token: &Token) {
        self.namespace.sync_all();
        self.contents.give_back_memory(surplus, token);
    }

    /// Brings the replica of the token's node up to date.
    pub fn follow(&self, token: &Token) {
        self.namespace.sync(&token.namespace);
        self.contents.follow(token);
    }

    /// Brings all replicas to the same position of each log, and takes their digests there.
    pub fn verify(&self, token: &Token) -> Vec<Verification> {
        let observed =
            self.namespace.observe(LogId(0), |_, position, namespace| (position, namespace.digest()), &token.namespace);
        let mut all = vec![Verification::new("namespace".into(), observed)];
        all.extend(self.contents.verify(token));
        all
    }
}

impl NodeStatus {
    fn of(node: &Node) -> Self {
        Self { cpus: node.cpus.clone(), memory: node.physical.map(|physical| (physical, placement::of(physical))) }
    }
}

impl Verification {
    pub(crate) fn new(log: String, observed: Vec<(LogPosition, Digest)>) -> Self {
        let position = observed[0].0;
        Self { log, position, digests: observed.into_iter().map(|(_, digest)| digest).collect() }
    }

    /// Whether all replicas agree.
    pub fn agrees(&self) -> bool {
        self.digests.windows(2).all(|pair| pair[0] == pair[1])
    }
}
