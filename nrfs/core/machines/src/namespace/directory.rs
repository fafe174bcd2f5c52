//! The entries of one directory.
//!
//! Entries sit in slots, and an entry keeps its slot for as long as it lives: so the slot's number is
//! a stable cookie, and a listing that goes on behind a cookie neither repeats nor skips an entry that
//! stayed, whatever came and went meanwhile. New entries take the lowest vacant slot, behind a
//! listing in progress rather than before it, so that a program that renames what it lists comes to an
//! end. An index of hashes finds an entry by name.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::types::{Ino, Name};

/// Where a listing goes on.
///
/// 0 is the start, 1 lies behind `.` and 2 behind `..`, which are not stored.
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
    /// Where `..` leads. The root is its own parent.
    pub parent: Ino,
    slots: Vec<Option<Entry>>,
    /// Slots that may be vacant, the lowest first. Some have been taken again or cut off since.
    vacant: BinaryHeap<Reverse<u32>>,
    index: HashTable<u32>,
    hasher: FixedState,
}

impl Directory {
    /// Slots below which shrinking is not worth it.
    const SMALL: usize = 64;

    pub fn new(parent: Ino, hasher: FixedState) -> Self {
        Self { parent, slots: Vec::new(), vacant: BinaryHeap::new(), index: HashTable::new(), hasher }
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

    /// Adds an entry. Its name must not be there yet.
    pub fn insert(&mut self, name: Name, ino: Ino) {
        let hash = self.hash(&name);
        let slot = self.take_slot();
        self.slots[slot as usize] = Some(Entry { name, ino });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |&slot| match &slots[slot as usize] {
            Some(entry) => hasher.hash_one(entry.name.as_bytes()),
            None => 0,
        });
    }

    /// Lets an existing name stand for another inode, and returns the one before.
    pub fn replace(&mut self, name: &Name, ino: Ino) -> Option<Ino> {
        let slot = *self.index.find(self.hash(name), |&slot| self.names(slot, name))?;
        self.slots[slot as usize].as_mut().map(|entry| std::mem::replace(&mut entry.ino, ino))
    }

    /// Removes the entry of that name, and returns the inode it stood for.
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

    /// The entries behind `cookie`, each with the cookie that lies behind it.
    pub fn entries_behind(&self, cookie: Cookie) -> impl Iterator<Item = (Cookie, &Entry)> {
        let first = usize::try_from(cookie.0.saturating_sub(Cookie::BEHIND_PARENT.0)).unwrap_or(usize::MAX);
        self.slots.iter().enumerate().skip(first).filter_map(|(slot, entry)| {
            let behind = Cookie(slot as u64 + 1 + Cookie::BEHIND_PARENT.0);
            entry.as_ref().map(|entry| (behind, entry))
        })
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

    /// The lowest vacant slot.
    fn take_slot(&mut self) -> u32 {
        while let Some(Reverse(slot)) = self.vacant.pop() {
            match self.slots.get(slot as usize) {
                Some(None) => return slot,
                Some(Some(_)) => {}
                // All that follow are higher still.
                None => self.vacant.clear(),
            }
        }
        self.slots.push(None);
        self.slots.len() as u32 - 1
    }

    /// Notes that a slot is free; free slots at the end go altogether.
    fn vacate(&mut self, slot: u32) {
        if slot as usize + 1 < self.slots.len() {
            self.vacant.push(Reverse(slot));
            return;
        }
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        if self.slots.is_empty() {
            self.vacant = BinaryHeap::new();
        }
        if self.slots.capacity() > Self::SMALL && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(2 * self.slots.len());
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.index.shrink_to(2 * self.index.len(), |&slot| match &slots[slot as usize] {
                Some(entry) => hasher.hash_one(entry.name.as_bytes()),
                None => 0,
            });
        }
    }
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
            // Entries 0, 2, 4 ... go one after the other, others come.
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
        assert!(directory.slots.capacity() <= Directory::SMALL);
    }
}
