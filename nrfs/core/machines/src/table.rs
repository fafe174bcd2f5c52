//! A map from inode numbers to what a machine knows about each inode.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::types::Ino;

/// A map from inode numbers. Each value is boxed, so that the table's unused places cost little. The table
/// shrinks when most of its values are removed.
pub(crate) struct Table<T> {
    entries: HashMap<Ino, Box<T>, FixedState>,
}

impl<T> Table<T> {
    /// A table with room for no more entries than this does not shrink.
    const SMALL: usize = 1024;

    pub fn new() -> Self {
        Self { entries: HashMap::with_hasher(FixedState::default()) }
    }

    pub fn get(&self, ino: Ino) -> Option<&T> {
        self.entries.get(&ino).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, ino: Ino) -> Option<&mut T> {
        self.entries.get_mut(&ino).map(Box::as_mut)
    }

    pub fn get_or_insert_with(&mut self, ino: Ino, make: impl FnOnce() -> T) -> &mut T {
        self.entries.entry(ino).or_insert_with(|| Box::new(make()))
    }

    pub fn insert(&mut self, ino: Ino, value: T) {
        self.entries.insert(ino, Box::new(value));
    }

    pub fn remove(&mut self, ino: Ino) -> Option<Box<T>> {
        let removed = self.entries.remove(&ino);
        if self.entries.capacity() > Self::SMALL && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(2 * self.entries.len());
        }
        removed
    }

    /// All inodes in the order of their numbers, which is the same on every replica.
    pub fn sorted(&self) -> Vec<(Ino, &T)> {
        let mut all: Vec<(Ino, &T)> = self.entries.iter().map(|(&ino, value)| (ino, value.as_ref())).collect();
        all.sort_unstable_by_key(|&(ino, _)| ino);
        all
    }
}
