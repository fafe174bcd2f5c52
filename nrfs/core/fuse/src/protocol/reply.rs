//! Builds replies and notifications.

use filesystem::{Attributes, Capacity, Errno, Ino, Time};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::wire::{Attr, AttrReply, Dirent, EntryReply, ReplyHeader, StatfsReply, StatxReply, StatxTime};

/// How long the kernel may cache a name or attributes, in seconds: for ever, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity(u64);

impl Validity {
    /// For ever: about 68 years.
    pub const FOREVER: Self = Self(1 << 31);
    /// Not at all: the kernel asks before each use.
    pub const NONE: Self = Self(0);
}

/// The header of a reply: before so many bytes of data, or with an errno and no data.
pub fn header(unique: u64, result: Result<usize, Errno>) -> ReplyHeader {
    let error = result.err().map_or(0, |errno| -errno.code());
    ReplyHeader { length: (size_of::<ReplyHeader>() + result.unwrap_or(0)) as u32, error, unique }
}

/// The code of the notification that the kernel must drop what it has cached of an inode (`FUSE_NOTIFY_INVAL_INODE`).
pub const INVALIDATE_INODE: i32 = 2;

/// The header of a notification, before `length` bytes of data.
pub fn notification(code: i32, length: usize) -> ReplyHeader {
    ReplyHeader { length: (size_of::<ReplyHeader>() + length) as u32, error: code, unique: 0 }
}

/// The number of the request that a reply answers; `None` if the reply has no complete header.
pub fn unique(reply: &[u8]) -> Option<u64> {
    ReplyHeader::read_from_prefix(reply).ok().map(|(header, _)| header.unique)
}

/// Attributes, as stat(2) reports them.
fn attr(attributes: &Attributes) -> Attr {
    let Time { seconds: accessed, nanoseconds: accessed_nanoseconds } = attributes.accessed;
    let Time { seconds: modified, nanoseconds: modified_nanoseconds } = attributes.modified;
    let Time { seconds: changed, nanoseconds: changed_nanoseconds } = attributes.changed;
    Attr {
        ino: attributes.ino.0,
        size: attributes.size,
        blocks: attributes.blocks,
        accessed: accessed as u64,
        modified: modified as u64,
        changed: changed as u64,
        accessed_nanoseconds,
        modified_nanoseconds,
        changed_nanoseconds,
        mode: attributes.mode(),
        links: attributes.links,
        uid: attributes.owner.uid,
        gid: attributes.owner.gid,
        device: attributes.device,
        block_size: Attributes::BLOCK_SIZE,
        flags: 0,
    }
}

/// The inode that a name leads to; how long the kernel may cache the name, and how long the attributes.
pub fn entry(attributes: &Attributes, name: Validity, validity: Validity) -> EntryReply {
    EntryReply {
        node: attributes.ino.0,
        entry_valid: name.0,
        attr_valid: validity.0,
        attr: attr(attributes),
        ..EntryReply::default()
    }
}

/// That there is no such name, and how long the kernel may cache that.
pub fn missing(validity: Validity) -> EntryReply {
    EntryReply { entry_valid: validity.0, ..EntryReply::default() }
}

/// The attributes of an inode.
pub fn attributes(attributes: &Attributes, validity: Validity) -> AttrReply {
    AttrReply { attr_valid: validity.0, attr: attr(attributes), ..AttrReply::default() }
}

/// The inode flags that statx(2) shows, by the same bits. The kernel does not pass them on yet.
const SHOWN_FLAGS: u32 = (libc::STATX_ATTR_IMMUTABLE | libc::STATX_ATTR_APPEND | libc::STATX_ATTR_NODUMP) as u32;

/// Attributes for statx(2), with the time of birth and with flags.
pub fn statx(attributes: &Attributes, validity: Validity) -> StatxReply {
    let time = |Time { seconds, nanoseconds }| StatxTime { seconds, nanoseconds, reserved: 0 };
    StatxReply {
        attr_valid: validity.0,
        mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
        block_size: Attributes::BLOCK_SIZE,
        links: attributes.links,
        uid: attributes.owner.uid,
        gid: attributes.owner.gid,
        mode: attributes.mode() as u16,
        attributes: u64::from(attributes.flags.bits() & SHOWN_FLAGS),
        attributes_mask: u64::from(SHOWN_FLAGS),
        ino: attributes.ino.0,
        size: attributes.size,
        blocks: attributes.blocks,
        accessed: time(attributes.accessed),
        born: time(attributes.born),
        changed: time(attributes.changed),
        modified: time(attributes.modified),
        device_major: libc::major(attributes.device.into()),
        device_minor: libc::minor(attributes.device.into()),
        ..StatxReply::default()
    }
}

/// The space of the file system, as statvfs(3) reports it.
pub fn statfs(capacity: &Capacity) -> StatfsReply {
    StatfsReply {
        blocks: capacity.blocks,
        blocks_free: capacity.blocks_free,
        blocks_available: capacity.blocks_free,
        files: capacity.inodes,
        files_free: capacity.inodes_free,
        block_size: capacity.block_size as u32,
        name_length: filesystem::Name::MAX as u32,
        fragment_size: capacity.block_size as u32,
        ..StatfsReply::default()
    }
}

/// Writes structures and bytes into a buffer, one behind the other.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    /// Begins at the start of `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    /// The bytes written so far.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Writes a structure. Returns false, and writes nothing, if there is not enough room.
    #[must_use]
    pub fn put(&mut self, structure: &(impl IntoBytes + Immutable)) -> bool {
        self.put_bytes(structure.as_bytes())
    }

    /// Writes bytes. Returns false, and writes nothing, if there is not enough room.
    #[must_use]
    pub fn put_bytes(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.buffer.get_mut(self.length..self.length + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.length += bytes.len();
        true
    }

    /// Writes a directory entry; for READDIRPLUS, behind the reply `plus` about its inode. Returns false, and writes
    /// nothing, if there is not enough room.
    #[must_use]
    pub fn put_directory_entry(
        &mut self,
        plus: Option<&EntryReply>,
        (ino, mode): (Ino, u32),
        cookie: u64,
        name: &[u8],
    ) -> bool {
        const ALIGNMENT: usize = 8;
        let padded = name.len().next_multiple_of(ALIGNMENT);
        let length = plus.map_or(0, |_| size_of::<EntryReply>()) + size_of::<Dirent>() + padded;
        if self.buffer.len() - self.length < length {
            return false;
        }
        let dirent = Dirent { ino: ino.0, cookie, name_length: name.len() as u32, kind: (mode & libc::S_IFMT) >> 12 };
        plus.is_none_or(|plus| self.put(plus))
            && self.put(&dirent)
            && self.put_bytes(name)
            && self.put_bytes(&[0; ALIGNMENT][..padded - name.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_entry_is_written_whole_or_not_at_all() {
        let mut buffer = [0xff; 64];
        let mut writer = Writer::new(&mut buffer);
        assert!(writer.put_directory_entry(None, (Ino(7), libc::S_IFDIR | 0o755), 3, b"five5"));
        assert_eq!(writer.length(), 32);
        assert!(writer.put_directory_entry(None, (Ino(8), libc::S_IFREG), 4, b"eight888"));
        assert!(!writer.put_directory_entry(None, (Ino(9), libc::S_IFREG), 5, b""));
        assert_eq!(writer.length(), 64);
        assert_eq!((buffer[20], &buffer[24..32]), (4, &b"five5\0\0\0"[..]));
        assert_eq!(&buffer[56..], b"eight888");
    }
}
