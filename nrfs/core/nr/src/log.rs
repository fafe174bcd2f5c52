//! The log: a bounded circular buffer of operations, appended by combiners, applied by every replica.
//!
//! Bounded twice: in entries, and in the bytes of payload that entries hold. Appending is under a
//! mutex and publishes whole batches, so there is never an entry that is reserved and not yet
//! written, and nobody ever waits for an appender that was descheduled in between.
//!
//! Each replica says how far it has applied the log; an entry that all have passed may be overwritten. So
//! a replica that stands still fills the log, and then it has to be helped (see
//! [`replica`](crate::replica)). An entry that owns something counts, besides, the replicas that have
//! still to apply it, and the last one drops the operation at once. One that owns nothing does not, so
//! that replicas only read what another wrote: a cache line that is written on both sides costs a
//! transfer more.

use std::collections::VecDeque;

use crossbeam_utils::CachePadded;

use crate::{
    LogPosition, LogStatistics, NodeId,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering, UnsafeCell, try_lock},
};

/// An operation on its way to all replicas.
pub(crate) struct Entry<T> {
    /// Whose combiner appended it, and so owes it a response.
    pub(crate) origin: NodeId,
    /// What it counts against the log's bound on payload.
    pub(crate) payload_bytes: usize,
    /// Whether it is to be dropped as soon as all replicas have applied it: where it owns something, or
    /// has a payload.
    pub(crate) drop_at_once: bool,
    pub(crate) operation: T,
}

/// No node, where an atomic holds one.
const NOBODY: u64 = u64::MAX;

/// One place in the circular buffer. Aligned so that few places lie in two cache lines: replicas fetch them
/// from each other.
#[repr(align(64))]
struct Place<T> {
    /// How many replicas have still to apply the entry, if it is to be dropped at once.
    remaining: AtomicU32,
    entry: UnsafeCell<Option<Entry<T>>>,
}

/// See the module's page.
pub(crate) struct Log<T> {
    places: Box<[Place<T>]>,
    /// By replica: every entry before it has been applied there. Stored by one thread at a time.
    local_tails: Box<[CachePadded<AtomicU64>]>,
    payload_bound: u64,
    end: CachePadded<End>,
    /// Every entry before it has been applied by some replica: what a read must have seen.
    completed_tail: CachePadded<AtomicU64>,
    /// Bytes ever dropped.
    payload_dropped: CachePadded<AtomicU64>,
}

/// What an appender works with: together, as its cache line comes from another node's appender.
struct End {
    /// Held to append.
    appending: Mutex<()>,
    /// Every position before it may be written: all replicas have passed what was there. An old value
    /// says less than is true. Used under `appending`.
    room: AtomicU64,
    /// Where the next entry goes. Stored under `appending`, after the entries before it are written.
    tail: AtomicU64,
    /// The node that found no room for a payload; that one goes next, or else small payloads could
    /// keep out a large one for ever. [`NOBODY`] if there is none. Used under `appending`.
    next_payload: AtomicU64,
    /// Bytes ever appended; stored under `appending`.
    payload_appended: AtomicU64,
}

// SAFETY: entries are moved in by one thread, read by several, and dropped by any. There is one
// appender at a time; it writes only where all replicas have passed, and `apply` says who may read and drop.
unsafe impl<T: Send + Sync> Sync for Log<T> {}
// SAFETY: owning the log is owning its entries.
unsafe impl<T: Send> Send for Log<T> {}

