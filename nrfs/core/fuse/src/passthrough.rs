//! Opens files whose bytes the kernel reads and writes itself, in a backing file (FUSE passthrough).
//!
//! All opens of a file at one time share one [`BackingId`]. What the kernel does with a backing file it does not tell
//! us, which matters in two ways:
//!
//! - **Attributes.** After its own reads and writes the kernel forgets the attributes that they change, but not after a
//!   store to a mapping. A mapping may be there longer than the open file, and needs one that was opened for reading and
//!   writing. So from such an open on, the kernel must not keep the file's attributes, until a lease shows that nobody
//!   can store to it.
//! - **Privileges.** A write must take set-user-id and set-group-id away. So a file that has them is opened for writing
//!   in such a way that writes come to us. If a file gets them while somebody has it open for writing who may not write
//!   without taking them away, it is *watched*: when its backing file has changed, they are taken away, whoever it was.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use filesystem::{Errno, Filesystem, Ino, Privileges, Time, Token};
use rustix::fs::{Mode, fchmod, fstat};

use crate::backing::{self, BackingId};
use crate::kernel::Kernel;
use crate::lock::lock;
use crate::protocol::wire::OpenedFlags;
use crate::rights::{self, Capability};

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
    /// The number of files that are watched.
    watched: AtomicUsize,
}

type Shard = HashMap<Ino, File>;

#[derive(Default)]
struct File {
    /// `None` if it is not open.
    backing: Option<BackingId>,
    opens: u32,
    /// How many of the opens are for writing.
    writers: u32,
    /// The threads that have opened it for writing since there were no writers.
    writing: Vec<u32>,
    /// Whether somebody may have a mapping to which it can be stored.
    may_be_mapped: bool,
    /// When its backing file was last changed before it got privileges, if it is watched.
    watched: Option<Time>,
}

impl Passthrough {
    /// So many that threads rarely meet at one. A power of two.
    const SHARDS: usize = 64;

    /// For the mount that `device` belongs to.
    pub fn new(device: OwnedFd, kernel: Arc<Kernel>) -> io::Result<Self> {
        backing::ignore_lease_breaks()?;
        let shards = std::array::from_fn(|_| CachePadded::default());
        Ok(Self { device, kernel, shards, watched: AtomicUsize::new(0) })
    }

    /// Opens a file for thread `pid`, with the flags `how` of open(2). `is_new` says that the kernel has no attributes of
    /// it yet.
    pub fn open(
        &self,
        fs: &Filesystem,
        ino: Ino,
        (pid, how): (u32, u32),
        is_new: bool,
        token: &Token,
    ) -> Result<Opened, Errno> {
        let writes = is_for_writing(how);
        let mut shard = self.shard(ino);
        let file = shard.entry(ino).or_default();
        let backing = match file.backing {
            Some(backing) => backing,
            None => self.open_backing(fs, ino).inspect_err(|_| Self::tidy(&mut shard, ino))?,
        };
        let file = shard.entry(ino).or_default();
        file.backing = Some(backing);
        file.opens += 1;
        if writes {
            file.writers += 1;
            if !file.writing.contains(&pid) {
                file.writing.push(pid);
            }
        }
        if how & libc::O_ACCMODE as u32 == libc::O_RDWR as u32 && !file.may_be_mapped {
            file.may_be_mapped = true;
            if !is_new {
                self.kernel.forget_attributes(ino);
            }
        }
        drop(shard);
        let comes_to_us = writes && fs.has_privileges(ino, Privileges::All, token);
        let direct = if comes_to_us { OpenedFlags::DIRECT_IO } else { OpenedFlags::empty() };
        Ok(Opened { flags: OpenedFlags::PASSTHROUGH | OpenedFlags::NO_FLUSH | direct, backing: Some(backing) })
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
        if file.writers == 0 {
            file.writing = Vec::new();
        }
        if file.opens == 0 {
            if let Some(backing) = file.backing.take() {
                backing::close(&self.device, backing);
            }
            Self::tidy(&mut shard, ino);
        }
    }

