//! The log: a bounded circular buffer of operations, appended by combiners, applied by every replica.
//!
//! Bounded twice: in entries, and in the bytes of payload that entries hold. Appending is under a
//! mutex and publishes whole batches, so there is never an entry that is reserved and not yet
//! written, and nobody ever waits for an appender that was descheduled in between.
//!
//! Each entry counts the replicas that have still to apply it. The last one drops the operation at
//! once and frees the entry; a position may be appended only into a freed entry. So a replica that
//! stands still fills the log, and then it has to be helped (see [`replica`](crate::replica)).

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use crate::{
    LogPosition, LogStatistics, NodeId,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering, UnsafeCell, lock},
};

/// An operation on its way to all replicas.
pub(crate) struct Entry<T> {
    /// Whose combiner appended it, and so owes it a response.
    pub(crate) origin: NodeId,
    /// What it counts against the log's bound on payload.
    pub(crate) payload_bytes: usize,
    pub(crate) operation: T,
}

/// No node, where an atomic holds one.
const NOBODY: u64 = u64::MAX;

/// One place in the circular buffer.
struct Place<T> {
    /// 0 when free. Otherwise one more than the number of replicas that have still to apply the
    /// entry: that one stands for dropping it.
    remaining: AtomicU32,
    entry: UnsafeCell<Option<Entry<T>>>,
}

/// See the module's page.
pub(crate) struct Log<T> {
    places: Box<[Place<T>]>,
    replicas: u32,
    payload_bound: u64,
    /// Where the next entry goes. Stored under `appending`, after the entries before it are written.
    tail: CachePadded<AtomicU64>,
    /// Every entry before it has been applied by some replica: what a read must have seen.
    completed_tail: CachePadded<AtomicU64>,
    /// Held to append, unless there is only one replica.
    appending: CachePadded<Mutex<()>>,
    /// The node that found no room for a payload; that one goes next, or else small payloads could
    /// keep out a large one for ever. [`NOBODY`] if there is none. Used under `appending`.
    next_payload: AtomicU64,
    /// Bytes ever appended; stored under `appending`.
    payload_appended: AtomicU64,
    /// Bytes ever dropped.
    payload_dropped: CachePadded<AtomicU64>,
}

// SAFETY: entries are moved in by one thread, read by several, and dropped by any. There is one
// appender at a time; it writes only where `remaining` is 0, and `apply` says who may read and drop.
unsafe impl<T: Send + Sync> Sync for Log<T> {}
// SAFETY: owning the log is owning its entries.
unsafe impl<T: Send> Send for Log<T> {}

