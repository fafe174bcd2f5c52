//! The entries of one directory.
//!
//! Entries are in slots, in the order of their cookies. An entry keeps its cookie as long as it exists. So a listing
//! that continues behind a cookie neither repeats nor skips an entry that has existed all the time, whatever else was
//! added or removed meanwhile. A new entry takes the lowest vacant slot: mostly one that a listing in progress has
//! passed, so that a program which renames what it lists comes to an end. An index of hashes finds an entry by name.
//!
//! A directory has at most two slots per entry, and a few more. If more are vacant, the entries close up: they move to
//! the lowest slots, and keep their cookies. Entries that are added later have higher cookies than all before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::types::{Ino, Name};

/// Where a listing continues: with the first entry that has a higher cookie.
///
/// 0 is the start, 1 is behind `.` and 2 behind `..`; these two entries are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(pub u64);

impl Cookie {
    /// Before the first entry.
    pub const START: Self = Self(0);
    pub(super) const BEHIND_SELF: Self = Self(1);
    pub(super) const BEHIND_PARENT: Self = Self(2);
}

/// A name and the inode it stands for.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: Name,
    pub ino: Ino,
}

pub(super) struct Directory {
    /// The directory that `..` leads to. The root is its own parent.
    pub parent: Ino,
    slots: Vec<Option<Entry>>,
    /// The cookies of the lowest slots, which closed up. Those of the slots behind count up by one.
    cookies: Vec<u64>,
    /// Slots that may be vacant, the lowest first. It may contain slots that no longer exist.
    vacant: BinaryHeap<Reverse<u32>>,
    index: HashTable<u32>,
    hasher: FixedState,
}

impl Directory {
    /// A directory with no more slots than this does not shrink. It is few, as every empty directory may have them.
    const SMALL: usize = 8;

    pub fn new(parent: Ino, hasher: FixedState) -> Self {
        let index = HashTable::new();
        Self { parent, slots: Vec::new(), cookies: Vec::new(), vacant: BinaryHeap::new(), index, hasher }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn get(&self, name: &Name) -> Option<Ino> {
        let slot = self.index.find(self.hash(name), |&slot| self.names(slot, name))?;
        self.entry(*slot).map(|entry| entry.ino)
    }

    /// Adds an entry. The directory must not have the name yet.
    pub fn insert(&mut self, name: Name, ino: Ino) {
        let hash = self.hash(&name);
        let slot = self.take_slot();
        self.slots[slot as usize] = Some(Entry { name, ino });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |&slot| hash_at(slots, hasher, slot));
    }

    /// Makes an existing name lead to another inode; returns the previous one.
    pub fn replace(&mut self, name: &Name, ino: Ino) -> Option<Ino> {
        let slot = *self.index.find(self.hash(name), |&slot| self.names(slot, name))?;
        self.slots[slot as usize].as_mut().map(|entry| std::mem::replace(&mut entry.ino, ino))
    }

    /// Removes the entry of that name; returns its inode.
    pub fn remove(&mut self, name: &Name) -> Option<Ino> {
        let hash = self.hash(name);
        let slots = &self.slots;
        let found =
            self.index.find_entry(hash, |&slot| matches!(&slots[slot as usize], Some(entry) if entry.name == *name));
        let (slot, _) = found.ok()?.remove();
        let removed = self.slots[slot as usize].take();
        self.vacate(slot);
        removed.map(|entry| entry.ino)
    }

    /// The entries behind `cookie`, each with its own cookie, behind which a listing continues.
    pub fn entries_behind(&self, cookie: Cookie) -> impl Iterator<Item = (Cookie, &Entry)> {
        let first = self.first_behind(cookie);
        self.slots
            .iter()
            .enumerate()
            .skip(first)
            .filter_map(|(slot, entry)| entry.as_ref().map(|entry| (self.cookie_behind(slot), entry)))
    }

    /// The cookie of the entry in a slot.
    fn cookie_behind(&self, slot: usize) -> Cookie {
        let counted = || self.last_cookie() + (slot + 1 - self.cookies.len()) as u64;
        Cookie(self.cookies.get(slot).copied().unwrap_or_else(counted))
    }

