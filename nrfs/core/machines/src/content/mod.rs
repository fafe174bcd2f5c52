//! The content of files: size, bytes, holes, and the times that change with them.
//!
//! It knows nothing of the tree: a file is an inode number, and a number that it has not seen is an empty
//! file. From the bottom up:
//!
//! - `file`: the bytes of one file;
//! - this file: all files, and the operations on them.
//!
//! Space is granted before an operation is logged: the operation says how many pages it may take, and
//! answers how many it took. So all replicas run out of space at the same byte.

mod file;

use std::ops::Range;

use memory::{Arena, PAGE_SIZE, Payload};
use nr::Dispatch;

use crate::digest::{Digest, Digester};
use crate::table::Table;
use crate::types::{Errno, Ino, Time};
use file::{File, Grant};

/// The largest size of a file in bytes, as for the kernel.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// The most bytes of the heap that a page of a file takes besides its 4 KiB, also if it is only reserved.
pub const HEAP_PER_PAGE: u64 = 48;

/// The content of many files.
pub struct Content {
    files: Table<File>,
    arena: Arena,
}

/// A change to one file's content, with its time, which is stamped once before the log.
#[derive(Debug)]
pub struct WriteOperation {
    /// The file.
    pub ino: Ino,
    /// The time of the operation.
    pub time: Time,
    /// The change.
    pub change: Change,
}

/// One change to a file's content.
#[derive(Clone, Debug)]
pub enum Change {
    /// Copies data into the file, as far as the grant suffices.
    Write {
        /// The offset in the file.
        offset: u64,
        /// The data.
        data: Payload,
        /// Pages it may take.
        grant: u64,
        /// Whether it may give memory to reserved pages; if not, it ends before the first of them.
        fills: bool,
    },
    /// Sets the attributes that are given. A given size also sets the time of modification to that of the
    /// operation, and the time of change is always set, unless these times are given, too.
    SetAttributes {
        /// The new size.
        size: Option<u64>,
        /// The time of modification.
        modified: Option<Time>,
        /// The time of change.
        changed: Option<Time>,
    },
    /// fallocate(2): succeeds as a whole, or changes nothing.
    Allocate {
        /// The bytes.
        range: Range<u64>,
        /// What to do with the range.
        mode: AllocateMode,
        /// Whether the file keeps its size even if the range goes beyond it.
        keep_size: bool,
        /// Pages it may take.
        grant: u64,
    },
    /// Forgets the file.
    Drop,
    /// Gives memory of freed pages back to the system. It changes no file; `ino` and `time` are not used.
    GiveBackMemory {
        /// Only as much as was not needed since the last time.
        surplus: bool,
    },
}

/// What fallocate(2) does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateMode {
    /// Reserves pages for it. Data in it stays.
    Reserve,
    /// Makes a hole.
    PunchHole,
    /// Reserves pages for it, and makes it read as zeros.
    ZeroRange,
}

impl AllocateMode {
    /// What the flags of fallocate(2) ask for, without FALLOC_FL_KEEP_SIZE; EOPNOTSUPP for others.
    pub fn from_flags(flags: u32) -> Result<Self, Errno> {
        const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
        const PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32;
        const ZERO_RANGE: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
        match (flags & !KEEP_SIZE, flags & KEEP_SIZE != 0) {
            (0, _) => Ok(Self::Reserve),
            (PUNCH_HOLE, true) => Ok(Self::PunchHole),
            (ZERO_RANGE, _) => Ok(Self::ZeroRange),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// The answer to a change.
pub type Response = Result<Changed, Errno>;

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Bytes written.
    pub written: usize,
    /// Pages taken from the grant.
    pub taken: u64,
    /// Pages freed.
    pub freed: u64,
}

/// The attributes of a file that the content knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Bytes.
    pub size: u64,
    /// Pages that take space.
    pub pages: u64,
    /// When the content was last modified.
    pub modified: Time,
    /// When content or attributes were last changed.
    pub changed: Time,
}

impl Dispatch for Content {
    type WriteOperation = WriteOperation;
    type Response = Response;

    fn dispatch_mut(&mut self, operation: &WriteOperation) -> Response {
        let WriteOperation { ino, time, change } = operation;
        match change {
            Change::Write { offset, data, grant, fills } => {
                self.write(*ino, *offset, data, Grant { pages: *grant, fills: *fills }, *time)
            }
            Change::SetAttributes { size, modified, changed } => {
                self.set_attributes(*ino, *size, *modified, *changed, *time)
            }
            Change::Allocate { range, mode, keep_size, grant } => {
                self.allocate(*ino, range, *mode, *keep_size, *grant, *time)
            }
            Change::Drop => Ok(self.drop_file(*ino)),
            Change::GiveBackMemory { surplus } => Ok(self.give_back_memory(*surplus)),
        }
    }

    fn payload_bytes(operation: &WriteOperation) -> usize {
        match &operation.change {
            Change::Write { data, .. } => data.len(),
            Change::SetAttributes { .. } | Change::Allocate { .. } | Change::Drop | Change::GiveBackMemory { .. } => 0,
        }
    }
}

/// Reading.
impl Content {
    /// The content of no files. Pages will come from `arena`.
    pub fn new(arena: Arena) -> Self {
        Self { files: Table::new(), arena }
    }

