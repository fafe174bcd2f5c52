//! One inode, without a file's content.

use std::collections::BTreeMap;

use memory::PAGE_SIZE;

use super::Privileges;
use super::acl::Acl;
use super::directory::{Cookie, Directory};
use super::space::xattr_space;
use crate::digest::Digester;
use crate::types::{Ino, InodeFlags, Kind, Owner, Permissions, Time};

/// The kind of an inode, with the data that only this kind has.
pub(super) enum Node {
    File,
    Directory(Box<Directory>),
    Symlink(Box<[u8]>),
    Fifo,
    Socket,
    CharacterDevice(u32),
    BlockDevice(u32),
}

impl Node {
    pub fn kind(&self) -> Kind {
        match self {
            Self::File => Kind::File,
            Self::Directory(_) => Kind::Directory,
            Self::Symlink(_) => Kind::Symlink,
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
            Self::CharacterDevice(_) => Kind::CharacterDevice,
            Self::BlockDevice(_) => Kind::BlockDevice,
        }
    }
}

/// What only few inodes have, allocated apart.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Extended {
    /// The access control list, if it says more than the permissions do.
    pub acl: Option<Acl>,
    /// Only of a directory: the list that inodes made in it begin with.
    pub default_acl: Option<Acl>,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
}

pub(super) struct Inode {
    pub node: Node,
    pub permissions: Permissions,
    /// How many names lead here; for a directory also its own `.` and the `..` of each subdirectory. An
    /// inode with 0 was unlinked, or made without a name, and will be dropped.
    pub links: u32,
    /// Whether it was made without a name and has not been given one yet.
    pub is_linkable: bool,
    pub flags: InodeFlags,
    pub owner: Owner,
    pub accessed: Time,
    /// Not used for a file that has content: then the content has this time, and `changed`.
    pub modified: Time,
    pub changed: Time,
    pub born: Time,
    extended: Option<Box<Extended>>,
}

impl Inode {
    /// Bytes that an entry adds to its directory's size, as on tmpfs.
    const SIZE_OF_ENTRY: u64 = 20;

    pub fn new(node: Node, permissions: Permissions, owner: Owner, time: Time) -> Self {
        let links = if matches!(node, Node::Directory(_)) { 2 } else { 1 };
        Self {
            node,
            permissions,
            links,
            is_linkable: false,
            flags: InodeFlags::default(),
            owner,
            accessed: time,
            modified: time,
            changed: time,
            born: time,
            extended: None,
        }
    }

    /// Makes a new inode one without a name, which may be linked.
    pub fn make_nameless(&mut self) {
        self.links = 0;
        self.is_linkable = true;
    }

    pub fn attributes(&self, ino: Ino) -> Attributes {
        let (size, device) = match &self.node {
            Node::Directory(directory) => (Self::SIZE_OF_ENTRY * (2 + directory.len() as u64), 0),
            Node::Symlink(target) => (target.len() as u64, 0),
            Node::CharacterDevice(device) | Node::BlockDevice(device) => (0, *device),
            Node::File | Node::Fifo | Node::Socket => (0, 0),
        };
        Attributes {
            ino,
            kind: self.node.kind(),
            permissions: self.permissions,
            flags: self.flags,
            links: self.links,
            owner: self.owner,
            device,
            size,
            blocks: 0,
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            born: self.born,
        }
    }
}

impl Inode {
    const CAPABILITY: &[u8] = b"security.capability";

    /// What only few inodes have; `None` if this one has nothing of it.
    pub fn extended(&self) -> Option<&Extended> {
        self.extended.as_deref()
    }

    /// Changes what only few inodes have, and frees its memory if nothing is left.
    pub fn change_extended<R>(&mut self, change: impl FnOnce(&mut Extended) -> R) -> R {
        let mut extended = self.extended.take().unwrap_or_default();
        let result = change(&mut extended);
        self.extended = (*extended != Extended::default()).then_some(extended);
        result
    }

    /// Gives a new inode what it inherits from the directory in which it is made: flags, the group and set-group-id,
    /// and the default access control list. If the directory has no such list, applies the umask.
    pub fn inherit(&mut self, directory: &Self, umask: Permissions) {
        let is_directory = self.node.kind() == Kind::Directory;
        self.flags = directory.flags.inherited();
        if directory.permissions.has_set_group_id() {
            self.owner.gid = directory.owner.gid;
            if is_directory {
                self.permissions = self.permissions.with_set_group_id();
            }
        }
        if self.node.kind() == Kind::Symlink {
            return;
        }
        let Some(default) = directory.extended().and_then(|extended| extended.default_acl.as_ref()) else {
            self.permissions = self.permissions.without(umask);
            return;
        };
        let (acl, permissions) = default.inherited(self.permissions);
        self.permissions = permissions;
        self.change_extended(|extended| {
            extended.acl = Some(acl).filter(|acl| !acl.is_minimal());
            extended.default_acl = is_directory.then(|| default.clone());
        });
    }

