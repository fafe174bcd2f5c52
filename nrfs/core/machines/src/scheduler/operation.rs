//! What can be asked of the scheduler, and what it answers.

use crate::types::Errno;

/// A core that processes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub usize);

/// The node whose memory is near to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A process. Never used again for another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// What a process runs with on one core: its stacks and saved registers, in memory of the core's node. Never
/// used again for another executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutorId(pub u64);

/// A change to who runs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOperation {
    /// A new process that wants no core yet. Answers [`Answer::Process`].
    Create,
    /// The end of a process: its cores are free, its executors and upcalls are gone.
    Exit(ProcessId),
    /// The process wants `cores` cores in all, be it more or fewer than before. It gets its share of them,
    /// and hears of each by an upcall. Answers [`Answer::Cores`].
    Request {
        /// Who.
        process: ProcessId,
        /// Up to as many as there are, be they online or not.
        cores: usize,
    },
    /// The process gives a core back and wants one fewer. No upcall tells it what it did itself.
    Release {
        /// Who.
        process: ProcessId,
        /// One of its own.
        core: CoreId,
    },
    /// A quantum is over: a core that cannot be shared out evenly goes to those who have waited longest.
    Tick,
    /// The core stops, its executor's state saved.
    Offline(CoreId),
    /// The core is lost, and its executor with it.
    Fail(CoreId),
    /// The core can be given to processes again.
    Online(CoreId),
    /// Frees the executors that the process has on no core now. Answers [`Answer::Executors`].
    FreeExecutors(ProcessId),
    /// Takes all upcalls that wait for the process. Answers [`Answer::Upcalls`].
    TakeUpcalls(ProcessId),
}

/// What a process is told of its cores, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upcall {
    /// The process runs on one core more.
    Given {
        /// The core.
        core: CoreId,
        /// What it runs with there.
        executor: ExecutorId,
    },
    /// The process no longer runs on a core.
    Taken {
        /// The core.
        core: CoreId,
        /// What it ran with there.
        executor: ExecutorId,
        /// Why.
        reason: Reason,
    },
}

/// Why a core was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The share of the process has become smaller, or it wants fewer.
    Share,
    /// The core went offline; the executor waits in the cache of its node.
    Offline,
    /// The core failed; the executor is lost.
    Failed,
}

/// What an operation answers.
pub type Response = Result<Answer, Errno>;

/// What an operation found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The process that was made.
    Process(ProcessId),
    /// How many cores the process has now.
    Cores(usize),
    /// How many executors were freed.
    Executors(usize),
    /// Since they were taken last.
    Upcalls(Vec<Upcall>),
}
