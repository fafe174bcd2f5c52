//! Counts the pages that replicated content uses.
//!
//! Space is granted before an operation enters the log, and the operation carries its grant: so whether space has run
//! out is decided once, and all replicas agree. A grant is the most that an operation can need. After the operation has
//! run, the pages that it did not take are free again. So an operation that was refused tries again while grants of
//! others are open: see [`Grant::might_grow`].
//!
//! Each node has *credit*: pages that were taken for it in advance. A grant from credit touches no memory that other
//! nodes write. When few pages are left, the credit of all nodes is called in, and each grant is taken from the ledger
//! directly: so a file system of N pages can hold N pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use nr::NodeId;

/// The most pages that are taken in advance for a node at once.
const CREDIT_MAX: u64 = 1024;

/// The pages that are taken in advance for all nodes are at most all pages divided by this.
const CREDIT_PART: u64 = 64;

/// Counts the pages that are used.
pub(super) struct Ledger {
    /// The most pages that can be used. Changed while `crediting` is held.
    limit: AtomicU64,
    /// Pages in files, promised pages, granted pages, and credit of all nodes.
    pages: AtomicU64,
    accounts: Box<[CachePadded<Account>]>,
    /// Pages that are taken in advance for a node at once. 0 for a small file system, which then has no credit.
    /// Changed with the limit.
    credit: AtomicU64,
    /// Held while credit is given or called in.
    crediting: Mutex<()>,
}

/// The counters of one node.
#[derive(Default)]
struct Account {
    /// Pages taken in advance that can be granted.
    credit: AtomicU64,
    /// Pages of grants that are open or being made.
    granted: AtomicU64,
    /// How many grants have given pages back.
    returns: AtomicU64,
}

/// Pages that an operation may take. Dropping a grant gives all of them back.
pub(super) struct Grant<'a> {
    ledger: &'a Ledger,
    account: &'a Account,
    pages: u64,
    /// The number of returns before it was asked for; `None` if it was granted whole.
    returns: Option<u64>,
    /// Whether other grants were open then.
    are_others_open: bool,
}

impl Account {
    /// Takes `pages` from the credit. Returns false, and takes none, if there are not enough.
    fn take(&self, pages: u64) -> bool {
        let take = |credit: u64| credit.checked_sub(pages);
        pages == 0 || self.credit.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

impl Ledger {
    /// A ledger of `limit` pages, none of which is used.
    pub fn new(limit: u64, nodes: usize) -> Self {
        Self {
            limit: AtomicU64::new(limit),
            pages: AtomicU64::new(0),
            accounts: (0..nodes).map(|_| CachePadded::default()).collect(),
            credit: AtomicU64::new(credit(limit, nodes)),
            crediting: Mutex::default(),
        }
    }

    /// Changes the limit. Returns false, and changes nothing, if more pages are in use.
    pub fn resize(&self, limit: u64) -> bool {
        let crediting = self.crediting();
        self.call_in(&crediting);
        // Pages are taken only by a thread that holds the lock.
        let fits = self.pages.load(Ordering::SeqCst) <= limit;
        if fits {
            self.limit.store(limit, Ordering::SeqCst);
            self.credit.store(credit(limit, self.accounts.len()), Ordering::SeqCst);
        }
        fits
    }

    /// Grants `wanted` pages, or as many as are left, to an operation of `node`.
    pub fn grant(&self, node: NodeId, wanted: u64) -> Grant<'_> {
        let account = &*self.accounts[node.0];
        account.granted.fetch_add(wanted, Ordering::SeqCst);
        if account.take(wanted) {
            return Grant { ledger: self, account, pages: wanted, returns: None, are_others_open: false };
        }
        // While this thread waits for the lock, it has no pages that it could give back to others.
        account.granted.fetch_sub(wanted, Ordering::SeqCst);
        let crediting = self.crediting();
        account.granted.fetch_add(wanted, Ordering::SeqCst);
        let returns = self.returns();
        // Credit is given only if so many pages are left besides: then nobody lacks the pages that are credit.
        let credit = self.credit();
        let plenty = 2 * credit * self.accounts.len() as u64;
        let pages = if credit > 0 && self.take(wanted + credit, plenty) {
            account.credit.fetch_add(credit, Ordering::SeqCst);
            wanted
        } else {
            self.call_in(&crediting);
            let all = self.limit();
            let left = |used: u64| wanted.min(all - used);
            let before = self.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| Some(used + left(used)));
            before.map_or(0, left)
        };
        account.granted.fetch_sub(wanted - pages, Ordering::SeqCst);
        let returns = (pages < wanted).then_some(returns);
        Grant { ledger: self, account, pages, returns, are_others_open: self.granted() > pages }
    }

