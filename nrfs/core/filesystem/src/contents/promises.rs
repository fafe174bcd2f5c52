//! Promises: pages set aside for data that the kernel collects in its page cache before it sends it.
//!
//! The connection says at the start how many bytes the kernel collects at the most ([`Replicated::set_collected`]).
//! While at least twice as much space is left, no promises are needed. With less, space is *scarce*: pages must be
//! promised before more data is collected, so that data which was taken from a program can be stored. A write takes
//! what was promised for its pages. Promises that no write takes (as the write failed later, or nothing was stored to
//! the mapping) are given up by their age.
//!
//! Data that was collected before space became scarce has no promise. Pages are *held back* for it, until all of it has
//! been written.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use machines::content::{SIZE_MAX, pages_in, pages_touched, touched};
use machines::types::{Errno, Ino};
use memory::PAGE_SIZE;
use memory::shortage::Left;

use super::{Contents, Replicated};
use crate::tokens::Token;

/// How long a smaller size may wait for the kernel to write what it has collected.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is promised to one file.
struct Promise {
    /// Pages by their number in the file, with the time of the promise.
    pages: BTreeMap<u64, Instant>,
    /// Pages whose place in the file is not known yet.
    anywhere: u64,
    /// Where the file will end when all collected data is written; 0 if no data behind the end is expected.
    end: u64,
    /// The time of the last promise.
    last: Instant,
}

impl Promise {
    fn count(&self) -> u64 {
        self.pages.len() as u64 + self.anywhere
    }
}

type ByInode = HashMap<Ino, Promise>;

/// The promises to all files.
pub(super) struct Promises {
    /// Space becomes scarce when fewer pages than this are left.
    threshold: AtomicU64,
    is_scarce: AtomicBool,
    /// Pages held back for data that was collected before space was scarce.
    held_back: AtomicU64,
    by_inode: Mutex<ByInode>,
    /// The number of files in `by_inode`: without any, callers need not take the lock.
    files: AtomicUsize,
}

impl Promises {
    pub fn new() -> Self {
        Self {
            threshold: AtomicU64::new(0),
            is_scarce: AtomicBool::new(false),
            held_back: AtomicU64::new(0),
            by_inode: Mutex::default(),
            files: AtomicUsize::new(0),
        }
    }

    /// Notes how many pages are left. Returns true if space has just become scarce.
    fn note(&self, left: u64) -> bool {
        let threshold = self.threshold.load(Ordering::Relaxed);
        if left < threshold {
            return !self.is_scarce.load(Ordering::Relaxed) && self.declare();
        }
        // Not at the threshold itself, so that pages that come and go there do not change it each time.
        let is_plenty = left - threshold > threshold / 2 && self.held_back.load(Ordering::SeqCst) == 0;
        if is_plenty && self.is_scarce.load(Ordering::Relaxed) {
            self.is_scarce.store(false, Ordering::SeqCst);
        }
        false
    }

    /// Makes space scarce. Returns whether it was not before.
    fn declare(&self) -> bool {
        // Under the lock, so that what is held back is stored once, and before anybody makes a promise.
        let _promises = self.lock();
        if self.is_scarce.load(Ordering::SeqCst) {
            return false;
        }
        self.held_back.store(self.threshold.load(Ordering::Relaxed) / 2, Ordering::SeqCst);
        self.is_scarce.store(true, Ordering::SeqCst);
        true
    }

    /// Promises those pages of `missing` that were not promised before, to a file that will end at `end` or behind it.
    /// `take` takes so many pages from the ledger, or returns false: then the result is ENOSPC.
    fn add(&self, ino: Ino, missing: &[u64], end: u64, take: impl FnOnce(u64) -> bool) -> Result<(), Errno> {
        let mut promises = self.lock();
        let now = Instant::now();
        let known = promises.get(&ino);
        let is_new = |page: &&u64| known.is_none_or(|promise| !promise.pages.contains_key(page));
        let fresh: Vec<u64> = missing.iter().filter(is_new).copied().collect();
        if !fresh.is_empty() && !take(fresh.len() as u64) {
            return Err(Errno::ENOSPC);
        }
        self.change(&mut promises, ino, |promise| {
            promise.pages.extend(fresh.into_iter().map(|page| (page, now)));
            promise.end = promise.end.max(end);
            promise.last = now;
        });
        Ok(())
    }

