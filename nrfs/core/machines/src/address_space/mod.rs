//! An address space: regions of pages, and the page table that translates them.
//!
//! From the bottom up:
//!
//! - `address`: addresses, areas of pages, rights, and errors;
//! - `regions`: which areas are mapped, and with which rights;
//! - `page_table`: four levels, pages of 4 KiB, 2 MiB and 1 GiB;
//! - `operation`: the operations and their answers;
//! - this file: regions and page table together.
//!
//! Frames are granted before an operation is logged: the operation names them, and answers which frames it freed. So
//! all replicas map a page to the same frame, and run out of frames at the same operation. The frames of one operation
//! are contiguous. So an operation owns no memory, and is small: every replica fetches it from another node's cache.

mod address;
mod operation;
mod page_table;
mod regions;

use std::ops::Range;

use nr::Dispatch;

use crate::digest::{Digest, Digester};
pub use address::{Area, Error, PAGE_SHIFT, PageNumber, PageSize, Rights, Run};
pub use operation::{Change, Changed, Response, Runs, WriteOperation};
pub use page_table::Mapping;
use page_table::{Entry, PageTable, Update};
use regions::Regions;

/// An address space, or the part of it that one log changes.
pub struct AddressSpace {
    regions: Regions,
    table: PageTable,
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self { regions: Regions::default(), table: PageTable::new() }
    }
}

impl Dispatch for AddressSpace {
    type WriteOperation = WriteOperation;
    type Response = Response;

    fn dispatch_mut(&mut self, operation: &WriteOperation) -> Response {
        let WriteOperation { area, change } = operation;
        match change {
            Change::Map { page, rights, first, owned, replace } => {
                self.map(area, *page, *rights, *first, *owned, *replace)
            }
            Change::Unmap => Ok(self.unmap(area)),
            Change::Protect { rights } => self.protect(area, *rights),
        }
    }
}

/// Reading.
impl AddressSpace {
    /// The mapping that translates an address; [`Error::NotMapped`] if there is none.
    pub fn resolve(&self, address: u64) -> Result<Mapping, Error> {
        self.table.walk(PageNumber::of(address)?).ok_or(Error::NotMapped)
    }

    /// All regions in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = (Range<u64>, Rights)> {
        self.regions.all()
    }

    /// The regions that have pages of an area, cut to it, in ascending order.
    pub fn regions_within(&self, area: &Area) -> impl Iterator<Item = (Range<u64>, Rights)> {
        self.regions.within(area)
    }

    /// All pages of the table in ascending order.
    pub fn pages(&self) -> Vec<Mapping> {
        let mut pages = Vec::new();
        self.table.visit(&Area::ALL_PAGES, &mut |mapping| pages.push(mapping));
        pages
    }

    /// The frames behind the mapped pages of an area, in the order of the pages: runs, each with its first page.
    pub fn frames_within(&self, area: &Area) -> Vec<(PageNumber, Run)> {
        let mut pieces: Vec<(PageNumber, Run)> = Vec::new();
        self.table.visit(&area.pages(), &mut |mapping| {
            let Some(seen) = area.intersection(&(mapping.start.0..mapping.start.0 + mapping.page.pages())) else {
                return;
            };
            let start = seen.pages().start;
            let first = mapping.frame + (start - mapping.start.0);
            match pieces.last_mut() {
                Some((page, run)) if page.0 + run.frames == start && run.first + run.frames == first => {
                    run.frames += seen.len();
                }
                _ => pieces.push((PageNumber(start), Run { first, frames: seen.len() })),
            }
        });
        pieces
    }

    /// The digest of all regions and pages.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::default();
        for (pages, rights) in self.regions.all() {
            digester.number(pages.start);
            digester.number(pages.end);
            digester.number(u64::from(rights.bits()));
        }
        self.table.visit(&Area::ALL_PAGES, &mut |mapping| {
            digester.number(mapping.start.0);
            digester.number(mapping.page.pages());
            digester.number(mapping.frame);
            digester.number(u64::from(mapping.rights.bits()) << 1 | u64::from(mapping.owned));
        });
        digester.finish()
    }
}

/// Changing. Every check comes before the first change.
impl AddressSpace {
    fn map(&mut self, area: &Area, page: PageSize, rights: Rights, first: u64, owned: bool, replace: bool) -> Response {
        if !area.is_aligned(page) || first & (page.pages() - 1) != 0 {
            return Err(Error::Unaligned);
        }
        let mapped = !self.regions.are_clear_of(area);
        if mapped && !replace {
            return Err(Error::Overlapping);
        }
        let changed = if mapped { self.unmap(area) } else { Changed::default() };
        for start in area.pages().step_by(page.pages() as usize) {
            let frame = first + (start - area.pages().start);
            self.table.insert(start, page, Entry::page(frame, rights, owned));
        }
        self.regions.insert(area, rights);
        Ok(changed)
    }

    fn unmap(&mut self, area: &Area) -> Changed {
        let mut changed = Changed::default();
        self.table.update(&area.pages(), &Update::Remove, &mut |entry, frames| {
            changed.outdated += frames;
            if entry.is_owned() {
                changed.free(Run { first: entry.number(), frames });
            }
        });
        self.regions.remove(area);
        changed
    }

    fn protect(&mut self, area: &Area, rights: Rights) -> Response {
        if !self.regions.cover(area) {
            return Err(Error::NotMapped);
        }
        let mut changed = Changed::default();
        self.table.update(&area.pages(), &Update::Protect(rights), &mut |entry, frames| {
            changed.outdated += if entry.rights() == rights { 0 } else { frames };
        });
        self.regions.remove(area);
        self.regions.insert(area, rights);
        Ok(changed)
    }
}
