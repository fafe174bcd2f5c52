//! Pages of one node's memory.
//!
//! An arena takes chunks from a pool, which all arenas of a node share, and returns those of which no page is used. The
//! first chunk with a free page is used first, so that the last chunks become free. Freed pages keep their memory until
//! [`Arena::give_back`] is called, or until they outnumber the used ones: a file that is replaced over and over finds
//! its memory still there.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Pool;
use crate::chunk::{Chunk, PAGES_PER_CHUNK};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// So many free pages may hold memory even if fewer pages are in use.
const IDLE: usize = 8 * PAGES_PER_CHUNK;

/// The right to use a page of an [`Arena`], which has the memory.
///
/// It cannot be copied, so a page has one user. Give it back with [`Arena::free`]: a page that is only dropped stays
/// in use until the arena is dropped.
#[derive(Debug)]
pub struct Page(NonZero<u32>);

/// Hands out pages of one node.
pub struct Arena {
    pool: Arc<Pool>,
    chunks: Vec<Option<Chunk>>,
    /// The indices in `chunks` that are `None`. The last chunk is always there.
    gaps: BTreeSet<usize>,
    /// The chunks with at least one free page.
    vacant: BTreeSet<usize>,
    /// How many free pages of all chunks may hold memory.
    idle: usize,
    /// The lowest value of `idle` since the last call of `give_back_surplus`.
    least_idle: usize,
    used: usize,
    vacancy: Vacancy,
}

/// The number of free pages that an arena has in its chunks; can be read without the arena.
#[derive(Clone, Default)]
pub struct Vacancy(Arc<AtomicUsize>);

impl Vacancy {
    /// The number, which may change at any time.
    pub fn pages(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Called only by a thread that may change the arena: so no read-modify-write is needed.
    fn change(&self, more: usize, less: usize) {
        self.0.store(self.pages() + more - less, Ordering::Relaxed);
    }
}

impl Arena {
    /// An empty arena, whose memory will come from `pool`.
    pub fn new(pool: Arc<Pool>) -> Self {
        let (gaps, vacant) = (BTreeSet::new(), BTreeSet::new());
        let vacancy = Vacancy::default();
        Self { pool, chunks: Vec::new(), gaps, vacant, idle: 0, least_idle: 0, used: 0, vacancy }
    }

    /// The arena's number of free pages, which stays up to date as long as the arena lives.
    pub fn vacancy(&self) -> Vacancy {
        self.vacancy.clone()
    }

    /// Pages in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes a page. Its content is arbitrary.
    ///
    /// # Panics
    /// When the system grants no more mappings, as any allocation in Rust does.
    pub fn allocate(&mut self) -> Page {
        let index = self.vacant.first().copied().unwrap_or_else(|| self.add_chunk());
        let chunk = self.chunks[index].as_mut().expect("a vacant chunk is there");
        let idle_before = chunk.idle.len();
        let page = chunk.take();
        self.idle -= idle_before - chunk.idle.len();
        self.least_idle = self.least_idle.min(self.idle);
        self.used += 1;
        self.vacancy.change(0, 1);
        if chunk.used == PAGES_PER_CHUNK {
            self.vacant.remove(&index);
        }
        Page::at(index, page).expect("an arena has fewer than 2^32 pages")
    }

    /// Gives a page back.
    ///
    /// # Panics
    /// If the page is not one that this arena handed out.
    pub fn free(&mut self, page: Page) {
        let (index, within) = page.place();
        let chunk = self.chunks[index].as_mut().expect("a page of this arena");
        chunk.give_back(within);
        self.used -= 1;
        self.vacancy.change(1, 0);
        self.idle += 1;
        // One chunk is kept without a used page, for pages that are wanted soon.
        if index != 0 && chunk.used == 0 && self.idle > PAGES_PER_CHUNK {
            let chunk = self.remove_chunk(index);
            self.pool.put(chunk);
            return;
        }
        self.vacant.insert(index);
        if self.idle > self.used.max(IDLE) {
            self.give_back(self.idle / 2);
        }
    }

    fn add_chunk(&mut self) -> usize {
        let index = self.gaps.pop_first().unwrap_or(self.chunks.len());
        // The first chunk takes memory page by page, so that a nearly empty arena takes little.
        let chunk = if index == 0 { Chunk::map(self.pool.physical, false) } else { self.pool.take() };
        self.idle += chunk.idle.len();
        self.vacancy.change(PAGES_PER_CHUNK, 0);
        self.vacant.insert(index);
        match self.chunks.get_mut(index) {
            Some(gap) => *gap = Some(chunk),
            None => self.chunks.push(Some(chunk)),
        }
        index
    }

