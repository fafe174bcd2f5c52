//! Detects that a process was forked from the one that made a thing.
//!
//! A forked process has the memory of its parent, but only one of its threads. So it must not use what threads share: a
//! lock may be held by a thread that does not exist there. A shared thing remembers the [`Process`] that made it, to
//! tell whether it is in a forked one.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::window;

/// How many forks lie between the first process and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// The process in which something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u64);

impl Process {
    /// The running process.
    pub fn this() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handlers are functions of this program, which is never unloaded. In the child they only store
            // a number and make system calls. If there is no memory to register them, forks go unnoticed.
            unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether this is the running process.
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
