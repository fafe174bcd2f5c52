//! A replica: one node's copy of the structure, in one partition per log.
//!
//! # What the combiner lock guarantees
//!
//! The combiner lock of a partition is its readers-writer lock held for update. Whenever it is free, every
//! entry that this partition appended has been applied here and answered. The holder of the lock waits only
//! for readers, and for another node's appender, which waits for nobody. Therefore:
//!
//! - a thread that holds the lock and has not appended (a read that catches up, or another node's
//!   combiner that helps) applies only entries that need no answer here;
//! - no request is stranded: its thread waits for the answer *or* the lock. If it gets the lock and has
//!   no answer yet, it combines.
//!
//! A thread that finds the lock free combines at once. Its own request needs no slot, and is the last of the batch.
//!
//! # The order in which an operation completes
//!
//! 1. The operation is appended, and published by a store of the log's tail.
//! 2. It is applied and answered, in write mode.
//! 3. Readers are let in.
//!
//! To answer, and to let readers in, are Release stores after that of the tail. So once a thread has the
//! response, or has read the new state on some node, every later read on any node finds a tail that makes it
//! catch up with the operation. A thread that reads what it has just written also waits until the rest of
//! its batch is applied.
//!
//! A single replica has no log, and its reads have nothing to catch up with.
//!
//! # Helping
//!
//! A combiner that finds the log full leaves the remaining requests to the next combiner of the partition,
//! which begins with them. It releases the lock, and then brings up to date every replica that is behind and
//! whose lock is free. If a lock is taken, its holder brings that replica up to date.
//! Nobody ever holds two combiner locks, so nobody waits in a circle.

use std::{
    mem,
    ops::Range,
    process,
    sync::{
        Arc,
        atomic::{AtomicU64 as Counter, Ordering::Relaxed},
    },
};

use crossbeam_utils::CachePadded;

use crate::{
    Dispatch, LogPosition, NodeId, PartitionStatistics, ReplicaStatistics,
    log::{Appender, Entry, Log},
    rwlock::{Reader, RwLock, Update},
    slot::Slot,
    sync::Backoff,
};

/// An entry of the log.
pub(crate) enum Logged<D: Dispatch> {
    Operation(D::WriteOperation),
    Observation(Observation<D>),
}

impl<D: Dispatch> Logged<D> {
    /// Applies the entry to the replica of `node`.
    fn run(&self, node: NodeId, position: LogPosition, structure: &mut D) -> Answer<D> {
        match self {
            Self::Operation(operation) => Some(structure.dispatch_mut(operation)),
            Self::Observation(observe) => {
                observe(node, position, structure);
                None
            }
        }
    }
}

impl<D: Dispatch> Entry for Logged<D> {
    fn owns_something(&self) -> bool {
        mem::needs_drop::<D::WriteOperation>() || matches!(self, Self::Observation(_))
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Operation(operation) => D::payload_bytes(operation),
            Self::Observation(_) => 0,
        }
    }
}

/// A look at every replica at the same position.
pub(crate) type Observation<D> = Box<dyn Fn(NodeId, LogPosition, &D) + Send + Sync>;

/// What a combiner answers: the response of an operation, `None` for an observation.
pub(crate) type Answer<D> = Option<<D as Dispatch>::Response>;

/// An answer, and how many operations the batch had.
type Answered<D> = (Answer<D>, u64);

type ThreadSlot<D> = CachePadded<Slot<Logged<D>, Answered<D>>>;

/// A thread's place in one partition. Dropping it unregisters the thread.
pub(crate) struct Seat<D: Dispatch> {
    partition: Arc<Partition<D>>,
    /// Registered with the partition's lock.
    reader: Reader,
    slot: Arc<ThreadSlot<D>>,
    /// How many more requests go to the slot without a try of the lock. The lock was taken lately, so the
    /// partition is busy, and requests in slots become larger batches.
    crowded: u32,
    /// How many operations the batch of the last request had; 0 after it was asked for.
    batch: u64,
}

/// The value of `crowded` after the lock was found taken.
const CROWDED: u32 = if cfg!(loom) { 1 } else { 16 };

/// A node's copy of the structure.
pub(crate) struct Replica<D: Dispatch> {
    pub(crate) node: NodeId,
    /// By log.
    pub(crate) partitions: Box<[Arc<Partition<D>>]>,
    threads: Counter,
}

