//! The four-level page table: from page numbers to frames.
//!
//! It has the shape of x86-64's. Each table has 512 entries of 64 bits. An entry is empty, or leads to a table one
//! level below, or is a page: of 4 KiB at level 0, of 2 MiB at level 1, of 1 GiB at level 2. If a part of a large page
//! is unmapped or gets other rights, the page is first split into 512 smaller ones.
//!
//! Tables refer to each other by number. A table that becomes empty is kept for reuse.

use std::ops::Range;

use super::address::{PAGE_SHIFT, PageNumber, PageSize, Rights, TABLE_SHIFT};

const ENTRIES: usize = 1 << TABLE_SHIFT;
const ROOT: usize = 0;
const ROOT_LEVEL: u32 = 3;

/// The translation of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The number of its first 4 KiB page.
    pub start: PageNumber,
    /// Its size.
    pub page: PageSize,
    /// The number of its first frame.
    pub frame: u64,
    /// How it may be used.
    pub rights: Rights,
    /// Whether its frames are freed with the mapping.
    pub owned: bool,
}

impl Mapping {
    /// The physical address of an address in the page.
    pub fn physical(&self, address: u64) -> u64 {
        (self.frame << PAGE_SHIFT) + (address & (self.page.bytes() - 1))
    }
}

/// An entry of a table. From the lowest bit: present, page (not table), owned, three bits of rights; from bit 12
/// on, the number of the frame or table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    const EMPTY: Self = Self(0);
    const PRESENT: u64 = 1;
    const PAGE: u64 = 2;
    const OWNED: u64 = 4;
    const RIGHTS_SHIFT: u32 = 3;
    const NUMBER_SHIFT: u32 = 12;

    fn table(number: usize) -> Self {
        Self((number as u64) << Self::NUMBER_SHIFT | Self::PRESENT)
    }

    pub fn page(frame: u64, rights: Rights, owned: bool) -> Self {
        let owned = if owned { Self::OWNED } else { 0 };
        let rights = u64::from(rights.bits()) << Self::RIGHTS_SHIFT;
        Self(frame << Self::NUMBER_SHIFT | rights | owned | Self::PAGE | Self::PRESENT)
    }

    fn is_page(self) -> bool {
        self.0 & Self::PAGE != 0
    }

    pub fn number(self) -> u64 {
        self.0 >> Self::NUMBER_SHIFT
    }

    pub fn rights(self) -> Rights {
        Rights::from_bits((self.0 >> Self::RIGHTS_SHIFT) as u8)
    }

    pub fn is_owned(self) -> bool {
        self.0 & Self::OWNED != 0
    }
}

/// What [`PageTable::update`] does with a page.
pub(super) enum Update {
    Remove,
    Protect(Rights),
}

/// The tables of one address space.
pub(super) struct PageTable {
    tables: Vec<[Entry; ENTRIES]>,
    /// How many entries of each table are not empty.
    used: Vec<u16>,
    /// Empty tables, for reuse.
    vacant: Vec<usize>,
}

impl PageTable {
    pub fn new() -> Self {
        Self { tables: vec![[Entry::EMPTY; ENTRIES]], used: vec![0], vacant: Vec::new() }
    }

    /// The translation of `page`, if it is mapped.
    pub fn walk(&self, page: PageNumber) -> Option<Mapping> {
        let mut table = ROOT;
        for level in (0..=ROOT_LEVEL).rev() {
            let entry = self.tables[table][index(page.0, level)];
            if entry == Entry::EMPTY {
                return None;
            }
            if entry.is_page() {
                return Some(mapping(entry, page.0, level));
            }
            table = entry.number() as usize;
        }
        None
    }

    /// Makes `entry` the page of size `size` that begins at page `start`. Nothing must be mapped there.
    pub fn insert(&mut self, start: u64, size: PageSize, entry: Entry) {
        let mut table = ROOT;
        for level in (size.level() + 1..=ROOT_LEVEL).rev() {
            let index = index(start, level);
            let next = self.tables[table][index];
            table = if next == Entry::EMPTY {
                let new = self.new_table();
                self.set(table, index, Entry::table(new));
                new
            } else {
                next.number() as usize
            };
        }
        self.set(table, index(start, size.level()), entry);
    }

