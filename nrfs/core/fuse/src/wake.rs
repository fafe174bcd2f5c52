//! How threads that wait at descriptors are woken.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// A descriptor that is readable once it has been signalled, until it is cleared.
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    pub fn signal(&self) {
        // It fails only where the count is full, and then it has been signalled.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it has been signalled.
    pub fn wait(&self) {
        // A failure shows when it is cleared.
        let _ = retry(|| poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None));
    }

    /// Whether it had been signalled.
    pub fn clear(&self) -> bool {
        // It fails only where nothing was signalled.
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Calls again what a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