    /// Promises pages whose place in the file is not known. The caller has taken them from the ledger.
    fn add_anywhere(&self, ino: Ino, pages: u64) {
        self.change(&mut self.lock(), ino, |promise| {
            promise.anywhere += pages;
            promise.last = Instant::now();
        });
    }

    /// Moves promises without a place to the pages `missing`, as far as there are enough: collected data is about to be
    /// written there.
    fn place(&self, ino: Ino, missing: &[u64]) {
        let now = Instant::now();
        self.reduce(ino, |promise| {
            for &page in missing {
                if promise.anywhere > 0 && !promise.pages.contains_key(&page) {
                    promise.anywhere -= 1;
                    promise.pages.insert(page, now);
                }
            }
            0
        });
    }

    /// Takes the promises for `pages`, for a write that ends at byte `end`. Returns how many they are.
    pub fn take(&self, ino: Ino, pages: Range<u64>, end: u64) -> u64 {
        self.reduce(ino, |promise| {
            let mut taken = promise.pages.split_off(&pages.start);
            promise.pages.append(&mut taken.split_off(&pages.end));
            // From then on the file itself has this end.
            if promise.end <= end {
                promise.end = 0;
            }
            taken.len() as u64
        })
    }

    /// Returns where an append of `length` bytes begins in a file of `size` bytes. The next append begins behind it.
    fn extend(&self, ino: Ino, size: u64, length: u64) -> u64 {
        self.change(&mut self.lock(), ino, |promise| {
            let start = promise.end.max(size);
            promise.end = start.saturating_add(length).min(SIZE_MAX);
            start
        })
    }

    /// Takes back an append from `start` to `end`.
    fn shorten(&self, ino: Ino, start: u64, end: u64) {
        self.reduce(ino, |promise| {
            // Not if another append follows already.
            if promise.end == end {
                promise.end = start;
            }
            0
        });
    }

    /// Gives up the promises behind byte `size`, where the file is truncated. Returns how many pages they are.
    pub fn cut(&self, ino: Ino, size: u64) -> u64 {
        self.reduce(ino, |promise| {
            promise.end = promise.end.min(size);
            let anywhere = if size == 0 { std::mem::take(&mut promise.anywhere) } else { 0 };
            promise.pages.split_off(&size.div_ceil(PAGE_SIZE as u64)).len() as u64 + anywhere
        })
    }

    /// Gives up the promises to a file made before `then`. Returns how many pages they are.
    fn give_up(&self, ino: Ino, then: Instant) -> u64 {
        self.reduce(ino, |promise| {
            let before = promise.count();
            promise.pages.retain(|_, when| *when >= then);
            if promise.last < then {
                promise.anywhere = 0;
                promise.end = 0;
            }
            before - promise.count()
        })
    }

    /// The pages promised to all files.
    pub fn pages(&self) -> u64 {
        if self.is_any() { self.lock().values().map(Promise::count).sum() } else { 0 }
    }

    fn is_any(&self) -> bool {
        self.files.load(Ordering::SeqCst) > 0
    }

    /// Changes the promises to a file, if there are any. Returns what `reduce` returns, or 0.
    fn reduce(&self, ino: Ino, reduce: impl FnOnce(&mut Promise) -> u64) -> u64 {
        if !self.is_any() {
            return 0;
        }
        let mut promises = self.lock();
        if promises.contains_key(&ino) { self.change(&mut promises, ino, reduce) } else { 0 }
    }

    /// Changes the promises to a file. Adds and removes its entry as needed, which nothing else does.
    fn change<R>(&self, promises: &mut ByInode, ino: Ino, change: impl FnOnce(&mut Promise) -> R) -> R {
        let promise = promises.entry(ino).or_insert_with(|| Promise::new(Instant::now()));
        let result = change(promise);
        if promise.count() == 0 && promise.end == 0 {
            promises.remove(&ino);
        }
        self.files.store(promises.len(), Ordering::SeqCst);
        result
    }

