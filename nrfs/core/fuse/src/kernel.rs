//! What the kernel was told and keeps, and how it is told that this holds no more.
//!
//! Source: `FUSE_NOTIFY_INVAL_INODE` in `include/uapi/linux/fuse.h`.

use std::io;
use std::os::fd::OwnedFd;

use filesystem::Ino;
use zerocopy::IntoBytes;

use crate::protocol::reply;
use crate::protocol::wire::InvalidateInode;
use crate::wake::retry;

/// The kernel's end of a mount, by any of its descriptors.
pub(crate) struct Kernel(OwnedFd);

impl Kernel {
    /// By another descriptor of the same open file.
    pub fn of(device: &OwnedFd) -> io::Result<Self> {
        device.try_clone().map(Self)
    }

    /// Has the kernel ask for an inode's attributes when it needs them next, and not use those that a reply under way
    /// tells it. Whoever answers a request about the inode may call this: the kernel waits for nobody.
    pub fn forget_attributes(&self, ino: Ino) {
        const ATTRIBUTES_ALONE: i64 = -1;
        self.invalidate(InvalidateInode { ino: ino.0, offset: ATTRIBUTES_ALONE, length: 0 });
    }

    /// Has the kernel write what it has collected of a file from `offset` on, and drop what it keeps there. That has
    /// been written when this returns. So no request may be waiting for the calling thread: not the writes, nor another
    /// without whose answer they do not come.
    pub fn write_back(&self, ino: Ino, offset: u64) {
        const TO_THE_END: i64 = 0;
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        self.invalidate(InvalidateInode { ino: ino.0, offset, length: TO_THE_END });
    }

    fn invalidate(&self, what: InvalidateInode) {
        let header = reply::notification(reply::INVALIDATE_INODE, size_of_val(&what));
        let parts = [io::IoSlice::new(header.as_bytes()), io::IoSlice::new(what.as_bytes())];
        // It fails where the kernel does not know the inode, and so has nothing of it.
        let _ = retry(|| rustix::io::writev(&self.0, &parts));
    }
}
