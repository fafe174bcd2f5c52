//! Notifications to the kernel: make it drop what it has cached, and write what it has collected.
//!
//! Source: `FUSE_NOTIFY_INVAL_INODE` in `include/uapi/linux/fuse.h`.

use std::io;
use std::os::fd::OwnedFd;

use filesystem::Ino;
use zerocopy::IntoBytes;

use crate::protocol::reply;
use crate::protocol::wire::InvalidateInode;
use crate::wake::retry;

/// The kernel's side of a mount, reached through a descriptor.
pub(crate) struct Kernel(OwnedFd);

impl Kernel {
    /// Duplicates the descriptor `device`.
    pub fn of(device: &OwnedFd) -> io::Result<Self> {
        device.try_clone().map(Self)
    }

    /// Makes the kernel ask for an inode's attributes when it next needs them, and not cache those in a reply that is
    /// already under way. Does not wait, so that workers may call it while they answer a request about the inode.
    pub fn forget_attributes(&self, ino: Ino) {
        const ATTRIBUTES_ALONE: i64 = -1;
        self.invalidate(InvalidateInode { ino: ino.0, offset: ATTRIBUTES_ALONE, length: 0 });
    }

    /// Makes the kernel write the data that it has collected for a file from `offset` on, and drop its cached pages
    /// there. Returns when the data has been written. So it must not be the calling thread that answers these WRITEs,
    /// or another request for whose reply they wait.
    pub fn write_back(&self, ino: Ino, offset: u64) {
        const TO_THE_END: i64 = 0;
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        self.invalidate(InvalidateInode { ino: ino.0, offset, length: TO_THE_END });
    }

    fn invalidate(&self, what: InvalidateInode) {
        let header = reply::notification(reply::INVALIDATE_INODE, size_of_val(&what));
        let parts = [io::IoSlice::new(header.as_bytes()), io::IoSlice::new(what.as_bytes())];
        // It fails if the kernel does not know the inode, and so has cached nothing.
        let _ = retry(|| rustix::io::writev(&self.0, &parts));
    }
}
