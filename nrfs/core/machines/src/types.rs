//! The words that machines and their users share.

use std::fmt;

/// An inode number. Never used again for another inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory; FUSE fixes its number.
    pub const ROOT: Self = Self(1);
}

/// A point in time: seconds since the epoch, and nanoseconds within the second.
///
/// Packed to 12 bytes, as four of them are in every inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(Rust, packed(4))]
pub struct Time {
    /// Seconds since the epoch; before it, negative.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forwards also before the epoch.
    pub nanoseconds: u32,
}

impl Time {
    const NANOSECONDS_PER_SECOND: i128 = 1_000_000_000;

    /// From nanoseconds since the epoch; what no seconds can tell is clamped.
    pub fn from_nanoseconds(total: i128) -> Self {
        let seconds = total.div_euclid(Self::NANOSECONDS_PER_SECOND);
        let nanoseconds = total.rem_euclid(Self::NANOSECONDS_PER_SECOND) as u32;
        let seconds = i64::try_from(seconds).unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX });
        Self { seconds, nanoseconds }
    }

    /// Nanoseconds since the epoch.
    pub fn nanoseconds_since_epoch(self) -> i128 {
        i128::from(self.seconds) * Self::NANOSECONDS_PER_SECOND + i128::from(self.nanoseconds)
    }
}

/// Why an operation was refused, as errno(3) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "errno(3) documents them")]
pub enum Errno {
    EPERM = libc::EPERM,
    ENOENT = libc::ENOENT,
    ESRCH = libc::ESRCH,
    EIO = libc::EIO,
    ENXIO = libc::ENXIO,
    E2BIG = libc::E2BIG,
    EACCES = libc::EACCES,
    EBUSY = libc::EBUSY,
    EEXIST = libc::EEXIST,
    ENODEV = libc::ENODEV,
    ENOTDIR = libc::ENOTDIR,
    EISDIR = libc::EISDIR,
    EINVAL = libc::EINVAL,
    EFBIG = libc::EFBIG,
    ENOSPC = libc::ENOSPC,
    EMLINK = libc::EMLINK,
    ERANGE = libc::ERANGE,
    ENAMETOOLONG = libc::ENAMETOOLONG,
    ENOSYS = libc::ENOSYS,
    ENOTEMPTY = libc::ENOTEMPTY,
    ENODATA = libc::ENODATA,
    EOPNOTSUPP = libc::EOPNOTSUPP,
    EALREADY = libc::EALREADY,
}

impl Errno {
    /// The number of errno(3).
    pub fn code(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl std::error::Error for Errno {}

/// The name of a directory entry: 1 to 255 bytes, without `/` and NUL, neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Bytes in the longest name.
    pub const MAX: usize = 255;

    /// Checks that `bytes` can name an entry.
    pub fn new(bytes: &[u8]) -> Result<Self, Errno> {
        match bytes {
            b"" | b"." | b".." => Err(Errno::EINVAL),
            _ if bytes.len() > Self::MAX => Err(Errno::ENAMETOOLONG),
            _ if bytes.iter().any(|&byte| byte == b'/' || byte == 0) => Err(Errno::EINVAL),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The name as the kernel has it: any bytes, no encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Who owns an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "inode(7) documents them")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::File,
        Self::Directory,
        Self::Symlink,
        Self::Fifo,
        Self::Socket,
        Self::CharacterDevice,
        Self::BlockDevice,
    ];

    /// The type bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharacterDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The kind that the type bits of `mode` stand for.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.mode_bits() == mode & libc::S_IFMT)
    }
}

/// The bits that chmod(2) sets: permissions, set-user-id, set-group-id and sticky.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions(u16);

impl Permissions {
    /// The permission bits of a mode; its type bits are left out.
    pub fn from_mode(mode: u32) -> Self {
        Self((mode & 0o7777) as u16)
    }

    /// The bits, as in `st_mode`.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether what is made in a directory with these bits belongs to the directory's group.
    pub fn has_set_group_id(self) -> bool {
        self.bits() & libc::S_ISGID != 0
    }

    /// The same without set-user-id, and without set-group-id where the group may execute (where it
    /// may not, the bit means mandatory locking).
    pub fn without_privileges(self) -> Self {
        let group = if self.bits() & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 };
        Self::from_mode(self.bits() & !(libc::S_ISUID | group))
    }

    /// The same with set-group-id.
    pub fn with_set_group_id(self) -> Self {
        Self::from_mode(self.bits() | libc::S_ISGID)
    }

    /// The same without set-group-id.
    pub fn without_set_group_id(self) -> Self {
        Self::from_mode(self.bits() & !libc::S_ISGID)
    }

    /// The bits that both have.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits that a umask leaves.
    pub fn without(self, umask: Self) -> Self {
        Self(self.0 & !umask.0)
    }

    /// What the owner, the group and the others may do: three bits each.
    pub fn classes(self) -> [u8; 3] {
        [6, 3, 0].map(|shift| (self.0 >> shift & 0o7) as u8)
    }

    /// The same with these rights for the owner, the group and the others.
    pub fn with_classes(self, [owner, group, other]: [u8; 3]) -> Self {
        Self(self.0 & !0o777 | u16::from(owner) << 6 | u16::from(group) << 3 | u16::from(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_kernel_would_let_through() {
        assert!(Name::new(&[b'x'; 255]).is_ok());
        assert_eq!(Name::new(&[b'x'; 256]), Err(Errno::ENAMETOOLONG));
        assert!(Name::new(b"line\nbreak \xff\xfe").is_ok());
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(Name::new(bad), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn a_time_before_the_epoch_counts_its_nanoseconds_forwards() {
        let time = Time::from_nanoseconds(-1);
        assert_eq!(time, Time { seconds: -1, nanoseconds: 999_999_999 });
        assert_eq!(time.nanoseconds_since_epoch(), -1);
        assert!(time < Time::default());
    }

    #[test]
    fn every_kind_comes_back_from_its_mode() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_mode(kind.mode_bits() | 0o7777), Some(kind));
        }
        assert_eq!(Kind::from_mode(0o644), None);
    }
}
