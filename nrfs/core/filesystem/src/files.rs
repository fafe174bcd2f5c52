//! The operations on the content of files. None of them takes a hold on the inode: [`read`](Filesystem::read) and
//! [`check_change`](Filesystem::check_change) say why that is safe.

use std::os::fd::OwnedFd;

use machines::content::{AllocateMode, SIZE_MAX};
use machines::types::{Errno, Ino, Kind};

use crate::filesystem::Filesystem;
use crate::tokens::Token;

/// The most bytes that are written at once: the largest WRITE of the kernel.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// What [`seek`](Filesystem::seek) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_DATA
    Data,
    /// SEEK_HOLE
    Hole,
}

impl Whence {
    /// From lseek(2)'s `whence`. EINVAL for other values than SEEK_DATA and SEEK_HOLE.
    pub fn from_number(whence: u32) -> Result<Self, Errno> {
        const DATA: u32 = libc::SEEK_DATA as u32;
        const HOLE: u32 = libc::SEEK_HOLE as u32;
        match whence {
            DATA => Ok(Self::Data),
            HOLE => Ok(Self::Hole),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Filesystem {
    /// Copies from a file into `buffer`, from `offset` to the file's end at most. Returns the bytes copied.
    pub fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8], token: &Token) -> Result<usize, Errno> {
        let read = self.contents.read(ino, offset, buffer, token);
        // The tree is asked after the content is read: if it still has the file, the content had not been dropped, as
        // `drop_inode` changes the tree first.
        self.check_file(ino, token).and(read)
    }

    /// Copies `data` into a file, at `offset`. Returns the bytes copied: fewer than given if space or memory ran out.
    /// ENOSPC if there was no room for a single byte.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], token: &Token) -> Result<usize, Errno> {
        self.check_file(ino, token)?;
        let room = SIZE_MAX.saturating_sub(offset);
        if room == 0 && !data.is_empty() {
            return Err(Errno::EFBIG);
        }
        let data = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        let written = self.contents.write(ino, offset, data, token);
        self.check_change(ino, token)?;
        let written = written?;
        if written == 0 && !data.is_empty() { Err(Errno::ENOSPC) } else { Ok(written) }
    }

    /// Copies up to `length` bytes from one file into another; both are given with an offset. Ends at the end of the
    /// first file. Returns the bytes copied, and fails, as [`write`](Self::write) does.
    pub fn copy(&self, from: (Ino, u64), to: (Ino, u64), length: u64, token: &Token) -> Result<u64, Errno> {
        let mut buffer = vec![0; length.min(STEP_BYTES as u64) as usize];
        let mut copied = 0;
        while copied < length {
            let step = (length - copied).min(STEP_BYTES as u64) as usize;
            let read = self.read(from.0, from.1 + copied, &mut buffer[..step], token)?;
            let written = match self.write(to.0, to.1 + copied, &buffer[..read], token) {
                Err(errno) if copied == 0 => return Err(errno),
                written => written.unwrap_or(0),
            };
            copied += written as u64;
            if written < step {
                break;
            }
        }
        Ok(copied)
    }

    /// fallocate(2). If it fails, nothing has changed.
    pub fn allocate(
        &self,
        ino: Ino,
        offset: u64,
        length: u64,
        mode: AllocateMode,
        keep_size: bool,
        token: &Token,
    ) -> Result<(), Errno> {
        self.check_file(ino, token)?;
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(length).filter(|&end| end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        let allocated = self.contents.allocate(ino, &(offset..end), mode, keep_size, token);
        self.check_change(ino, token).and(allocated)
    }

    /// The first offset at or behind `offset` with data, or in a hole. ENXIO if there is none.
    pub fn seek(&self, ino: Ino, offset: u64, whence: Whence, token: &Token) -> Result<u64, Errno> {
        let found = self.contents.seek(ino, offset, whence, token);
        self.check_file(ino, token).and(found)
    }

    /// Opens the file that has the bytes of `ino`, for reading: the kernel may read and write it itself. `None` if the
    /// content is replicated, or the file has ended.
    pub fn backing(&self, ino: Ino) -> Result<Option<OwnedFd>, Errno> {
        self.contents.backing(ino)
    }

    /// The same, if that file could not be made when the inode was. ESTALE if the inode is gone, or has no name: then its
    /// content may have ended before it.
    pub fn late_backing(&self, ino: Ino, token: &Token) -> Result<OwnedFd, Errno> {
        let tree = self.namespace.execute(|tree| tree.attributes(ino), &token.namespace);
        let begun = if tree.is_ok_and(|tree| tree.links > 0) { self.contents.begin(ino)? } else { None };
        self.check_change(ino, token).map_err(|_| Errno::ESTALE)?;
        begun.map(|begun| begun.backing).ok_or(Errno::ESTALE)
    }

    /// Called after each change to the content of a file. If the file has been dropped from the tree, the change may
    /// have made its content anew: this drops the content, and returns ENOENT.
    pub(crate) fn check_change(&self, ino: Ino, token: &Token) -> Result<(), Errno> {
        self.check_file(ino, token).inspect_err(|_| self.contents.end(ino, token))
    }

    /// Fails unless the inode is a file: with EISDIR for a directory, with EINVAL for other kinds.
    fn check_file(&self, ino: Ino, token: &Token) -> Result<(), Errno> {
        match self.namespace.execute(|tree| tree.attributes(ino), &token.namespace)?.kind {
            Kind::File => Ok(()),
            Kind::Directory => Err(Errno::EISDIR),
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::CharacterDevice | Kind::BlockDevice => Err(Errno::EINVAL),
        }
    }
}