    fn lock(&self) -> MutexGuard<'_, ByInode> {
        // Each change is one step, so a panic cannot have left a promise half changed.
        self.by_inode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise {
    fn new(now: Instant) -> Self {
        Self { pages: BTreeMap::new(), anywhere: 0, end: 0, last: now }
    }
}

/// For the connection, whose kernel collects data.
impl Replicated {
    /// Sets how many bytes of data the kernel collects at the most. 0, as in the beginning, gives up all promises.
    pub fn set_collected(&self, bytes: u64) {
        self.promises.threshold.store(2 * pages_in(bytes), Ordering::SeqCst);
        if bytes == 0 {
            self.promised_before(Instant::now()).into_iter().for_each(|ino| self.cut_promises(ino, 0));
        }
        self.note_space();
    }

    /// Whether space is scarce: then it must be promised before data is collected.
    pub fn is_scarce(&self) -> bool {
        self.promises.is_scarce.load(Ordering::SeqCst)
    }

    /// Promises space for `length` bytes that are about to be collected, for a write at `offset`; `None` is the file's
    /// end. ENOSPC if there is not enough.
    pub fn promise(&self, ino: Ino, offset: Option<u64>, length: u64, token: &Token) -> Result<(), Errno> {
        let size = self.look(ino, |content| content.attributes(ino), token).map_or(0, |content| content.size);
        let start = offset.unwrap_or_else(|| self.promises.extend(ino, size, length));
        let end = start.saturating_add(length).min(SIZE_MAX);
        let promised = self.promise_pages(ino, &(start..end), end, false, token);
        if promised.is_err() && offset.is_none() {
            self.promises.shorten(ino, start, end);
        }
        promised
    }

    /// Promises space for the missing pages of a file in `range`, which a process maps and may store to. Only an
    /// `urgent` promise may use pages that are held back. ENOSPC if there is not enough.
    pub fn promise_mapped(&self, ino: Ino, range: &Range<u64>, urgent: bool, token: &Token) -> Result<(), Errno> {
        self.promise_pages(ino, range, 0, urgent, token)
    }

    fn promise_pages(&self, ino: Ino, range: &Range<u64>, end: u64, urgent: bool, token: &Token) -> Result<(), Errno> {
        let all = self.ledger.left() + self.promises.pages();
        let missing = |content: &machines::content::Content| {
            // The range may be huge: its pages are listed only if they could all be promised.
            (content.missing(ino, range) <= all).then(|| content.holes(ino, range).collect::<Vec<u64>>())
        };
        let missing = self.look(ino, missing, token).ok_or(Errno::ENOSPC)?;
        self.promises.add(ino, &missing, end, |pages| self.take_pages(pages, urgent))
    }

    /// Promises space for `length` bytes whose place in the file is not known. ENOSPC if there is not enough.
    pub fn promise_anywhere(&self, ino: Ino, length: u64) -> Result<(), Errno> {
        // One more, as the bytes may begin and end within a page.
        let pages = length.div_ceil(PAGE_SIZE as u64) + 1;
        if !self.take_pages(pages, false) {
            return Err(Errno::ENOSPC);
        }
        self.promises.add_anywhere(ino, pages);
        Ok(())
    }

    /// Moves promises without a place to `range`: collected data is about to be written there. Returns whether there
    /// are promises to the file.
    pub fn place_promise(&self, ino: Ino, range: &Range<u64>, token: &Token) -> bool {
        let is_promised = self.has_promises() && self.promises.lock().contains_key(&ino);
        if is_promised {
            let holes = |content: &machines::content::Content| content.holes(ino, range).collect::<Vec<u64>>();
            self.promises.place(ino, &self.look(ino, holes, token));
        }
        is_promised
    }

    /// Takes pages for a promise from the ledger; unless it is `urgent`, only if the pages held back are left besides.
    /// Returns whether there were enough.
    fn take_pages(&self, pages: u64, urgent: bool) -> bool {
        let held_back = if urgent { 0 } else { self.promises.held_back.load(Ordering::SeqCst) };
        self.memory_left(self.memory_of(pages)) == Left::Enough && self.ledger.take_pages(pages, held_back)
    }

