//! The operations of the scheduler, and their answers.

use crate::types::Errno;

/// A core that processes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub usize);

/// The node whose memory is near to a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// The number of a process, which is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// An executor, with which a process runs on one core: stacks and saved registers, in memory of the core's node.
/// The number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutorId(pub u64);

/// A change of the scheduler's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOperation {
    /// Makes a process, which wants no core yet. Answers [`Answer::Process`].
    Create,
    /// Ends a process: frees its cores, and drops its executors and upcalls.
    Exit(ProcessId),
    /// The process wants `cores` cores in all, more or fewer than before. It gets its share of them, and an
    /// upcall for each. Answers [`Answer::Cores`].
    Request {
        /// The process.
        process: ProcessId,
        /// At most as many as there are, online or not.
        cores: usize,
    },
    /// The process gives a core back, and wants one fewer. It gets no upcall for this.
    Release {
        /// The process.
        process: ProcessId,
        /// One of its own.
        core: CoreId,
    },
    /// Ends a quantum: the odd cores go to the processes that have waited longest.
    Tick,
    /// The core stops. The state of its executor is saved.
    Offline(CoreId),
    /// The core is lost, and its executor with it.
    Fail(CoreId),
    /// The core can be given to processes again.
    Online(CoreId),
    /// Frees the executors of the process that are on no core. Answers [`Answer::Executors`].
    FreeExecutors(ProcessId),
    /// Takes all upcalls of the process. Answers [`Answer::Upcalls`].
    TakeUpcalls(ProcessId),
}

/// What a process is told of its cores, in the order of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upcall {
    /// The process runs on one more core.
    Given {
        /// The core.
        core: CoreId,
        /// The executor that it runs with there.
        executor: ExecutorId,
    },
    /// The process no longer runs on a core.
    Taken {
        /// The core.
        core: CoreId,
        /// The executor that it ran with there.
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
    /// The core went offline. The executor is kept for another core of its node.
    Offline,
    /// The core failed. The executor is lost.
    Failed,
}

/// The answer to an operation.
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
