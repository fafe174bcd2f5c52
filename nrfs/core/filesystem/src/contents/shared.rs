//! Contents of which there is one copy: each file's bytes are in a *backing file*, a file of a tmpfs that is mounted
//! nowhere. Its name is the inode number. The kernel reads and writes the backing file itself (FUSE passthrough).
//! Nothing is cached here: the backing file has the size and the times.

use std::ops::Range;
use std::os::fd::OwnedFd;

use machines::content::AllocateMode;
use machines::types::{Errno, Ino, Time};
use memory::PAGE_SIZE;
use memory::shortage::{self, Left};
use nr::{NodeId, Statistics};
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::{pread, pwrite};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, fspick,
};
use rustix::path::DecInt;

use super::{Attributes, Begun, Contents, NewAttributes, Replicated, Space, Token};
use crate::files::Whence;
use crate::status::Verification;
use crate::tokens;

/// The contents of all files, in a tmpfs.
pub(crate) struct Shared {
    directory: OwnedFd,
}

/// Free pages that a process can fill while the kernel forgets a file.
const NEARLY_FULL: u64 = (64 << 20) / PAGE_SIZE as u64;

const MODE: Mode = Mode::from_raw_mode(0o600);

impl Shared {
    /// Makes a tmpfs with these options, as tmpfs(5) has them. It is mounted nowhere, and ends with its descriptor. An
    /// error comes with the option that was refused.
    pub fn new<const N: usize>(
        options: [(&'static str, Option<String>); N],
        noswap: bool,
    ) -> Result<Self, (Option<&'static str>, rustix::io::Errno)> {
        let failed = |errno| (None, errno);
        let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
        // As many files as the tree has: that is counted there.
        let unbounded = [("nr_inodes", Some("0".into()))];
        for (name, value) in unbounded.into_iter().chain(options) {
            let Some(value) = value else { continue };
            fsconfig_set_string(&tmpfs, name, value).map_err(|errno| (Some(name), errno))?;
        }
        if noswap {
            fsconfig_set_flag(&tmpfs, "noswap").map_err(|errno| (Some("noswap"), errno))?;
        }
        fsconfig_create(&tmpfs).map_err(failed)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&tmpfs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
        let directory = fs::openat(&mount, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
        Ok(Self { directory })
    }

    /// Opens the backing file of `ino`.
    fn open(&self, ino: Ino, how: OFlags) -> rustix::io::Result<OwnedFd> {
        fs::openat(&self.directory, name(ino), how | OFlags::CLOEXEC, MODE)
    }

    fn open_for_writing(&self, ino: Ino) -> Result<OwnedFd, Errno> {
        self.open(ino, OFlags::RDWR | OFlags::CREATE).map_err(errno)
    }
}

impl Contents for Shared {
    fn register(&self, _: NodeId) -> Option<Token> {
        None
    }

    fn begin(&self, ino: Ino) -> Result<Option<Begun>, Errno> {
        let backing = self.open(ino, OFlags::RDONLY | OFlags::CREATE).map_err(errno)?;
        let attributes = attributes(&fs::fstat(&backing).map_err(errno)?);
        Ok(Some(Begun { attributes, backing }))
    }

    fn end(&self, ino: Ino, _: &tokens::Token) {
        // It fails if there is none.
        let _ = fs::unlinkat(&self.directory, name(ino), AtFlags::empty());
    }

    fn attributes(&self, ino: Ino, _: &tokens::Token) -> Option<Attributes> {
        fs::statat(&self.directory, name(ino), AtFlags::empty()).ok().as_ref().map(attributes)
    }

    fn has_access_times(&self) -> bool {
        true
    }

    fn check_memory(&self, _: Ino, _: &tokens::Token) -> Result<(), Errno> {
        Ok(())
    }

    fn set_attributes(&self, ino: Ino, new: NewAttributes, _: &tokens::Token) -> Result<(), Errno> {
        let NewAttributes { size, accessed, mut modified, .. } = new;
        if let Some(size) = size {
            let file = self.open_for_writing(ino)?;
            let before = fs::fstat(&file).map_err(errno)?;
            fs::ftruncate(&file, size).map_err(errno)?;
            // Unlike ftruncate(2), truncate(2) on tmpfs does not stamp a file if it changes nothing.
            let changes_nothing = before.st_size as u64 == size && before.st_blocks == 0;
            modified = modified.or(changes_nothing.then(|| time(before.st_mtime, before.st_mtime_nsec)));
        }
        if accessed.is_some() || modified.is_some() {
            let times = Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
            let set = || fs::utimensat(&self.directory, name(ino), &times, AtFlags::empty());
            set().or_else(|_| self.open(ino, OFlags::RDWR | OFlags::CREATE).and_then(|_| set())).map_err(errno)?;
        }
        Ok(())
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8], _: &tokens::Token) -> Result<usize, Errno> {
        pread(&self.open(ino, OFlags::RDONLY).map_err(errno)?, buffer, offset).map_err(errno)
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], _: &tokens::Token) -> Result<usize, Errno> {
        let file = self.open_for_writing(ino)?;
        let mut written = 0;
        while written < data.len() {
            match pwrite(&file, &data[written..], offset + written as u64) {
                Ok(0) | Err(rustix::io::Errno::NOSPC) => break,
                Err(_) if written > 0 => break,
                Err(refused) => return Err(errno(refused)),
                Ok(bytes) => written += bytes,
            }
        }
        Ok(written)
    }

    fn allocate(
        &self,
        ino: Ino,
        range: &Range<u64>,
        mode: AllocateMode,
        keep_size: bool,
        _: &tokens::Token,
    ) -> Result<(), Errno> {
        let file = self.open_for_writing(ino)?;
        let keep = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        let length = range.end - range.start;
        let call = |flags| fs::fallocate(&file, flags, range.start, length).map_err(errno);
        match mode {
            AllocateMode::Reserve => call(keep),
            AllocateMode::PunchHole => call(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
            AllocateMode::ZeroRange => {
                call(keep)?;
                let end = range.end.min(fs::fstat(&file).map_err(errno)?.st_size as u64);
                write_zeros(&file, range.start..end).map_err(errno)
            }
        }
    }

    fn seek(&self, ino: Ino, offset: u64, whence: Whence, _: &tokens::Token) -> Result<u64, Errno> {
        let file = self.open(ino, OFlags::RDONLY).map_err(errno)?;
        let to = match whence {
            Whence::Data => SeekFrom::Data(offset),
            Whence::Hole => SeekFrom::Hole(offset),
        };
        fs::seek(&file, to).map_err(errno)
    }

    fn space(&self) -> Space {
        let Ok(space) = fs::fstatvfs(&self.directory) else { return Space { pages: 0, free: 0 } };
        let in_pages = |blocks: u64| blocks * space.f_frsize / PAGE_SIZE as u64;
        Space { pages: in_pages(space.f_blocks), free: in_pages(space.f_bavail) }
    }

    fn resize(&self, pages: u64) -> Result<(), Errno> {
        let tmpfs = fspick(&self.directory, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC);
        let resize = |tmpfs: OwnedFd| {
            fsconfig_set_string(&tmpfs, "size", (pages * PAGE_SIZE as u64).to_string())?;
            fsconfig_reconfigure(&tmpfs)
        };
        tmpfs.and_then(resize).map_err(errno)
    }

    fn is_nearly_full(&self) -> bool {
        self.space().free < NEARLY_FULL
    }

    fn memory_left(&self, bytes: u64) -> Left {
        shortage::left(bytes, |_| ())
    }

    fn give_back_memory(&self, _: bool, _: &tokens::Token) {}

    fn follow(&self, _: &tokens::Token) {}

    fn status(&self) -> Option<Statistics> {
        None
    }

    fn verify(&self, _: &tokens::Token) -> Vec<Verification> {
        Vec::new()
    }

    fn collecting(&self) -> Option<&Replicated> {
        None
    }

    fn backing(&self, ino: Ino) -> Result<Option<OwnedFd>, Errno> {
        match self.open(ino, OFlags::RDONLY) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            opened => opened.map(Some).map_err(errno),
        }
    }
}

/// The name of the backing file of `ino`.
fn name(ino: Ino) -> DecInt {
    DecInt::new(ino.0)
}

fn attributes(found: &Stat) -> Attributes {
    Attributes {
        size: found.st_size as u64,
        blocks: found.st_blocks as u64,
        accessed: Some(time(found.st_atime, found.st_atime_nsec)),
        modified: time(found.st_mtime, found.st_mtime_nsec),
        changed: time(found.st_ctime, found.st_ctime_nsec),
    }
}

/// Overwrites bytes that space has been reserved for. tmpfs itself has no FALLOC_FL_ZERO_RANGE.
fn write_zeros(file: &OwnedFd, mut range: Range<u64>) -> rustix::io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    while !range.is_empty() {
        let step = (range.end - range.start).min(ZEROS.len() as u64) as usize;
        range.start += pwrite(file, &ZEROS[..step], range.start)? as u64;
    }
    Ok(())
}

fn time(seconds: i64, nanoseconds: u64) -> Time {
    Time { seconds, nanoseconds: nanoseconds as u32 }
}

fn timespec(time: Option<Time>) -> Timespec {
    match time {
        Some(Time { seconds, nanoseconds }) => Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    }
}

/// The errno of a failed system call on a backing file: EIO for one that its caller could not have caused.
fn errno(refused: rustix::io::Errno) -> Errno {
    use rustix::io::Errno as System;
    match refused {
        System::NOSPC | System::NOMEM => Errno::ENOSPC,
        System::FBIG => Errno::EFBIG,
        System::INVAL => Errno::EINVAL,
        System::NXIO => Errno::ENXIO,
        _ => Errno::EIO,
    }
}
