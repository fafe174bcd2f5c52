//! The bytes of one file: pages with data, and holes between them.
//!
//! A page may be reserved: it takes space but no memory, reads as zeros, and gets memory when it is written.
//!
//! The part of the last page behind the end of the file is zero, so that the file can grow without touching it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use memory::{Arena, PAGE_SIZE, Page};

use crate::digest::Digester;
use crate::types::Time;

/// A page's place in a file: its offset in units of [`PAGE_SIZE`].
type PageNumber = u64;

const PAGE: u64 = PAGE_SIZE as u64;

/// One file's bytes, size, and the times that change with them.
pub(super) struct File {
    pub size: u64,
    pub modified: Time,
    pub changed: Time,
    /// All pages that take space; `None` for one that is reserved.
    pages: BTreeMap<PageNumber, Option<Page>>,
}

/// What a write may take.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    /// New pages.
    pub pages: u64,
    /// Whether reserved pages may get memory.
    pub fills: bool,
}

/// The part of one page that a range of bytes covers.
struct Span {
    page: PageNumber,
    within: Range<usize>,
}

impl Span {
    /// The spans of a range, in order.
    fn all(range: Range<u64>) -> impl Iterator<Item = Self> {
        let mut offset = range.start;
        std::iter::from_fn(move || {
            (offset < range.end).then(|| {
                let page = offset / PAGE;
                let end = range.end.min((page + 1) * PAGE);
                let within = (offset - page * PAGE) as usize..(end - page * PAGE) as usize;
                offset = end;
                Self { page, within }
            })
        })
    }
}

/// The pages that a range of bytes touches.
pub(super) fn pages_touched(range: &Range<u64>) -> Range<PageNumber> {
    if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) }
}

/// The pages that lie wholly in a range of bytes.
fn pages_covered(range: &Range<u64>) -> Range<PageNumber> {
    let (start, end) = (range.start.div_ceil(PAGE), range.end / PAGE);
    start..end.max(start)
}

impl File {
    pub fn new(time: Time) -> Self {
        Self { size: 0, modified: time, changed: time, pages: BTreeMap::new() }
    }

    /// Pages that take space.
    pub fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// How many pages of `range` take no space.
    pub fn missing(&self, range: &Range<u64>) -> u64 {
        let touched = pages_touched(range);
        let there = self.pages.range(touched.clone()).count() as u64;
        touched.end - touched.start - there
    }

    /// Whether a page takes space.
    pub fn takes(&self, page: PageNumber) -> bool {
        self.pages.contains_key(&page)
    }

    /// Copies from the file into `buffer`, from `offset` to the file's end at most; returns the bytes copied.
    pub fn read(&self, arena: &Arena, offset: u64, buffer: &mut [u8]) -> usize {
        let length = self.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let range = offset..offset + length as u64;
        let mut rest = &mut buffer[..length];
        let mut pages = self.pages.range(pages_touched(&range)).peekable();
        for span in Span::all(range) {
            let (part, behind) = rest.split_at_mut(span.within.len());
            match pages.next_if(|&(&number, _)| number == span.page) {
                Some((_, Some(page))) => part.copy_from_slice(&arena.bytes(page)[span.within]),
                Some((_, None)) | None => part.fill(0),
            }
            rest = behind;
        }
        length
    }

    /// Copies `data` into the file, from `offset` on, as far as the grant suffices. Returns the bytes copied
    /// and the pages taken.
    pub fn write(&mut self, arena: &mut Arena, offset: u64, data: &[u8], grant: Grant) -> (usize, u64) {
        let (mut written, mut taken) = (0, 0);
        for span in Span::all(offset..offset + data.len() as u64) {
            let part = &data[written..written + span.within.len()];
            let page = match self.pages.entry(span.page) {
                Entry::Occupied(page) if grant.fills || page.get().is_some() => page.into_mut(),
                Entry::Vacant(hole) if taken < grant.pages => {
                    taken += 1;
                    hole.insert(None)
                }
                Entry::Occupied(_) | Entry::Vacant(_) => break,
            };
            let is_fresh = page.is_none();
            let page = page.get_or_insert_with(|| arena.allocate());
            let bytes = arena.bytes_mut(page);
            if is_fresh {
                bytes[..span.within.start].fill(0);
                bytes[span.within.end..].fill(0);
            }
            bytes[span.within].copy_from_slice(part);
            written += part.len();
        }
        if written > 0 {
            self.size = self.size.max(offset + written as u64);
        }
        (written, taken)
    }

