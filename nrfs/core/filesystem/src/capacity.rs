//! How much is left: pages of file content, and the space of inodes, of which all takes that is in the tree.
//!
//! Space is granted before an operation enters the log and the operation carries its grant, so that
//! running out is decided once and every replica agrees. A grant is the most that an operation could
//! need; what it did not take comes back when it has run. So one that is refused while others are still
//! running tries again: see [`Grant::might_grow`].

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use machines::namespace::{HEAP_PER_SPACE, INODE_SPACE};
use machines::types::Errno;
use memory::{PAGE_SIZE, shortage};

/// The memory of the space of inodes is noted as taken by so many bytes of it.
const NOTED: u64 = 1 << 20;

/// The most that there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub pages: u64,
    pub inodes: u64,
}

/// What is used of it.
pub(crate) struct Ledger {
    limits: Limits,
    /// Pages in files, and pages granted.
    pages: AtomicU64,
    /// Pages granted to operations that are still running.
    granted: AtomicU64,
    /// How often an operation gave back a part of its grant.
    returns: AtomicU64,
    /// Bytes of the space of inodes. For a moment they can be fewer than none: where something that took more than was
    /// granted for it is gone again before it is settled.
    inode_space: AtomicI64,
    /// Each has its own memory.
    replicas: u64,
}

/// What statvfs(3) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes in a block; space is used in whole blocks.
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

/// Pages that an operation may take.
pub(crate) struct Grant<'a> {
    ledger: &'a Ledger,
    pages: u64,
    /// The number of returns seen before it was asked for.
    returns: u64,
}

impl Ledger {
    /// Nothing used but the root's inode.
    pub fn new(limits: Limits, replicas: u64) -> Self {
        Self {
            limits,
            pages: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            returns: AtomicU64::new(0),
            inode_space: AtomicI64::new(INODE_SPACE as i64),
            replicas,
        }
    }

    /// Grants `wanted` pages, or as many as are left.
    pub fn grant(&self, wanted: u64) -> Grant<'_> {
        let returns = self.returns.load(Ordering::SeqCst);
        self.granted.fetch_add(wanted, Ordering::SeqCst);
        let left = |used: u64| wanted.min(self.limits.pages - used);
        let before = self.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| Some(used + left(used)));
        let pages = before.map_or(0, left);
        self.granted.fetch_sub(wanted - pages, Ordering::SeqCst);
        Grant { ledger: self, pages, returns }
    }

    /// Grants `wanted` pages, or as many as are left, of which `promised` are taken from a promise: they are in use.
    pub fn grant_with(&self, promised: u64, wanted: u64) -> Grant<'_> {
        let mut grant = self.grant(wanted - promised);
        self.granted.fetch_add(promised, Ordering::SeqCst);
        grant.pages += promised;
        grant
    }

    /// Takes `wanted` pages if so many are left, and `kept` more; none otherwise.
    pub fn take_pages(&self, wanted: u64, kept: u64) -> bool {
        let all = self.limits.pages;
        let take = |used: u64| (wanted.saturating_add(kept) <= all - used).then(|| used + wanted);
        self.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Pages that are left.
    pub fn left(&self) -> u64 {
        self.limits.pages - self.pages.load(Ordering::Relaxed)
    }

    /// Pages granted to operations that are still running.
    pub fn granted(&self) -> u64 {
        self.granted.load(Ordering::SeqCst)
    }

    /// Takes back pages that an operation freed.
    pub fn free_pages(&self, pages: u64) {
        self.pages.fetch_sub(pages, Ordering::SeqCst);
    }

    /// Takes space of inodes.
    pub fn take_inode_space(&self, bytes: u64) -> Result<(), Errno> {
        if bytes == 0 {
            return Ok(());
        }
        let all = signed(self.limits.inodes.saturating_mul(INODE_SPACE));
        let take = |used: i64| used.checked_add(signed(bytes)).filter(|&used| used <= all);
        let taken = self.inode_space.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let before = taken.map_err(|_| Errno::ENOSPC)?.max(0) as u64;
        if before / NOTED != (before + bytes) / NOTED {
            shortage::taken(NOTED * HEAP_PER_SPACE * self.replicas);
        }
        Ok(())
    }

    /// Ends what space was taken for: `returned` of it is free again, or was not needed; and `taken` is used by now.
    pub fn settle_inode_space(&self, returned: u64, taken: u64) {
        if returned != taken {
            self.inode_space.fetch_add(signed(taken) - signed(returned), Ordering::SeqCst);
        }
    }

    /// What is left now.
    pub fn capacity(&self) -> Capacity {
        let inodes = (self.inode_space.load(Ordering::SeqCst).max(0) as u64).div_ceil(INODE_SPACE);
        Capacity {
            block_size: PAGE_SIZE as u64,
            blocks: self.limits.pages,
            blocks_free: self.limits.pages - self.pages.load(Ordering::SeqCst),
            inodes: self.limits.inodes,
            inodes_free: self.limits.inodes.saturating_sub(inodes),
        }
    }
}