    /// Copies from a file into `buffer`, from `offset` to the file's end at most; returns the bytes copied.
    pub fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> usize {
        self.files.get(ino).map_or(0, |file| file.read(&self.arena, offset, buffer))
    }

    /// The attributes of a file, or `None` if nothing was ever done to its content.
    pub fn attributes(&self, ino: Ino) -> Option<Attributes> {
        let file = self.files.get(ino)?;
        Some(Attributes { size: file.size, pages: file.pages(), modified: file.modified, changed: file.changed })
    }

    /// How many pages of a range take no space yet: what a write of it takes.
    pub fn missing(&self, ino: Ino, range: &Range<u64>) -> u64 {
        match self.files.get(ino) {
            Some(file) => file.missing(range),
            None => pages_touched(range),
        }
    }

    /// The pages of a range that take no space yet, by their numbers in the file.
    pub fn holes<'a>(&'a self, ino: Ino, range: &Range<u64>) -> impl Iterator<Item = u64> + use<'a> {
        let file = self.files.get(ino);
        touched(range).filter(move |&page| file.is_none_or(|file| !file.takes(page)))
    }

    /// The first offset at or behind `offset` with data; ENXIO if there is none.
    pub fn next_data(&self, ino: Ino, offset: u64) -> Result<u64, Errno> {
        self.files.get(ino).and_then(|file| file.next_data(offset)).ok_or(Errno::ENXIO)
    }

    /// The first offset at or behind `offset` in a hole, or else the file's end. ENXIO if `offset` is at the end or
    /// behind it.
    pub fn next_hole(&self, ino: Ino, offset: u64) -> Result<u64, Errno> {
        self.files.get(ino).and_then(|file| file.next_hole(offset)).ok_or(Errno::ENXIO)
    }

    /// The digest of all content.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::default();
        for (ino, file) in self.files.sorted() {
            digester.ino(ino);
            file.feed(&self.arena, &mut digester);
        }
        digester.finish()
    }
}

/// Changing. Every check comes before the first change.
impl Content {
    fn write(&mut self, ino: Ino, offset: u64, data: &[u8], grant: Grant, time: Time) -> Response {
        if offset > SIZE_MAX || data.len() as u64 > SIZE_MAX - offset {
            return Err(Errno::EFBIG);
        }
        let is_new = self.files.get(ino).is_none();
        let file = self.files.get_or_insert_with(ino, || File::new(time));
        let (written, taken) = file.write(&mut self.arena, offset, data, grant);
        if written > 0 {
            file.modified = time;
            file.changed = time;
        } else if is_new {
            self.files.remove(ino);
        }
        Ok(Changed { written, taken, freed: 0 })
    }

    fn set_attributes(
        &mut self,
        ino: Ino,
        size: Option<u64>,
        modified: Option<Time>,
        changed: Option<Time>,
        time: Time,
    ) -> Response {
        if size.is_some_and(|size| size > SIZE_MAX) {
            return Err(Errno::EFBIG);
        }
        let file = self.files.get_or_insert_with(ino, || File::new(time));
        let mut freed = 0;
        if let Some(size) = size {
            freed = file.truncate(&mut self.arena, size);
            file.modified = time;
        }
        file.modified = modified.unwrap_or(file.modified);
        file.changed = changed.unwrap_or(time);
        Ok(Changed { freed, ..Changed::default() })
    }

    fn allocate(
        &mut self,
        ino: Ino,
        range: &Range<u64>,
        mode: AllocateMode,
        keep_size: bool,
        grant: u64,
        time: Time,
    ) -> Response {
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        if range.end > SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        if mode != AllocateMode::PunchHole && self.missing(ino, range) > grant {
            return Err(Errno::ENOSPC);
        }
        let file = self.files.get_or_insert_with(ino, || File::new(time));
        let mut done = Changed::default();
        match mode {
            AllocateMode::Reserve => done.taken = file.reserve(range),
            AllocateMode::PunchHole => done.freed = file.punch(&mut self.arena, range.clone()),
            AllocateMode::ZeroRange => {
                file.zero(&mut self.arena, range.clone());
                done.taken = file.reserve(range);
            }
        }
        if !keep_size {
            file.size = file.size.max(range.end);
        }
        file.modified = time;
        file.changed = time;
        Ok(done)
    }

    fn drop_file(&mut self, ino: Ino) -> Changed {
        let freed = self.files.remove(ino).map_or(0, |file| file.clear(&mut self.arena));
        Changed { freed, ..Changed::default() }
    }
}

/// Memory. No answer depends on it.
impl Content {
    fn give_back_memory(&mut self, surplus: bool) -> Changed {
        match surplus {
            true => self.arena.give_back_surplus(),
            false => self.arena.give_back(0),
        }
        Changed::default()
    }
}

/// The pages that a range of bytes touches, by their numbers in the file.
pub fn touched(range: &Range<u64>) -> Range<u64> {
    file::pages_touched(range)
}

/// How many pages a range of bytes touches: the most that a write of it takes.
pub fn pages_touched(range: &Range<u64>) -> u64 {
    let pages = touched(range);
    pages.end - pages.start
}

/// How many whole pages fit into `bytes`.
pub const fn pages_in(bytes: u64) -> u64 {
    bytes / PAGE_SIZE as u64
}