    /// Makes the file end at `size`; returns the pages freed.
    pub fn truncate(&mut self, arena: &mut Arena, size: u64) -> u64 {
        let freed = if size <= self.size { self.punch(arena, size..u64::MAX) } else { 0 };
        self.size = size;
        freed
    }

    /// Reserves the pages of `range` that take no space yet; returns how many.
    pub fn reserve(&mut self, range: &Range<u64>) -> u64 {
        let before = self.pages();
        for number in pages_touched(range) {
            self.pages.entry(number).or_default();
        }
        self.pages() - before
    }

    /// Zeroes the parts of pages with memory that lie in `range`.
    pub fn zero(&mut self, arena: &mut Arena, range: Range<u64>) {
        for (&number, page) in self.pages.range(pages_touched(&range)) {
            let Some(page) = page else { continue };
            let start = range.start.saturating_sub(number * PAGE).min(PAGE) as usize;
            let end = (range.end - number * PAGE).min(PAGE) as usize;
            arena.bytes_mut(page)[start..end].fill(0);
        }
    }

    /// Makes a hole; returns the pages freed.
    pub fn punch(&mut self, arena: &mut Arena, range: Range<u64>) -> u64 {
        let covered = pages_covered(&range);
        // The pages at the edges, which `range` covers only partly.
        let edges =
            [pages_touched(&(range.start..range.start.saturating_add(1))), pages_touched(&(range.end - 1..range.end))];
        for number in edges.into_iter().map(|edge| edge.start).filter(|number| !covered.contains(number)) {
            let page = number * PAGE..(number + 1).saturating_mul(PAGE);
            self.zero(arena, range.start.max(page.start)..range.end.min(page.end));
        }
        let numbers: Vec<PageNumber> = self.pages.range(covered).map(|(&number, _)| number).collect();
        let freed = numbers.iter().filter_map(|number| self.pages.remove(number));
        freed.map(|page| page.map(|page| arena.free(page))).count() as u64
    }

    /// The first offset at or behind `offset` in a page with data.
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        let (&number, _) = self.pages.range(offset / PAGE..).find(|(_, page)| page.is_some())?;
        Some(offset.max(number * PAGE)).filter(|&data| data < self.size)
    }

    /// The first offset at or behind `offset` in a page without data, or else the file's end. `None` if `offset` is not
    /// before the end.
    pub fn next_hole(&self, offset: u64) -> Option<u64> {
        if offset >= self.size {
            return None;
        }
        let mut hole = offset / PAGE;
        for (&number, page) in self.pages.range(hole..) {
            if number != hole || page.is_none() {
                break;
            }
            hole += 1;
        }
        Some(offset.max(hole * PAGE).min(self.size))
    }

    /// Gives all pages back; returns how many took space.
    pub fn clear(mut self, arena: &mut Arena) -> u64 {
        let freed = self.pages();
        std::mem::take(&mut self.pages).into_values().flatten().for_each(|page| arena.free(page));
        freed
    }

    pub fn feed(&self, arena: &Arena, digester: &mut Digester) {
        digester.number(self.size);
        digester.time(self.modified);
        digester.time(self.changed);
        digester.number(self.pages());
        for (&number, page) in &self.pages {
            digester.number(number);
            digester.bytes(page.as_ref().map_or(&[], |page| arena.bytes(page)));
        }
    }
}