/// A number of bytes that can be subtracted. There are never more than this holds.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Grant<'_> {
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether the same request might be granted more now, because of what others gave back or still
    /// may give back. Only then is it worth another try.
    pub fn might_grow(&self) -> bool {
        self.ledger.granted.load(Ordering::SeqCst) > self.pages
            || self.ledger.returns.load(Ordering::SeqCst) != self.returns
    }

    /// Ends the grant: `taken` of its pages are in files now.
    pub fn settle(mut self, taken: u64) {
        self.give_back(self.pages - taken);
        self.ledger.granted.fetch_sub(taken, Ordering::SeqCst);
        self.pages = 0;
    }

    fn give_back(&self, pages: u64) {
        if pages > 0 {
            self.ledger.pages.fetch_sub(pages, Ordering::SeqCst);
            self.ledger.returns.fetch_add(1, Ordering::SeqCst);
            self.ledger.granted.fetch_sub(pages, Ordering::SeqCst);
        }
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.give_back(self.pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { pages: 10, inodes: 2 };

    #[test]
    fn a_grant_never_exceeds_what_is_left_and_what_is_not_taken_comes_back() {
        let ledger = Ledger::new(LIMITS, 1);
        let first = ledger.grant(8);
        let second = ledger.grant(8);
        assert_eq!((first.pages(), second.pages()), (8, 2));
        assert!(second.might_grow());
        first.settle(3);
        assert!(second.might_grow());
        second.settle(2);
        assert_eq!(ledger.capacity().blocks_free, 5);
        let last = ledger.grant(8);
        assert_eq!(last.pages(), 5);
        assert!(!last.might_grow());
        drop(last);
        ledger.free_pages(5);
        assert_eq!(ledger.capacity().blocks_free, 10);
    }

    #[test]
    fn pages_are_taken_all_or_none_and_some_can_be_kept() {
        let ledger = Ledger::new(LIMITS, 1);
        assert!(ledger.take_pages(4, 6));
        assert!(!ledger.take_pages(4, 3));
        assert!(!ledger.take_pages(u64::MAX, 1));
        assert_eq!(ledger.left(), 6);
        assert!(ledger.take_pages(6, 0));
    }

    #[test]
    fn inodes_run_out_and_come_back() {
        let ledger = Ledger::new(LIMITS, 1);
        assert_eq!(ledger.take_inode_space(INODE_SPACE), Ok(()));
        assert_eq!(ledger.take_inode_space(1), Err(Errno::ENOSPC));
        ledger.settle_inode_space(INODE_SPACE, 0);
        assert_eq!(ledger.capacity().inodes_free, 1);
    }

    #[test]
    fn an_inode_that_is_in_use_in_part_is_not_free() {
        let ledger = Ledger::new(LIMITS, 1);
        assert_eq!(ledger.take_inode_space(1), Ok(()));
        assert_eq!(ledger.capacity().inodes_free, 0);
        assert_eq!(ledger.take_inode_space(INODE_SPACE), Err(Errno::ENOSPC));
        assert_eq!(ledger.take_inode_space(INODE_SPACE - 1), Ok(()));
    }
}
