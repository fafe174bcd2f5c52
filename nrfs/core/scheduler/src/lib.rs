//! The scheduler service: one machine that gives cores to processes, replicated on every node.
//!
//! Who runs on a core, and with which executor, is read on the reader's own node; every change goes through the
//! log, so all nodes agree on who has which core, and each process's upcalls are in the order of the log.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use machines::digest::Digest;
pub use machines::scheduler::Scheduler as Machine;
pub use machines::scheduler::{
    Answer, CoreId, CoreState, CoreStatus, ExecutorId, NodeId, ProcessId, ProcessStatus, Reason, Response, Upcall,
    WriteOperation,
};
pub use machines::types::Errno;
use memory::Nearby;
pub use memory::{Topology, TopologyError};
pub use nr::Statistics;
use nr::{Configuration, LogId, LogPosition, NodeReplicated, OneLog, Token};

/// Cores beyond this are more than Linux knows of.
pub const CORES_MAX: usize = 8192;

/// No core at all, or too many.
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
    machine: Arc<NodeReplicated<Machine>>,
    tokens: Nearby<Token<Machine>>,
}

impl Scheduler {
    /// The scheduler of the topology's CPUs; or of `cores` emulated ones, split evenly over its nodes.
    pub fn new(topology: Topology, cores: Option<usize>) -> Result<Self, CoresError> {
        let nodes = topology.nodes().len();
        let cores: Vec<(CoreId, NodeId)> = match cores {
            Some(count) if !(1..=CORES_MAX).contains(&count) => return Err(CoresError),
            Some(count) => (0..count).map(|core| (CoreId(core), NodeId(core * nodes / count))).collect(),
            // A CPU that several nodes share is a core of the first of them.
            None => {
                let of = |(node, cpus): (usize, &memory::Node)| {
                    cpus.cpus.iter().map(move |cpu| (CoreId(cpu.0), NodeId(node))).collect::<Vec<_>>()
                };
                topology.nodes().iter().enumerate().rev().flat_map(of).collect()
            }
        };
        let configuration = Configuration { nodes, ..Configuration::default() };
        let machine = NodeReplicated::new(configuration, OneLog, |_, _| Machine::new(cores.iter().copied()));
        let tokens = Nearby::new(&topology);
        Ok(Self { topology, machine, tokens })
    }

    /// Makes a change, on every node.
    pub fn change(&self, operation: WriteOperation) -> Response {
        self.with_token(|token| self.machine.execute_mut(operation, token))
    }

    /// Reads on the node that the calling thread is on.
    pub fn read<R>(&self, read: impl FnOnce(&Machine) -> R) -> R {
        self.with_token(|token| self.machine.execute(read, token))
    }

    /// Brings all replicas to the same position of the log, and takes their digests there.
    pub fn verify(&self) -> (LogPosition, Vec<Digest>) {
        let observe = |_, position, machine: &Machine| (position, machine.digest());
        let observed = self.with_token(|token| self.machine.observe(LogId(0), observe, token));
        (observed[0].0, observed.into_iter().map(|(_, digest)| digest).collect())
    }

    /// What there is to know of the replicas and their log. Waits for nobody.
    pub fn statistics(&self) -> Statistics {
        self.machine.statistics()
    }

    fn with_token<R>(&self, call: impl FnOnce(&Token<Machine>) -> R) -> R {
        self.tokens.with(&self.topology, |node| self.machine.register(nr::NodeId(node)), call)
    }
}
