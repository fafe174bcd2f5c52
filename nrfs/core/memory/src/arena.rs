//! Pages of one node's memory.
//!
//! Pages come in chunks of 2 MiB, each one mapping: the size of a huge page, so that filling a file
//! costs one fault in 512. The lowest free page is taken first, which leaves the upper chunks to be
//! given back to the system. Freed pages go back once they are many next to those in use, and in
//! runs: a file that is replaced over and over finds its memory still there.

use std::collections::BTreeSet;
use std::ptr::NonNull;

use crate::PhysicalNode;
use crate::mapping::{map_aligned, prefer_node};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

const PAGES_PER_CHUNK: usize = 512;
const CHUNK_SIZE: usize = PAGE_SIZE * PAGES_PER_CHUNK;

/// A chunk is worth a call to the system when this many of its free pages hold memory.
const RECLAIMABLE_PAGES: usize = 64;

/// Free pages may hold memory up to this fraction of the pages in use.
const USED_PER_IDLE: usize = 16;

/// A page of an [`Arena`]: the right to use it, without the memory itself.
///
/// It cannot be copied, so a page has one user. Give it back with [`Arena::free`]: dropped, it stays
/// taken until the arena goes.
#[derive(Debug)]
pub struct Page(u32);

/// Pages of one node. The contents of a page just allocated are arbitrary.
pub struct Arena {
    physical: Option<PhysicalNode>,
    chunks: Vec<Option<Chunk>>,
    /// The chunks with at least one free page, mapped or not.
    vacant: BTreeSet<usize>,
    /// The chunks with at least [`RECLAIMABLE_PAGES`] idle pages, or with no other pages.
    reclaimable: BTreeSet<usize>,
    /// Free pages that may hold memory, in all chunks.
    idle: usize,
    used: usize,
}

impl Arena {
    /// An empty arena whose memory will be on `physical`, or wherever it is first touched.
    pub fn new(physical: Option<PhysicalNode>) -> Self {
        Self { physical, chunks: Vec::new(), vacant: BTreeSet::new(), reclaimable: BTreeSet::new(), idle: 0, used: 0 }
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
        let physical = self.physical;
        // The first chunk stays in small pages: a nearly empty arena is to cost nearly nothing.
        let chunk = self.chunks[index].get_or_insert_with(|| Chunk::map(physical, index > 0));
        let idle_before = chunk.idle.len();
        let page = chunk.take();
        if chunk.idle.len() < RECLAIMABLE_PAGES {
            self.reclaimable.remove(&index);
        }
        self.idle -= idle_before - chunk.idle.len();
        self.used += 1;
        if chunk.used == PAGES_PER_CHUNK {
            self.vacant.remove(&index);
        }
        Page(u32::try_from(index * PAGES_PER_CHUNK + page).expect("an arena has fewer than 2^32 pages"))
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
        if chunk.idle.len() >= RECLAIMABLE_PAGES || chunk.used == 0 {
            self.reclaimable.insert(index);
        }
        while self.idle > RECLAIMABLE_PAGES + self.used / USED_PER_IDLE {
            let Some(index) = self.reclaimable.pop_last() else { break };
            self.reclaim(index);
        }
    }

    /// Gives the idle memory of one chunk back to the system.
    fn reclaim(&mut self, index: usize) {
        let Some(chunk) = &mut self.chunks[index] else { return };
        self.idle -= chunk.idle.len();
        if chunk.used > 0 || index == 0 {
            chunk.release_idle();
            return;
        }
        self.chunks[index] = None;
        while let Some(None) = self.chunks.last() {
            self.chunks.pop();
            self.vacant.remove(&self.chunks.len());
        }
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
    /// The chunk, and the page's number in it.
    fn place(&self) -> (usize, usize) {
        (self.0 as usize / PAGES_PER_CHUNK, self.0 as usize % PAGES_PER_CHUNK)
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

    fn take(&mut self) -> usize {
        let page = self.free.first().expect("a vacant chunk has a free page");
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
    fn an_arena_that_is_emptied_gives_its_memory_back() {
        let mut arena = Arena::new(None);
        for reverse in [false, true, false] {
            let mut pages: Vec<Page> = (0..5 * PAGES_PER_CHUNK).map(|_| arena.allocate()).collect();
            pages.iter().for_each(|page| arena.bytes_mut(page).fill(1));
            if reverse {
                pages.reverse();
            }
            pages.into_iter().for_each(|page| arena.free(page));
            assert_eq!(arena.used(), 0);
            assert!(arena.idle <= RECLAIMABLE_PAGES);
            assert!(arena.chunks.iter().flatten().count() <= 2);
        }
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
