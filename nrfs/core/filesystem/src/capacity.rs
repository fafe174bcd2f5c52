//! The space of a file system, and the inode space in use: bytes for everything in the tree.
//!
//! Inode space is granted before an operation enters the log: so whether it has run out is decided once, and all
//! replicas agree.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use machines::namespace::{HEAP_PER_SPACE, INODE_SPACE};
use machines::types::Errno;
use memory::shortage;

/// Memory for inode space is reported to [`shortage`] each time that the inode space in use passes a multiple of this.
const NOTED: u64 = 1 << 20;

/// The space of a file system, as statvfs(3) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes in a block. Files use whole blocks.
    pub block_size: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes that can still be made.
    pub inodes_free: u64,
}

/// Counts the inode space that is used.
pub(crate) struct InodeSpace {
    /// The most inodes.
    limit: AtomicU64,
    /// How many replicas have the tree.
    replicas: u64,
    /// Bytes in use. Negative for a moment if an inode that took more than its grant is dropped before the operation
    /// that made it has been closed.
    used: AtomicI64,
}

impl InodeSpace {
    /// Space for `limit` inodes, in which only the root's is used.
    pub fn new(limit: u64, replicas: usize) -> Self {
        Self { limit: AtomicU64::new(limit), replicas: replicas as u64, used: AtomicI64::new(INODE_SPACE as i64) }
    }

    /// The most inodes.
    pub fn inodes(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Inodes that can still be made.
    pub fn inodes_free(&self) -> u64 {
        self.inodes().saturating_sub(self.inodes_used())
    }

    fn inodes_used(&self) -> u64 {
        (self.used.load(Ordering::SeqCst).max(0) as u64).div_ceil(INODE_SPACE)
    }

    /// Changes the limit. Returns false, and changes nothing, if more inode space is in use. What an operation takes at
    /// the same time may exceed the new limit.
    pub fn resize(&self, limit: u64) -> bool {
        let fits = self.inodes_used() <= limit;
        if fits {
            self.limit.store(limit, Ordering::Relaxed);
        }
        fits
    }

    /// Takes `bytes` of inode space. ENOSPC, and takes none, if there is not enough.
    pub fn take(&self, bytes: u64) -> Result<(), Errno> {
        if bytes == 0 {
            return Ok(());
        }
        let all = signed(self.inodes().saturating_mul(INODE_SPACE));
        let take = |used: i64| used.checked_add(signed(bytes)).filter(|&used| used <= all);
        let taken = self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let before = taken.map_err(|_| Errno::ENOSPC)?.max(0) as u64;
        if before / NOTED != (before + bytes) / NOTED {
            shortage::taken(NOTED * HEAP_PER_SPACE * self.replicas);
        }
        Ok(())
    }

    /// Ends an operation that inode space was taken for. `returned` bytes are free again: those granted and those that
    /// the operation freed. `taken` bytes are used by the operation.
    pub fn close(&self, returned: u64, taken: u64) {
        if returned != taken {
            self.used.fetch_add(signed(taken) - signed(returned), Ordering::SeqCst);
        }
    }
}

/// Bytes as a signed number. Larger numbers than it can hold do not occur.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_run_out_and_come_back() {
        let space = InodeSpace::new(2, 1);
        assert_eq!(space.take(INODE_SPACE), Ok(()));
        assert_eq!(space.take(1), Err(Errno::ENOSPC));
        space.close(INODE_SPACE, 0);
        assert_eq!(space.inodes_free(), 1);
    }

    #[test]
    fn the_limit_can_be_changed_but_not_below_what_is_in_use() {
        let space = InodeSpace::new(5, 1);
        assert_eq!(space.take(INODE_SPACE + 1), Ok(()));
        assert!(!space.resize(2));
        assert_eq!((space.inodes(), space.inodes_free()), (5, 2));
        assert!(space.resize(3));
        assert_eq!((space.inodes_free(), space.take(INODE_SPACE)), (0, Err(Errno::ENOSPC)));
        assert!(space.resize(4));
        assert_eq!(space.take(INODE_SPACE), Ok(()));
    }

    #[test]
    fn an_inode_that_is_in_use_in_part_is_not_free() {
        let space = InodeSpace::new(2, 1);
        assert_eq!(space.take(1), Ok(()));
        assert_eq!(space.inodes_free(), 0);
        assert_eq!(space.take(INODE_SPACE), Err(Errno::ENOSPC));
        assert_eq!(space.take(INODE_SPACE - 1), Ok(()));
    }
}
