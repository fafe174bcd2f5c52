//! One inode: all that is known of it but a file's content.

use std::collections::BTreeMap;

use super::Privileges;
use super::directory::{Cookie, Directory};
use crate::digest::Digester;
use crate::types::{Ino, Kind, Owner, Permissions, Time};

/// What an inode is, with what only that kind has.
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

/// Extended attributes by name.
pub(super) type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

pub(super) struct Inode {
    pub node: Node,
    pub permissions: Permissions,
    /// Names that lead here; for a directory also its own `.` and the `..` of each subdirectory. An
    /// inode with none has been unlinked and waits to be dropped.
    pub links: u32,
    pub owner: Owner,
    pub accessed: Time,
    /// Of a file that has content, the content knows better.
    pub modified: Time,
    pub changed: Time,
    pub born: Time,
    pub xattrs: Option<Box<Xattrs>>,
}

impl Inode {
    /// The bytes that tmpfs says an entry adds to its directory's size.
    const SIZE_OF_ENTRY: u64 = 20;

    pub fn new(node: Node, permissions: Permissions, owner: Owner, time: Time) -> Self {
        let links = if matches!(node, Node::Directory(_)) { 2 } else { 1 };
        Self {
            node,
            permissions,
            links,
            owner,
            accessed: time,
            modified: time,
            changed: time,
            born: time,
            xattrs: None,
        }
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
            links: self.links,
            owner: self.owner,
            device,
            size,
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            born: self.born,
        }
    }
}

impl Inode {
    const CAPABILITY: &[u8] = b"security.capability";

    /// Whether the file runs with capabilities that its caller may not have.
    pub fn has_capability(&self) -> bool {
        self.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(Self::CAPABILITY))
    }

    /// Takes away what lets the inode run with more rights than its caller's; true if it had any. A
    /// directory's bits mean something else and stay.
    pub fn kill_privileges(&mut self, privileges: Privileges) -> bool {
        if self.node.kind() == Kind::Directory {
            return false;
        }
        let before = self.permissions;
        if privileges == Privileges::All {
            self.permissions = before.without_privileges();
        }
        let capability = self.xattrs.as_mut().and_then(|xattrs| xattrs.remove(Self::CAPABILITY));
        if self.xattrs.as_ref().is_some_and(|xattrs| xattrs.is_empty()) {
            self.xattrs = None;
        }
        capability.is_some() || before != self.permissions
    }

    /// Feeds all of the inode to a digest.
    pub fn feed(&self, ino: Ino, digester: &mut Digester) {
        digester.ino(ino);
        digester.number(u64::from(self.node.kind().mode_bits() | self.permissions.bits()));
        for number in [self.links, self.owner.uid, self.owner.gid] {
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
        let xattrs = self.xattrs.iter().flat_map(|xattrs| xattrs.iter());
        for (name, value) in xattrs {
            digester.bytes(name);
            digester.bytes(value);
        }
    }
}

/// The attributes of an inode as far as the namespace knows them. A file's size, and its times of
/// modification and change where it has content, are the content's to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "stat(2) documents them")]
pub struct Attributes {
    pub ino: Ino,
    pub kind: Kind,
    pub permissions: Permissions,
    pub links: u32,
    pub owner: Owner,
    pub device: u32,
    pub size: u64,
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
    pub born: Time,
}

impl Attributes {
    /// Whether no name leads to the inode any more.
    pub fn is_orphan(&self) -> bool {
        self.links == 0
    }
}
