//! The map of regions: pages next to each other with the same rights.
//!
//! Regions never overlap, and two that touch have different rights, or the hole in the middle of the
//! address space between them. So the map is the same however it came about.

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
    /// The regions that have pages of `area`, cut to it, in ascending order.
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

    /// How many pages of `area` are in regions.
    pub fn covered(&self, area: &Area) -> u64 {
        self.within(area).map(|(pages, _)| pages.end - pages.start).sum()
    }

    /// Takes the pages of `area` out of their regions, which are split where a part stays.
    pub fn remove(&mut self, area: &Area) {
        let Range { start, end } = area.pages();
        self.split(start);
        self.split(end);
        while let Some((&first, _)) = self.0.range(start..end).next() {
            self.0.remove(&first);
        }
    }

    /// Makes the pages of `area`, none of which is in a region, part of one.
    pub fn insert(&mut self, area: &Area, rights: Rights) {
        let Range { mut start, mut end } = area.pages();
        if let Some((&first, before)) = self.0.range(..start).next_back() {
            if before.end == start && before.rights == rights && is_inside_a_half(start) {
                start = first;
            }
        }
        if let Some(behind) = self.0.get(&end).filter(|behind| behind.rights == rights && is_inside_a_half(end)) {
            let behind_end = behind.end;
            self.0.remove(&end);
            end = behind_end;
        }
        self.0.insert(start, Region { end, rights });
    }

    /// Splits the region that has pages on both sides of `at`, if there is one.
    fn split(&mut self, at: u64) {
        if let Some((_, region)) = self.0.range_mut(..at).next_back() {
            if region.end > at {
                let behind = *region;
                region.end = at;
                self.0.insert(at, behind);
            }
        }
    }
}
