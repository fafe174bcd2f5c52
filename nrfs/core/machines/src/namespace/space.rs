//! What the tree takes of the space of inodes, in bytes: it stands for the memory that every replica needs.
//!
//! An inode takes [`INODE_SPACE`], and each name that it has beside its first as much again, as on tmpfs: that covers
//! a name of any length, and what nearly every inode has. What can be larger is counted beside it: extended attributes
//! as on tmpfs, and access control lists and targets unless they are short.
//!
//! Space is taken before a change is logged: as much as [`Namespace::space_wanted`] says. The change answers what it
//! took of that, and what it freed.

use super::acl::Acl;
use super::inode::{Extended, Inode, Node};
use super::xattr::Attribute;
use super::{Change, Namespace, NewInode, NewNode, RenameMode};
use crate::types::Ino;

/// What an inode takes with its first name, and what each further name takes.
pub const INODE_SPACE: u64 = 1024;

/// Bytes of the heap that stand behind each byte of space on each replica, at the worst.
pub const HEAP_PER_SPACE: u64 = 2;

/// Bytes of an access control list, and of a target, that an inode has room for: twelve entries, and a path of usual
/// length.
const SHORT_LIST: usize = 100;
const SHORT_TARGET: usize = 128;

/// The space that tmpfs says an extended attribute takes.
pub(super) fn xattr_space(name: &[u8], value: &[u8]) -> u64 {
    const BESIDE: usize = 40;
    (BESIDE + name.len() + value.len()) as u64
}

/// The space of an access control list that is so many bytes as an attribute. On tmpfs it is not counted.
fn list_space(bytes: usize) -> u64 {
    if bytes > SHORT_LIST { bytes as u64 } else { 0 }
}

/// The space of a target. A long one has a page on tmpfs.
fn target_space(target: &[u8]) -> u64 {
    if target.len() > SHORT_TARGET { target.len() as u64 } else { 0 }
}

impl Acl {
    pub fn space(&self) -> u64 {
        list_space(self.len_in_bytes())
    }
}

impl Extended {
    fn space(&self) -> u64 {
        let lists = [&self.acl, &self.default_acl].into_iter().flatten().map(Acl::space);
        let xattrs = self.xattrs.iter().map(|(name, value)| xattr_space(name, value));
        lists.chain(xattrs).sum()
    }
}

impl Inode {
    /// What it takes if it has one name, or none any more.
    pub fn space(&self) -> u64 {
        let target = if let Node::Symlink(target) = &self.node { target_space(target) } else { 0 };
        INODE_SPACE + target + self.extended().map_or(0, Extended::space)
    }
}

impl NewInode {
    /// What it takes by itself, whatever lists it begins with.
    fn space(&self) -> u64 {
        let target = if let NewNode::Symlink(target) = &self.node { target_space(target) } else { 0 };
        INODE_SPACE + target
    }
}

impl Change {
    /// Whether a directory has a default list after it for which what is made there takes space.
    pub fn sets_long_default_list(&self) -> bool {
        let Self::SetXattr { name, value, .. } = self else { return false };
        matches!(Attribute::named(name), Ok(Attribute::DefaultList)) && list_space(value.len()) > 0
    }

    /// What it takes as long as no directory has such a list, if that is to be told without a look at the tree.
    pub fn space_without_lists(&self) -> Option<u64> {
        if let Self::Create { inode, .. } | Self::CreateNameless { inode, .. } = self {
            return Some(inode.space());
        }
        (!self.wants_space()).then_some(0)
    }

    /// Whether it may take space.
    fn wants_space(&self) -> bool {
        match self {
            Self::Create { .. } | Self::CreateNameless { .. } | Self::Link { .. } | Self::SetXattr { .. } => true,
            Self::Rename { mode, .. } => matches!(mode, RenameMode::Whiteout | RenameMode::NoReplaceWhiteout),
            Self::Unlink { .. }
            | Self::RemoveDirectory { .. }
            | Self::SetAttributes { .. }
            | Self::SetFlags { .. }
            | Self::KillPrivileges { .. }
            | Self::RemoveXattr { .. }
            | Self::Drop { .. } => false,
        }
    }
}

impl Namespace {
    /// The space that a change takes at the most, if it is made now.
    pub fn space_wanted(&self, change: &Change) -> u64 {
        match change {
            Change::Create { parent, inode, .. } | Change::CreateNameless { parent, inode } => {
                let lists = match inode.node {
                    NewNode::Symlink(_) => 0,
                    NewNode::Directory => 2,
                    NewNode::File
                    | NewNode::Fifo
                    | NewNode::Socket
                    | NewNode::CharacterDevice(_)
                    | NewNode::BlockDevice(_) => 1,
                };
                inode.space() + lists * self.default_list_space(*parent)
            }
            Change::Rename { parent, .. } if change.wants_space() => INODE_SPACE + self.default_list_space(*parent),
            Change::Rename { .. } => 0,
            // The first name comes with the inode.
            Change::Link { ino, .. } if self.inode(*ino).is_ok_and(|inode| inode.links == 0) => 0,
            Change::Link { .. } => INODE_SPACE,
            Change::SetXattr { name, value, .. } => match Attribute::named(name) {
                Ok(Attribute::AccessList | Attribute::DefaultList) => list_space(value.len()),
                Ok(Attribute::Plain) | Err(_) => xattr_space(name, value),
            },
            Change::Unlink { .. }
            | Change::RemoveDirectory { .. }
            | Change::SetAttributes { .. }
            | Change::SetFlags { .. }
            | Change::KillPrivileges { .. }
            | Change::RemoveXattr { .. }
            | Change::Drop { .. } => 0,
        }
    }

    /// What the default list of a directory takes in what is made there.
    fn default_list_space(&self, parent: Ino) -> u64 {
        let extended = self.inode(parent).ok().and_then(Inode::extended);
        extended.and_then(|extended| extended.default_acl.as_ref()).map_or(0, Acl::space)
    }
}