/// The part of a replica that one log changes.
pub(crate) struct Partition<D: Dispatch> {
    node: NodeId,
    log: Arc<Log<Logged<D>>>,
    lock: RwLock<Combiner<D>, D>,
    counters: CachePadded<Counters>,
}

/// The combiner's state.
struct Combiner<D: Dispatch> {
    /// The slots of all threads registered with the partition, in the order in which they are served.
    slots: Vec<Arc<ThreadSlot<D>>>,
    /// The slots with a request, as indices into `slots`.
    requested: Vec<usize>,
    /// The positions of the requests that were appended; the first is that of `requested[0]`. While the lock is free,
    /// all are before the local tail.
    batch: Range<LogPosition>,
}

/// The combiner's own request, if it has one that is not in its slot.
struct Own<'a, D: Dispatch> {
    request: &'a mut Option<Logged<D>>,
    /// Its position in the log; [`NOWHERE`](Self::NOWHERE) before it is appended.
    position: LogPosition,
    answer: Option<Answered<D>>,
}

/// Stored under the combiner lock, loaded by any thread.
#[derive(Default)]
struct Counters {
    batches: Counter,
    operations: Counter,
    helped: Counter,
    full: Counter,
}

/// Ends the process if a panic drops it: nobody may see half a batch in the log, or an operation half applied on
/// one replica of many.
struct FailStop;

impl Drop for FailStop {
    fn drop(&mut self) {
        eprintln!("nr: panic while an operation was appended or applied; the process ends here");
        process::abort();
    }
}

impl<'a, D: Dispatch> Own<'a, D> {
    const NOWHERE: LogPosition = LogPosition(u64::MAX);

    fn new(request: &'a mut Option<Logged<D>>) -> Self {
        Self { request, position: Self::NOWHERE, answer: None }
    }

    /// Moves the request, if there is one, to the log. Returns false if there is no room.
    fn append(&mut self, appender: &mut Appender<'_, Logged<D>>) -> bool {
        if self.request.is_none() {
            return true;
        }
        let position = appender.tail();
        let is_appended = appender.append(self.request);
        if is_appended {
            self.position = position;
        }
        is_appended
    }
}

impl<D: Dispatch> Replica<D> {
    pub(crate) fn new(node: NodeId, partitions: impl Iterator<Item = Partition<D>>) -> Self {
        Self { node, partitions: partitions.map(Arc::new).collect(), threads: Counter::new(0) }
    }

    /// Gives a thread its seat in each partition.
    pub(crate) fn join(&self) -> Box<[Seat<D>]> {
        self.threads.fetch_add(1, Relaxed);
        self.partitions.iter().map(Seat::new).collect()
    }

    /// Counts off a thread whose seats have been dropped.
    pub(crate) fn leave(&self) {
        self.threads.fetch_sub(1, Relaxed);
    }

    pub(crate) fn statistics(&self) -> ReplicaStatistics {
        ReplicaStatistics {
            node: self.node,
            threads: self.threads.load(Relaxed) as usize,
            partitions: self.partitions.iter().map(|partition| partition.statistics()).collect(),
        }
    }
}

impl<D: Dispatch> Seat<D> {
    fn new(partition: &Arc<Partition<D>>) -> Self {
        let slot = Arc::new(CachePadded::new(Slot::new()));
        let mut update = partition.lock.update();
        update.state().slots.push(Arc::clone(&slot));
        Self { partition: Arc::clone(partition), reader: update.register(), slot, crowded: 0, batch: 0 }
    }

    /// Runs `f` on the structure after everything that is in the log now has been applied here.
    pub(crate) fn read<R>(&mut self, f: impl FnOnce(&D) -> R) -> R {
        // A single replica has applied all that has completed.
        if !self.partition.log.is_followed_by_one() {
            self.partition.catch_up();
        }
        self.peek(f)
    }

    /// Runs `f` on the structure as it is here, which may be behind the log.
    pub(crate) fn peek<R>(&mut self, f: impl FnOnce(&D) -> R) -> R {
        // SAFETY: the reader is registered with this lock.
        unsafe { self.partition.lock.read(&mut self.reader, f) }
    }

