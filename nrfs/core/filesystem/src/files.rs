//! The operations on the content of files. None of them takes a hold on the inode: [`read`](Filesystem::read) and
//! [`check_change`](Filesystem::check_change) say why that is safe.

use std::sync::PoisonError;
use std::thread;

use machines::content::{self, AllocateMode, Change, SIZE_MAX};
use machines::types::{Errno, Ino, Kind};
use memory::shortage::{self, Left};

use crate::filesystem::Filesystem;
use crate::tokens::Token;

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
        let read = self.read_content(ino, |content| content.read(ino, offset, buffer), token);
        // The tree is asked after the content is read: if it still has the file, the content had not been dropped, as
        // `drop_inode` changes the tree first.
        self.check_file(ino, token).map(|()| read)
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
        let (mut written, mut has_waited) = (0, false);
        while written < data.len() {
            let offset = offset + written as u64;
            let rest = &data[written..data.len().min(written + Self::STEP_BYTES)];
            let range = offset..offset + rest.len() as u64;
            let wanted = content::pages_touched(&range);
            let (fills, _alone) = match self.memory_left(0) {
                Left::Enough => (true, None),
                Left::Nothing => (false, None),
                Left::Vacancies => {
                    let alone = self.scarcity.lock().unwrap_or_else(PoisonError::into_inner);
                    (self.has_vacancies(ino, wanted), Some(alone))
                }
            };
            let grant = match fills {
                true => self.ledger.grant_with(token.node(), self.take_promised(ino, &range), wanted),
                false => self.ledger.grant(token.node(), 0),
            };
            let change = Change::Write { offset, data: rest.into(), grant: grant.pages(), fills };
            let done = self.change_content(ino, change, token)?;
            let more = done.written == rest.len() || grant.might_grow();
            grant.close(done.taken);
            if done.taken > 0 {
                // Also for pages that were free before: their memory may have been given back to the system.
                shortage::taken(self.memory_of(done.taken));
            }
            self.note_space();
            written += done.written;
            if !more && (has_waited || !self.take_in_forgets()) {
                break;
            }
            has_waited |= !more;
            if written < data.len() {
                thread::yield_now();
            }
        }
        self.check_change(ino, token)?;
        if written == 0 && !data.is_empty() { Err(Errno::ENOSPC) } else { Ok(written) }
    }

    /// Copies up to `length` bytes from one file into another; both are given with an offset. Ends at the end of the
    /// first file. Returns the bytes copied, and fails, as [`write`](Self::write) does.
    pub fn copy(&self, from: (Ino, u64), to: (Ino, u64), length: u64, token: &Token) -> Result<u64, Errno> {
        let mut buffer = vec![0; length.min(Self::STEP_BYTES as u64) as usize];
        let mut copied = 0;
        while copied < length {
            let step = (length - copied).min(Self::STEP_BYTES as u64) as usize;
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

    /// The most bytes that one operation writes: the largest WRITE of the kernel.
    const STEP_BYTES: usize = 1 << 20;

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
        let range = offset..end;
        let mut has_waited = false;
        loop {
            let wanted = match mode {
                AllocateMode::PunchHole => 0,
                AllocateMode::Reserve | AllocateMode::ZeroRange => {
                    self.read_content(ino, |content| content.missing(ino, &range), token)
                }
            };
            // Later writes to the reserved pages must find memory.
            if wanted > 0 && self.memory_left(self.memory_of(wanted)) != Left::Enough {
                return Err(Errno::ENOSPC);
            }
            let grant = self.ledger.grant(token.node(), wanted);
            let change = Change::Allocate { range: range.clone(), mode, keep_size, grant: grant.pages() };
            match self.change_content(ino, change, token) {
                Ok(done) => {
                    grant.close(done.taken);
                    self.free_pages(done.freed);
                    self.note_space();
                    return self.check_change(ino, token);
                }
                // Another operation has made holes since the pages were counted, or may give back enough.
                Err(Errno::ENOSPC) if grant.pages() == wanted || grant.might_grow() => thread::yield_now(),
                Err(Errno::ENOSPC) if !has_waited && self.take_in_forgets() => has_waited = true,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The first offset at or behind `offset` with data, or in a hole. ENXIO if there is none.
    pub fn seek(&self, ino: Ino, offset: u64, whence: Whence, token: &Token) -> Result<u64, Errno> {
        let find = |content: &content::Content| match whence {
            Whence::Data => content.next_data(ino, offset),
            Whence::Hole => content.next_hole(ino, offset),
        };
        let found = self.read_content(ino, find, token);
        self.check_file(ino, token).and(found)
    }

    /// Called after each change to the content of a file. If the file has been dropped from the tree, the change may
    /// have made its content anew: this drops the content, and returns ENOENT.
    pub(crate) fn check_change(&self, ino: Ino, token: &Token) -> Result<(), Errno> {
        self.check_file(ino, token).inspect_err(|_| self.drop_content(ino, token))
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
