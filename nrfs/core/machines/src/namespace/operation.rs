//! What can be done to the tree, and what it answers.

use super::Attributes;
use crate::types::{Errno, Ino, InodeFlags, Kind, Name, Owner, Permissions, Time};

/// A change to the tree, and the time it happened: stamped once, before the log.
#[derive(Debug)]
pub struct WriteOperation {
    /// Now.
    pub time: Time,
    /// What to do.
    pub change: Change,
}

/// One change to the tree.
#[derive(Debug)]
pub enum Change {
    /// A new inode under a new name. In a directory with set-group-id it takes the directory's
    /// group, and a directory takes the bit too. In one with a default access control list it begins
    /// with that.
    Create {
        /// The directory.
        parent: Ino,
        /// Not there yet.
        name: Name,
        /// What it is.
        inode: NewInode,
    },
    /// A new file without a name, which it may be given (O_TMPFILE). What it begins with comes from the directory,
    /// as with `Create`.
    CreateNameless {
        /// The directory.
        parent: Ino,
        /// A file.
        inode: NewInode,
    },
    /// One more name for an inode that is no directory.
    Link {
        /// The inode, with at least one name or made without.
        ino: Ino,
        /// The directory of the new name.
        parent: Ino,
        /// Not there yet.
        name: Name,
    },
    /// Removes a name of anything but a directory.
    Unlink {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
    },
    /// Removes an empty directory.
    RemoveDirectory {
        /// Where it is.
        parent: Ino,
        /// Its name.
        name: Name,
    },
    /// Moves a name, in one step.
    Rename {
        /// Where it is.
        parent: Ino,
        /// What it is called.
        name: Name,
        /// Where it goes.
        new_parent: Ino,
        /// What it will be called.
        new_name: Name,
        /// What happens to an entry of the new name, and to the old name.
        mode: RenameMode,
        /// The caller: a whiteout will be his.
        owner: Owner,
    },
    /// Sets what is given and leaves the rest. A new owner or group, without new permissions, takes
    /// privileges away as `KillPrivileges` does: that is chown(2). Flags are not asked: times that the kernel kept
    /// come by this too.
    SetAttributes {
        /// The inode.
        ino: Ino,
        /// What to set.
        attributes: NewAttributes,
    },
    /// Sets the flags of an inode.
    SetFlags {
        /// The inode.
        ino: Ino,
        /// All of them.
        flags: InodeFlags,
    },
    /// Takes away what lets a file run with more rights than its caller's: its content has changed.
    KillPrivileges {
        /// The inode.
        ino: Ino,
        /// What to take.
        privileges: Privileges,
    },
    /// Sets an extended attribute.
    SetXattr {
        /// The inode.
        ino: Ino,
        /// With its prefix: `user.`, `trusted.` or `security.`; or that of an access control list.
        name: Box<[u8]>,
        /// Up to 64 KiB, by the kernel's limit.
        value: Box<[u8]>,
        /// Whether it may or must be there already; an access control list may always.
        mode: XattrMode,
    },
    /// Removes an extended attribute.
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// With its prefix.
        name: Box<[u8]>,
    },
    /// Forgets an inode that no name leads to.
    Drop {
        /// The inode.
        ino: Ino,
    },
}

/// An inode to be made.
#[derive(Debug, Clone)]
pub struct NewInode {
    /// What it is.
    pub node: NewNode,
    /// As the caller asks for them.
    pub permissions: Permissions,
    /// The caller's: what is taken off them where no default access control list says it.
    pub umask: Permissions,
    /// The caller.
    pub owner: Owner,
}

impl NewInode {
    /// An inode with the permissions of `mode`. Of `umask` nothing but the permissions of the three classes
    /// counts, as umask(2) has it.
    pub fn new(node: NewNode, mode: u32, umask: u32, owner: Owner) -> Self {
        let [permissions, umask] = [mode, umask & 0o777].map(Permissions::from_mode);
        Self { node, permissions, umask, owner }
    }
}

