//! The scheduler service: one machine that gives cores to processes, replicated on every node.
//!
//! Reads, such as which process runs on a core, use the replica of the reader's node. Every change goes through the
//! log. So all nodes agree on which process has which core, and a process's upcalls are in the order of the log.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use machines::digest::Digest;
use machines::placed::Placed;
pub use machines::scheduler::Scheduler as Machine;
pub use machines::scheduler::{
    Answer, CoreId, CoreState, CoreStatus, ExecutorId, NodeId, ProcessId, ProcessStatus, Reason, Response, Upcall,
    WriteOperation,
};
pub use machines::types::Errno;
use memory::Nearby;
use memory::heap::Home;
pub use memory::{Topology, TopologyError};
pub use nr::Statistics;
use nr::{Configuration, LogId, LogPosition, NodeReplicated, OneLog, Token};

/// The most cores, which is the most CPUs that Linux supports.
pub const CORES_MAX: usize = 8192;

/// The number of cores is not from 1 to [`CORES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoresError;

impl fmt::Display for CoresError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a number of cores from 1 to {CORES_MAX} is needed")
    }
}

impl std::error::Error for CoresError {}

/// Gives the cores of a machine to processes.
pub struct Scheduler {
    topology: Topology,
    machine: Arc<NodeReplicated<Placed<Machine>>>,
    tokens: Nearby<Token<Placed<Machine>>>,
}

impl Scheduler {
    /// A scheduler for the topology's CPUs, or for `cores` emulated cores, split evenly over its nodes.
    pub fn new(topology: Topology, cores: Option<usize>) -> Result<Self, CoresError> {
        let nodes = topology.nodes().len();
        let cores: Vec<(CoreId, NodeId)> = match cores {
            Some(count) if !(1..=CORES_MAX).contains(&count) => return Err(CoresError),
            Some(count) => (0..count).map(|core| (CoreId(core), NodeId(core * nodes / count))).collect(),
            // A CPU that several nodes share becomes a core of the first of them, as the last entry counts.
            None => {
                let of = |(node, cpus): (usize, &memory::Node)| {
                    cpus.cpus.iter().map(move |cpu| (CoreId(cpu.0), NodeId(node))).collect::<Vec<_>>()
                };
                topology.nodes().iter().enumerate().rev().flat_map(of).collect()
            }
        };
        let configuration = Configuration { nodes, ..Configuration::default() };
        let home = |node: nr::NodeId| Home::of(topology.nodes()[node.0].physical);
        let make = |node, _| Placed::new(home(node), || Machine::new(cores.iter().copied()));
        let machine = Home::Interleaved.during(|| NodeReplicated::new(configuration, OneLog, make));
        let tokens = Nearby::new(&topology);
        Ok(Self { topology, machine, tokens })
    }

    /// Applies an operation on every node; returns its answer.
    pub fn change(&self, operation: WriteOperation) -> Response {
        self.with_token(|token| self.machine.execute_mut(operation, token))
    }

    /// Reads on the node that the calling thread is on.
    pub fn read<R>(&self, read: impl FnOnce(&Machine) -> R) -> R {
        self.with_token(|token| self.machine.execute(|machine| read(machine), token))
    }

    /// Brings all replicas to the same position of the log; returns the position, and their digests there, by node.
    pub fn verify(&self) -> (LogPosition, Vec<Digest>) {
        let observe = |_, position, machine: &Placed<Machine>| (position, machine.digest());
        let observed = self.with_token(|token| self.machine.observe(LogId(0), observe, token));
        (observed[0].0, observed.into_iter().map(|(_, digest)| digest).collect())
    }

    /// The state of the replicas and their log. Takes no lock.
    pub fn statistics(&self) -> Statistics {
        self.machine.statistics()
    }

    fn with_token<R>(&self, call: impl FnOnce(&Token<Placed<Machine>>) -> R) -> R {
        self.tokens.with(&self.topology, |node| self.machine.register(nr::NodeId(node)), call)
    }
}