    /// Grants `wanted` pages, or as many as are left. `promised` of them come from a promise, and are counted already.
    pub fn grant_with(&self, node: NodeId, promised: u64, wanted: u64) -> Grant<'_> {
        let mut grant = self.grant(node, wanted - promised);
        grant.account.granted.fetch_add(promised, Ordering::SeqCst);
        grant.pages += promised;
        grant
    }

    /// Takes `wanted` pages. Returns false, and takes none, unless `kept` more are left besides.
    pub fn take_pages(&self, wanted: u64, kept: u64) -> bool {
        let crediting = self.crediting();
        self.call_in(&crediting);
        // Credit may come back at any time, from operations that end.
        self.take(wanted, kept)
            || self.left_besides(&crediting) >= wanted.saturating_add(kept) && {
                self.call_in(&crediting);
                self.take(wanted, kept)
            }
    }

    fn take(&self, wanted: u64, kept: u64) -> bool {
        let all = self.limit();
        let take = |used: u64| (wanted.saturating_add(kept) <= all - used).then(|| used + wanted);
        self.pages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    fn crediting(&self) -> MutexGuard<'_, ()> {
        // The mutex has no data that a panic could leave half changed.
        self.crediting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls in the credit of all nodes: makes it free pages again.
    fn call_in(&self, _: &MutexGuard<'_, ()>) {
        for account in &self.accounts {
            if account.credit.load(Ordering::SeqCst) > 0 {
                self.pages.fetch_sub(account.credit.swap(0, Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }

    /// The most pages that can be used.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::SeqCst)
    }

    fn credit(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    /// Pages that are left, credit included. Not exact while credit is given or called in.
    pub fn left(&self) -> u64 {
        self.left_besides(&self.crediting())
    }

    /// The same for a thread that holds the lock, so that no credit is given meanwhile, which would count twice.
    fn left_besides(&self, _: &MutexGuard<'_, ()>) -> u64 {
        (self.left_at_least() + self.sum(|account| &account.credit)).min(self.limit())
    }

    /// Pages that are left, without credit. Loads no counter that every operation writes.
    pub fn left_at_least(&self) -> u64 {
        // Pages may be taken between the two loads, up to a new limit.
        self.limit().saturating_sub(self.pages.load(Ordering::SeqCst))
    }

    /// Pages of grants that are open or being made, on all nodes.
    pub fn granted(&self) -> u64 {
        self.sum(|account| &account.granted)
    }

    fn returns(&self) -> u64 {
        self.sum(|account| &account.returns)
    }

    fn sum(&self, of: impl Fn(&Account) -> &AtomicU64) -> u64 {
        self.accounts.iter().map(|account| of(account).load(Ordering::SeqCst)).sum()
    }

    /// Counts pages as free again that an operation freed, or that were promised.
    pub fn free_pages(&self, pages: u64) {
        self.pages.fetch_sub(pages, Ordering::SeqCst);
    }
}

/// The pages to take in advance for each of so many nodes.
fn credit(limit: u64, nodes: usize) -> u64 {
    (limit / CREDIT_PART / nodes as u64).min(CREDIT_MAX)
}

impl Grant<'_> {
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether another try might be granted more: other grants have given pages back since this one was asked for, or
    /// are still open.
    pub fn might_grow(&self) -> bool {
        self.returns.is_some_and(|returns| self.are_others_open || self.ledger.returns() != returns)
    }

    /// Ends the grant: `taken` of its pages are in files now, and the rest is given back.
    pub fn close(mut self, taken: u64) {
        self.give_back(self.pages - taken);
        if taken > 0 {
            self.account.granted.fetch_sub(taken, Ordering::SeqCst);
        }
        self.pages = 0;
    }

    /// Gives pages back: to the node's credit, unless that is large enough. They count as granted until they can be
    /// taken by others, so that nobody who is refused meanwhile gives up.
    fn give_back(&self, pages: u64) {
        if pages == 0 {
            return;
        }
        if self.account.credit.load(Ordering::SeqCst) + pages <= 2 * self.ledger.credit() {
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
    use std::sync::atomic::AtomicBool;

    const NODE: NodeId = NodeId(0);
    const PAGES: u64 = 10;

    #[test]
    fn a_grant_never_exceeds_what_is_left_and_what_is_not_taken_comes_back() {
        let ledger = Ledger::new(PAGES, 1);
        let first = ledger.grant(NODE, 8);
        let second = ledger.grant(NODE, 8);
        assert_eq!((first.pages(), second.pages()), (8, 2));
        assert!(second.might_grow());
        first.close(3);
        assert!(second.might_grow());
        second.close(2);
        assert_eq!(ledger.left(), 5);
        let last = ledger.grant(NODE, 8);
        assert_eq!(last.pages(), 5);
        assert!(!last.might_grow());
        drop(last);
        ledger.free_pages(5);
        assert_eq!(ledger.left(), 10);
    }

    #[test]
    fn pages_are_taken_all_or_none_and_some_can_be_kept() {
        let ledger = Ledger::new(PAGES, 1);
        assert!(ledger.take_pages(4, 6));
        assert!(!ledger.take_pages(4, 3));
        assert!(!ledger.take_pages(u64::MAX, 1));
        assert_eq!(ledger.left(), 6);
        assert!(ledger.take_pages(6, 0));
    }

    #[test]
    fn credit_is_called_in_when_another_node_needs_it() {
        let ledger = Ledger::new(1000, 2);
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
    fn the_limit_can_be_changed_but_not_below_what_is_in_use() {
        let ledger = Ledger::new(1000, 2);
        ledger.grant(NODE, 3).close(3);
        let open = ledger.grant(NodeId(1), 4);
        assert!(!ledger.resize(6));
        assert_eq!((ledger.limit(), ledger.left()), (1000, 993));
        assert!(ledger.resize(7));
        assert_eq!((ledger.limit(), ledger.left(), ledger.grant(NODE, 1).pages()), (7, 0, 0));
        drop(open);
        assert!(ledger.resize(2000));
        assert_eq!((ledger.left(), ledger.grant(NODE, 2000).pages()), (1997, 1997));
    }

    #[test]
    fn threads_take_no_more_than_the_limit_while_it_changes() {
        const LIMITS: [u64; 2] = [300, 500];
        let (ledger, is_over) = (Ledger::new(LIMITS[1], 2), AtomicBool::new(false));
        let use_it = |node: usize| {
            while !is_over.load(Ordering::Relaxed) {
                let grant = ledger.grant(NodeId(node), 150);
                let pages = grant.pages();
                assert!(ledger.left() <= LIMITS[1]);
                grant.close(pages);
                ledger.free_pages(pages);
            }
        };
        std::thread::scope(|scope| {
            (0..2).for_each(|node| drop(scope.spawn(move || use_it(node))));
            for round in 0..2000 {
                let limit = LIMITS[round % 2];
                if ledger.resize(limit) {
                    assert_eq!(ledger.limit(), limit);
                }
                assert!(ledger.pages.load(Ordering::SeqCst) <= ledger.limit());
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!((ledger.left(), ledger.granted()), (ledger.limit(), 0));
    }

    #[test]
    fn threads_of_all_nodes_fill_it_to_the_last_page_and_no_further() {
        const PAGES: u64 = 5000;
        const NODES: usize = 4;
        let ledger = Ledger::new(PAGES, NODES);
        let fill = |node: usize| {
            let mut taken = 0;
            for round in 0.. {
                let wanted = round % 7 + 1;
                let grant = ledger.grant(NodeId(node), wanted);
                let (pages, more) = (grant.pages(), grant.might_grow());
                // Like an operation for which some pages exist already.
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
}
