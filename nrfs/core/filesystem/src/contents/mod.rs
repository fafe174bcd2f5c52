//! The contents of files: where their bytes lie, and what is done with them.
//!
//! [`Contents`] is what the service asks for. An implementation knows inode numbers and nothing of the tree, and a
//! number that it has not seen is an empty file. There are two:
//!
//! - [`Replicated`]: every node has all bytes. `ledger` counts their pages, `promises` sets pages aside for data that
//!   the kernel has collected, `by_inode` chooses the log of a file.
//! - [`Shared`]: there is one copy, in files of another file system, which the kernel can read and write itself.

pub(crate) mod by_inode;
mod ledger;
mod promises;
mod replicated;
mod shared;

use std::ops::Range;
use std::os::fd::OwnedFd;

use machines::content::AllocateMode;
use machines::types::{Errno, Ino, Time};
use memory::shortage::Left;
use nr::{NodeId, Statistics};

use crate::files::Whence;
use crate::status::Verification;
use crate::tokens;

pub(crate) use replicated::Token;
pub use replicated::{LARGE, Replicated};
pub(crate) use shared::Shared;

/// What the contents know of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes that take space.
    pub blocks: u64,
    /// When the file was last read, if this is known here and not in the tree.
    pub accessed: Option<Time>,
    /// When the content was last modified.
    pub modified: Time,
    /// When the content was last changed.
    pub changed: Time,
}

/// A file that was just made.
pub(crate) struct Begun {
    pub attributes: Attributes,
    /// What [`Contents::backing`] would open.
    pub backing: OwnedFd,
}

/// Attributes to be set. `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NewAttributes {
    pub size: Option<u64>,
    /// Only if [`Contents::has_access_times`].
    pub accessed: Option<Time>,
    pub modified: Option<Time>,
    pub changed: Option<Time>,
}

/// The space for bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    /// Pages in all.
    pub pages: u64,
    /// Pages that are free.
    pub free: u64,
}

/// The contents of all files of a file system.
///
/// A caller looks at the tree before an operation and after it: if the file has been dropped meanwhile, the operation
/// may have made its content anew, and the caller drops it again.
pub(crate) trait Contents: Send + Sync {
    /// A thread's place at the replica of `node`, if there are replicas.
    fn register(&self, node: NodeId) -> Option<Token>;

    /// Called when a file has been made. Returns what there is of it from the beginning, if anything. If it fails, it can
    /// be tried again.
    fn begin(&self, ino: Ino) -> Result<Option<Begun>, Errno>;

    /// Forgets a file.
    fn end(&self, ino: Ino, token: &tokens::Token);

    /// The attributes of a file. `None` if nothing is known of it: then it is empty, and has the tree's times.
    fn attributes(&self, ino: Ino, token: &tokens::Token) -> Option<Attributes>;

    /// Whether the time of the last access is here, and not in the tree.
    fn has_access_times(&self) -> bool;

    /// ENOSPC if there is no memory to set attributes of a file.
    fn check_memory(&self, ino: Ino, token: &tokens::Token) -> Result<(), Errno>;

    /// Sets attributes. A new size also sets the time of modification to the present, unless that is given.
    fn set_attributes(&self, ino: Ino, new: NewAttributes, token: &tokens::Token) -> Result<(), Errno>;

    /// Copies from a file into `buffer`, to the file's end at most. Returns the bytes copied.
    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8], token: &tokens::Token) -> Result<usize, Errno>;

    /// Copies `data` into a file. Returns the bytes copied: fewer than given, or none, if space or memory ran out.
    fn write(&self, ino: Ino, offset: u64, data: &[u8], token: &tokens::Token) -> Result<usize, Errno>;

    /// fallocate(2) for a range that is not empty. If it fails, nothing has changed.
    fn allocate(
        &self,
        ino: Ino,
        range: &Range<u64>,
        mode: AllocateMode,
        keep_size: bool,
        token: &tokens::Token,
    ) -> Result<(), Errno>;

    /// The first offset at or behind `offset` with data, or in a hole. ENXIO if there is none.
    fn seek(&self, ino: Ino, offset: u64, whence: Whence, token: &tokens::Token) -> Result<u64, Errno>;

    /// The space.
    fn space(&self) -> Space;

    /// Changes the space to so many pages. EINVAL, and changes nothing, if more are in use.
    fn resize(&self, pages: u64) -> Result<(), Errno>;

    /// Whether a file that has lost its last name, and is not open, should end at once: as the kernel takes space
    /// itself, nobody could wait until it has forgotten the inode.
    fn is_nearly_full(&self) -> bool;

    /// What memory is left after `bytes` more are taken. 0 stands for a few bytes.
    fn memory_left(&self, bytes: u64) -> Left;

    /// Gives memory back to the system that is kept for later use: with `surplus` only what was not needed since the
    /// last such call.
    fn give_back_memory(&self, surplus: bool, token: &tokens::Token);

    /// Brings the replica of the token's node up to date.
    fn follow(&self, token: &tokens::Token);

    /// The logs, and how far each replica has applied them. `None` if there are no replicas.
    fn status(&self) -> Option<Statistics>;

    /// Brings all replicas to the same position of each log, and takes their digests there.
    fn verify(&self, token: &tokens::Token) -> Vec<Verification>;

    /// The replicated contents, for which the kernel may collect data. `None` if the kernel itself reads and writes
    /// the bytes.
    fn collecting(&self) -> Option<&Replicated>;

    /// Opens the file that has the bytes of `ino`, for reading: the kernel may read and write it itself. `None` if there
    /// is none.
    fn backing(&self, ino: Ino) -> Result<Option<OwnedFd>, Errno>;
}