    /// Whether pages are held back for data that was collected before space was scarce.
    pub fn holds_back(&self) -> bool {
        self.promises.held_back.load(Ordering::SeqCst) > 0
    }

    /// Holds no pages back any more: all data has been written that was collected before space was scarce.
    pub fn nothing_is_held_back(&self) {
        self.promises.held_back.store(0, Ordering::SeqCst);
    }

    /// Whether pages of a file are missing in `range`, before its end.
    pub fn has_holes(&self, ino: Ino, range: &Range<u64>, token: &Token) -> bool {
        let has_holes = |content: &machines::content::Content| {
            let size = content.attributes(ino).map_or(0, |attributes| attributes.size);
            let range = range.start.min(size)..range.end.min(size);
            !range.is_empty() && content.missing(ino, &range) > 0
        };
        self.look(ino, has_holes, token)
    }

    /// Whether there are promises to any file.
    pub fn has_promises(&self) -> bool {
        self.promises.is_any()
    }

    /// The files with promises made before `then`.
    pub fn promised_before(&self, then: Instant) -> Vec<Ino> {
        let promises = self.promises.lock();
        let is_old = |promise: &Promise| promise.last < then || promise.pages.values().any(|&when| when < then);
        promises.iter().filter(|(_, promise)| is_old(promise)).map(|(&ino, _)| ino).collect()
    }

    /// Gives up the promises to a file made before `then`. By now their data has been written, or never will be.
    pub fn give_up_promises(&self, ino: Ino, then: Instant) {
        self.ledger.free_pages(self.promises.give_up(ino, then));
        self.note_space();
    }

    /// Takes the promises for a write to `range`. Returns how many pages they are; the ledger counts these as used.
    pub(super) fn take_promised(&self, ino: Ino, range: &Range<u64>) -> u64 {
        self.promises.take(ino, touched(range), range.end)
    }

    /// Gives up the promises to a file without a place. By now their data has been written.
    pub fn give_up_anywhere(&self, ino: Ino) {
        self.ledger.free_pages(self.promises.reduce(ino, |promise| std::mem::take(&mut promise.anywhere)));
    }

    /// Whether an operation whose data the kernel does not collect may take `bytes`: whether enough is left besides for
    /// data that has been collected.
    pub fn may_take(&self, bytes: u64) -> bool {
        let needed = match self.is_scarce() {
            true => self.promises.held_back.load(Ordering::SeqCst),
            false => self.promises.threshold.load(Ordering::Relaxed),
        };
        // If nothing must be left for others, the operation itself fails when there is not enough.
        needed == 0 || self.ledger.left() >= pages_touched(&(0..bytes)).saturating_add(needed)
    }

    /// Makes space scarce: from now on data is collected only with a promise. Pages are held back for data that was
    /// collected before.
    pub fn declare_scarce(&self) {
        self.promises.declare();
    }

    /// Calls `resize`, which changes the space to `pages`, or returns false. If space will be scarce then, it becomes so
    /// before, and this first waits until all data has been written that was collected without a promise.
    pub(super) fn preparing_for(&self, pages: u64, resize: impl FnOnce() -> bool) -> bool {
        let threshold = &self.promises.threshold;
        let collects = threshold.load(Ordering::SeqCst) > 0;
        let fewer = if collects { self.ledger.limit().saturating_sub(pages) } else { 0 };
        threshold.fetch_add(fewer, Ordering::SeqCst);
        self.note_space();
        let end = Instant::now() + PATIENCE;
        while fewer > 0 && self.holds_back() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let resized = !(fewer > 0 && self.holds_back()) && resize();
        // The connection may have ended meanwhile, which has set it to 0.
        let lower = |threshold: u64| Some(threshold.saturating_sub(fewer));
        let _ = threshold.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lower);
        resized
    }

    /// Gives up the promises behind byte `size`, where the file is truncated.
    pub(super) fn cut_promises(&self, ino: Ino, size: u64) {
        self.ledger.free_pages(self.promises.cut(ino, size));
    }

