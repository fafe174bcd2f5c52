//! Wakes threads that wait for descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// An eventfd. Readable from when it is signalled until it is cleared.
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    pub fn signal(&self) {
        // It fails only if the count is full: then it has been signalled already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Waits until it has been signalled.
    pub fn wait(&self) {
        // If this fails, callers see at `clear` that it was not signalled.
        let _ = retry(|| poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None));
    }

    /// Makes it not readable. Returns whether it had been signalled.
    pub fn clear(&self) -> bool {
        // It fails only if it was not signalled.
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Repeats a system call while signals interrupt it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
