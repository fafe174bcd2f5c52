//! Chunks, in which memory is taken from the system: 2 MiB in one mapping each. That is the size of a huge page, so
//! that filling a file costs one fault for 512 pages.

use std::ptr::NonNull;

use crate::mapping::{map_aligned, prefer_node, unmap};
use crate::{PAGE_SIZE, PhysicalNode, shortage};

pub(crate) const PAGES_PER_CHUNK: usize = 512;
pub(crate) const CHUNK_SIZE: usize = PAGE_SIZE * PAGES_PER_CHUNK;

/// One mapping of [`CHUNK_SIZE`] bytes, and the state of its pages.
pub(crate) struct Chunk {
    base: NonNull<u8>,
    free: Bitmap,
    /// Free pages that may still hold memory.
    pub idle: Bitmap,
    pub used: usize,
}

// SAFETY: a chunk owns its mapping; nothing about it belongs to a thread.
unsafe impl Send for Chunk {}
// SAFETY: through `&Chunk` the mapping is only read.
unsafe impl Sync for Chunk {}

impl Chunk {
    pub fn map(physical: Option<PhysicalNode>, huge: bool) -> Self {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let map = || map_aligned(CHUNK_SIZE, CHUNK_SIZE, 0, rights);
        let base = map().or_else(|_| {
            shortage::give_up_content();
            map()
        });
        let base = base.expect("there is memory for file content that was granted");
        shortage::taken(CHUNK_SIZE as u64);
        if let Some(node) = physical {
            prefer_node(base, CHUNK_SIZE, node);
        }
        let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the range is our own mapping. Advice may be refused (a kernel without huge pages).
        unsafe { libc::madvise(base.cast(), CHUNK_SIZE, advice) };
        let base = NonNull::new(base).expect("mmap does not map page zero");
        Self { base, free: Bitmap::full(), idle: Bitmap::empty(), used: 0 }
    }

    /// Has the system supply all memory of the chunk now, which is cheaper than page by page. If the system refuses,
    /// each page gets its memory when it is first touched.
    pub fn populate(&mut self) {
        const MADV_POPULATE_WRITE: libc::c_int = 23;
        // SAFETY: the range is our own mapping, and its contents stay.
        unsafe { libc::madvise(self.base.as_ptr().cast(), CHUNK_SIZE, MADV_POPULATE_WRITE) };
        self.idle = Bitmap::full();
    }

    /// Takes a free page, preferably one that still has memory. There must be a free one.
    pub fn take(&mut self) -> usize {
        let page = self.idle.first().or_else(|| self.free.first()).expect("a vacant chunk has a free page");
        self.free.remove(page);
        self.idle.remove(page);
        self.used += 1;
        page
    }

    pub fn give_back(&mut self, page: usize) {
        assert!(!self.free.contains(page), "a page is freed once");
        self.free.insert(page);
        self.idle.insert(page);
        self.used -= 1;
    }

    /// Gives the memory of all idle pages back to the system. The chunk gets no huge pages from then on, with which the
    /// kernel would fill the holes again.
    pub fn release_idle(&mut self) {
        // SAFETY: the range is our own mapping. Advice may be refused (a kernel without huge pages).
        unsafe { libc::madvise(self.base.as_ptr().cast(), CHUNK_SIZE, libc::MADV_NOHUGEPAGE) };
        while let Some(first) = self.idle.first() {
            let mut end = first;
            while end < PAGES_PER_CHUNK && self.idle.contains(end) {
                self.idle.remove(end);
                end += 1;
            }
            // A part of a huge page stays with it until the system needs memory, and counts as ours so long. The first
            // advice makes small pages of it.
            for advice in [libc::MADV_FREE, libc::MADV_DONTNEED] {
                // SAFETY: the run lies in our mapping and none of its pages is in use.
                unsafe { libc::madvise(self.page(first).as_ptr().cast(), (end - first) * PAGE_SIZE, advice) };
            }
        }
    }

    pub fn page(&self, within: usize) -> NonNull<u8> {
        assert!(within < PAGES_PER_CHUNK);
        // SAFETY: the offset is inside the chunk's mapping.
        unsafe { self.base.add(within * PAGE_SIZE) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the borrow rules of `Arena` leave no reference into it.
        unsafe { unmap(self.base.as_ptr(), CHUNK_SIZE) };
    }
}

/// A set of the pages of one chunk.
pub(crate) struct Bitmap {
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

    pub fn len(&self) -> usize {
        self.len
    }
}
