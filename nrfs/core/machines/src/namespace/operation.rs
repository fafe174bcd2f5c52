//! The operations that change the tree, and their answers.

use super::Attributes;
use crate::types::{Errno, Ino, InodeFlags, Kind, Name, Owner, Permissions, Time};

/// A change to the tree, with its time, which is stamped once before the log.
#[derive(Debug)]
pub struct WriteOperation {
    /// The time of the operation.
    pub time: Time,
    /// The change.
    pub change: Change,
}

/// One change to the tree.
#[derive(Debug)]
pub enum Change {
    /// Makes an inode with a name. In a directory with set-group-id it gets the directory's group, and, if it
    /// is a directory, the bit, too. It gets the directory's default access control list.
    Create {
        /// The directory.
        parent: Ino,
        /// The name, which does not exist yet.
        name: Name,
        /// The inode to make.
        inode: NewInode,
    },
    /// Makes a file without a name (O_TMPFILE); `Link` may give it one. It inherits from the directory as with
    /// `Create`.
    CreateNameless {
        /// The directory.
        parent: Ino,
        /// The inode to make: a file.
        inode: NewInode,
    },
    /// Gives one more name to an inode that is not a directory.
    Link {
        /// The inode. It has a name, or was made without one.
        ino: Ino,
        /// The directory of the new name.
        parent: Ino,
        /// The new name, which does not exist yet.
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
        /// The directory that it is in.
        parent: Ino,
        /// Its name.
        name: Name,
    },
    /// Moves a name, in one step.
    Rename {
        /// The old directory.
        parent: Ino,
        /// The old name.
        name: Name,
        /// The new directory.
        new_parent: Ino,
        /// The new name.
        new_name: Name,
        /// How to treat an entry of the new name, and the old name.
        mode: RenameMode,
        /// The caller, who will own a whiteout.
        owner: Owner,
    },
    /// Sets the attributes that are given. A new owner or group first takes privileges away, as `KillPrivileges` does:
    /// this is chown(2). The inode's flags do not forbid it, as the kernel also writes back its cached times by this.
    SetAttributes {
        /// The inode.
        ino: Ino,
        /// The attributes to set.
        attributes: NewAttributes,
    },
    /// Sets the flags of an inode.
    SetFlags {
        /// The inode.
        ino: Ino,
        /// All flags that it has from now on.
        flags: InodeFlags,
    },
    /// Takes privileges away, as the file's content has changed.
    KillPrivileges {
        /// The inode.
        ino: Ino,
        /// The privileges to take away.
        privileges: Privileges,
    },
    /// Sets an extended attribute.
    SetXattr {
        /// The inode.
        ino: Ino,
        /// With its prefix `user.`, `trusted.` or `security.`; or the name of an access control list.
        name: Box<[u8]>,
        /// Up to 64 KiB, by the kernel's limit.
        value: Box<[u8]>,
        /// Whether it may or must exist already. Ignored for an access control list.
        mode: XattrMode,
    },
    /// Removes an extended attribute.
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// With its prefix.
        name: Box<[u8]>,
    },
    /// Drops an inode that no name leads to. EBUSY if one does.
    Drop {
        /// The inode.
        ino: Ino,
    },
}

/// An inode to be made.
#[derive(Debug, Clone)]
pub struct NewInode {
    /// Its kind.
    pub node: NewNode,
    /// The permissions that the caller asks for.
    pub permissions: Permissions,
    /// The caller's umask. Ignored if the directory has a default access control list.
    pub umask: Permissions,
    /// The caller.
    pub owner: Owner,
}

impl NewInode {
    /// An inode with the permissions of `mode`. Only the lowest nine bits of `umask` count, as for umask(2).
    pub fn new(node: NewNode, mode: u32, umask: u32, owner: Owner) -> Self {
        let [permissions, umask] = [mode, umask & 0o777].map(Permissions::from_mode);
        Self { node, permissions, umask, owner }
    }
}

/// The kind of an inode to be made.
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
    /// What mknod(2) makes for a mode: a regular file if it has no type. EPERM for a directory, EINVAL for a symlink or
    /// an unknown type.
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
    /// `None`: the time of the operation.
    pub changed: Option<Time>,
}

/// How renameat2(2) treats the old and the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// An entry of the new name is replaced.
    Replace,
    /// An entry of the new name is an error (EEXIST).
    NoReplace,
    /// The two entries are exchanged.
    Exchange,
    /// As `Replace`, and a whiteout (character device 0:0) stays under the old name.
    Whiteout,
    /// As `NoReplace`, and a whiteout stays under the old name.
    NoReplaceWhiteout,
}

impl RenameMode {
    /// What the flags of renameat2(2) ask for; EINVAL for combinations that are not supported.
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

/// What makes a file run with more rights than its caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// `security.capability`. Any change of the content takes it away.
    Capability,
    /// `security.capability`, set-user-id, and set-group-id if the group may execute. Taken away if a caller
    /// without the right to keep them changes the content.
    All,
    /// Set-group-id. Taken away if a caller outside the group sets the access control list.
    SetGroupId,
}

/// How setxattr(2) treats an attribute of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// It may exist.
    Set,
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
    /// Both of these: always an error.
    CreateAndReplace,
}

impl XattrMode {
    /// What the flags of setxattr(2) ask for; EINVAL for unknown flags.
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

/// The answer to a change.
pub type Response = Result<Changed, Errno>;

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The attributes of the inode that was changed.
    pub attributes: Attributes,
    /// The inode that lost its last name, to be dropped when nobody holds it.
    pub orphan: Option<Ino>,
    /// Inode space taken: at most what [`space_wanted`](super::Namespace::space_wanted) said for the same state.
    pub taken: u64,
    /// Inode space freed.
    pub freed: u64,
}
