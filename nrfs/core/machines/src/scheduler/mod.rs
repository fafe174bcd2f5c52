//! The scheduler: gives cores to processes.
//!
//! It is coarse-grained, like that of NrOS (OSDI '21): a process itself decides what to do with its cores, such as
//! which of its threads run. An *upcall* tells it of each core given or taken (Anderson et al., "Scheduler
//! Activations", 1992). On each core a process runs with an *executor*, which is made when it is first needed, and then
//! kept for the process's next core on the same node.
//!
//! From the bottom up:
//!
//! - `policy`: how many cores each process gets: a max-min fair share, and odd cores in turn;
//! - `process`: what one process wants and has;
//! - `operation`: the operations and their answers;
//! - this file: which cores a process gets. It gets cores on the node where it has the most already; among those, where
//!   it has an idle executor; among those, where most cores are idle. It loses cores where it has the fewest. A core
//!   is not exchanged for one on a better node.
//!
//! After every operation, each online core belongs to a process, or every process has as many cores as it wants.

mod operation;
mod policy;
mod process;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use nr::Dispatch;

use crate::digest::{Digest, Digester};
use crate::types::Errno;
pub use operation::{Answer, CoreId, ExecutorId, NodeId, ProcessId, Reason, Response, Upcall, WriteOperation};
use policy::{Claim, Share};
use process::Process;

/// Which process runs on which core.
pub struct Scheduler {
    cores: BTreeMap<CoreId, Core>,
    processes: BTreeMap<ProcessId, Process>,
    next_process: u64,
    next_executor: u64,
    next_turn: u64,
}

struct Core {
    node: NodeId,
    state: CoreState,
}

/// The state of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreState {
    /// It cannot be given to a process.
    Offline,
    /// No process has it.
    Idle,
    /// It belongs to the process, which runs there with the executor.
    Running(ProcessId, ExecutorId),
}

/// A core, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their types say what they are")]
pub struct CoreStatus {
    pub core: CoreId,
    pub node: NodeId,
    pub state: CoreState,
}

/// A process, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// How many cores it wants in all.
    pub wanted: usize,
    /// Cores it has, in ascending order.
    pub cores: Vec<CoreId>,
    /// How many executors it has that are on no core.
    pub cached_executors: usize,
    /// How many upcalls it has not taken yet.
    pub upcalls: usize,
}

impl Dispatch for Scheduler {
    type WriteOperation = WriteOperation;
    type Response = Response;

    fn dispatch_mut(&mut self, operation: &WriteOperation) -> Response {
        match *operation {
            WriteOperation::Create => Ok(self.create()),
            WriteOperation::Exit(process) => self.exit(process),
            WriteOperation::Request { process, cores } => self.request(process, cores),
            WriteOperation::Release { process, core } => self.release(process, core),
            WriteOperation::Tick => {
                self.share_out(true);
                Ok(Answer::Done)
            }
            WriteOperation::Offline(core) => self.stop(core, Reason::Offline),
            WriteOperation::Fail(core) => self.stop(core, Reason::Failed),
            WriteOperation::Online(core) => self.start(core),
            WriteOperation::FreeExecutors(process) => {
                let process = self.process_mut(process)?;
                let freed = process.cached_count();
                process.cached.clear();
                Ok(Answer::Executors(freed))
            }
            WriteOperation::TakeUpcalls(process) => {
                Ok(Answer::Upcalls(std::mem::take(&mut self.process_mut(process)?.upcalls)))
            }
        }
    }
}

impl Scheduler {
    /// A scheduler for these cores, each with its node. All are online, and there is no process.
    pub fn new(cores: impl IntoIterator<Item = (CoreId, NodeId)>) -> Self {
        let core = |(core, node)| (core, Core { node, state: CoreState::Idle });
        Self {
            cores: cores.into_iter().map(core).collect(),
            processes: BTreeMap::new(),
            next_process: 1,
            next_executor: 1,
            next_turn: 0,
        }
    }

    fn create(&mut self) -> Answer {
        let process = ProcessId(self.next_process);
        self.next_process += 1;
        let turn = self.last_turn();
        self.processes.insert(process, Process::new(turn));
        Answer::Process(process)
    }