    /// Sets the permissions, also in the access control list.
    pub fn set_permissions(&mut self, permissions: Permissions) {
        self.permissions = permissions;
        if let Some(acl) = self.extended.as_mut().and_then(|extended| extended.acl.as_mut()) {
            acl.show(permissions);
        }
    }

    /// Whether the file has `security.capability`: it runs with capabilities that its caller may not have.
    fn has_capability(&self) -> bool {
        self.extended().is_some_and(|extended| extended.xattrs.contains_key(Self::CAPABILITY))
    }

    /// Takes these privileges away. Returns whether the inode had any, and the space freed. A directory's bits mean
    /// something else: it loses only set-group-id, and only by `Privileges::SetGroupId`.
    pub fn kill_privileges(&mut self, privileges: Privileges) -> (bool, u64) {
        let loses = self.has_privileges(privileges);
        self.permissions = self.permissions_without(privileges);
        if !self.loses_capability(privileges) {
            return (loses, 0);
        }
        let capability = self.change_extended(|extended| extended.xattrs.remove(Self::CAPABILITY));
        (loses, capability.map_or(0, |value| xattr_space(Self::CAPABILITY, &value)))
    }

    /// Whether the inode has any of these privileges.
    pub fn has_privileges(&self, privileges: Privileges) -> bool {
        self.permissions_without(privileges) != self.permissions || self.loses_capability(privileges)
    }

    fn loses_capability(&self, privileges: Privileges) -> bool {
        privileges != Privileges::SetGroupId && self.node.kind() != Kind::Directory && self.has_capability()
    }

    fn permissions_without(&self, privileges: Privileges) -> Permissions {
        match privileges {
            Privileges::SetGroupId => self.permissions.without_set_group_id(),
            Privileges::All if self.node.kind() != Kind::Directory => self.permissions.without_privileges(),
            Privileges::All | Privileges::Capability => self.permissions,
        }
    }

    /// Feeds all of the inode to a digest.
    pub fn feed(&self, ino: Ino, digester: &mut Digester) {
        digester.ino(ino);
        digester.number(u64::from(self.node.kind().mode_bits() | self.permissions.bits()));
        for number in [self.links, self.is_linkable.into(), self.flags.bits(), self.owner.uid, self.owner.gid] {
            digester.number(u64::from(number));
        }
        for time in [self.accessed, self.modified, self.changed, self.born] {
            digester.time(time);
        }
        match &self.node {
            Node::Directory(directory) => {
                digester.ino(directory.parent);
                digester.number(directory.len() as u64);
                for (cookie, entry) in directory.entries_behind(Cookie::START) {
                    digester.number(cookie.0);
                    digester.bytes(entry.name.as_bytes());
                    digester.ino(entry.ino);
                }
            }
            Node::Symlink(target) => digester.bytes(target),
            Node::CharacterDevice(device) | Node::BlockDevice(device) => digester.number(u64::from(*device)),
            Node::File | Node::Fifo | Node::Socket => {}
        }
        if let Some(Extended { acl, default_acl, xattrs }) = self.extended() {
            for acl in [acl, default_acl] {
                digester.bytes(&acl.as_ref().map(Acl::bytes).unwrap_or_default());
            }
            for (name, value) in xattrs {
                digester.bytes(name);
                digester.bytes(value);
            }
        }
    }
}

/// The attributes of an inode, as stat(2) has them. For a file that has content, its content has the size, the blocks, and
/// the times of modification and change.
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

impl Attributes {
    /// Bytes that are best read or written at a time, as in `st_blksize`.
    pub const BLOCK_SIZE: u32 = PAGE_SIZE as u32;

    /// Of these, `blocks` has so many for each page.
    pub const BLOCKS_PER_PAGE: u64 = PAGE_SIZE as u64 / 512;

    /// The type and permission bits, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.permissions.bits()
    }

    /// Whether no name leads to the inode any more.
    pub fn is_orphan(&self) -> bool {
        self.links == 0
    }
}
