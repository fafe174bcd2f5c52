//! The translations that one core keeps: a direct-mapped cache for each size of page.

use machines::address_space::{Area, Mapping, PageNumber, PageSize};

/// Entries for each size of page.
const ENTRIES: [usize; 3] = [1024, 256, 16];

/// To forget more pages than this, the whole TLB is flushed, which is cheaper than page by page.
const PAGES_SINGLY: u64 = 64;

pub(crate) struct Tlb {
    /// By size of page. Not allocated before the first translation.
    entries: [Box<[Option<Mapping>]>; 3],
    empty: bool,
}

impl Tlb {
    pub fn new() -> Self {
        Self { entries: Default::default(), empty: true }
    }

    pub fn is_empty(&self) -> bool {
        self.empty
    }

    pub fn lookup(&self, page: PageNumber) -> Option<Mapping> {
        if self.empty {
            return None;
        }
        PageSize::ALL.into_iter().find_map(|size| {
            let start = page.0 & !(size.pages() - 1);
            self.entries[size.level() as usize][index(start, size)].filter(|mapping| mapping.start.0 == start)
        })
    }

    pub fn insert(&mut self, mapping: Mapping) {
        if self.entries[0].is_empty() {
            self.entries = ENTRIES.map(|entries| vec![None; entries].into());
        }
        self.entries[mapping.page.level() as usize][index(mapping.start.0, mapping.page)] = Some(mapping);
        self.empty = false;
    }

    pub fn invalidate(&mut self, areas: &[Area]) {
        if areas.iter().map(Area::len).sum::<u64>() > PAGES_SINGLY {
            self.flush();
        } else if !self.empty {
            for page in areas.iter().flat_map(Area::pages) {
                for size in PageSize::ALL {
                    let start = page & !(size.pages() - 1);
                    let entry = &mut self.entries[size.level() as usize][index(start, size)];
                    *entry = entry.filter(|mapping| mapping.start.0 != start);
                }
            }
        }
    }

    pub fn flush(&mut self) {
        if !self.empty {
            self.entries.iter_mut().for_each(|entries| entries.fill(None));
            self.empty = true;
        }
    }
}

fn index(start: u64, size: PageSize) -> usize {
    (start / size.pages()) as usize % ENTRIES[size.level() as usize]
}