    fn exit(&mut self, process: ProcessId) -> Response {
        let exited = self.processes.remove(&process).ok_or(Errno::ESRCH)?;
        for core in exited.cores {
            self.set_state(core, CoreState::Idle);
        }
        self.share_out(false);
        Ok(Answer::Done)
    }

    fn request(&mut self, process: ProcessId, cores: usize) -> Response {
        let most = self.cores.len();
        let asking = self.process_mut(process)?;
        if cores > most {
            return Err(Errno::EINVAL);
        }
        asking.wanted = cores;
        self.share_out(false);
        Ok(Answer::Cores(self.process(process)?.cores.len()))
    }

    fn release(&mut self, process: ProcessId, core: CoreId) -> Response {
        self.process(process)?;
        match self.core(core)?.state {
            CoreState::Running(owner, _) if owner == process => {}
            _ => return Err(Errno::EPERM),
        }
        self.take(core, None);
        self.process_mut(process)?.wanted -= 1;
        self.share_out(false);
        Ok(Answer::Done)
    }

    fn stop(&mut self, core: CoreId, reason: Reason) -> Response {
        if self.core(core)?.state == CoreState::Offline {
            return Err(Errno::EALREADY);
        }
        self.take(core, Some(reason));
        self.set_state(core, CoreState::Offline);
        self.share_out(false);
        Ok(Answer::Done)
    }

    fn start(&mut self, core: CoreId) -> Response {
        if self.core(core)?.state != CoreState::Offline {
            return Err(Errno::EALREADY);
        }
        self.set_state(core, CoreState::Idle);
        self.share_out(false);
        Ok(Answer::Done)
    }

    /// Brings every process to its share: first takes surplus cores, then gives missing ones.
    fn share_out(&mut self, quantum_over: bool) {
        let claim = |(&process, known): (&ProcessId, &Process)| Claim {
            process,
            wanted: known.wanted,
            held: known.cores.len(),
            turn: known.turn,
        };
        let online = self.cores.values().filter(|core| core.state != CoreState::Offline).count();
        let shares = policy::shares(online, self.processes.iter().map(claim).collect(), quantum_over);
        for share in &shares {
            while let Some(core) = self.surplus(share) {
                self.take(core, Some(Reason::Share));
            }
        }
        for share in &shares {
            while let Some(core) = self.shortfall(share) {
                self.give(core, share.process);
            }
        }
        for share in shares.iter().filter(|share| share.odd) {
            let turn = self.last_turn();
            if let Some(process) = self.processes.get_mut(&share.process) {
                process.turn = turn;
            }
        }
    }

    /// The core that a process loses next, if it has more than its share.
    fn surplus(&self, share: &Share) -> Option<CoreId> {
        let process = self.processes.get(&share.process).filter(|process| process.cores.len() > share.cores)?;
        let nodes = self.cores_by_node(process.cores.iter().copied());
        let cores = nodes.values().min_by_key(|cores| (cores.len(), Reverse(cores.first())))?;
        cores.last().copied()
    }

    /// The idle core that a process gets next, if it has less than its share.
    fn shortfall(&self, share: &Share) -> Option<CoreId> {
        let process = self.processes.get(&share.process).filter(|process| process.cores.len() < share.cores)?;
        let runs = self.cores_by_node(process.cores.iter().copied());
        let idle = self.cores.iter().filter(|(_, core)| core.state == CoreState::Idle).map(|(&core, _)| core);
        let idle = self.cores_by_node(idle);
        let has_executor = |node: &NodeId| process.cached.get(node).is_some_and(|executors| !executors.is_empty());
        let preference = |(node, cores): &(&NodeId, &BTreeSet<CoreId>)| {
            (runs.get(*node).map_or(0, BTreeSet::len), has_executor(node), cores.len(), Reverse(**node))
        };
        idle.iter().max_by_key(preference)?.1.first().copied()
    }

    fn cores_by_node(&self, cores: impl Iterator<Item = CoreId>) -> BTreeMap<NodeId, BTreeSet<CoreId>> {
        let mut nodes: BTreeMap<NodeId, BTreeSet<CoreId>> = BTreeMap::new();
        for core in cores {
            if let Some(known) = self.cores.get(&core) {
                nodes.entry(known.node).or_default().insert(core);
            }
        }
        nodes
    }

