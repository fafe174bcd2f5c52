//! Types that machines and their users share.

use std::fmt;

/// An inode number, which is never reused.
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

    /// From nanoseconds since the epoch. Seconds beyond the range of `i64` are clamped.
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
    ENOTTY = libc::ENOTTY,
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
    ESTALE = libc::ESTALE,
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

/// The name of a directory entry: 1 to 255 bytes without `/` and NUL; not `.` or `..`.
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

/// The owner of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// The kind of an inode.
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
    /// The permission bits of a mode, without its type bits.
    pub fn from_mode(mode: u32) -> Self {
        Self((mode & 0o7777) as u16)
    }

    /// The bits, as in `st_mode`.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether set-group-id is set. Inodes made in such a directory get the directory's group.
    pub fn has_set_group_id(self) -> bool {
        self.bits() & libc::S_ISGID != 0
    }

    /// The same without set-user-id, and without set-group-id if the group may execute. If it may not, that
    /// bit means mandatory locking.
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

    /// The rights of the owner, the group and the others: three bits each.
    pub fn classes(self) -> [u8; 3] {
        [6, 3, 0].map(|shift| (self.0 >> shift & 0o7) as u8)
    }

    /// The same with these rights for the owner, the group and the others.
    pub fn with_classes(self, [owner, group, other]: [u8; 3]) -> Self {
        Self(self.0 & !0o777 | u16::from(owner) << 6 | u16::from(group) << 3 | u16::from(other))
    }
}

/// What chattr(1) sets on an inode: those flags of ioctl_iflags(2) that tmpfs supports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags(u8);

impl InodeFlags {
    /// Nothing about the inode may change.
    pub const IMMUTABLE: Self = Self(1 << 4);
    /// What is there must stay. Data and entries may be added.
    pub const APPEND_ONLY: Self = Self(1 << 5);
    /// dump(8) skips it.
    pub const NO_DUMP: Self = Self(1 << 6);
    /// Reading does not change its time of access.
    pub const NO_ACCESS_TIME: Self = Self(1 << 7);

    const ALL: u8 = Self::IMMUTABLE.0 | Self::APPEND_ONLY.0 | Self::NO_DUMP.0 | Self::NO_ACCESS_TIME.0;
    const INHERITED: u8 = Self::NO_DUMP.0 | Self::NO_ACCESS_TIME.0;

    /// The flags with these bits of FS_IOC_SETFLAGS; EOPNOTSUPP if any other bit is set.
    pub fn from_bits(bits: u32) -> Result<Self, Errno> {
        let known = u8::try_from(bits).ok().filter(|bits| bits & !Self::ALL == 0);
        known.map(Self).ok_or(Errno::EOPNOTSUPP)
    }

    /// The bits, as for FS_IOC_GETFLAGS.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether it has all of these.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// The flags that either has.
    #[must_use]
    pub fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// The flags that an inode gets when it is made in a directory with these.
    #[must_use]
    pub fn inherited(self) -> Self {
        Self(self.0 & Self::INHERITED)
    }

    /// EPERM if nothing may be added: no entry to a directory, no data behind the end of a file.
    pub fn check_addition(self) -> Result<(), Errno> {
        if self.has(Self::IMMUTABLE) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// EPERM if nothing that is there may change: no name, entry, attribute or data.
    pub fn check_change(self) -> Result<(), Errno> {
        if self.has(Self::APPEND_ONLY) { Err(Errno::EPERM) } else { self.check_addition() }
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
    fn flags_are_those_of_tmpfs_and_no_others() {
        for bits in [0, 0x10, 0x20, 0x40, 0x80, 0xf0] {
            assert_eq!(InodeFlags::from_bits(bits).map(InodeFlags::bits), Ok(bits));
        }
        for bits in [1, 0x18, 0x100, 0x4000_0000, u32::MAX] {
            assert_eq!(InodeFlags::from_bits(bits), Err(Errno::EOPNOTSUPP));
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