impl<T> Log<T> {
    /// A log that `replicas` replicas follow from its beginning. `entries` is a power of two. A single
    /// replica [passes](Self::pass) operations, and there is no place to keep any.
    pub(crate) fn new(replicas: usize, entries: usize, payload_bound: usize) -> Self {
        assert!(entries.is_power_of_two());
        let entries = if replicas == 1 { 0 } else { entries };
        let place = || Place { remaining: AtomicU32::new(0), entry: UnsafeCell::new(None) };
        Self {
            places: (0..entries).map(|_| place()).collect(),
            local_tails: (0..replicas).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            payload_bound: payload_bound as u64,
            end: CachePadded::new(End {
                appending: Mutex::new(()),
                room: AtomicU64::new(entries as u64),
                tail: AtomicU64::new(0),
                next_payload: AtomicU64::new(NOBODY),
                payload_appended: AtomicU64::new(0),
            }),
            completed_tail: CachePadded::new(AtomicU64::new(0)),
            payload_dropped: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// Moves entries from the front of `batch` into the log, in order, until there is no more room; or
    /// moves none and returns false, if another node's combiner is appending now. The caller who finds
    /// some left over helps other replicas, and comes back.
    pub(crate) fn append(&self, appender: NodeId, batch: &mut VecDeque<Entry<T>>) -> bool {
        let Some(_appending) = try_lock(&self.end.appending) else { return false };
        let node = appender.0 as u64;
        let next = self.end.next_payload.load(Ordering::Relaxed);
        let others_turn = next != NOBODY && next != node;
        let start = self.end.tail.load(Ordering::Relaxed);
        let mut tail = start;
        let mut refused = false;
        while let Some(entry) = batch.front() {
            if tail == self.end.room.load(Ordering::Relaxed) && tail == self.look_for_room() {
                break;
            }
            refused = entry.payload_bytes != 0 && (others_turn || !self.admits(entry.payload_bytes));
            if refused {
                break;
            }
            let drop_at_once = entry.drop_at_once;
            let entry = batch.pop_front();
            let place = self.place(tail);
            // SAFETY: all replicas have passed what was there, and the place is at or after the tail, so
            // no replica looks at it until the tail is stored below. `appending` is held, so there is
            // one appender.
            place.entry.with_mut(|cell| unsafe { *cell = entry });
            if drop_at_once {
                place.remaining.store(self.local_tails.len() as u32, Ordering::Relaxed);
            }
            tail += 1;
        }
        if tail != start {
            self.end.tail.store(tail, Ordering::Release);
        }
        if refused && next == NOBODY {
            self.end.next_payload.store(node, Ordering::Relaxed);
        } else if batch.is_empty() && next == node {
            self.end.next_payload.store(NOBODY, Ordering::Relaxed);
        }
        true
    }

    /// Whether there is only one replica.
    pub(crate) fn is_followed_by_one(&self) -> bool {
        self.local_tails.len() == 1
    }

    /// Counts operations that the only replica there is has applied without the log.
    pub(crate) fn pass(&self, operations: u64) {
        let position = self.end.tail.load(Ordering::Relaxed) + operations;
        for tail in [&self.end.tail, &self.local_tails[0], &self.completed_tail] {
            tail.store(position, Ordering::Release);
        }
    }

    /// The position up to which there is room, now.
    fn look_for_room(&self) -> u64 {
        // Acquire: each replica's use of what was there comes before ours.
        let tails = self.local_tails.iter().map(|tail| tail.load(Ordering::Acquire));
        let room = tails.min().unwrap_or_default() + self.places.len() as u64;
        self.end.room.store(room, Ordering::Relaxed);
        room
    }

    /// Whether the payload has room; if so it is counted. A payload above the bound goes alone.
    fn admits(&self, bytes: usize) -> bool {
        // Relaxed: mere counting. An old value of what was dropped errs on the side of waiting.
        let appended = self.end.payload_appended.load(Ordering::Relaxed);
        let in_flight = appended - self.payload_dropped.load(Ordering::Relaxed);
        let admitted = in_flight == 0 || in_flight + bytes as u64 <= self.payload_bound;
        if admitted {
            self.end.payload_appended.store(appended + bytes as u64, Ordering::Relaxed);
        }
        admitted
    }

    /// Where the next entry will go.
    pub(crate) fn tail(&self) -> u64 {
        self.end.tail.load(Ordering::Acquire)
    }

    /// The position that a read which begins now must have caught up with.
    pub(crate) fn completed_tail(&self) -> u64 {
        self.completed_tail.load(Ordering::Acquire)
    }

    /// Every entry before it has been applied by the replica.
    pub(crate) fn local_tail(&self, replica: NodeId) -> u64 {
        self.local_tails[replica.0].load(Ordering::Acquire)
    }

    /// Records that the replica has applied everything before `position`. Each replica calls this
    /// from one thread at a time, with ever higher positions.
    pub(crate) fn complete(&self, replica: NodeId, position: u64) {
        self.local_tails[replica.0].store(position, Ordering::Release);
        if self.completed_tail.load(Ordering::Relaxed) < position {
            self.completed_tail.fetch_max(position, Ordering::AcqRel);
        }
    }

    /// Runs `f` on the entry at `position` on behalf of one replica, and drops the entry if it is to be
    /// dropped at once and that was the last replica to do so.
    ///
    /// # Safety
    ///
    /// `position` is before the tail as read by this thread, and each replica applies each position
    /// exactly once, in order, before it completes it.
    pub(crate) unsafe fn apply<R>(&self, position: u64, f: impl FnOnce(&Entry<T>) -> R) -> R {
        let place = self.place(position);
        let (result, drop_at_once) = place.entry.with(|cell| {
            // SAFETY: the entry was written before the tail passed it. It stays, and is only read,
            // until every replica has counted itself off below, or passed it: the caller's has not.
            let entry = unsafe { (*cell).as_ref() };
            let entry = entry.expect("an entry lives until every replica has applied it");
            (f(entry), entry.drop_at_once)
        });
        if drop_at_once && self.is_last(place) {
            // SAFETY: all other replicas have counted themselves off, after their last use of the
            // entry; appenders stay away until this one, too, has passed it.
            let entry = place.entry.with_mut(|cell| unsafe { (*cell).take() });
            let bytes = entry.as_ref().map_or(0, |entry| entry.payload_bytes);
            drop(entry);
            if bytes != 0 {
                self.payload_dropped.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        }
        result
    }

    /// Counts a replica off, and says whether it was the last. If it is the only one left, nobody else
    /// writes `remaining`: no read-modify-write then.
    fn is_last(&self, place: &Place<T>) -> bool {
        place.remaining.load(Ordering::Acquire) == 1 || place.remaining.fetch_sub(1, Ordering::AcqRel) == 1
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
            payload_bytes: (self.end.payload_appended.load(Ordering::Acquire) - dropped) as usize,
        }
    }
}
