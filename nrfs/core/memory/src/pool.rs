//! Free memory of one node.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::PhysicalNode;
use crate::chunk::{CHUNK_SIZE, Chunk};

/// If a huge page takes longer than this to be supplied, as many bytes of small pages would take less.
const SLOW: Duration = Duration::from_micros(500);

/// How many chunks come in small pages after a huge page that was slow.
const SMALL_AFTER_SLOW: usize = 31;

/// Keeps the chunks that no arena of the node uses, with their memory, until they are [given back](Self::give_back). So
/// an arena can take what another has freed, without a request to the system.
pub struct Pool {
    pub(crate) physical: Option<PhysicalNode>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<Chunk>,
    /// The lowest number of free chunks since the last call of `give_back_surplus`.
    least_free: usize,
    /// How many of the next new chunks come in small pages. The host of a virtual machine may have taken unused memory
    /// back, a huge page at a time; the memory of small pages is mostly still there.
    small_next: usize,
}

impl Pool {
    /// Bytes of a chunk.
    pub const CHUNK: usize = CHUNK_SIZE;

    /// An empty pool. Its memory will be on `physical`, or, if that is `None`, on the node that first touches it.
    pub fn new(physical: Option<PhysicalNode>) -> Self {
        Self { physical, state: Mutex::default() }
    }

    /// The chunk that was put back last, or a new one, which has all its memory.
    pub(crate) fn take(&self) -> Chunk {
        let mut state = self.state();
        if let Some(chunk) = state.free.pop() {
            state.least_free = state.least_free.min(state.free.len());
            return chunk;
        }
        // Without the lock: other threads may take chunks meanwhile.
        drop(state);
        let is_huge = self.is_next_huge();
        let mut chunk = Chunk::map(self.physical, is_huge);
        let begin = Instant::now();
        chunk.populate();
        self.came(is_huge, begin.elapsed());
        chunk
    }

    fn is_next_huge(&self) -> bool {
        let mut state = self.state();
        let is_huge = state.small_next == 0;
        state.small_next = state.small_next.saturating_sub(1);
        is_huge
    }

    /// Notes how long it took the system to supply the memory of a chunk.
    fn came(&self, is_huge: bool, time: Duration) {
        if is_huge && time > SLOW {
            self.state().small_next = SMALL_AFTER_SLOW;
        }
    }

    /// Keeps a chunk that has no used page.
    pub(crate) fn put(&self, chunk: Chunk) {
        self.state().free.push(chunk);
    }

    /// Gives all chunks back to the system.
    pub fn give_back(&self) {
        self.give_back_some(|state| state.free.len());
    }

    /// Gives as many chunks back to the system as were not needed since the last call.
    pub fn give_back_surplus(&self) {
        self.give_back_some(|state| state.least_free);
    }

    fn give_back_some(&self, count: impl FnOnce(&State) -> usize) {
        let mut state = self.state();
        let count = count(&state);
        // The chunks that were put here first.
        let old: Vec<Chunk> = state.free.drain(..count).collect();
        state.least_free = state.free.len();
        // Without the lock: other threads may take chunks meanwhile.
        drop(state);
        drop(old);
    }

    #[cfg(test)]
    pub(crate) fn chunks(&self) -> usize {
        self.state().free.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state leaves it whole, also if the thread panics next.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_is_what_was_free_all_the_time() {
        let pool = Pool::new(None);
        let take = |chunks: usize| (0..chunks).map(|_| pool.take()).collect::<Vec<_>>();
        take(4).into_iter().for_each(|chunk| pool.put(chunk));
        pool.give_back_surplus();
        assert_eq!(pool.chunks(), 4);
        take(3).into_iter().for_each(|chunk| pool.put(chunk));
        pool.give_back_surplus();
        assert_eq!(pool.chunks(), 3);
        pool.give_back_surplus();
        assert_eq!(pool.chunks(), 0);
    }

    #[test]
    fn after_a_huge_page_that_was_slow_small_ones_are_taken() {
        let pool = Pool::new(None);
        pool.came(true, SLOW * 2);
        assert!((0..SMALL_AFTER_SLOW).all(|_| !pool.is_next_huge()));
        assert!(pool.is_next_huge());
        pool.came(true, SLOW / 2);
        assert!(pool.is_next_huge());
        pool.came(false, SLOW * 2);
        assert!(pool.is_next_huge());
    }
}
