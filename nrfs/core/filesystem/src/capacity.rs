//! How much is left: pages of file content, and the space of inodes, of which all takes that is in the tree.
//!
//! Space is granted before an operation enters the log and the operation carries its grant, so that
//! running out is decided once and every replica agrees. A grant is the most that an operation could
//! need; what it did not take comes back when it has run. So one that is refused while others are still
//! running tries again: see [`Grant::might_grow`].
//!
//! Each node has *credit*: pages that are taken for it in advance, so that most grants touch no memory that other nodes
//! write. Where so little is left that credit could be missed, it is called in from all nodes, and grants are made one by
//! one from what is left: a file system of N pages holds N pages.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use machines::namespace::{HEAP_PER_SPACE, INODE_SPACE};
use machines::types::Errno;
use memory::{PAGE_SIZE, shortage};
use nr::NodeId;

/// The memory of the space of inodes is noted as taken by so many bytes of it.
const NOTED: u64 = 1 << 20;

/// Pages that a node takes in advance at the most.
const CREDIT_MAX: u64 = 1024;

/// The credit of all nodes together is no more than this part of all pages.
const CREDIT_PART: u64 = 64;

/// The most that there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub pages: u64,
    pub inodes: u64,
}

/// What is used of it.
pub(crate) struct Ledger {
    limits: Limits,
    /// Pages in files, pages granted, and credit.
    pages: AtomicU64,
    accounts: Box<[CachePadded<Account>]>,
    /// Pages that a node takes in advance.
    credit: u64,
    /// Held by who gives credit, or calls it in.
    crediting: Mutex<()>,
    /// Bytes of the space of inodes. For a moment they can be fewer than none: where something that took more than was
    /// granted for it is gone again before that is known.
    inode_space: AtomicI64,
}

/// What is one node's.
#[derive(Default)]
struct Account {
    /// Pages that can be granted.
    credit: AtomicU64,
    /// Pages granted to operations that are still running.
    granted: AtomicU64,
    /// How often an operation gave back a part of its grant.
    returns: AtomicU64,
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
    account: &'a Account,
    pages: u64,
    /// The number of returns seen before it was asked for, if it was not granted whole at once.
    returns: Option<u64>,
}

impl Account {
    /// Takes pages from the credit, if so many are there.
    fn take(&self, pages: u64) -> bool {
        let take = |credit: u64| credit.checked_sub(pages);
        pages == 0 || self.credit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

impl Ledger {
    /// Nothing used but the root's inode.
    pub fn new(limits: Limits, nodes: usize) -> Self {
        Self {
            limits,
            pages: AtomicU64::new(0),
            accounts: (0..nodes).map(|_| CachePadded::default()).collect(),
            credit: (limits.pages / CREDIT_PART / nodes as u64).min(CREDIT_MAX),
            crediting: Mutex::default(),
            inode_space: AtomicI64::new(INODE_SPACE as i64),
        }
    }

    /// Grants `wanted` pages to an operation of a node, or as many as are left.
    pub fn grant(&self, node: NodeId, wanted: u64) -> Grant<'_> {
        let account = &*self.accounts[node.0];
        account.granted.fetch_add(wanted, Ordering::SeqCst);
        if account.take(wanted) {
            return Grant { ledger: self, account, pages: wanted, returns: None };
        }
        let crediting = self.crediting();
        let returns = self.returns();
        // Beside what is wanted, and left for others: then nobody's credit is missed.
        let plenty = 2 * self.credit * self.accounts.len() as u64;
        let pages = if self.credit > 0 && self.take(wanted + self.credit, plenty) {
            account.credit.fetch_add(self.credit, Ordering::SeqCst);
            wanted
        } else {
            self.call_in(&crediting);
            let left = |used: u64| wanted.min(self.limits.pages - used);
            let before = self.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| Some(used + left(used)));
            before.map_or(0, left)
        };
        account.granted.fetch_sub(wanted - pages, Ordering::SeqCst);
        Grant { ledger: self, account, pages, returns: Some(returns) }
    }