    /// Has a request combined, by this thread or another, and returns its answer. Calls `help`, which
    /// helps all replicas, when the log is full.
    pub(crate) fn submit(&mut self, request: Logged<D>, help: impl Fn()) -> Answer<D> {
        let mut request = Some(request);
        let (answer, batch) = self.combine_at_once(&mut request, &help).unwrap_or_else(|| {
            let request = request.expect("what was appended has its answer");
            // SAFETY: `&mut self` makes this thread the slot's owner, and the answer is taken below.
            unsafe { self.slot.post(request) };
            self.have_combined(help);
            // SAFETY: as above; it is answered.
            unsafe { self.slot.take_answer() }.expect("what was posted and is no longer has an answer")
        });
        self.batch = batch;
        answer
    }

    /// How many operations the batch of the last request had; 0 if there was none since this was last asked.
    pub(crate) fn take_batch(&mut self) -> u64 {
        mem::take(&mut self.batch)
    }

    /// Combines, with the request in the batch, unless the partition is crowded or its lock is taken. Returns the
    /// answer. Returns `None`, and leaves the request, if it has not combined, or the log was full: then it has
    /// called `help`.
    // Not inlined, like `have_combined`, so that a caller that mostly reads keeps its registers.
    #[inline(never)]
    fn combine_at_once(&mut self, request: &mut Option<Logged<D>>, help: impl Fn()) -> Option<Answered<D>> {
        if self.crowded > 0 {
            self.crowded -= 1;
            return None;
        }
        let Some(mut update) = self.partition.lock.try_update() else {
            self.crowded = CROWDED;
            return None;
        };
        let mut own = Own::new(request);
        self.partition.combine(&mut update, &mut own);
        drop(update);
        if own.answer.is_none() {
            help();
        }
        own.answer
    }

    /// Waits until the posted request is answered; combines if nobody else does.
    #[inline(never)]
    fn have_combined(&self, help: impl Fn()) {
        let Self { partition, slot, .. } = self;
        let mut backoff = Backoff::default();
        while let Some(mut update) = partition.lock.update_unless(|| !slot.is_posted()) {
            partition.combine(&mut update, &mut Own::new(&mut None));
            drop(update);
            if !slot.is_posted() {
                break;
            }
            help();
            backoff.wait();
        }
    }
}

impl<D: Dispatch> Drop for Seat<D> {
    fn drop(&mut self) {
        let mut update = self.partition.lock.update();
        update.unregister(&self.reader);
        update.state().slots.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
    }
}

impl<D: Dispatch> Partition<D> {
    pub(crate) fn new(node: NodeId, log: Arc<Log<Logged<D>>>, structure: D) -> Self {
        let combiner = Combiner { slots: Vec::new(), requested: Vec::new(), batch: LogPosition(0)..LogPosition(0) };
        Self { node, log, lock: RwLock::new(combiner, structure), counters: CachePadded::default() }
    }

    pub(crate) fn log(&self) -> &Log<Logged<D>> {
        &self.log
    }

    /// The position up to which this partition has applied the log. Stored in write mode.
    fn local_tail(&self) -> LogPosition {
        self.log.local_tail(self.node)
    }

    /// Returns when at least everything that is in the log now has been applied here.
    pub(crate) fn catch_up(&self) {
        let tail = self.log.tail();
        if self.local_tail() < tail {
            self.catch_up_with(tail);
        }
    }

    #[cold]
    fn catch_up_with(&self, position: LogPosition) {
        if let Some(mut update) = self.lock.update_unless(|| self.local_tail() >= position) {
            self.apply(&mut update, &mut Own::new(&mut None));
        }
    }

