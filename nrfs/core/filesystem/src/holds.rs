//! Who still uses an inode: the kernel, by its lookups, and whoever gives it a name.
//!
//! An inode that has lost its last name lives until nobody holds it. Which of the two comes last, the
//! last name or the last hold, is decided here under one lock, that of the inode's shard. From then on nobody can
//! hold it any more, until it has been dropped. Reads and writes hold nothing: they look at the tree afterwards.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, OccupiedEntry};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use machines::types::{Errno, Ino};

#[derive(Default)]
struct Hold {
    count: u64,
    /// How often it lost its last name, less how often it was given a first. Whoever changes the tree tells of it
    /// here later, so two may come in the other order.
    orphaned: i32,
    /// Somebody drops it just now.
    is_dying: bool,
}

type Shard = HashMap<Ino, Hold>;

/// The inodes that somebody holds.
pub(crate) struct Holds {
    /// Who holds inodes of one shard shares no cache line with who holds those of another.
    shards: [CachePadded<Mutex<Shard>>; Self::SHARDS],
    /// Inodes without a name that are not buried yet.
    orphans: CachePadded<AtomicUsize>,
}

impl Holds {
    /// Enough that threads rarely meet; a power of two.
    const SHARDS: usize = 64;

    /// Entries below which shrinking a shard is not worth it.
    const SMALL: usize = 64;

    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| CachePadded::default()), orphans: CachePadded::default() }
    }

    /// Whether there are inodes without a name that are not buried yet.
    pub fn has_orphans(&self) -> bool {
        self.orphans.load(Ordering::SeqCst) > 0
    }

    /// The inodes that are held while each shard is looked at.
    pub fn all(&self) -> impl Iterator<Item = Ino> + '_ {
        let of = |shard: &CachePadded<Mutex<Shard>>| -> Vec<Ino> {
            shard.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
        };
        self.shards.iter().flat_map(of)
    }

    /// Holds an inode `count` times more. ENOENT if it is dying.
    pub fn add(&self, ino: Ino, count: u64) -> Result<(), Errno> {
        let mut shard = self.shard(ino);
        let hold = shard.entry(ino).or_default();
        if hold.is_dying {
            return Err(Errno::ENOENT);
        }
        hold.count = hold.count.saturating_add(count);
        Ok(())
    }

    /// Gives up `count` holds. True if that was the last of an inode without a name: the caller drops
    /// it, and then calls [`bury`](Self::bury).
    #[must_use]
    pub fn remove(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino);
        let Entry::Occupied(mut entry) = shard.entry(ino) else { return false };
        let hold = entry.get_mut();
        hold.count = hold.count.saturating_sub(count);
        let dies = Self::conclude(entry);
        Self::shrink(&mut shard);
        dies
    }

    /// Notes that an inode lost its last name. True if nobody holds it: the caller drops it, and then
    /// calls [`bury`](Self::bury).
    #[must_use]
    pub fn orphan(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let mut entry = match shard.entry(ino) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => entry.insert_entry(Hold::default()),
        };
        self.lose_name(entry.get_mut());
        Self::conclude(entry)
    }

    /// Whether an inode dies of what has just changed. One of which there is nothing to know any more is forgotten; what
    /// was told too early is to be known.
    fn conclude(mut entry: OccupiedEntry<'_, Ino, Hold>) -> bool {
        let hold = entry.get_mut();
        if hold.is_dying || hold.count > 0 {
            return false;
        }
        hold.is_dying = hold.orphaned > 0;
        let dies = hold.is_dying;
        if hold.orphaned == 0 {
            entry.remove();
        }
        dies
    }

    /// Holds once an inode that was made without a name, and that nobody else knows yet.
    pub fn add_nameless(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let hold = shard.entry(ino).or_default();
        hold.count += 1;
        self.lose_name(hold);
    }

    /// Notes that an inode without a name, which the caller holds, was given one.
    pub fn adopt(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let Some(hold) = shard.get_mut(&ino) else { return };
        hold.orphaned -= 1;
        if hold.orphaned == 0 {
            self.orphans.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn lose_name(&self, hold: &mut Hold) {
        hold.orphaned += 1;
        if hold.orphaned == 1 {
            self.orphans.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Forgets an inode that has been dropped.
    pub fn bury(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        if shard.remove(&ino).is_some() {
            self.orphans.fetch_sub(1, Ordering::SeqCst);
        }
        Self::shrink(&mut shard);
    }

    fn shrink(shard: &mut Shard) {
        if shard.capacity() > Self::SMALL && shard.len() < shard.capacity() / 4 {
            shard.shrink_to(2 * shard.len());
        }
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
        holds.bury(ino);

        holds.add(ino, 2).unwrap();
        assert!(!holds.orphan(ino));
        assert!(!holds.remove(ino, 1));
        assert!(holds.remove(ino, 1));
        holds.bury(ino);

        holds.add(ino, 1).unwrap();
        assert!(!holds.remove(ino, 1));
        assert!(!holds.remove(ino, 1));
        assert!(holds.orphan(ino));
    }

    #[test]
    fn an_orphan_counts_until_it_is_buried() {
        let holds = Holds::new();
        let ino = Ino(5);
        holds.add(ino, 1).unwrap();
        assert!(!holds.has_orphans());
        assert!(!holds.orphan(ino));
        assert!(holds.remove(ino, 1));
        assert!(holds.has_orphans());
        holds.bury(ino);
        assert!(!holds.has_orphans());
    }

    #[test]
    fn a_name_given_to_an_inode_without_one_keeps_it_unless_it_is_lost_again() {
        let holds = Holds::new();
        let (kept, lost) = (Ino(5), Ino(6));
        holds.add_nameless(kept);
        holds.adopt(kept);
        assert!(!holds.has_orphans());
        assert!(!holds.remove(kept, 1));

        holds.add_nameless(lost);
        assert!(!holds.orphan(lost));
        holds.adopt(lost);
        assert!(holds.has_orphans());
        assert!(holds.remove(lost, 1));
    }

    #[test]
    fn a_name_may_be_given_before_it_is_told_that_there_is_none() {
        let holds = Holds::new();
        let ino = Ino(5);
        holds.add(ino, 1).unwrap();
        holds.adopt(ino);
        assert!(!holds.remove(ino, 1));
        holds.add_nameless(ino);
        assert!(!holds.has_orphans());
        assert!(!holds.remove(ino, 1));
        assert!(holds.orphan(ino));
        holds.bury(ino);

        holds.add(ino, 1).unwrap();
        holds.adopt(ino);
        assert!(!holds.remove(ino, 1));
        assert!(!holds.orphan(ino));
        assert!(holds.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn nobody_holds_what_is_dying() {
        let holds = Holds::new();
        let ino = Ino(5);
        assert!(holds.orphan(ino));
        assert_eq!(holds.add(ino, 1), Err(Errno::ENOENT));
        assert!(!holds.remove(ino, 1));
    }

    #[test]
    fn what_nobody_holds_leaves_no_memory_behind() {
        let holds = Holds::new();
        (0..100_000).for_each(|number| holds.add(Ino(number), 1).unwrap());
        (0..100_000).for_each(|number| assert!(!holds.remove(Ino(number), 1)));
        assert!(holds.shards.iter().all(|shard| shard.lock().unwrap().capacity() <= 2 * Holds::SMALL));
    }
}
