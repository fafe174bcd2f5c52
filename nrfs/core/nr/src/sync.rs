//! The primitives that the other modules use: those of `std`, or loom's when models are checked; and two
//! ways to wait.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
use std::sync::{PoisonError, TryLockError};

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

/// `std`'s cell behind loom's interface, through which loom sees every access.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(data: T) -> Self {
        Self(std::cell::UnsafeCell::new(data))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Locks a mutex, and ignores poison: a panic while one of our mutexes is held ends the process, and none is
/// held while a read runs.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex if it is free.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Sets `flag`, and orders that store before every later `SeqCst` load of this thread.
///
/// This is one side of Dekker's handshake: of two threads that each announce their own flag and then
/// load the other's, at least one sees the other.
pub(crate) fn announce(flag: &AtomicBool) {
    // On x86 an exchange is the cheapest full barrier. loom treats SeqCst accesses as AcqRel, so it needs a
    // fence; on other architectures a fence is cheaper.
    if cfg!(all(target_arch = "x86_64", not(loom))) {
        flag.swap(true, Ordering::SeqCst);
    } else {
        flag.store(true, Ordering::Relaxed);
        fence();
    }
}

fn fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
    #[cfg(not(loom))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// How often a thread looks before it parks: this takes about as long as combining a short batch.
#[cfg(not(loom))]
const SPINS: u32 = 64;
#[cfg(loom)]
const SPINS: u32 = 1;

/// Calls `done` a few times. Returns whether it became true; if not, the caller parks.
pub(crate) fn spin_until(done: impl Fn() -> bool) -> bool {
    (0..SPINS).any(|_| {
        pause();
        done()
    })
}

fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

/// Waits for a thread that will not wake the waiting one: first spins, then yields the CPU, then sleeps for
/// longer and longer times, up to 256 µs.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    #[cfg(not(loom))]
    waits: u32,
}

impl Backoff {
    #[cfg(loom)]
    pub(crate) fn wait(&mut self) {
        loom::thread::yield_now();
    }

    #[cfg(not(loom))]
    pub(crate) fn wait(&mut self) {
        const SPINNING: u32 = 6;
        const YIELDING: u32 = 16;
        match self.waits {
            waits @ 0..SPINNING => (0..1 << waits).for_each(|_| pause()),
            SPINNING..YIELDING => std::thread::yield_now(),
            waits => {
                let doublings = (waits - YIELDING).min(3);
                std::thread::sleep(std::time::Duration::from_micros(32 << doublings));
            }
        }
        self.waits = self.waits.saturating_add(1);
    }
}
