//! Pages of one node's memory.
//!
//! Pages come in chunks of 2 MiB, each one mapping: the size of a huge page, so that filling a file
//! costs one fault in 512. The lowest free page is taken first, which leaves the upper chunks to be
//! given back to the system. Freed pages keep their memory until [`Arena::give_back`] is called: a file
//! that is replaced over and over finds its memory still there.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::PhysicalNode;
use crate::mapping::{map_aligned, prefer_node};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

const PAGES_PER_CHUNK: usize = 512;
const CHUNK_SIZE: usize = PAGE_SIZE * PAGES_PER_CHUNK;

/// A huge page that takes longer than this to come takes longer than as many small ones.
const SLOW: Duration = Duration::from_micros(500);

/// Chunks in small pages after a huge page that was slow.
const SMALL_AFTER_SLOW: usize = 31;

/// A page of an [`Arena`]: the right to use it, without the memory itself.
///
/// It cannot be copied, so a page has one user. Give it back with [`Arena::free`]: dropped, it stays
/// taken until the arena goes.
#[derive(Debug)]
pub struct Page(NonZero<u32>);

/// Pages of one node. The contents of a page just allocated are arbitrary.
pub struct Arena {
    physical: Option<PhysicalNode>,
    chunks: Vec<Option<Chunk>>,
    /// The chunks with at least one free page, mapped or not.
    vacant: BTreeSet<usize>,
    /// Free pages that may hold memory, in all chunks.
    idle: usize,
    /// The fewest that there were since the last look at them.
    least_idle: usize,
    used: usize,
    /// Chunks that are to come in small pages. Memory that a virtual machine does not use its host may have taken
    /// back, huge page by huge page; what comes in small pages is mostly still there.
    small_next: usize,
}

impl Arena {
    /// An empty arena whose memory will be on `physical`, or wherever it is first touched.
    pub fn new(physical: Option<PhysicalNode>) -> Self {
        Self { physical, chunks: Vec::new(), vacant: BTreeSet::new(), idle: 0, least_idle: 0, used: 0, small_next: 0 }
    }

    /// Pages in use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Takes a page. Its contents are arbitrary.
    ///
    /// # Panics
    /// When the system grants no more mappings, as any allocation in Rust does.
    pub fn allocate(&mut self) -> Page {
        let index = self.vacant.first().copied().unwrap_or(self.chunks.len());
        if index == self.chunks.len() {
            self.chunks.push(None);
            self.vacant.insert(index);
        }
        if self.chunks[index].is_none() {
            let chunk = self.map_chunk(index);
            self.idle += chunk.idle.len();
            self.chunks[index] = Some(chunk);
        }
        let chunk = self.chunks[index].as_mut().expect("it was just made");
        let idle_before = chunk.idle.len();
        let page = chunk.take();
        self.idle -= idle_before - chunk.idle.len();
        self.least_idle = self.least_idle.min(self.idle);
        self.used += 1;
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
        self.idle += 1;
        self.vacant.insert(index);
    }

    /// Free pages that may hold memory.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Gives memory of free pages back to the system as far as it was not needed since the last call.
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
            let Some(chunk) = &mut self.chunks[index] else { continue };
            self.idle -= chunk.idle.len();
            if chunk.used > 0 {
                chunk.release_idle();
            } else {
                self.chunks[index] = None;
            }
        }
        while let Some(None) = self.chunks.last() {
            self.chunks.pop();
            self.vacant.remove(&self.chunks.len());
        }
        self.least_idle = self.least_idle.min(self.idle);
    }

    fn map_chunk(&mut self, index: usize) -> Chunk {
        // The first chunk gets its pages one by one: a nearly empty arena is to cost nearly nothing.
        if index == 0 {
            return Chunk::map(self.physical, false);
        }
        let is_huge = self.small_next == 0;
        self.small_next = self.small_next.saturating_sub(1);
        let mut chunk = Chunk::map(self.physical, is_huge);
        let begin = Instant::now();
        chunk.populate();
        if is_huge && begin.elapsed() > SLOW {
            self.small_next = SMALL_AFTER_SLOW;
        }
        chunk
    }

    /// The memory of a page.
    pub fn bytes(&self, page: &Page) -> &[u8; PAGE_SIZE] {
        let (index, within) = page.place();
        let chunk = self.chunks[index].as_ref().expect("a page of this arena");
        // SAFETY: `within` is below PAGES_PER_CHUNK, so the page lies in the chunk's mapping, which is
        // readable, initialised by the system and lives as long as `self`. Bytes are written only
        // through `bytes_mut`, which needs `self` alone.
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
    /// A page of a chunk. Pages count from 1, so that an `Option<Page>` is no larger than a page.
    fn at(chunk: usize, within: usize) -> Option<Self> {
        u32::try_from(chunk * PAGES_PER_CHUNK + within + 1).ok().and_then(NonZero::new).map(Self)
    }

    /// The chunk, and the page's number in it.
    fn place(&self) -> (usize, usize) {
        let number = self.0.get() as usize - 1;
        (number / PAGES_PER_CHUNK, number % PAGES_PER_CHUNK)
    }
}

