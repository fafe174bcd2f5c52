//! The log: a bounded circular buffer of operations, appended by combiners, applied by every replica.
//!
//! It is bounded twice: in entries, and in the bytes of payload that entries hold. There is one appender at
//! a time, and it publishes whole batches. So no entry is ever reserved but not yet written, and a replica
//! that applies the log never waits for an appender that lost its CPU between the two.
//!
//! Each replica publishes how far it has applied the log (its local tail). An entry that all replicas have
//! applied may be overwritten. So a replica that stops applying fills the log, and other nodes have to help
//! it (see [`replica`](crate::replica)).
//!
//! An entry that owns something also counts the replicas that have yet to apply it; the last of them drops
//! the operation at once. An entry that owns nothing has no such count, so that replicas only read it: if
//! they wrote to its cache line, the line would be transferred between nodes once more.

use crossbeam_utils::CachePadded;

use crate::{
    LogPosition, LogStatistics, NodeId,
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, UnsafeCell},
};

/// An entry of a log, which all replicas apply.
pub(crate) trait Entry {
    /// Whether dropping the entry frees anything. If so, it is dropped as soon as all replicas have applied it.
    /// Called once, when the entry is appended.
    fn owns_something(&self) -> bool;

    /// The bytes that count against the log's bound on payload. Only used if the entry owns something.
    fn payload_bytes(&self) -> usize;
}

/// The value of an atomic node number that stands for no node.
const NOBODY: u64 = u64::MAX;

/// One place in the circular buffer. Aligned so that few places span two cache lines, as each line has to be
/// fetched from another node.
#[repr(align(64))]
struct Place<T> {
    /// How many replicas have yet to apply the entry; always 0 if the entry owns nothing.
    remaining: AtomicU32,
    entry: UnsafeCell<Option<T>>,
}

/// A position that threads share.
struct AtomicPosition(AtomicU64);

impl AtomicPosition {
    fn new(position: LogPosition) -> Self {
        Self(AtomicU64::new(position.0))
    }

    fn load(&self, ordering: Ordering) -> LogPosition {
        LogPosition(self.0.load(ordering))
    }

    fn store(&self, position: LogPosition, ordering: Ordering) {
        self.0.store(position.0, ordering);
    }
}

/// The log. The module's page has the idea.
pub(crate) struct Log<T> {
    places: Box<[Place<T>]>,
    /// By replica: the position up to which it has applied the log. Each is stored by one thread at a time.
    local_tails: Box<[CachePadded<AtomicPosition>]>,
    payload_bound: u64,
    /// The position of the next entry. The appender stores it after it has written the entries before. Every read loads
    /// it, so it does not share a cache line with what else the appender writes.
    tail: CachePadded<AtomicPosition>,
    end: CachePadded<End>,
    /// Bytes of payload dropped since the log was made.
    payload_dropped: CachePadded<AtomicU64>,
}

/// What only appenders use. It is together in one cache line, as that comes from another node's appender.
struct End {
    /// Set while somebody appends.
    appending: AtomicBool,
    /// A copy of the log's tail, in a cache line that readers do not take away. Used while appending.
    tail: AtomicPosition,
    /// Positions before this one may be written: all replicas have applied what was in their places. An old
    /// value errs on the low side. Used while appending.
    room: AtomicPosition,
    /// The node that found no room for a payload, or [`NOBODY`]. Its payload is the next to be admitted;
    /// otherwise small payloads could keep out a large one for ever. Used while appending.
    next_payload: AtomicU64,
    /// Bytes of payload appended since the log was made. Stored while appending.
    payload_appended: AtomicU64,
}

/// The exclusive right to append to a log. Dropping it publishes what was appended.
pub(crate) struct Appender<'a, T> {
    log: &'a Log<T>,
    node: u64,
    /// The position of the next entry.
    tail: LogPosition,
}

// SAFETY: entries are moved in by one thread, read by several, and dropped by any. There is one
// appender at a time, which writes only to places that all replicas have passed; `apply` says who may read and drop.
unsafe impl<T: Send + Sync> Sync for Log<T> {}
// SAFETY: owning the log is owning its entries.
unsafe impl<T: Send> Send for Log<T> {}