    /// Updates all pages in `pages`; calls `visit` for each, with its old entry and its number of frames. First splits
    /// large pages of which only a part is in `pages`.
    pub fn update(&mut self, pages: &Range<u64>, update: &Update, visit: &mut impl FnMut(Entry, u64)) {
        self.update_table(ROOT, ROOT_LEVEL, 0, pages, update, visit);
    }

    fn update_table(
        &mut self,
        table: usize,
        level: u32,
        base: u64,
        pages: &Range<u64>,
        update: &Update,
        visit: &mut impl FnMut(Entry, u64),
    ) {
        let span = span(level);
        for (index, start) in entries(level, base, pages) {
            let mut entry = self.tables[table][index];
            if entry == Entry::EMPTY {
                continue;
            }
            if entry.is_page() {
                if pages.start <= start && start + span <= pages.end {
                    visit(entry, span);
                    let updated = match *update {
                        Update::Remove => Entry::EMPTY,
                        Update::Protect(rights) => Entry::page(entry.number(), rights, entry.is_owned()),
                    };
                    self.set(table, index, updated);
                    continue;
                }
                entry = self.split(table, index, level);
            }
            let below = entry.number() as usize;
            self.update_table(below, level - 1, start, pages, update, visit);
            if self.used[below] == 0 {
                self.set(table, index, Entry::EMPTY);
                self.vacant.push(below);
            }
        }
    }

    /// Replaces a large page by a table of 512 smaller ones; returns the entry of that table.
    fn split(&mut self, table: usize, index: usize, level: u32) -> Entry {
        let entry = self.tables[table][index];
        let below = self.new_table();
        let frames = 1 << (TABLE_SHIFT * (level - 1));
        for part in 0..ENTRIES {
            let frame = entry.number() + part as u64 * frames;
            self.tables[below][part] = Entry::page(frame, entry.rights(), entry.is_owned());
        }
        self.used[below] = ENTRIES as u16;
        self.tables[table][index] = Entry::table(below);
        Entry::table(below)
    }

    /// Calls `visit` for all pages that have a part in `pages`, in ascending order.
    pub fn visit(&self, pages: &Range<u64>, visit: &mut impl FnMut(Mapping)) {
        self.visit_table(ROOT, ROOT_LEVEL, 0, pages, visit);
    }

    fn visit_table(&self, table: usize, level: u32, base: u64, pages: &Range<u64>, visit: &mut impl FnMut(Mapping)) {
        for (index, start) in entries(level, base, pages) {
            let entry = self.tables[table][index];
            if entry == Entry::EMPTY {
                continue;
            }
            if entry.is_page() {
                visit(mapping(entry, start, level));
            } else {
                self.visit_table(entry.number() as usize, level - 1, start, pages, visit);
            }
        }
    }

    fn new_table(&mut self) -> usize {
        self.vacant.pop().unwrap_or_else(|| {
            self.tables.push([Entry::EMPTY; ENTRIES]);
            self.used.push(0);
            self.tables.len() - 1
        })
    }

    fn set(&mut self, table: usize, index: usize, entry: Entry) {
        let place = &mut self.tables[table][index];
        let used = &mut self.used[table];
        *used += u16::from(entry != Entry::EMPTY);
        *used -= u16::from(*place != Entry::EMPTY);
        *place = entry;
    }
}

/// How many pages of 4 KiB an entry at a level covers.
fn span(level: u32) -> u64 {
    1 << (TABLE_SHIFT * level)
}

/// The entries with a part in `pages`, of the table whose first page is `base`: their indices and first pages.
fn entries(level: u32, base: u64, pages: &Range<u64>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let span = span(level);
    let first = pages.start.saturating_sub(base) / span;
    let end = (pages.end - base).div_ceil(span).min(ENTRIES as u64);
    (first..end).map(move |index| (index as usize, base + index * span))
}

fn index(page: u64, level: u32) -> usize {
    (page >> (TABLE_SHIFT * level)) as usize % ENTRIES
}

fn mapping(entry: Entry, page: u64, level: u32) -> Mapping {
    let size = PageSize::ALL[level as usize % PageSize::ALL.len()];
    Mapping {
        start: PageNumber(page & !(size.pages() - 1)),
        page: size,
        frame: entry.number(),
        rights: entry.rights(),
        owned: entry.is_owned(),
    }
}