    /// Grants `wanted` pages, or as many as are left, of which `promised` are taken from a promise: they are in use.
    pub fn grant_with(&self, node: NodeId, promised: u64, wanted: u64) -> Grant<'_> {
        let mut grant = self.grant(node, wanted - promised);
        grant.account.granted.fetch_add(promised, Ordering::SeqCst);
        grant.pages += promised;
        grant
    }

    /// Takes `wanted` pages if so many are left, and `kept` more; none otherwise.
    pub fn take_pages(&self, wanted: u64, kept: u64) -> bool {
        self.call_in(&self.crediting());
        self.take(wanted, kept)
    }

    fn take(&self, wanted: u64, kept: u64) -> bool {
        let all = self.limits.pages;
        let take = |used: u64| (wanted.saturating_add(kept) <= all - used).then(|| used + wanted);
        self.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    fn crediting(&self) -> MutexGuard<'_, ()> {
        // It protects no data that could be half changed.
        self.crediting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all credit back.
    fn call_in(&self, _: &MutexGuard<'_, ()>) {
        for account in &self.accounts {
            if account.credit.load(Ordering::SeqCst) > 0 {
                self.pages.fetch_sub(account.credit.swap(0, Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }

    /// Pages that are left.
    pub fn left(&self) -> u64 {
        // What is called in between the two looks is counted once, or not at all.
        let uncredited = self.left_at_least();
        (uncredited + self.sum(|account| &account.credit)).min(self.limits.pages)
    }

    /// The same without what is credited: it touches no memory that every operation writes.
    pub fn left_at_least(&self) -> u64 {
        self.limits.pages - self.pages.load(Ordering::SeqCst)
    }

    /// Pages granted to operations that are still running.
    pub fn granted(&self) -> u64 {
        self.sum(|account| &account.granted)
    }

    fn returns(&self) -> u64 {
        self.sum(|account| &account.returns)
    }

    fn sum(&self, of: impl Fn(&Account) -> &AtomicU64) -> u64 {
        self.accounts.iter().map(|account| of(account).load(Ordering::SeqCst)).sum()
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
            shortage::taken(NOTED * HEAP_PER_SPACE * self.accounts.len() as u64);
        }
        Ok(())
    }

    /// Ends what space was taken for: `returned` of it is free again, or was not needed; and `taken` is used by now.
    pub fn close_inode_space(&self, returned: u64, taken: u64) {
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
            blocks_free: self.left(),
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
        self.ledger.granted() > self.pages || self.returns.is_some_and(|returns| self.ledger.returns() != returns)
    }

    /// Ends the grant: `taken` of its pages are in files now.
    pub fn close(mut self, taken: u64) {
        self.give_back(self.pages - taken);
        if taken > 0 {
            self.account.granted.fetch_sub(taken, Ordering::SeqCst);
        }
        self.pages = 0;
    }

    /// Gives pages back, as credit, unless the node has enough of that. Until then they count as granted.
    fn give_back(&self, pages: u64) {
        if pages == 0 {
            return;
        }
        if self.account.credit.load(Ordering::SeqCst) + pages <= 2 * self.ledger.credit {
            self.account.credit.fetch_add(pages, Ordering::SeqCst);
        } else {
            self.ledger.pages.fetch_sub(pages, Ordering::SeqCst);
        }
        self.account.returns.fetch_add(1, Ordering::SeqCst);
        self.account.granted.fetch_sub(pages, Ordering::SeqCst);
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

    const NODE: NodeId = NodeId(0);
    const LIMITS: Limits = Limits { pages: 10, inodes: 2 };

    #[test]
    fn a_grant_never_exceeds_what_is_left_and_what_is_not_taken_comes_back() {
        let ledger = Ledger::new(LIMITS, 1);
        let first = ledger.grant(NODE, 8);
        let second = ledger.grant(NODE, 8);
        assert_eq!((first.pages(), second.pages()), (8, 2));
        assert!(second.might_grow());
        first.close(3);
        assert!(second.might_grow());
        second.close(2);
        assert_eq!(ledger.capacity().blocks_free, 5);
        let last = ledger.grant(NODE, 8);
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
    fn credit_is_called_in_when_another_node_needs_it() {
        let ledger = Ledger::new(Limits { pages: 1000, inodes: 1 }, 2);
        ledger.grant(NODE, 3).close(1);
        assert!(ledger.left_at_least() < 999);
        assert_eq!(ledger.left(), 999);
        let rest = ledger.grant(NodeId(1), 1000);
        assert_eq!((rest.pages(), ledger.left()), (999, 0));
        assert_eq!(ledger.grant(NODE, 1).pages(), 0);
        drop(rest);
        assert!(ledger.take_pages(999, 0));
    }

    #[test]
    fn threads_of_all_nodes_fill_it_to_the_last_page_and_no_further() {
        const PAGES: u64 = 5000;
        const NODES: usize = 4;
        let ledger = Ledger::new(Limits { pages: PAGES, inodes: 1 }, NODES);
        let fill = |node: usize| {
            let mut taken = 0;
            for round in 0.. {
                let wanted = round % 7 + 1;
                let grant = ledger.grant(NodeId(node), wanted);
                let (pages, more) = (grant.pages(), grant.might_grow());
                // As an operation does that finds some of its pages there.
                let needed = pages.min(1 + round % wanted);
                grant.close(needed);
                taken += needed;
                assert!(ledger.left() <= PAGES);
                if pages == 0 && !more {
                    return taken;
                }
            }
            unreachable!()
        };
        let taken: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..NODES).map(|node| scope.spawn(move || fill(node))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, ledger.left(), ledger.granted()), (PAGES, 0, 0));
        ledger.free_pages(PAGES);
        assert_eq!(ledger.grant(NODE, PAGES).pages(), PAGES);
    }

    #[test]
    fn inodes_run_out_and_come_back() {
        let ledger = Ledger::new(LIMITS, 1);
        assert_eq!(ledger.take_inode_space(INODE_SPACE), Ok(()));
        assert_eq!(ledger.take_inode_space(1), Err(Errno::ENOSPC));
        ledger.close_inode_space(INODE_SPACE, 0);
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