impl<T: Entry> Log<T> {
    /// A log that `replicas` replicas apply from its beginning. `entries` is a power of two. With a single
    /// replica the log has no places, and only counts the operations that [`pass`](Self::pass).
    pub(crate) fn new(replicas: usize, entries: usize, payload_bound: usize) -> Self {
        assert!(entries.is_power_of_two());
        let entries = if replicas == 1 { 0 } else { entries };
        let start = LogPosition(0);
        let place = || Place { remaining: AtomicU32::new(0), entry: UnsafeCell::new(None) };
        Self {
            places: (0..entries).map(|_| place()).collect(),
            local_tails: (0..replicas).map(|_| CachePadded::new(AtomicPosition::new(start))).collect(),
            payload_bound: payload_bound as u64,
            tail: CachePadded::new(AtomicPosition::new(start)),
            end: CachePadded::new(End {
                appending: AtomicBool::new(false),
                tail: AtomicPosition::new(start),
                room: AtomicPosition::new(start + entries as u64),
                next_payload: AtomicU64::new(NOBODY),
                payload_appended: AtomicU64::new(0),
            }),
            payload_dropped: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// The right to append, for the combiner of `node`; `None` while another node's combiner has it.
    pub(crate) fn appender(&self, node: NodeId) -> Option<Appender<'_, T>> {
        // Acquire: this appender sees all that the previous one has stored.
        self.end.appending.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(Appender { log: self, node: node.0 as u64, tail: self.end.tail.load(Ordering::Relaxed) })
    }

    /// Whether there is only one replica.
    pub(crate) fn is_followed_by_one(&self) -> bool {
        self.local_tails.len() == 1
    }

    /// Counts operations that a single replica has applied without the log.
    pub(crate) fn pass(&self, operations: u64) {
        let position = self.tail.load(Ordering::Relaxed) + operations;
        self.tail.store(position, Ordering::Release);
        self.local_tails[0].store(position, Ordering::Release);
    }

    /// The position before which there is room now.
    fn look_for_room(&self) -> LogPosition {
        // Acquire: the replicas' reads of the old entries happen before they are overwritten.
        let tails = self.local_tails.iter().map(|tail| tail.load(Ordering::Acquire));
        let room = tails.min().unwrap_or_default() + self.places.len() as u64;
        self.end.room.store(room, Ordering::Relaxed);
        room
    }

    /// The position of the next entry. A read that begins now must see every entry before it: these include all
    /// operations that have completed.
    pub(crate) fn tail(&self) -> LogPosition {
        self.tail.load(Ordering::Acquire)
    }

    /// The position up to which the replica has applied the log.
    pub(crate) fn local_tail(&self, replica: NodeId) -> LogPosition {
        self.local_tails[replica.0].load(Ordering::Acquire)
    }

    /// Records that the replica has applied everything before `position`. Each replica calls this
    /// from one thread at a time, with increasing positions.
    pub(crate) fn complete(&self, replica: NodeId, position: LogPosition) {
        self.local_tails[replica.0].store(position, Ordering::Release);
    }

    /// Runs `f` on the entry at `position` on behalf of one replica. If the entry owns something and this
    /// was the last replica to apply it, drops the entry.
    ///
    /// # Safety
    ///
    /// `position` is before the tail as read by this thread, and each replica applies each position
    /// exactly once, in order, before it completes it.
    pub(crate) unsafe fn apply<R>(&self, position: LogPosition, f: impl FnOnce(&T) -> R) -> R {
        let place = self.place(position);
        let (result, owns_something) = place.entry.with(|cell| {
            // SAFETY: the entry was written before the tail passed it. It stays, and is only read,
            // until every replica has counted itself off below, or passed it: the caller's has not.
            let entry = unsafe { (*cell).as_ref() };
            let entry = entry.expect("an entry lives until every replica has applied it");
            // Not 0 if the appender stored another number, as this replica has not counted itself off yet.
            (f(entry), place.remaining.load(Ordering::Relaxed) != 0)
        });
        if owns_something && self.is_last(place) {
            // SAFETY: all other replicas have counted themselves off, after their last use of the
            // entry; appenders stay away until this one, too, has passed it.
            let entry = place.entry.with_mut(|cell| unsafe { (*cell).take() });
            let bytes = entry.as_ref().map_or(0, Entry::payload_bytes);
            drop(entry);
            if bytes != 0 {
                self.payload_dropped.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        }
        result
    }

    /// Counts a replica off; returns whether it was the last. If it is the only one left, nobody else
    /// writes `remaining`, so no read-modify-write is needed.
    fn is_last(&self, place: &Place<T>) -> bool {
        place.remaining.load(Ordering::Acquire) == 1 || place.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn place(&self, position: LogPosition) -> &Place<T> {
        &self.places[position.0 as usize & (self.places.len() - 1)]
    }

    pub(crate) fn statistics(&self) -> LogStatistics {
        // If nothing was dropped between the two loads, they belong to one moment.
        let payload_bytes = loop {
            let dropped = self.payload_dropped.load(Ordering::Acquire);
            let appended = self.end.payload_appended.load(Ordering::Acquire);
            if self.payload_dropped.load(Ordering::Relaxed) == dropped {
                break appended.saturating_sub(dropped) as usize;
            }
        };
        // Local tails are loaded before the tail, so that the completed tail is never beyond it.
        let completed_tail = self.local_tails.iter().map(|tail| tail.load(Ordering::Acquire)).max().unwrap_or_default();
        LogStatistics { entries: self.places.len(), tail: self.tail(), completed_tail, payload_bytes }
    }
}

impl<T: Entry> Appender<'_, T> {
    /// The position of the next entry.
    pub(crate) fn tail(&self) -> LogPosition {
        self.tail
    }

    /// Moves `entry`, which is not `None`, to the log. Returns false, and leaves the entry, if there is no room:
    /// the caller then helps other replicas and tries again.
    pub(crate) fn append(&mut self, entry: &mut Option<T>) -> bool {
        let log = self.log;
        if self.tail == log.end.room.load(Ordering::Relaxed) && self.tail == log.look_for_room() {
            return false;
        }
        let place = log.place(self.tail);
        let owner = entry.as_ref().filter(|entry| entry.owns_something());
        let bytes = owner.map_or(0, Entry::payload_bytes) as u64;
        if bytes != 0 && !self.admits(bytes) {
            return false;
        }
        let remaining = if owner.is_some() { log.local_tails.len() as u32 } else { 0 };
        place.remaining.store(remaining, Ordering::Relaxed);
        // SAFETY: there is room, so all replicas have passed what was there, and the place is at or after the
        // tail, so no replica looks at it until the tail is stored below; and there is one appender. What was
        // there owns nothing, or was dropped by the last who applied it.
        place.entry.with_mut(|cell| unsafe { cell.write(entry.take()) });
        self.tail += 1;
        true
    }

    /// Whether there is room for `bytes` of payload; if so, counts them. A payload above the bound is admitted
    /// when there is no other.
    fn admits(&self, bytes: u64) -> bool {
        let Log { end, payload_dropped, payload_bound, .. } = self.log;
        let next = end.next_payload.load(Ordering::Relaxed);
        if next != NOBODY && next != self.node {
            return false;
        }
        // Relaxed: these are only counters. An old `payload_dropped` can only make the appender wait.
        let appended = end.payload_appended.load(Ordering::Relaxed);
        let in_flight = appended.saturating_sub(payload_dropped.load(Ordering::Relaxed));
        let admitted = in_flight == 0 || in_flight + bytes <= *payload_bound;
        if admitted {
            end.payload_appended.store(appended + bytes, Ordering::Relaxed);
        }
        end.next_payload.store(if admitted { NOBODY } else { self.node }, Ordering::Relaxed);
        admitted
    }
}

impl<T> Drop for Appender<'_, T> {
    fn drop(&mut self) {
        // Release: a thread that loads this tail sees the entries before it.
        self.log.tail.store(self.tail, Ordering::Release);
        self.log.end.tail.store(self.tail, Ordering::Relaxed);
        self.log.end.appending.store(false, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Answers differently each time it is asked whether it owns something; counts its drops.
    struct Fickle {
        owns: Cell<bool>,
        dropped: Rc<Cell<u32>>,
    }

    impl Drop for Fickle {
        fn drop(&mut self) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    impl Entry for Fickle {
        fn owns_something(&self) -> bool {
            self.owns.replace(!self.owns.get())
        }

        fn payload_bytes(&self) -> usize {
            1
        }
    }

    #[test]
    fn an_entry_that_changes_its_mind_is_treated_alike_by_all_replicas() {
        let dropped = Rc::new(Cell::new(0));
        let log: Log<Fickle> = Log::new(2, 2, 100);
        for position in 0..8 {
            let (before, owns) = (dropped.get(), position % 3 == 0);
            let mut appender = log.appender(NodeId(0)).unwrap();
            assert!(appender.append(&mut Some(Fickle { owns: Cell::new(owns), dropped: Rc::clone(&dropped) })));
            drop(appender);
            for replica in [0, 1] {
                assert_eq!(dropped.get(), before);
                // SAFETY: it is before the tail, and each replica applies it once, in order.
                unsafe { log.apply(LogPosition(position), |_| ()) };
                log.complete(NodeId(replica), LogPosition(position + 1));
            }
            // An entry that owned nothing when appended stays in its place.
            assert_eq!(dropped.get() - before, u32::from(owns));
        }
    }
}
