//! Inode space, in bytes: a bound on the memory that the tree takes on each replica.
//!
//! An inode takes [`INODE_SPACE`], and so does each name after its first, as on tmpfs. This covers a name of any
//! length, and what nearly every inode has. What can be larger is counted in addition: extended attributes as on tmpfs,
//! and access control lists and targets of symlinks unless they are short.
//!
//! Space is taken before a change is logged, as much as [`Namespace::space_wanted`] says. The change answers how much
//! it took, and how much it freed.

use super::acl::Acl;
use super::inode::{Extended, Inode, Node};
use super::xattr::Attribute;
use super::{Change, Namespace, NewInode, NewNode, RenameMode};
use crate::types::Ino;

/// Space of an inode with its first name, and of each further name.
pub const INODE_SPACE: u64 = 1024;

/// The most bytes of the heap that a byte of space stands for, on each replica.
pub const HEAP_PER_SPACE: u64 = 2;

/// The longest access control list and the longest target, in bytes, that [`INODE_SPACE`] covers: a list of twelve
/// entries, and a path of usual length.
const SHORT_LIST: usize = 100;
const SHORT_TARGET: usize = 128;

/// The space of an extended attribute, as on tmpfs.
pub(super) fn xattr_space(name: &[u8], value: &[u8]) -> u64 {
    const BESIDE: usize = 40;
    (BESIDE + name.len() + value.len()) as u64
}

/// The space of an access control list that is `bytes` long as an attribute. tmpfs does not count lists.
fn list_space(bytes: usize) -> u64 {
    if bytes > SHORT_LIST { bytes as u64 } else { 0 }
}

/// The space of a symlink's target. On tmpfs a long one takes a page.
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
    /// The space of the inode with at most one name.
    pub fn space(&self) -> u64 {
        let target = if let Node::Symlink(target) = &self.node { target_space(target) } else { 0 };
        INODE_SPACE + target + self.extended().map_or(0, Extended::space)
    }
}

impl NewInode {
    /// The space of the inode, without the lists that it inherits.
    fn space(&self) -> u64 {
        let target = if let NewNode::Symlink(target) = &self.node { target_space(target) } else { 0 };
        INODE_SPACE + target
    }
}

impl Change {
    /// Whether this sets a default list so long that inodes made in that directory take space for it.
    pub fn sets_long_default_list(&self) -> bool {
        let Self::SetXattr { name, value, .. } = self else { return false };
        matches!(Attribute::named(name), Ok(Attribute::DefaultList)) && list_space(value.len()) > 0
    }

    /// The most space that it takes while no directory has such a list; `None` if that depends on the tree.
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
    /// The most space that a change takes if it is made now.
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

    /// The space of a directory's default list in each inode that inherits it.
    fn default_list_space(&self, parent: Ino) -> u64 {
        let extended = self.inode(parent).ok().and_then(Inode::extended);
        extended.and_then(|extended| extended.default_acl.as_ref()).map_or(0, Acl::space)
    }
}
