//! The map of regions: contiguous pages with the same rights.
//!
//! Regions never overlap. Two adjacent ones have different rights, or the hole in the middle of the address
//! space is between them. So the map depends only on which pages are mapped with which rights.

use std::collections::BTreeMap;
use std::ops::Range;

use super::address::{Area, Rights, is_inside_a_half};

#[derive(Clone, Copy)]
struct Region {
    end: u64,
    rights: Rights,
}

/// All regions, by their first pages.
#[derive(Default)]
pub(super) struct Regions(BTreeMap<u64, Region>);

impl Regions {
    /// The parts of regions that lie in `area`, in ascending order.
    pub fn within(&self, area: &Area) -> impl Iterator<Item = (Range<u64>, Rights)> {
        let Range { start, end } = area.pages();
        let reaching_in = self.0.range(..start).next_back();
        reaching_in
            .into_iter()
            .chain(self.0.range(start..end))
            .map(move |(&first, region)| (first.max(start)..region.end.min(end), region.rights))
            .filter(|(pages, _)| pages.start < pages.end)
    }

    /// All regions.
    pub fn all(&self) -> impl Iterator<Item = (Range<u64>, Rights)> {
        self.0.iter().map(|(&start, region)| (start..region.end, region.rights))
    }

    /// Whether no page of `area` is in a region.
    pub fn are_clear_of(&self, area: &Area) -> bool {
        let Range { start, end } = area.pages();
        self.0.range(..end).next_back().is_none_or(|(_, last)| last.end <= start)
    }

    /// Whether all pages of `area` are in regions.
    pub fn cover(&self, area: &Area) -> bool {
        let Range { start, end } = area.pages();
        let mut covered = end;
        for (&first, region) in self.0.range(..end).rev() {
            if region.end < covered {
                return false;
            }
            covered = first;
            if covered <= start {
                return true;
            }
        }
        false
    }

    /// Removes the pages of `area` from all regions.
    pub fn remove(&mut self, area: &Area) {
        let Range { start, end } = area.pages();
        while let Some((&first, region)) = self.0.range_mut(..end).next_back() {
            let whole = *region;
            if whole.end <= start {
                break;
            }
            if first < start {
                region.end = start;
            } else {
                self.0.remove(&first);
            }
            if whole.end > end {
                self.0.insert(end, whole);
            }
            if first <= start {
                break;
            }
        }
    }

    /// Adds the pages of `area`, none of which is in a region. Joins them with adjacent regions.
    pub fn insert(&mut self, area: &Area, rights: Rights) {
        let Range { start, mut end } = area.pages();
        let joins = |at: u64, region: &Region| region.rights == rights && is_inside_a_half(at);
        if let Some(behind) = self.0.get(&end).filter(|behind| joins(end, behind)) {
            let behind_end = behind.end;
            self.0.remove(&end);
            end = behind_end;
        }
        match self.0.range_mut(..start).next_back() {
            Some((_, before)) if before.end == start && joins(start, before) => before.end = end,
            _ => drop(self.0.insert(start, Region { end, rights })),
        }
    }
}
