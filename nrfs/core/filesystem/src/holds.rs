//! Who still uses an inode: the kernel's lookups, open files, operations that are running.
//!
//! An inode that has lost its last name lives until nobody holds it. Which of the two comes last, the
//! last name or the last hold, is decided here under one lock for each inode.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use machines::types::Ino;

#[derive(Default)]
struct Hold {
    count: u64,
    is_orphan: bool,
}

type Shard = HashMap<Ino, Hold>;

/// The inodes that somebody holds.
pub(crate) struct Holds {
    shards: [Mutex<Shard>; Self::SHARDS],
}

impl Holds {
    /// Enough that threads rarely meet; a power of two.
    const SHARDS: usize = 64;

    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Holds an inode `count` times more.
    pub fn add(&self, ino: Ino, count: u64) {
        self.shard(ino).entry(ino).or_default().count += count;
    }

    /// Gives up `count` holds. True if that was the last of an inode without a name: the caller drops it.
    #[must_use]
    pub fn remove(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino);
        let Entry::Occupied(mut hold) = shard.entry(ino) else { return false };
        hold.get_mut().count = hold.get().count.saturating_sub(count);
        hold.get().count == 0 && hold.remove().is_orphan
    }

    /// Notes that an inode lost its last name. True if nobody holds it: the caller drops it.
    #[must_use]
    pub fn orphan(&self, ino: Ino) -> bool {
        match self.shard(ino).get_mut(&ino) {
            Some(hold) => hold.is_orphan = true,
            None => return true,
        }
        false
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[ino.0 as usize % Self::SHARDS];
        // A hold is changed in one step, so a panic elsewhere cannot have left it half done.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_dropped_once_by_whichever_comes_last() {
        let holds = Holds::new();
        let ino = Ino(5);
        assert!(holds.orphan(ino));

        holds.add(ino, 2);
        assert!(!holds.orphan(ino));
        assert!(!holds.remove(ino, 1));
        assert!(holds.remove(ino, 1));

        holds.add(ino, 1);
        assert!(!holds.remove(ino, 1));
        assert!(!holds.remove(ino, 1));
        assert!(holds.orphan(ino));
    }
}
