//! The attributes of an inode, joined from what the tree and the content know.

use machines::types::{Ino, InodeFlags, Kind, Owner, Permissions, Time};
use machines::{content, namespace};
use memory::PAGE_SIZE;

/// The attributes of an inode, as stat(2) has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "stat(2) documents them")]
pub struct Attributes {
    pub ino: Ino,
    pub kind: Kind,
    pub permissions: Permissions,
    pub flags: InodeFlags,
    pub links: u32,
    pub owner: Owner,
    pub device: u32,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
    pub born: Time,
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "stat(2) documents them")]
pub struct NewAttributes {
    pub permissions: Option<Permissions>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<Time>,
    pub modified: Option<Time>,
    /// Otherwise now.
    pub changed: Option<Time>,
}

impl Attributes {
    /// Bytes that are best read or written at a time, as in `st_blksize`.
    pub const BLOCK_SIZE: u32 = PAGE_SIZE as u32;

    const BLOCKS_PER_PAGE: u64 = PAGE_SIZE as u64 / 512;

    pub(crate) fn join(tree: namespace::Attributes, content: Option<content::Attributes>) -> Self {
        Self {
            ino: tree.ino,
            kind: tree.kind,
            permissions: tree.permissions,
            flags: tree.flags,
            links: tree.links,
            owner: tree.owner,
            device: tree.device,
            size: content.map_or(tree.size, |content| content.size),
            blocks: content.map_or(0, |content| content.pages * Self::BLOCKS_PER_PAGE),
            accessed: tree.accessed,
            modified: content.map_or(tree.modified, |content| content.modified),
            changed: content.map_or(tree.changed, |content| content.changed.max(tree.changed)),
            born: tree.born,
        }
    }

    /// The type and permission bits, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.permissions.bits()
    }
}