/// One mapping of [`CHUNK_SIZE`] bytes and what is known of its pages.
struct Chunk {
    base: NonNull<u8>,
    free: Bitmap,
    /// Free pages that may still hold memory.
    idle: Bitmap,
    used: usize,
}

// SAFETY: a chunk owns its mapping; nothing about it belongs to a thread.
unsafe impl Send for Chunk {}
// SAFETY: through `&Chunk` the mapping is only read.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn map(physical: Option<PhysicalNode>, huge: bool) -> Self {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let base = map_aligned(CHUNK_SIZE, CHUNK_SIZE, 0, rights).expect("there is memory for file content");
        if let Some(node) = physical {
            prefer_node(base, CHUNK_SIZE, node);
        }
        let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the range is our own mapping. Advice may be refused (a kernel without huge pages).
        unsafe { libc::madvise(base.cast(), CHUNK_SIZE, advice) };
        let base = NonNull::new(base).expect("mmap does not map page zero");
        Self { base, free: Bitmap::full(), idle: Bitmap::empty(), used: 0 }
    }

    /// Has the system give its memory now, which is cheaper than page by page. Where that cannot be, it comes page by
    /// page.
    fn populate(&mut self) {
        const MADV_POPULATE_WRITE: libc::c_int = 23;
        // SAFETY: the range is our own mapping, and its contents stay.
        unsafe { libc::madvise(self.base.as_ptr().cast(), CHUNK_SIZE, MADV_POPULATE_WRITE) };
        self.idle = Bitmap::full();
    }

    /// Takes a free page, one that has memory if there is any.
    fn take(&mut self) -> usize {
        let page = self.idle.first().or_else(|| self.free.first()).expect("a vacant chunk has a free page");
        self.free.remove(page);
        self.idle.remove(page);
        self.used += 1;
        page
    }

    fn give_back(&mut self, page: usize) {
        assert!(!self.free.contains(page), "a page is freed once");
        self.free.insert(page);
        self.idle.insert(page);
        self.used -= 1;
    }

    /// Gives the memory of all idle pages back to the system, run by run.
    fn release_idle(&mut self) {
        while let Some(first) = self.idle.first() {
            let mut end = first;
            while end < PAGES_PER_CHUNK && self.idle.contains(end) {
                self.idle.remove(end);
                end += 1;
            }
            // SAFETY: the run lies in our mapping and none of its pages is in use.
            unsafe {
                libc::madvise(self.page(first).as_ptr().cast(), (end - first) * PAGE_SIZE, libc::MADV_DONTNEED);
            }
        }
    }

    fn page(&self, within: usize) -> NonNull<u8> {
        assert!(within < PAGES_PER_CHUNK);
        // SAFETY: the offset is inside the chunk's mapping.
        unsafe { self.base.add(within * PAGE_SIZE) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the borrow rules of `Arena` leave no reference into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), CHUNK_SIZE) };
    }
}

/// A set of the pages of one chunk.
struct Bitmap {
    words: [u64; PAGES_PER_CHUNK / 64],
    len: usize,
}

impl Bitmap {
    fn empty() -> Self {
        Self { words: [0; PAGES_PER_CHUNK / 64], len: 0 }
    }