    /// Appends requests as far as the log has room, then applies and answers those.
    fn combine(&self, update: &mut Update<'_, Combiner<D>, D>, own: &mut Own<'_, D>) {
        if self.log.is_followed_by_one() {
            return self.combine_alone(update, own);
        }
        let Combiner { slots, requested, .. } = update.state();
        requested.clear();
        requested.extend((0..slots.len()).filter(|&index| slots[index].is_posted()));
        let mut backoff = Backoff::default();
        let mut appender = loop {
            if let Some(appender) = self.log.appender(self.node) {
                break appender;
            }
            // Meanwhile, apply what other nodes have published.
            if self.apply(update, own) == 0 {
                backoff.wait();
            }
        };
        let fail_stop = FailStop;
        let Combiner { slots, requested, batch } = update.state();
        batch.start = appender.tail();
        // SAFETY: holding the lock for update is being the combiner. What is appended is answered below.
        let mut append = |index: usize| unsafe { slots[index].with_request(|request| appender.append(request)) };
        let refused = requested.iter().copied().find(|&index| !append(index));
        batch.end = appender.tail();
        let is_full = refused.is_some() || !own.append(&mut appender);
        self.count(appender.tail() - batch.start);
        drop(appender);
        mem::forget(fail_stop);
        self.apply(update, own);
        if is_full {
            add(&self.counters.full, 1);
            update.state().slots.rotate_left(refused.unwrap_or_default());
        }
    }

    /// Applies and answers requests without the log: this is the only replica.
    fn combine_alone(&self, update: &mut Update<'_, Combiner<D>, D>, own: &mut Own<'_, D>) {
        let operations = update.write(|Combiner { slots, requested, .. }, structure| {
            let fail_stop = FailStop;
            requested.clear();
            requested.extend((0..slots.len()).filter(|&index| slots[index].is_posted()));
            let operations = requested.len() as u64 + u64::from(own.request.is_some());
            let mut position = self.log.tail();
            let mut run = |request: &mut Option<Logged<D>>| {
                let request = request.take()?;
                let answer = request.run(self.node, position, structure);
                position += 1;
                Some((answer, operations))
            };
            for slot in requested.iter().map(|&index| &slots[index]) {
                // SAFETY: holding the lock for update is being the combiner, and this answers each request once.
                unsafe { slot.answer(slot.with_request(&mut run).expect("what is posted is a request")) };
            }
            own.answer = run(own.request);
            self.log.pass(operations);
            mem::forget(fail_stop);
            operations
        });
        self.count(operations);
    }

    /// Counts a batch.
    fn count(&self, operations: u64) {
        add(&self.counters.batches, u64::from(operations != 0));
        add(&self.counters.operations, operations);
    }

    /// Applies everything up to the tail if this replica is behind and its lock is free.
    pub(crate) fn help(&self) {
        if self.local_tail() < self.log.tail() {
            if let Some(mut update) = self.lock.try_update() {
                let applied = self.apply(&mut update, &mut Own::new(&mut None));
                add(&self.counters.helped, applied);
            }
        }
    }

    /// Applies everything up to the tail, and answers those entries that this partition appended.
    /// Returns the number of entries applied.
    fn apply(&self, update: &mut Update<'_, Combiner<D>, D>, own: &mut Own<'_, D>) -> u64 {
        let start = self.local_tail();
        let tail = self.log.tail();
        if start == tail {
            return 0;
        }
        update.write(|combiner, structure| {
            let fail_stop = FailStop;
            let Combiner { slots, requested, batch } = combiner;
            let operations = batch.end - batch.start + u64::from(own.position != Own::<D>::NOWHERE);
            for position in (start.0..tail.0).map(LogPosition) {
                // SAFETY: `position` is before the tail. The local tail says what has been applied here, and changes
                // only under this lock, so each position comes once and in order.
                let answer = unsafe { self.log.apply(position, |logged| logged.run(self.node, position, structure)) };
                if position == own.position {
                    own.answer = Some((answer, operations));
                } else if batch.contains(&position) {
                    let slot = &slots[requested[(position - batch.start) as usize]];
                    // SAFETY: this combiner has taken the request from that slot, and it is answered once.
                    unsafe { slot.answer((answer, operations)) };
                }
            }
            mem::forget(fail_stop);
            self.log.complete(self.node, tail);
        });
        tail - start
    }

    fn statistics(&self) -> PartitionStatistics {
        PartitionStatistics {
            local_tail: self.local_tail(),
            batches: self.counters.batches.load(Relaxed),
            operations: self.counters.operations.load(Relaxed),
            helped: self.counters.helped.load(Relaxed),
            full: self.counters.full.load(Relaxed),
        }
    }
}

/// Adds to a counter that only the holder of the combiner lock writes.
fn add(counter: &Counter, amount: u64) {
    counter.store(counter.load(Relaxed) + amount, Relaxed);
}
