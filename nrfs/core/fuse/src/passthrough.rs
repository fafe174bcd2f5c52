//! Opens files whose bytes the kernel reads and writes itself, in a backing file (FUSE passthrough).
//!
//! All opens of a file at one time share one [`BackingId`]. What the kernel does with a backing file it does not tell
//! us. After its own reads and writes it forgets the attributes that they change, but not after a store to a mapping. A
//! mapping may be there longer than the open file, and needs one that was opened for reading and writing. So from such
//! an open on, the kernel must not keep the file's attributes, until a lease shows that nobody can store to it.
//!
//! Before the kernel writes for a caller who may not keep set-user-id and set-group-id, it sends a SETATTR that sets
//! nothing: see `Native::kill_before_write`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_utils::CachePadded;
use filesystem::{Errno, Filesystem, Ino};

use crate::backing::{self, BackingId};
use crate::kernel::Kernel;
use crate::lock::lock;
use crate::protocol::wire::OpenedFlags;

/// How the kernel is told to use an open file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opened {
    pub flags: OpenedFlags,
    pub backing: Option<BackingId>,
}

/// The files of a mount that are open, or may be mapped.
pub(crate) struct Passthrough {
    device: OwnedFd,
    kernel: Arc<Kernel>,
    /// By inode number. Shards share no cache line.
    shards: [CachePadded<Mutex<Shard>>; Self::SHARDS],
}

type Shard = HashMap<Ino, File>;

#[derive(Default)]
struct File {
    /// `None` if it is not open.
    backing: Option<BackingId>,
    opens: u32,
    /// How many of the opens are for writing.
    writers: u32,
    /// Whether somebody may have a mapping to which it can be stored.
    may_be_mapped: bool,
}

impl Passthrough {
    /// So many that threads rarely meet at one. A power of two.
    const SHARDS: usize = 64;

    /// For the mount that `device` belongs to.
    pub fn new(device: OwnedFd, kernel: Arc<Kernel>) -> io::Result<Self> {
        backing::ignore_lease_breaks()?;
        let shards = std::array::from_fn(|_| CachePadded::default());
        Ok(Self { device, kernel, shards })
    }

    /// Opens a file with the flags `how` of open(2). `is_new` says that the kernel has no attributes of it yet.
    pub fn open(&self, fs: &Filesystem, ino: Ino, how: u32, is_new: bool) -> Result<Opened, Errno> {
        let mut shard = self.shard(ino);
        let backing = match shard.get(&ino).and_then(|file| file.backing) {
            Some(backing) => backing,
            None => self.open_backing(fs, ino)?,
        };
        let file = shard.entry(ino).or_default();
        file.backing = Some(backing);
        file.opens += 1;
        file.writers += u32::from(is_for_writing(how));
        if how & libc::O_ACCMODE as u32 == libc::O_RDWR as u32 && !file.may_be_mapped {
            file.may_be_mapped = true;
            if !is_new {
                self.kernel.forget_attributes(ino);
            }
        }
        Ok(Opened { flags: OpenedFlags::PASSTHROUGH | OpenedFlags::NO_FLUSH, backing: Some(backing) })
    }

    fn open_backing(&self, fs: &Filesystem, ino: Ino) -> Result<BackingId, Errno> {
        // It may have ended since the kernel looked for it: then the kernel looks again.
        let file = fs.backing(ino).ok_or(Errno::ESTALE)?;
        backing::open(&self.device, file.as_fd()).map_err(|_| Errno::EIO)
    }

    /// Called when an open file has been closed that was opened with the flags `how`.
    pub fn release(&self, ino: Ino, how: u32) {
        let mut shard = self.shard(ino);
        let Some(file) = shard.get_mut(&ino) else { return };
        file.opens = file.opens.saturating_sub(1);
        file.writers = file.writers.saturating_sub(u32::from(is_for_writing(how)));
        if file.opens == 0 {
            if let Some(backing) = file.backing.take() {
                backing::close(&self.device, backing);
            }
            Self::tidy(&mut shard, ino);
        }
    }

    /// Whether a file is open for writing.
    pub fn has_writers(&self, ino: Ino) -> bool {
        self.shard(ino).get(&ino).is_some_and(|file| file.writers > 0)
    }

    /// Whether the kernel may keep the attributes of a file.
    pub fn may_cache(&self, fs: &Filesystem, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let Some(file) = shard.get_mut(&ino) else { return true };
        // Under the lock nobody opens it, so the lease is in nobody's way.
        if file.opens == 0 && file.may_be_mapped {
            // If the inode has been dropped, nothing of it is mapped.
            let has_none = |file: OwnedFd| backing::has_no_writers(file.as_fd());
            file.may_be_mapped = !fs.backing(ino).is_none_or(has_none);
        }
        let may = !file.may_be_mapped;
        Self::tidy(&mut shard, ino);
        may
    }

    /// Calls `end` unless a file is open. Nobody opens it meanwhile.
    pub fn unless_open(&self, ino: Ino, end: &dyn Fn()) {
        let shard = self.shard(ino);
        if shard.get(&ino).is_none_or(|file| file.opens == 0) {
            end();
        }
    }

    /// Called when the kernel has forgotten an inode.
    pub fn forget(&self, fs: &Filesystem, ino: Ino) {
        self.may_cache(fs, ino);
    }

    /// Removes the entry of a file that is neither open nor mapped.
    fn tidy(shard: &mut Shard, ino: Ino) {
        let is_idle = |file: &File| file.opens == 0 && !file.may_be_mapped;
        if shard.get(&ino).is_some_and(is_idle) {
            shard.remove(&ino);
        }
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        lock(&self.shards[ino.0 as usize % Self::SHARDS])
    }
}

fn is_for_writing(how: u32) -> bool {
    how & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32
}