    /// The first slot whose cookie is higher than `cookie`.
    fn first_behind(&self, Cookie(cookie): Cookie) -> usize {
        match cookie.checked_sub(self.last_cookie()) {
            Some(beyond) => usize::try_from(beyond).unwrap_or(usize::MAX).saturating_add(self.cookies.len()),
            None => self.cookies.partition_point(|&known| known <= cookie),
        }
    }

    /// The highest cookie in `cookies`; those of the slots behind count up from it.
    fn last_cookie(&self) -> u64 {
        self.cookies.last().copied().unwrap_or(Cookie::BEHIND_PARENT.0)
    }

    fn hash(&self, name: &Name) -> u64 {
        self.hasher.hash_one(name.as_bytes())
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        self.slots[slot as usize].as_ref()
    }

    fn names(&self, slot: u32, name: &Name) -> bool {
        self.entry(slot).is_some_and(|entry| entry.name == *name)
    }

    /// Takes the lowest vacant slot, or a new one.
    fn take_slot(&mut self) -> u32 {
        while let Some(Reverse(slot)) = self.vacant.pop() {
            match self.slots.get(slot as usize) {
                Some(None) => return slot,
                Some(Some(_)) => {}
                // The slot no longer exists, nor do the others in `vacant`, which are higher.
                None => self.vacant.clear(),
            }
        }
        self.slots.push(None);
        self.slots.len() as u32 - 1
    }

    /// Notes that a slot is vacant. Removes vacant slots at the end; closes up if many are vacant.
    fn vacate(&mut self, slot: u32) {
        if slot as usize + 1 < self.slots.len() {
            self.vacant.push(Reverse(slot));
        } else {
            while let Some(None) = self.slots.last() {
                self.slots.pop();
            }
            self.cookies.truncate(self.slots.len());
        }
        if self.slots.len() > Self::SMALL.max(2 * self.len()) {
            self.close_up();
        }
        self.shrink();
    }

    /// Moves all entries to the lowest slots, with the cookies that they have.
    fn close_up(&mut self) {
        let taken = (0..self.slots.len()).filter(|&slot| self.slots[slot].is_some());
        self.cookies = taken.map(|slot| self.cookie_behind(slot).0).collect();
        self.slots.retain(Option::is_some);
        self.vacant.clear();
        self.index.clear();
        let (slots, hasher) = (&self.slots, &self.hasher);
        for slot in 0..slots.len() as u32 {
            self.index.insert_unique(hash_at(slots, hasher, slot), slot, |&slot| hash_at(slots, hasher, slot));
        }
    }

    /// Frees memory that was for many more slots than there are now. No answer depends on it.
    fn shrink(&mut self) {
        let few = Self::SMALL.max(2 * self.slots.len());
        if self.slots.capacity() <= 2 * few {
            return;
        }
        self.slots.shrink_to(few);
        self.cookies.shrink_to_fit();
        self.vacant.retain(|&Reverse(slot)| (slot as usize) < self.slots.len());
        self.vacant.shrink_to_fit();
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.shrink_to(few, |&slot| hash_at(slots, hasher, slot));
    }
}

