//! The distributed readers-writer lock: readers on different CPUs write no common cache line.
//!
//! Every reader has a flag of its own, and a writer waits until all flags are clear. So reading is cheap
//! and scales, and a write loads the flag of every registered reader. Writers are preferred: a reader that
//! finds a writer at work or waiting clears its flag again.
//!
//! Between reading and writing there is a third mode. One thread at a time may hold the lock for
//! *update*, together with readers; only the updater may go on to write. The combiner lock of a partition
//! is its lock held for update, and protects the combiner's state.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, Backoff, Mutex, MutexGuard, Ordering, UnsafeCell, announce, lock, spin_until, try_lock};

/// Protects `T` as a readers-writer lock, and gives `S` to the thread that holds the lock for update.
pub(crate) struct RwLock<S, T> {
    /// Set while an updater writes, or waits for readers in order to write.
    writing: CachePadded<AtomicBool>,
    updater: CachePadded<Mutex<Updater<S>>>,
    data: UnsafeCell<T>,
}

struct Updater<S> {
    readers: Vec<Arc<Flag>>,
    state: S,
}

/// Set while the reader reads, or is about to look for a writer.
type Flag = CachePadded<AtomicBool>;

/// A registered reader. One thread uses it at a time, for one read at a time: hence `&mut`.
pub(crate) struct Reader(Arc<Flag>);

/// The lock held for update.
pub(crate) struct Update<'a, S, T> {
    lock: &'a RwLock<S, T>,
    updater: MutexGuard<'a, Updater<S>>,
}

// SAFETY: `data` is lent as `&T` to readers (hence `T: Sync`) and as `&mut T` to one writer, on any
// thread (hence `T: Send`), never both at once: see `read` and `Update::write`.
unsafe impl<S: Send, T: Send + Sync> Sync for RwLock<S, T> {}

impl<S, T> RwLock<S, T> {
    pub(crate) fn new(state: S, data: T) -> Self {
        Self {
            writing: CachePadded::new(AtomicBool::new(false)),
            updater: CachePadded::new(Mutex::new(Updater { readers: Vec::new(), state })),
            data: UnsafeCell::new(data),
        }
    }

    /// Runs `f` concurrently with other readers. If `f` panics, the lock is released all the same.
    ///
    /// # Safety
    ///
    /// `reader` is registered with this lock.
    pub(crate) unsafe fn read<R>(&self, reader: &mut Reader, f: impl FnOnce(&T) -> R) -> R {
        /// Clears the flag, also when a read panics.
        struct Reading<'a>(&'a Flag);

        impl Drop for Reading<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }

        if !self.enter(&reader.0) {
            self.enter_slowly(&reader.0);
        }
        let _reading = Reading(&reader.0);
        // SAFETY: the flag is set, and every writer waits for it. Either `enter` announced the flag and
        // then found no writer, and the next writer announces itself before it loads the flags; or
        // the flag was set under the updaters' mutex, which excludes writers.
        self.data.with(|data| f(unsafe { &*data }))
    }

    fn enter(&self, flag: &Flag) -> bool {
        announce(flag);
        let entered = !self.writing.load(Ordering::SeqCst);
        if !entered {
            flag.store(false, Ordering::Release);
        }
        entered
    }

    #[cold]
    fn enter_slowly(&self, flag: &Flag) {
        let free = || !self.writing.load(Ordering::Relaxed);
        if !spin_until(|| free() && self.enter(flag)) {
            // Parks until the updater has left, and enters before the next one: no reader starves.
            let _no_writer = lock(&self.updater);
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Waits for the update mode.
    pub(crate) fn update(&self) -> Update<'_, S, T> {
        Update { lock: self, updater: lock(&self.updater) }
    }

    /// Takes the update mode if it is free.
    pub(crate) fn try_update(&self) -> Option<Update<'_, S, T>> {
        Some(Update { lock: self, updater: try_lock(&self.updater)? })
    }

    /// Waits for the update mode, first spinning, then parked. Returns `None` if `done` is true by the time it is
    /// free; may return that earlier.
    pub(crate) fn update_unless(&self, done: impl Fn() -> bool) -> Option<Update<'_, S, T>> {
        if let Some(update) = self.try_update() {
            return (!done()).then_some(update);
        }
        if spin_until(&done) {
            return None;
        }
        let update = self.update();
        (!done()).then_some(update)
    }
}

impl<S, T> Update<'_, S, T> {
    /// Registers a reader. This excludes writers, so none can miss the reader's flag.
    pub(crate) fn register(&mut self) -> Reader {
        let flag = Arc::new(CachePadded::new(AtomicBool::new(false)));
        self.updater.readers.push(Arc::clone(&flag));
        Reader(flag)
    }

    pub(crate) fn unregister(&mut self, reader: &Reader) {
        self.updater.readers.retain(|flag| !Arc::ptr_eq(flag, &reader.0));
    }

    pub(crate) fn state(&mut self) -> &mut S {
        &mut self.updater.state
    }

    /// Waits until all readers have left, then runs `f` alone. `f` must not panic: `writing` would stay
    /// set, and readers would wait for ever.
    pub(crate) fn write<R>(&mut self, f: impl FnOnce(&mut S, &mut T) -> R) -> R {
        announce(&self.lock.writing);
        let Updater { readers, state } = &mut *self.updater;
        for reader in readers.iter() {
            let mut backoff = Backoff::default();
            while reader.load(Ordering::SeqCst) {
                backoff.wait();
            }
        }
        // SAFETY: `writing` was announced, and since then every registered flag was seen clear. A reader
        // that announces its flag later finds `writing` set and withdraws, or waits for the updaters'
        // mutex, which this thread holds. For the same reason this is the only writer.
        let result = self.lock.data.with_mut(|data| f(state, unsafe { &mut *data }));
        self.lock.writing.store(false, Ordering::Release);
        result
    }
}