    /// Takes out a chunk that has no used page.
    fn remove_chunk(&mut self, index: usize) -> Chunk {
        let chunk = self.chunks[index].take().expect("it is there");
        self.idle -= chunk.idle.len();
        self.vacancy.change(0, PAGES_PER_CHUNK);
        self.least_idle = self.least_idle.min(self.idle);
        self.vacant.remove(&index);
        self.gaps.insert(index);
        while let Some(None) = self.chunks.last() {
            self.chunks.pop();
            self.gaps.remove(&self.chunks.len());
        }
        chunk
    }

    /// The number of free pages that may hold memory.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Gives memory of free pages back to the system, as much as was not needed since the last call.
    pub fn give_back_surplus(&mut self) {
        self.give_back(self.idle - self.least_idle);
        self.least_idle = self.idle;
    }

    /// Gives memory of free pages back to the system, from the upper end, until at most `keep` of them hold any.
    pub fn give_back(&mut self, keep: usize) {
        let vacant: Vec<usize> = self.vacant.iter().rev().copied().collect();
        for index in vacant {
            if self.idle <= keep {
                break;
            }
            let chunk = self.chunks[index].as_mut().expect("a vacant chunk is there");
            if chunk.used > 0 {
                self.idle -= chunk.idle.len();
                chunk.release_idle();
            } else {
                drop(self.remove_chunk(index));
            }
        }
        self.least_idle = self.least_idle.min(self.idle);
    }

    /// The memory of a page.
    pub fn bytes(&self, page: &Page) -> &[u8; PAGE_SIZE] {
        let (index, within) = page.place();
        let chunk = self.chunks[index].as_ref().expect("a page of this arena");
        // SAFETY: `within` is below PAGES_PER_CHUNK, so the page lies in the chunk's mapping, which is
        // readable, initialised by the system, and lives as long as `self`. Bytes are written only
        // through `bytes_mut`, which borrows `self` exclusively.
        unsafe { chunk.page(within).cast::<[u8; PAGE_SIZE]>().as_ref() }
    }

    /// The memory of a page, to be written.
    pub fn bytes_mut(&mut self, page: &Page) -> &mut [u8; PAGE_SIZE] {
        let (index, within) = page.place();
        let chunk = self.chunks[index].as_mut().expect("a page of this arena");
        // SAFETY: as in `bytes`; and `&mut self` makes this the only reference into the arena.
        unsafe { chunk.page(within).cast::<[u8; PAGE_SIZE]>().as_mut() }
    }
}

impl Page {
    /// A page of a chunk; `None` if its number is too large. Pages are counted from 1, so that an `Option<Page>` is no
    /// larger than a `Page`.
    fn at(chunk: usize, within: usize) -> Option<Self> {
        u32::try_from(chunk * PAGES_PER_CHUNK + within + 1).ok().and_then(NonZero::new).map(Self)
    }