/// What an inode to be made is.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "inode(7) documents them")]
pub enum NewNode {
    File,
    Directory,
    Symlink(Box<[u8]>),
    Fifo,
    Socket,
    CharacterDevice(u32),
    BlockDevice(u32),
}

impl NewNode {
    /// What mknod(2) makes of a mode: without a type a regular file, and never a directory or a symlink.
    pub fn from_mode(mode: u32, device: u32) -> Result<Self, Errno> {
        if Permissions::from_mode(mode).bits() == mode {
            return Ok(Self::File);
        }
        match Kind::from_mode(mode) {
            Some(Kind::File) => Ok(Self::File),
            Some(Kind::Fifo) => Ok(Self::Fifo),
            Some(Kind::Socket) => Ok(Self::Socket),
            Some(Kind::CharacterDevice) => Ok(Self::CharacterDevice(device)),
            Some(Kind::BlockDevice) => Ok(Self::BlockDevice(device)),
            Some(Kind::Directory) => Err(Errno::EPERM),
            Some(Kind::Symlink) | None => Err(Errno::EINVAL),
        }
    }
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "stat(2) documents them")]
pub struct NewAttributes {
    pub permissions: Option<Permissions>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub accessed: Option<Time>,
    pub modified: Option<Time>,
    /// Otherwise the time of the operation.
    pub changed: Option<Time>,
}

/// How renameat2(2) treats the new name and the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// An entry of the new name is replaced.
    Replace,
    /// An entry of the new name is an error.
    NoReplace,
    /// The two entries change places.
    Exchange,
    /// As `Replace`, and a whiteout (character device 0:0) stays under the old name.
    Whiteout,
    /// As `NoReplace`, and a whiteout stays under the old name.
    NoReplaceWhiteout,
}

impl RenameMode {
    /// What the flags of renameat2(2) ask for.
    pub fn from_flags(flags: u32) -> Result<Self, Errno> {
        const WHITEOUT: u32 = libc::RENAME_WHITEOUT;
        const NO_REPLACE_WHITEOUT: u32 = libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT;
        match flags {
            0 => Ok(Self::Replace),
            libc::RENAME_NOREPLACE => Ok(Self::NoReplace),
            libc::RENAME_EXCHANGE => Ok(Self::Exchange),
            WHITEOUT => Ok(Self::Whiteout),
            NO_REPLACE_WHITEOUT => Ok(Self::NoReplaceWhiteout),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// What lets a file run with more rights than its caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// `security.capability`: goes with any change of the content.
    Capability,
    /// That, set-user-id, and set-group-id where the group may execute: what goes if somebody without
    /// the right to keep them changes the content.
    All,
    /// Set-group-id: goes if somebody outside the group sets the access control list.
    SetGroupId,
}

/// How setxattr(2) treats an attribute of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// It may be there.
    Set,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
    /// It must be there and must not: always an error.
    CreateAndReplace,
}

impl XattrMode {
    /// What the flags of setxattr(2) ask for.
    pub fn from_flags(flags: u32) -> Result<Self, Errno> {
        const CREATE: u32 = libc::XATTR_CREATE as u32;
        const REPLACE: u32 = libc::XATTR_REPLACE as u32;
        const CREATE_AND_REPLACE: u32 = CREATE | REPLACE;
        match flags {
            0 => Ok(Self::Set),
            CREATE => Ok(Self::Create),
            REPLACE => Ok(Self::Replace),
            CREATE_AND_REPLACE => Ok(Self::CreateAndReplace),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// What a change answers.
pub type Response = Result<Changed, Errno>;

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The inode it was about, as it is now.
    pub attributes: Attributes,
    /// The inode that lost its last name by it, to be dropped once nobody holds it.
    pub orphan: Option<Ino>,
    /// The space that it took: no more than [`space_wanted`](super::Namespace::space_wanted) says of the same state.
    pub taken: u64,
    /// The space of what is gone.
    pub freed: u64,
}