impl<T> Log<T> {
    /// A log that `replicas` replicas follow from its beginning. `entries` is a power of two.
    pub(crate) fn new(replicas: usize, entries: usize, payload_bound: usize) -> Self {
        assert!(entries.is_power_of_two());
        let place = || Place { remaining: AtomicU32::new(0), entry: UnsafeCell::new(None) };
        Self {
            places: (0..entries).map(|_| place()).collect(),
            replicas: u32::try_from(replicas).expect("a log counts its replicas in 32 bits"),
            payload_bound: payload_bound as u64,
            tail: CachePadded::new(AtomicU64::new(0)),
            completed_tail: CachePadded::new(AtomicU64::new(0)),
            appending: CachePadded::new(Mutex::new(())),
            next_payload: AtomicU64::new(NOBODY),
            payload_appended: AtomicU64::new(0),
            payload_dropped: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Moves entries from the front of `batch` into the log, in order, until there is no more room.
    /// The caller who finds some left over helps other replicas, and comes back.
    ///
    /// # Safety
    ///
    /// One thread at a time calls this for the same `appender`, which is one of the replicas.
    pub(crate) unsafe fn append(&self, appender: NodeId, batch: &mut VecDeque<Entry<T>>) {
        let _appending = (self.replicas > 1).then(|| lock(&self.appending));
        let node = appender.0 as u64;
        let next = self.next_payload.load(Ordering::Relaxed);
        let others_turn = next != NOBODY && next != node;
        let start = self.tail.load(Ordering::Relaxed);
        let mut tail = start;
        let mut refused = false;
        while let Some(entry) = batch.front() {
            let place = self.place(tail);
            // Acquire: the last replica's use of the former entry comes before ours.
            if place.remaining.load(Ordering::Acquire) != 0 {
                break;
            }
            refused = entry.payload_bytes != 0 && (others_turn || !self.admits(entry.payload_bytes));
            if refused {
                break;
            }
            let entry = batch.pop_front();
            // SAFETY: `remaining` is 0 and the place is at or after the tail, so no replica looks
            // at it until the tail is stored below. There is one appender: `appending` sees to that,
            // or with a single replica the caller.
            place.entry.with_mut(|cell| unsafe { *cell = entry });
            place.remaining.store(self.replicas + 1, Ordering::Relaxed);
            tail += 1;
        }
        if tail != start {
            self.tail.store(tail, Ordering::Release);
        }
        if refused && next == NOBODY {
            self.next_payload.store(node, Ordering::Relaxed);
        } else if batch.is_empty() && next == node {
            self.next_payload.store(NOBODY, Ordering::Relaxed);
        }
    }

    /// Whether the payload has room; if so it is counted. A payload above the bound goes alone.
    fn admits(&self, bytes: usize) -> bool {
        // Relaxed: mere counting. An old value of what was dropped errs on the side of waiting.
        let appended = self.payload_appended.load(Ordering::Relaxed);
        let in_flight = appended - self.payload_dropped.load(Ordering::Relaxed);
        let admitted = in_flight == 0 || in_flight + bytes as u64 <= self.payload_bound;
        if admitted {
            self.payload_appended.store(appended + bytes as u64, Ordering::Relaxed);
        }
        admitted
    }

    /// Where the next entry will go.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// The position that a read which begins now must have caught up with.
    pub(crate) fn completed_tail(&self) -> u64 {
        self.completed_tail.load(Ordering::Acquire)
    }

    /// Records that some replica has applied everything before `position`. Each replica calls this
    /// from one thread at a time, with ever higher positions.
    pub(crate) fn complete(&self, position: u64) {
        if self.replicas == 1 {
            self.completed_tail.store(position, Ordering::Release);
        } else if self.completed_tail.load(Ordering::Relaxed) < position {
            self.completed_tail.fetch_max(position, Ordering::AcqRel);
        }
    }

    /// Runs `f` on the entry at `position` on behalf of one replica, and drops the entry if that
    /// was the last replica to do so.
    ///
    /// # Safety
    ///
    /// `position` is before the tail as read by this thread, and each replica applies each position
    /// exactly once, in order.
    pub(crate) unsafe fn apply<R>(&self, position: u64, f: impl FnOnce(&Entry<T>) -> R) -> R {
        let place = self.place(position);
        let result = place.entry.with(|cell| {
            // SAFETY: the entry was written before the tail passed it. It stays, and is only read,
            // until every replica has counted itself off below: the caller's has not.
            let entry = unsafe { (*cell).as_ref() };
            f(entry.expect("an entry lives until every replica has applied it"))
        });
        // If this replica is the only one left, nobody else writes `remaining`, and with a single
        // replica that is always so: no read-modify-write then.
        let last = place.remaining.load(Ordering::Acquire) == 2 || place.remaining.fetch_sub(1, Ordering::AcqRel) == 2;
        if last {
            // SAFETY: all other replicas have counted themselves off, after their last use of the
            // entry; appenders stay away until `remaining` is 0.
            let entry = place.entry.with_mut(|cell| unsafe { (*cell).take() });
            let bytes = entry.as_ref().map_or(0, |entry| entry.payload_bytes);
            drop(entry);
            if bytes != 0 {
                self.payload_dropped.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            place.remaining.store(0, Ordering::Release);
        }
        result
    }

    fn place(&self, position: u64) -> &Place<T> {
        &self.places[position as usize & (self.places.len() - 1)]
    }

    pub(crate) fn statistics(&self) -> LogStatistics {
        // What was dropped is read first, and so is never more than what was appended.
        let dropped = self.payload_dropped.load(Ordering::Acquire);
        let completed_tail = self.completed_tail();
        LogStatistics {
            entries: self.places.len(),
            tail: LogPosition(self.tail()),
            completed_tail: LogPosition(completed_tail),
            payload_bytes: (self.payload_appended.load(Ordering::Acquire) - dropped) as usize,
        }
    }
}