/// The hash of the name in a slot, which must have an entry.
fn hash_at(slots: &[Option<Entry>], hasher: &FixedState, slot: u32) -> u64 {
    slots[slot as usize].as_ref().map_or(0, |entry| hasher.hash_one(entry.name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn name(number: usize) -> Name {
        Name::new(format!("entry-{number}").as_bytes()).unwrap()
    }

    fn directory(entries: usize) -> Directory {
        let mut directory = Directory::new(Ino::ROOT, FixedState::default());
        (0..entries).for_each(|number| directory.insert(name(number), Ino(number as u64 + 10)));
        directory
    }

    #[test]
    fn entries_are_found_by_name_until_they_are_removed() {
        let mut directory = directory(1000);
        for number in (0..1000).step_by(3) {
            assert_eq!(directory.remove(&name(number)), Some(Ino(number as u64 + 10)));
            assert_eq!(directory.remove(&name(number)), None);
        }
        for number in 0..1000 {
            let expected = (number % 3 != 0).then_some(Ino(number as u64 + 10));
            assert_eq!(directory.get(&name(number)), expected);
        }
        assert_eq!(directory.replace(&name(1), Ino(7)), Some(Ino(11)));
        assert_eq!(directory.get(&name(1)), Some(Ino(7)));
    }

    #[test]
    fn a_listing_neither_repeats_nor_skips_what_stayed() {
        let mut directory = directory(300);
        let mut seen = BTreeMap::new();
        let mut cookie = Cookie::START;
        let mut fresh = 1000;
        loop {
            let step: Vec<(Cookie, Name)> =
                directory.entries_behind(cookie).take(7).map(|(cookie, entry)| (cookie, entry.name.clone())).collect();
            let Some((last, _)) = step.last() else { break };
            cookie = *last;
            for (_, name) in step {
                *seen.entry(name).or_insert(0) += 1;
            }
            // Entries 0, 2, 4 ... are removed one by one, and new ones added.
            let victim = (fresh - 1000) * 2;
            if victim < 300 {
                directory.remove(&name(victim));
            }
            directory.insert(name(fresh), Ino(5));
            fresh += 1;
        }
        for stayed in (1..300).step_by(2) {
            assert_eq!(seen.get(&name(stayed)), Some(&1), "entry {stayed}");
        }
    }

    #[test]
    fn renaming_what_is_listed_comes_to_an_end() {
        let mut directory = directory(50);
        let mut cookie = Cookie::START;
        let mut renamed = 0;
        let next = |directory: &Directory, cookie| {
            directory.entries_behind(cookie).next().map(|(behind, entry)| (behind, entry.name.clone()))
        };
        while let Some((behind, old)) = next(&directory, cookie) {
            cookie = behind;
            let ino = directory.remove(&old).unwrap();
            directory.insert(name(100 + renamed), ino);
            renamed += 1;
        }
        assert_eq!(renamed, 50);
    }

    #[test]
    fn a_directory_that_is_emptied_gives_its_slots_back() {
        let mut directory = directory(10_000);
        for number in 0..10_000 {
            directory.remove(&name(number));
            directory.insert(name(number), Ino(1));
        }
        for number in (0..10_000).rev() {
            directory.remove(&name(number));
        }
        assert!(directory.is_empty());
        assert_eq!((directory.slots.len(), directory.vacant.len()), (0, 0));
        assert!(directory.slots.capacity() <= 2 * Directory::SMALL);
    }

    #[test]
    fn a_directory_of_which_one_entry_in_a_thousand_stays_gives_the_other_slots_back() {
        for order in [1, 7919] {
            let mut directory = directory(10_000);
            let gone = (0..10_000).map(|number| number * order % 10_000).filter(|number| number % 1000 != 999);
            gone.for_each(|number| assert!(directory.remove(&name(number)).is_some()));
            assert!(directory.slots.capacity() <= 4 * directory.len().max(Directory::SMALL));
            assert!(directory.vacant.capacity() + directory.cookies.capacity() <= 8 * Directory::SMALL);
            (0..10).for_each(|number| assert!(directory.get(&name(1000 * number + 999)).is_some()));
        }
    }

    #[test]
    fn a_listing_goes_on_where_it_was_though_the_entries_close_up() {
        let mut directory = directory(3000);
        let cookies: Vec<(Cookie, Name)> =
            directory.entries_behind(Cookie::START).map(|(cookie, entry)| (cookie, entry.name.clone())).collect();
        let behind = |directory: &Directory, cookie| {
            directory.entries_behind(cookie).map(|(_, entry)| entry.name.clone()).collect::<Vec<_>>()
        };
        for (round, number) in (0..3000).filter(|number| number % 50 != 7).enumerate() {
            directory.remove(&name(number));
            if round % 100 == 0 {
                let (cookie, _) = cookies[number];
                let stayed: Vec<Name> = cookies[number + 1..].iter().map(|(_, name)| name.clone()).collect();
                assert_eq!(behind(&directory, cookie), stayed);
            }
        }
        assert!(!directory.cookies.is_empty());
        let (last, _) = directory.entries_behind(Cookie::START).last().unwrap();
        directory.insert(name(5000), Ino(1));
        directory.insert(name(5001), Ino(1));
        assert_eq!(behind(&directory, last), [name(5000), name(5001)]);
        assert_eq!(directory.entries_behind(Cookie::START).count(), 62);
        assert!(directory.entries_behind(Cookie(u64::MAX)).next().is_none());
    }
}