    fn full() -> Self {
        Self { words: [u64::MAX; PAGES_PER_CHUNK / 64], len: PAGES_PER_CHUNK }
    }

    fn contains(&self, page: usize) -> bool {
        self.words[page / 64] & (1 << (page % 64)) != 0
    }

    fn insert(&mut self, page: usize) {
        self.len += usize::from(!self.contains(page));
        self.words[page / 64] |= 1 << (page % 64);
    }

    fn remove(&mut self, page: usize) {
        self.len -= usize::from(self.contains(page));
        self.words[page / 64] &= !(1 << (page % 64));
    }

    fn first(&self) -> Option<usize> {
        let word = self.words.iter().position(|&word| word != 0)?;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_distinct_and_keep_what_was_written() {
        let mut arena = Arena::new(None);
        let pages: Vec<Page> = (0..3 * PAGES_PER_CHUNK).map(|_| arena.allocate()).collect();
        for (number, page) in pages.iter().enumerate() {
            arena.bytes_mut(page).fill(number as u8 ^ (number >> 8) as u8);
        }
        for (number, page) in pages.iter().enumerate() {
            assert!(arena.bytes(page).iter().all(|&byte| byte == number as u8 ^ (number >> 8) as u8));
        }
        assert_eq!(arena.used(), pages.len());
    }

    #[test]
    fn memory_of_free_pages_stays_until_it_is_given_back() {
        let mut arena = Arena::new(None);
        for reverse in [false, true, false] {
            let mut pages: Vec<Page> = (0..5 * PAGES_PER_CHUNK).map(|_| arena.allocate()).collect();
            pages.iter().for_each(|page| arena.bytes_mut(page).fill(1));
            if reverse {
                pages.reverse();
            }
            let kept = pages.swap_remove(PAGES_PER_CHUNK);
            pages.into_iter().for_each(|page| arena.free(page));
            assert_eq!((arena.used(), arena.idle()), (1, 5 * PAGES_PER_CHUNK - 1));
            arena.give_back(PAGES_PER_CHUNK);
            assert!((1..=PAGES_PER_CHUNK).contains(&arena.idle()));
            assert_eq!(arena.bytes(&kept), &[1; PAGE_SIZE]);
            arena.free(kept);
            arena.give_back(0);
            assert_eq!((arena.idle(), arena.chunks.len()), (0, 0));
        }
    }

    #[test]
    fn surplus_is_what_was_idle_all_the_time() {
        let mut arena = Arena::new(None);
        let take = |arena: &mut Arena, pages| (0..pages).map(|_| arena.allocate()).collect::<Vec<_>>();
        let free = |arena: &mut Arena, pages: Vec<Page>| pages.into_iter().for_each(|page| arena.free(page));
        let pages = take(&mut arena, 4 * PAGES_PER_CHUNK);
        free(&mut arena, pages);
        arena.give_back_surplus();
        assert_eq!(arena.idle(), 4 * PAGES_PER_CHUNK);
        let pages = take(&mut arena, 3 * PAGES_PER_CHUNK);
        free(&mut arena, pages);
        arena.give_back_surplus();
        assert_eq!(arena.idle(), 3 * PAGES_PER_CHUNK);
        arena.give_back_surplus();
        assert_eq!(arena.idle(), 0);
    }

    #[test]
    fn after_a_huge_page_that_was_slow_small_ones_are_taken() {
        let mut arena = Arena::new(None);
        let take_chunk = |arena: &mut Arena| (0..PAGES_PER_CHUNK).map(|_| arena.allocate()).count();
        take_chunk(&mut arena);
        arena.small_next = SMALL_AFTER_SLOW;
        assert_eq!(
            (0..SMALL_AFTER_SLOW).map(|_| take_chunk(&mut arena)).sum::<usize>(),
            SMALL_AFTER_SLOW * PAGES_PER_CHUNK
        );
        assert_eq!(arena.small_next, 0);
    }

    #[test]
    fn freed_pages_are_used_again_and_the_others_stay() {
        let mut arena = Arena::new(None);
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
        let mut arena = Arena::new(Some(PhysicalNode(0)));
        let page = arena.allocate();
        arena.bytes_mut(&page)[0] = 1;
        assert_eq!(arena.bytes(&page)[0], 1);
    }
}