    /// Whether the kernel may keep the attributes of a file.
    pub fn may_cache(&self, fs: &Filesystem, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let Some(file) = shard.get_mut(&ino) else { return true };
        self.look_for_writers(fs, ino, file);
        let may = !file.may_be_mapped && file.watched.is_none();
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

    /// Notes if nobody can store to a file any more. Under the lock nobody opens it, so the lease is in nobody's way.
    fn look_for_writers(&self, fs: &Filesystem, ino: Ino, file: &mut File) {
        if file.opens > 0 || !(file.may_be_mapped || file.watched.is_some()) {
            return;
        }
        // If the inode has been dropped, nothing of it is mapped.
        let has_none = |file: OwnedFd| backing::has_no_writers(file.as_fd());
        if fs.backing(ino).is_none_or(has_none) {
            file.may_be_mapped = false;
            if file.watched.take().is_some() {
                self.watched.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Removes the entry of a file that is neither open nor mapped.
    fn tidy(shard: &mut Shard, ino: Ino) {
        let is_idle = |file: &File| file.opens == 0 && !file.may_be_mapped && file.watched.is_none();
        if shard.get(&ino).is_some_and(is_idle) {
            shard.remove(&ino);
        }
    }

    /// Called when attributes of a file have been set that has set-user-id or set-group-id: if somebody has it open for
    /// writing who may not write without taking these away, it is watched from now on. Waits for the clock's next tick.
    pub fn watch(&self, fs: &Filesystem, ino: Ino) {
        let may_keep = |&pid: &u32| rights::has_capability(pid, Capability::KeepSetId);
        let writing = self.shard(ino).get(&ino).map(|file| file.writing.clone()).unwrap_or_default();
        if writing.iter().all(may_keep) {
            return;
        }
        let mut shard = self.shard(ino);
        let Some(file) = shard.get_mut(&ino).filter(|file| file.writers > 0) else { return };
        let Some(changed) = fs.backing(ino).and_then(|file| touch(&file)) else { return };
        if file.watched.replace(changed).is_none() {
            self.watched.fetch_add(1, Ordering::SeqCst);
        }
        drop(shard);
        // Changes have the time of the last tick: so one that comes after the reply must have a later time.
        while filesystem::now() <= changed {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Takes privileges away from watched files whose backing file has changed. Called before each request.
    pub fn look_at_watched(&self, fs: &Filesystem, token: &Token) {
        if self.watched.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut changed = Vec::new();
        for shard in &self.shards {
            for (&ino, file) in lock(shard).iter_mut() {
                let Some(then) = file.watched else { continue };
                if fs.backing(ino).and_then(|file| changed_at(&file)).is_none_or(|now| now > then) {
                    file.watched = None;
                    self.watched.fetch_sub(1, Ordering::SeqCst);
                    changed.push(ino);
                } else {
                    self.look_for_writers(fs, ino, file);
                }
            }
        }
        for ino in changed {
            // It fails if the inode has been dropped.
            let _ = fs.kill_privileges(ino, Privileges::All, token);
        }
    }

    fn shard(&self, ino: Ino) -> MutexGuard<'_, Shard> {
        lock(&self.shards[ino.0 as usize % Self::SHARDS])
    }
}

fn is_for_writing(how: u32) -> bool {
    how & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32
}

/// Changes the backing file's time of change to the present, and returns it.
fn touch(file: &OwnedFd) -> Option<Time> {
    fchmod(file, Mode::from_raw_mode(0o600)).ok()?;
    changed_at(file)
}

fn changed_at(file: &OwnedFd) -> Option<Time> {
    fstat(file).ok().map(|found| Time { seconds: found.st_ctime, nanoseconds: found.st_ctime_nsec as u32 })
}
