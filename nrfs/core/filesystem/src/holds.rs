//! Counts the holds on inodes: lookups that the kernel remembers, files that pyfuse3 has open, and links being made.
//!
//! An inode that has lost its last name is kept until its last hold is given up. The lock of the inode's shard decides
//! whether the name or the hold goes last. From then on the inode is *dying*, and takes no new hold until it has been
//! dropped. Reads and writes take no hold: they look at the tree afterwards.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, OccupiedEntry};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crossbeam_utils::CachePadded;
use machines::types::{Errno, Ino};

#[derive(Default)]
struct Hold {
    count: u64,
    /// How often the inode lost its last name, minus how often it was given a first one. Negative if one thread reports
    /// a new name here before another reports the loss: both report after they have changed the tree.
    orphaned: i32,
    /// Whether a thread is dropping the inode.
    is_dying: bool,
}

type Shard = HashMap<Ino, Hold>;

/// The holds on all inodes.
pub(crate) struct Holds {
    /// By inode number. Shards share no cache line.
    shards: [CachePadded<Mutex<Shard>>; Self::SHARDS],
    /// The number of inodes without a name that are not buried yet.
    orphans: CachePadded<AtomicUsize>,
    holder: OnceLock<Weak<dyn Holder>>,
}

/// Holds inodes on behalf of the kernel: the connection to it.
pub trait Holder: Send + Sync {
    /// Processes all FORGETs that the kernel has sent until now: gives up the holds.
    fn take_in_forgets(&self);

    /// Called when space has become scarce: from now on it must be promised before data is collected.
    fn space_is_scarce(&self);

    /// Called when attributes of an inode have changed that no reply tells the kernel of.
    fn forget_attributes(&self, ino: Ino);

    /// Calls `end` unless a file is open. Nobody opens it meanwhile.
    fn unless_open(&self, ino: Ino, end: &dyn Fn());
}

impl Holds {
    /// So many that threads rarely meet at one. A power of two.
    const SHARDS: usize = 64;

    /// A shard with room for no more entries than this is not shrunk.
    const SMALL: usize = 64;

    pub fn new() -> Self {
        let shards = std::array::from_fn(|_| CachePadded::default());
        Self { shards, orphans: CachePadded::default(), holder: OnceLock::new() }
    }

    /// Whether there are inodes without a name that are not buried yet.
    fn has_orphans(&self) -> bool {
        self.orphans.load(Ordering::SeqCst) > 0
    }

    /// Sets the holder for the kernel. Only the first call counts.
    pub fn set_holder(&self, holder: Weak<dyn Holder>) {
        // A file system has one mount.
        let _ = self.holder.set(holder);
    }

    pub fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.holder.get().and_then(Weak::upgrade)
    }

    /// Processes FORGETs that the kernel has sent, as they may free deleted files. Called before an operation is
    /// refused for lack of space. Returns false if no deleted inode is held: then no FORGET could free anything.
    pub fn take_in_forgets(&self) -> bool {
        let holder = self.holder().filter(|_| self.has_orphans());
        holder.inspect(|holder| holder.take_in_forgets()).is_some()
    }

    /// All inodes with holds. Shards are read one after the other, not at one moment.
    pub fn all(&self) -> impl Iterator<Item = Ino> + '_ {
        let of = |shard: &CachePadded<Mutex<Shard>>| -> Vec<Ino> {
            shard.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
        };
        self.shards.iter().flat_map(of)
    }

    /// Takes `count` holds. ENOENT if the inode is dying.
    pub fn add(&self, ino: Ino, count: u64) -> Result<(), Errno> {
        let mut shard = self.shard(ino);
        let hold = shard.entry(ino).or_default();
        if hold.is_dying {
            return Err(Errno::ENOENT);
        }
        hold.count = hold.count.saturating_add(count);
        Ok(())
    }

    /// Gives up `count` holds. Returns true if the inode is dying now, as it has no name: the caller must drop it, and
    /// then call [`bury`](Self::bury).
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

    /// Notes that an inode lost its last name. Returns true if the inode is dying now, as it has no holds: the caller
    /// must drop it, and then call [`bury`](Self::bury).
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

    /// Marks an inode without name and holds as dying; returns whether it did. Removes the entry if it says nothing any
    /// more. An entry with a negative count stays, for the loss that will be reported.
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

    /// Takes one hold on an inode that was just made without a name, which no other thread knows.
    pub fn add_nameless(&self, ino: Ino) {
        let mut shard = self.shard(ino);
        let hold = shard.entry(ino).or_default();
        hold.count += 1;
        self.lose_name(hold);
    }

    /// Notes that an inode without a name was given one. The caller has a hold on it.
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

    /// Ends a dying inode, after it has been dropped.
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
        // Each change is one step, so a panic cannot have left a hold half changed.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_dropped_once_when_its_last_name_or_its_last_hold_goes() {
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
    fn a_new_name_may_be_noted_before_the_loss_of_the_last_one() {
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
    fn a_dying_inode_takes_no_hold() {
        let holds = Holds::new();
        let ino = Ino(5);
        assert!(holds.orphan(ino));
        assert_eq!(holds.add(ino, 1), Err(Errno::ENOENT));
        assert!(!holds.remove(ino, 1));
    }

    #[test]
    fn inodes_without_holds_leave_no_memory_behind() {
        let holds = Holds::new();
        (0..100_000).for_each(|number| holds.add(Ino(number), 1).unwrap());
        (0..100_000).for_each(|number| assert!(!holds.remove(Ino(number), 1)));
        assert!(holds.shards.iter().all(|shard| shard.lock().unwrap().capacity() <= 2 * Holds::SMALL));
    }
}
