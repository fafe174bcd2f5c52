//! Opens files whose bytes the kernel reads and writes itself, in a backing file (FUSE passthrough).
//!
//! All opens of a file share one [`BackingId`]. To get one takes longer than the rest of an open, so the last files that
//! were closed keep theirs for the next open, until the kernel forgets the inode: it does that after the last RELEASE.
//!
//! The kernel does not report what it does with a backing file. After it has read or written one, it forgets the
//! attributes that this changes; after a store to a mapping, it does not. Only a file that is opened for reading and
//! writing can be mapped for stores, and the mapping may outlast the open file. So from such an open on, the kernel must
//! not keep the file's attributes, until a lease shows that nobody can store to it any more.
//!
//! Before the kernel writes for a caller who may not keep set-user-id and set-group-id, it sends a SETATTR that sets
//! nothing: see `Native::kill_before_write`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_utils::CachePadded;
use filesystem::{Errno, Filesystem, Ino, Token};

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

#[derive(Default)]
struct Shard {
    files: HashMap<Ino, File>,
    /// Files that have been closed, in this order. Some have been opened since, or have ended.
    closed: VecDeque<Ino>,
}

#[derive(Default)]
struct File {
    /// There is one while the file is open, and perhaps longer.
    backing: Option<BackingId>,
    opens: u32,
    /// How many of the opens are for writing.
    writers: u32,
    /// Whether somebody may have a mapping that can be stored to.
    may_be_mapped: bool,
    /// Whether it is in [`Shard::closed`].
    is_listed: bool,
}

impl Passthrough {
    /// So many that threads rarely meet at one. A power of two.
    const SHARDS: usize = 64;

    /// How many closed files of a shard keep their ids. Each takes some hundred bytes of memory of the kernel.
    const CLOSED_MAX: usize = 256;

    /// For the mount that `device` belongs to.
    pub fn new(device: OwnedFd, kernel: Arc<Kernel>) -> io::Result<Self> {
        backing::ignore_lease_breaks()?;
        let shards = std::array::from_fn(|_| CachePadded::default());
        Ok(Self { device, kernel, shards })
    }

    /// Opens a file with the flags `how` of open(2). `made` is its backing file, if it was just made: then the kernel has
    /// no attributes of it yet.
    pub fn open(
        &self,
        fs: &Filesystem,
        ino: Ino,
        how: u32,
        made: Option<OwnedFd>,
        token: &Token,
    ) -> Result<Opened, Errno> {
        let is_new = made.is_some();
        let mut shard = self.shard(ino);
        let backing = match shard.files.get(&ino).and_then(|file| file.backing) {
            Some(backing) => backing,
            None => {
                // The file may have ended since the kernel looked it up. After ESTALE the kernel looks it up again.
                let found = made.map_or_else(|| fs.backing(ino), |made| Ok(Some(made)))?;
                let file = found.map_or_else(|| fs.late_backing(ino, token), Ok)?;
                backing::open(&self.device, file.as_fd()).map_err(|_| Errno::EIO)?
            }
        };
        let file = shard.files.entry(ino).or_default();
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

    /// Called when an open file has been closed that was opened with the flags `how`.
    pub fn release(&self, ino: Ino, how: u32) {
        let mut shard = self.shard(ino);
        let shard = &mut *shard;
        let Some(file) = shard.files.get_mut(&ino) else { return };
        file.opens = file.opens.saturating_sub(1);
        file.writers = file.writers.saturating_sub(u32::from(is_for_writing(how)));
        if file.opens == 0 && !file.is_listed {
            file.is_listed = true;
            shard.closed.push_back(ino);
            if shard.closed.len() > Self::CLOSED_MAX {
                let first = shard.closed.pop_front();
                first.inspect(|&ino| self.unlist(shard, ino));
            }
        }
    }

    /// Called when a file has been taken from the list of those that have been closed.
    fn unlist(&self, shard: &mut Shard, ino: Ino) {
        if let Some(file) = shard.files.get_mut(&ino) {
            file.is_listed = false;
            self.close_id(file);
            Self::tidy(shard, ino);
        }
    }

    /// Closes the id of a file, unless the file is open.
    fn close_id(&self, file: &mut File) {
        if file.opens == 0 {
            file.backing.take().inspect(|&backing| backing::close(&self.device, backing));
        }
    }

    /// Whether a file is open for writing.
    pub fn has_writers(&self, ino: Ino) -> bool {
        self.shard(ino).files.get(&ino).is_some_and(|file| file.writers > 0)
    }

    /// Whether the kernel may keep the attributes of a file.
    pub fn may_cache(&self, fs: &Filesystem, ino: Ino) -> bool {
        Self::may_cache_here(&mut self.shard(ino), fs, ino)
    }

    fn may_cache_here(shard: &mut Shard, fs: &Filesystem, ino: Ino) -> bool {
        let Some(file) = shard.files.get_mut(&ino) else { return true };
        // Nobody can open it meanwhile, as the shard is locked: so nobody has to wait for the end of the lease.
        if file.opens == 0 && file.may_be_mapped {
            // If the inode has been dropped, nothing of it is mapped.
            let has_none = |file: Option<OwnedFd>| file.is_none_or(|file| backing::has_no_writers(file.as_fd()));
            file.may_be_mapped = !fs.backing(ino).is_ok_and(has_none);
        }
        let may = !file.may_be_mapped;
        Self::tidy(shard, ino);
        may
    }

    /// Calls `end` unless a file is open. Nobody opens it meanwhile.
    pub fn unless_open(&self, ino: Ino, end: &dyn Fn()) {
        let mut shard = self.shard(ino);
        let file = shard.files.get_mut(&ino);
        if file.is_none_or(|file| {
            self.close_id(file);
            file.opens == 0
        }) {
            end();
        }
    }

    /// Called when the kernel has forgotten an inode.
    pub fn forget(&self, fs: &Filesystem, ino: Ino) {
        let mut shard = self.shard(ino);
        if let Some(file) = shard.files.get_mut(&ino) {
            self.close_id(file);
            Self::may_cache_here(&mut shard, fs, ino);
        }
    }

    /// Removes the entry of a file that has no id and is not mapped.
    fn tidy(shard: &mut Shard, ino: Ino) {
        let is_idle = |file: &File| file.backing.is_none() && !file.may_be_mapped;
        if shard.files.get(&ino).is_some_and(is_idle) {
            shard.files.remove(&ino);
        }
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        lock(&self.shards[ino.0 as usize % Self::SHARDS])
    }
}

fn is_for_writing(how: u32) -> bool {
    how & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32
}