    /// Gives an idle core to a process.
    fn give(&mut self, core: CoreId, process: ProcessId) {
        let (Some(given), Some(owner)) = (self.cores.get_mut(&core), self.processes.get_mut(&process)) else { return };
        let executor = owner.take_cached(given.node).unwrap_or_else(|| {
            self.next_executor += 1;
            ExecutorId(self.next_executor - 1)
        });
        given.state = CoreState::Running(process, executor);
        owner.cores.insert(core);
        owner.upcalls.push(Upcall::Given { core, executor });
    }

    /// Makes a core idle, and tells its process the reason; `None` if the process gave it back, and is not told.
    fn take(&mut self, core: CoreId, reason: Option<Reason>) {
        let Some(taken) = self.cores.get_mut(&core) else { return };
        let CoreState::Running(process, executor) = taken.state else { return };
        taken.state = CoreState::Idle;
        let Some(owner) = self.processes.get_mut(&process) else { return };
        owner.cores.remove(&core);
        if reason != Some(Reason::Failed) {
            owner.cache(taken.node, executor);
        }
        let knows = owner.forget_given(core);
        if let Some(reason) = reason.filter(|_| knows) {
            owner.upcalls.push(Upcall::Taken { core, executor, reason });
        }
    }

    fn set_state(&mut self, core: CoreId, state: CoreState) {
        if let Some(core) = self.cores.get_mut(&core) {
            core.state = state;
        }
    }

    /// A new place at the end of the queue for odd cores.
    fn last_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn core(&self, core: CoreId) -> Result<&Core, Errno> {
        self.cores.get(&core).ok_or(Errno::ENODEV)
    }

    fn process(&self, process: ProcessId) -> Result<&Process, Errno> {
        self.processes.get(&process).ok_or(Errno::ESRCH)
    }

    fn process_mut(&mut self, process: ProcessId) -> Result<&mut Process, Errno> {
        self.processes.get_mut(&process).ok_or(Errno::ESRCH)
    }

    /// What a process wants and has.
    pub fn status(&self, process: ProcessId) -> Result<ProcessStatus, Errno> {
        let process = self.process(process)?;
        Ok(ProcessStatus {
            wanted: process.wanted,
            cores: process.cores.iter().copied().collect(),
            cached_executors: process.cached_count(),
            upcalls: process.upcalls.len(),
        })
    }

    /// The state of a core.
    pub fn state(&self, core: CoreId) -> Result<CoreState, Errno> {
        self.core(core).map(|core| core.state)
    }

    /// All cores, in ascending order.
    pub fn cores(&self) -> Vec<CoreStatus> {
        let status = |(&core, known): (&CoreId, &Core)| CoreStatus { core, node: known.node, state: known.state };
        self.cores.iter().map(status).collect()
    }

    /// All processes, in ascending order.
    pub fn processes(&self) -> Vec<ProcessId> {
        self.processes.keys().copied().collect()
    }

    /// How many executors have been made.
    pub fn executors_made(&self) -> u64 {
        self.next_executor - 1
    }

    /// One number for the whole state.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::default();
        for number in [self.next_process, self.next_executor, self.next_turn, self.cores.len() as u64] {
            digester.number(number);
        }
        for (core, known) in &self.cores {
            let state = match known.state {
                CoreState::Offline => [0, 0, 0],
                CoreState::Idle => [1, 0, 0],
                CoreState::Running(process, executor) => [2, process.0, executor.0],
            };
            [core.0 as u64, known.node.0 as u64].into_iter().chain(state).for_each(|number| digester.number(number));
        }
        for (id, process) in &self.processes {
            let counts = [process.wanted, process.cached.len(), process.upcalls.len()].map(|count| count as u64);
            [id.0, process.turn].into_iter().chain(counts).for_each(|number| digester.number(number));
            for (node, executors) in &process.cached {
                digester.number(node.0 as u64);
                digester.number(executors.len() as u64);
                executors.iter().for_each(|executor| digester.number(executor.0));
            }
            for upcall in &process.upcalls {
                let numbers = match *upcall {
                    Upcall::Given { core, executor } => [0, core.0 as u64, executor.0],
                    Upcall::Taken { core, executor, reason } => [1 + reason as u64, core.0 as u64, executor.0],
                };
                numbers.into_iter().for_each(|number| digester.number(number));
            }
        }
        digester.finish()
    }
}
