//! Free memory of one node.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::PhysicalNode;
use crate::chunk::{CHUNK_SIZE, Chunk};

/// A huge page that takes longer than this to come takes longer than as many small ones.
const SLOW: Duration = Duration::from_micros(500);

/// Chunks in small pages after a huge page that was slow.
const SMALL_AFTER_SLOW: usize = 31;

/// Chunks that no arena of the node uses, kept with their memory until they are [given back](Self::give_back): what one
/// arena has no more use for, another need not ask the system for.
pub struct Pool {
    pub(crate) physical: Option<PhysicalNode>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: Vec<Chunk>,
    /// The fewest that there were since the last look at them.
    least_free: usize,
    /// Chunks that are to come in small pages. Memory that a virtual machine does not use its host may have taken
    /// back, huge page by huge page; what comes in small pages is mostly still there.
    small_next: usize,
}

impl Pool {
    /// Bytes that memory comes in.
    pub const CHUNK: usize = CHUNK_SIZE;

    /// An empty pool whose memory will be on `physical`, or wherever it is first touched.
    pub fn new(physical: Option<PhysicalNode>) -> Self {
        Self { physical, state: Mutex::default() }
    }

    /// The chunk that was put back last, or else a new one with all its memory.
    pub(crate) fn take(&self) -> Chunk {
        let mut state = self.state();
        if let Some(chunk) = state.free.pop() {
            state.least_free = state.least_free.min(state.free.len());
            return chunk;
        }
        // Others may take chunks while this one comes.
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

    /// Notes how long the memory of a chunk took to come.
    fn came(&self, is_huge: bool, time: Duration) {
        if is_huge && time > SLOW {
            self.state().small_next = SMALL_AFTER_SLOW;
        }
    }

    /// Takes a chunk without a used page.
    pub(crate) fn put(&self, chunk: Chunk) {
        self.state().free.push(chunk);
    }

    /// Gives all chunks back to the system.
    pub fn give_back(&self) {
        self.give_back_some(|state| state.free.len());
    }

    /// Gives as many back as were not needed since the last call.
    pub fn give_back_surplus(&self) {
        self.give_back_some(|state| state.least_free);
    }

    fn give_back_some(&self, count: impl FnOnce(&State) -> usize) {
        let mut state = self.state();
        let count = count(&state);
        // Those that have lain there longest.
        let old: Vec<Chunk> = state.free.drain(..count).collect();
        state.least_free = state.free.len();
        // Others may take chunks while these go.
        drop(state);
        drop(old);
    }

    #[cfg(test)]
    pub(crate) fn chunks(&self) -> usize {
        self.state().free.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is ever half done.
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
