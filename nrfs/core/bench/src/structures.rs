//! The structures that threads share, and their operations.

use std::collections::{HashMap, VecDeque};

use dashmap::DashMap;
use machines::scheduler::{CoreId, CoreState, NodeId, ProcessId, Response as Scheduled, Scheduler, WriteOperation};
use nr::Dispatch;

use crate::contender::{Contender, Structure};

/// A structure whose operations are made from random numbers.
pub trait Workload: Structure {
    /// The structure at the beginning.
    fn filled() -> Self;

    /// The read that a random number stands for.
    fn any_read(random: u64) -> Self::ReadOperation;

    /// The change that a random number stands for.
    fn any_write(random: u64) -> Self::WriteOperation;
}

/// How many keys the map has, and how many elements stack and queue have at the beginning.
const SIZE: u64 = 10_000;

/// A map of numbers.
pub struct Map(HashMap<u64, u64>);

/// Sets the value of a key; answers the old value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Put(u64, u64);

/// Looks a key up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Get(u64);

impl Dispatch for Map {
    type WriteOperation = Put;
    type Response = Option<u64>;

    fn dispatch_mut(&mut self, &Put(key, value): &Put) -> Option<u64> {
        self.0.insert(key, value)
    }
}

impl Structure for Map {
    type ReadOperation = Get;

    fn dispatch(&self, Get(key): &Get) -> Option<u64> {
        self.0.get(key).copied()
    }
}

impl Workload for Map {
    fn filled() -> Self {
        Self((0..SIZE).map(|key| (key, key)).collect())
    }

    fn any_read(random: u64) -> Get {
        Get(random % SIZE)
    }

    fn any_write(random: u64) -> Put {
        Put(random % SIZE, random)
    }
}

/// The same map, as a sharded one.
pub struct Sharded(DashMap<u64, u64>);

impl Sharded {
    /// With the same entries as a filled [`Map`].
    pub fn filled() -> Self {
        Self((0..SIZE).map(|key| (key, key)).collect())
    }
}

impl Contender<Map> for Sharded {
    type Handle = ();

    fn handle(&self, _thread: usize) {}

    fn read(&self, (): &mut (), Get(key): &Get) -> Option<u64> {
        self.0.get(key).map(|value| *value)
    }

    fn write(&self, (): &mut (), Put(key, value): Put) -> Option<u64> {
        self.0.insert(key, value)
    }
}

/// Changes a stack or a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Adds an element.
    Push(u64),
    /// Removes an element, and answers it.
    Pop,
}

/// Answers the element that would be removed next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peek;

/// Values in a row. They are added at the back, and removed at the front or at the back.
pub struct Row<const FROM_FRONT: bool>(VecDeque<u64>);

/// Last in, first out.
pub type Stack = Row<false>;

/// First in, first out.
pub type Queue = Row<true>;

impl<const FROM_FRONT: bool> Dispatch for Row<FROM_FRONT> {
    type WriteOperation = Change;
    type Response = Option<u64>;

    fn dispatch_mut(&mut self, change: &Change) -> Option<u64> {
        match *change {
            Change::Push(value) => {
                self.0.push_back(value);
                None
            }
            Change::Pop if FROM_FRONT => self.0.pop_front(),
            Change::Pop => self.0.pop_back(),
        }
    }
}

impl<const FROM_FRONT: bool> Structure for Row<FROM_FRONT> {
    type ReadOperation = Peek;

    fn dispatch(&self, Peek: &Peek) -> Option<u64> {
        if FROM_FRONT { self.0.front().copied() } else { self.0.back().copied() }
    }
}

impl<const FROM_FRONT: bool> Workload for Row<FROM_FRONT> {
    fn filled() -> Self {
        Self((0..SIZE).collect())
    }

    fn any_read(_random: u64) -> Peek {
        Peek
    }

    fn any_write(random: u64) -> Change {
        if random & 1 == 0 { Change::Push(random) } else { Change::Pop }
    }
}

/// The scheduler's cores, and its processes. A write changes how many cores one of these wants.
const CORES: usize = 64;
const PROCESSES: u64 = 16;

/// Answers which process has a core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Owner(CoreId);

impl Structure for Scheduler {
    type ReadOperation = Owner;

    fn dispatch(&self, Owner(core): &Owner) -> Scheduled {
        self.state(*core).map(|state| match state {
            CoreState::Running(process, _) => machines::scheduler::Answer::Process(process),
            CoreState::Idle | CoreState::Offline => machines::scheduler::Answer::Done,
        })
    }
}

impl Workload for Scheduler {
    fn filled() -> Self {
        let mut scheduler = Self::new((0..CORES).map(|core| (CoreId(core), NodeId(core * 2 / CORES))));
        for _ in 0..PROCESSES {
            let _ = scheduler.dispatch_mut(&WriteOperation::Create);
        }
        scheduler
    }

    fn any_read(random: u64) -> Owner {
        Owner(CoreId(random as usize % CORES))
    }

    fn any_write(random: u64) -> WriteOperation {
        let process = ProcessId(1 + random % PROCESSES);
        WriteOperation::Request { process, cores: (random >> 8) as usize % (2 * CORES / PROCESSES as usize) }
    }
}
