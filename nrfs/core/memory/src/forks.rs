//! Processes that are forked from this one: they have its memory, and none of its threads.
//!
//! So they must use nothing that threads share: a lock may be held by one that is not there. Whoever makes such things
//! notes the [`Process`], and looks whether it is still the same.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::window;

/// How many forks lie between the first process and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u64);

impl Process {
    /// This one.
    pub fn this() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handlers are functions of this program, which stays. In the child they store a number, and make
            // mappings by system calls alone. Without memory for the handlers a fork goes unnoticed.
            unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether it is this one.
    pub fn is_this(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }
}

extern "C" fn prepare() {
    window::keep_as_they_are();
}

extern "C" fn parent() {
    window::let_go();
}

extern "C" fn child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    window::bequeath();
}