    /// The chunk, and the page's number in it.
    fn place(&self) -> (usize, usize) {
        let number = self.0.get() as usize - 1;
        (number / PAGES_PER_CHUNK, number % PAGES_PER_CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PhysicalNode;

    fn arena() -> Arena {
        Arena::new(Arc::new(Pool::new(None)))
    }

    #[test]
    fn pages_are_distinct_and_keep_what_was_written() {
        let mut arena = arena();
        let pages: Vec<Page> = (0..3 * PAGES_PER_CHUNK).map(|_| arena.allocate()).collect();
        for (number, page) in pages.iter().enumerate() {
            arena.bytes_mut(page).fill(number as u8 ^ (number >> 8) as u8);
        }
        for (number, page) in pages.iter().enumerate() {
            assert!(arena.bytes(page).iter().all(|&byte| byte == number as u8 ^ (number >> 8) as u8));
        }
        assert_eq!((arena.used(), arena.vacancy().pages()), (pages.len(), 0));
    }

    fn take(arena: &mut Arena, pages: usize) -> Vec<Page> {
        (0..pages).map(|_| arena.allocate()).collect()
    }

    #[test]
    fn memory_of_free_pages_stays_until_it_is_given_back() {
        let mut arena = arena();
        for reverse in [false, true, false] {
            let mut pages = take(&mut arena, 5 * PAGES_PER_CHUNK);
            pages.iter().for_each(|page| arena.bytes_mut(page).fill(1));
            if reverse {
                pages.reverse();
            }
            let kept = pages.swap_remove(PAGES_PER_CHUNK);
            pages.into_iter().for_each(|page| arena.free(page));
            assert_eq!(arena.used(), 1);
            assert_eq!(arena.idle() + arena.pool.chunks() * PAGES_PER_CHUNK, 5 * PAGES_PER_CHUNK - 1);
            arena.give_back(PAGES_PER_CHUNK);
            assert!((1..=PAGES_PER_CHUNK).contains(&arena.idle()));
            arena.pool.give_back();
            assert_eq!(arena.bytes(&kept), &[1; PAGE_SIZE]);
            arena.free(kept);
            assert_eq!(arena.vacancy().pages(), arena.chunks.iter().flatten().count() * PAGES_PER_CHUNK);
            arena.give_back(0);
            assert_eq!((arena.idle(), arena.chunks.len(), arena.vacancy().pages()), (0, 0, 0));
        }
    }

    #[test]
    fn surplus_is_what_was_idle_all_the_time() {
        const IN_EACH: usize = PAGES_PER_CHUNK - 1;
        let mut arena = arena();
        let free = |arena: &mut Arena, pages: Vec<Page>| pages.into_iter().for_each(|page| arena.free(page));
        let mut pages = take(&mut arena, 4 * PAGES_PER_CHUNK);
        let _in_use: Vec<Page> = (0..4).map(|chunk| pages.remove(chunk * IN_EACH)).collect();
        free(&mut arena, pages);
        arena.give_back_surplus();
        assert_eq!(arena.idle(), 4 * IN_EACH);
        let pages = take(&mut arena, 3 * IN_EACH);
        free(&mut arena, pages);
        arena.give_back_surplus();
        assert_eq!(arena.idle(), 3 * IN_EACH);
        arena.give_back_surplus();
        assert_eq!(arena.idle(), 0);
    }

    #[test]
    fn free_pages_between_used_ones_hold_no_more_memory_than_those() {
        let mut arena = arena();
        let mut pages: Vec<Option<Page>> = take(&mut arena, 100 * PAGES_PER_CHUNK).into_iter().map(Some).collect();
        for first in 0..64 {
            for page in pages.iter_mut().skip(first).step_by(64).filter_map(Option::take) {
                arena.free(page);
                assert!(arena.idle() <= arena.used().max(IDLE));
            }
        }
    }

    #[test]
    fn pages_with_memory_are_taken_before_a_chunk_is_had() {
        let mut arena = arena();
        let mut pages = take(&mut arena, 4 * PAGES_PER_CHUNK);
        let last = pages.pop().unwrap();
        arena.free(last);
        pages.drain(PAGES_PER_CHUNK..2 * PAGES_PER_CHUNK).for_each(|page| arena.free(page));
        assert_eq!((arena.idle(), arena.pool.chunks()), (1, 1));
        arena.allocate();
        assert_eq!((arena.idle(), arena.pool.chunks()), (0, 1));
        arena.allocate();
        assert_eq!((arena.idle(), arena.pool.chunks()), (PAGES_PER_CHUNK - 1, 0));
        assert_eq!(arena.chunks.len(), 4);
    }

    #[test]
    fn what_one_arena_has_no_more_use_for_another_uses() {
        const CHUNKS: usize = 5;
        let pool = Arc::new(Pool::new(None));
        let mut arenas = [(); 3].map(|()| Arena::new(Arc::clone(&pool)));
        for turn in 0..12 {
            let arena = &mut arenas[turn % 3];
            let mut pages = take(arena, CHUNKS * PAGES_PER_CHUNK);
            pages.iter().for_each(|page| arena.bytes_mut(page).fill(turn as u8));
            if turn % 2 == 0 {
                pages.reverse();
            }
            assert!(pages.iter().all(|page| arena.bytes(page) == &[turn as u8; PAGE_SIZE]));
            pages.into_iter().for_each(|page| arena.free(page));
            // Each keeps its first chunk, and may keep another.
            let kept: usize = arenas.iter().map(|arena| arena.chunks.iter().flatten().count()).sum();
            assert!(kept + pool.chunks() <= CHUNKS + 2 * arenas.len(), "{kept} kept, {} in the pool", pool.chunks());
        }
    }

    #[test]
    fn freed_pages_are_used_again_and_the_others_stay() {
        let mut arena = arena();
        let mut pages: Vec<Page> = (0..2 * PAGES_PER_CHUNK).map(|_| arena.allocate()).collect();
        for (number, page) in pages.iter().enumerate() {
            arena.bytes_mut(page).fill(number as u8);
        }
        let kept: Vec<(usize, Page)> = pages
            .drain(..)
            .enumerate()
            .filter_map(|(number, page)| {
                if number % 3 == 0 {
                    return Some((number, page));
                }
                arena.free(page);
                None
            })
            .collect();
        let again: Vec<Page> = (kept.len()..2 * PAGES_PER_CHUNK).map(|_| arena.allocate()).collect();
        assert_eq!(arena.chunks.len(), 2);
        again.iter().for_each(|page| arena.bytes_mut(page).fill(0xaa));
        for (number, page) in &kept {
            assert!(arena.bytes(page).iter().all(|&byte| byte == *number as u8));
        }
    }

    #[test]
    fn memory_can_be_asked_for_on_a_node() {
        let mut arena = Arena::new(Arc::new(Pool::new(Some(PhysicalNode(0)))));
        let page = arena.allocate();
        arena.bytes_mut(&page)[0] = 1;
        assert_eq!(arena.bytes(&page)[0], 1);
    }
}