    /// Called when pages may have been taken or freed: decides whether space is scarce, and tells the holder if it has
    /// become so.
    pub(super) fn note_space(&self) {
        if self.promises.note(self.ledger.left_at_least().min(self.pages_in_memory())) {
            match self.holds.holder() {
                Some(holder) => holder.space_is_scarce(),
                None => self.nothing_is_held_back(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::ledger::Ledger;

    const FILE: Ino = Ino(5);

    fn space(ledger: &Ledger) -> impl Fn(u64) -> bool + '_ {
        |pages| ledger.take_pages(pages, 0)
    }

    #[test]
    fn a_page_is_promised_once_and_taken_once() {
        let (promises, ledger) = (Promises::new(), Ledger::new(10, 1));
        promises.add(FILE, &[1, 2, 3], 99, space(&ledger)).unwrap();
        promises.add(FILE, &[2, 3, 4], 99, space(&ledger)).unwrap();
        assert_eq!((promises.pages(), ledger.left()), (4, 6));
        assert_eq!(promises.take(FILE, 2..4, 50), 2);
        assert_eq!(promises.take(FILE, 2..4, 50), 0);
        assert_eq!(promises.add(FILE, &[10, 11, 12, 13, 14, 15, 16], 99, space(&ledger)), Err(Errno::ENOSPC));
        assert_eq!((promises.pages(), ledger.left()), (2, 6));
        assert_eq!(promises.take(FILE, 0..9, 99), 2);
        assert!(!promises.is_any());
    }

    #[test]
    fn what_is_promised_anywhere_is_taken_only_where_collected_data_is_written() {
        let promises = Promises::new();
        promises.add_anywhere(FILE, 3);
        // Like a write whose data was not collected.
        assert_eq!(promises.take(FILE, 5..7, 99), 0);
        promises.place(FILE, &[5, 6]);
        promises.place(FILE, &[5, 6]);
        assert_eq!((promises.pages(), promises.take(FILE, 5..7, 99)), (3, 2));
        promises.place(FILE, &[7, 8, 9]);
        assert_eq!(promises.take(FILE, 0..10, 99), 1);
        assert!(!promises.is_any());
    }

    #[test]
    fn what_was_accepted_at_the_end_moves_the_end_until_it_is_written() {
        let (promises, ledger) = (Promises::new(), Ledger::new(10, 1));
        let end = || promises.lock().get(&FILE).map_or(0, |promise| promise.end);
        promises.add(FILE, &[], 4090, space(&ledger)).unwrap();
        assert_eq!(end(), 4090);
        assert_eq!(promises.take(FILE, 0..1, 4000), 0);
        assert_eq!(end(), 4090);
        assert_eq!(promises.take(FILE, 0..1, 4090), 0);
        assert!(!promises.is_any());
    }

    #[test]
    fn what_is_old_or_cut_off_is_given_up() {
        let (promises, ledger) = (Promises::new(), Ledger::new(10, 1));
        promises.add(FILE, &[0, 1, 2, 3], 4 << 12, space(&ledger)).unwrap();
        assert_eq!(promises.cut(FILE, 4097), 2);
        let before = Instant::now() - Duration::from_secs(1);
        assert_eq!(promises.give_up(FILE, before), 0);
        assert_eq!(promises.give_up(FILE, Instant::now() + Duration::from_secs(1)), 2);
        assert!(!promises.is_any());
    }

    #[test]
    fn space_is_scarce_below_the_threshold_and_no_more_well_above_it() {
        let promises = Promises::new();
        promises.threshold.store(100, Ordering::SeqCst);
        assert!(!promises.note(100));
        assert!(promises.note(99));
        assert!(!promises.note(98));
        assert_eq!(promises.held_back.swap(0, Ordering::SeqCst), 50);
        assert!(!promises.note(120));
        assert!(promises.is_scarce.load(Ordering::SeqCst));
        assert!(!promises.note(151));
        assert!(!promises.is_scarce.load(Ordering::SeqCst));
    }
}
