//! The structures of requests and replies, with the fields that `linux/fuse.h` defines.
#![allow(missing_docs, reason = "linux/fuse.h has the names, and most say it all")]

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Defines structures of requests. Any bytes are valid values.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $($(#[$about])* pub $field: $type),* }
    )* };
}

/// Defines structures of replies. Their default is all zeros.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $($(#[$about])* pub $field: $type),* }
    )* };
}

/// Defines flags in a field of a structure. Bits without a name are kept.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident { $($(#[doc = $about:literal])* $flag:ident = $bit:literal),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(transparent)]
        pub struct $name(u32);

        bitflags! {
            impl $name: u32 { $($(#[doc = $about])* const $flag = 1 << $bit;)* }
        }
    )* };
}

impl SetattrValid {
    /// All that can be set.
    pub const SET: Self = Self::MODE
        .union(Self::UID)
        .union(Self::GID)
        .union(Self::SIZE)
        .union(Self::ACCESSED)
        .union(Self::MODIFIED)
        .union(Self::CHANGED);
}

requests! {
    /// The header of every request.
    RequestHeader {
        length: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
        /// The length of extensions behind the arguments, in units of 8 bytes.
        extensions: u16,
        padding: u16,
    }
    ForgetOne { node: u64, lookups: u64 }
    ForgetArguments { lookups: u64 }
    BatchForgetArguments { count: u32, dummy: u32 }
    GetattrArguments { flags: GetattrFlags, padding: u32, handle: u64 }
    SetattrArguments {
        valid: SetattrValid, padding: u32, handle: u64, size: u64, lock_owner: u64,
        accessed: u64, modified: u64, changed: u64,
        accessed_nanoseconds: u32, modified_nanoseconds: u32, changed_nanoseconds: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    MknodArguments { mode: u32, device: u32, umask: u32, padding: u32 }
    MkdirArguments { mode: u32, umask: u32 }
    RenameArguments { new_parent: u64 }
    Rename2Arguments { new_parent: u64, flags: u32, padding: u32 }
    LinkArguments { old_node: u64 }
    OpenArguments { flags: u32, open_flags: OpenFlags }
    CreateArguments { flags: u32, mode: u32, umask: u32, open_flags: OpenFlags }
    /// Of READ, READDIR and READDIRPLUS.
    ReadArguments { handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteArguments {
        handle: u64, offset: u64, size: u32, write_flags: WriteFlags, lock_owner: u64, flags: u32, padding: u32,
    }
    ReleaseArguments { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// Of FSYNC and FSYNCDIR.
    FsyncArguments { handle: u64, fsync_flags: u32, padding: u32 }
    FlushArguments { handle: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// Of GETLK, SETLK and SETLKW.
    LockArguments {
        handle: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, lock_flags: u32, padding: u32,
    }
    AccessArguments { mask: u32, padding: u32 }
    InterruptArguments { unique: u64 }
    BmapArguments { block: u64, block_size: u32, padding: u32 }
    PollArguments { handle: u64, kernel_handle: u64, flags: u32, events: u32 }
    SyncfsArguments { padding: u64 }
    StatxArguments { getattr_flags: GetattrFlags, reserved: u32, handle: u64, statx_flags: u32, mask: u32 }
    SetxattrArguments { size: u32, flags: u32 }
    /// Follows SETXATTR's structure if SETXATTR_EXT was agreed on.
    SetxattrExtension { setxattr_flags: SetxattrFlags, padding: u32 }
    /// Of GETXATTR and LISTXATTR.
    GetxattrArguments { size: u32, padding: u32 }
    FallocateArguments { handle: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekArguments { handle: u64, offset: u64, whence: u32, padding: u32 }
    CopyFileRangeArguments {
        handle_in: u64, offset_in: u64, node_out: u64, handle_out: u64, offset_out: u64, length: u64, flags: u64,
    }
    IoctlArguments { handle: u64, flags: u32, command: u32, argument: u64, in_size: u32, out_size: u32 }
    InitArguments { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
}

replies! {
    /// The header of every reply.
    ReplyHeader { length: u32, error: i32, unique: u64 }
    Attr {
        ino: u64, size: u64, blocks: u64, accessed: u64, modified: u64, changed: u64,
        accessed_nanoseconds: u32, modified_nanoseconds: u32, changed_nanoseconds: u32,
        mode: u32, links: u32, uid: u32, gid: u32, device: u32, block_size: u32, flags: u32,
    }
    EntryReply {
        node: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nanoseconds: u32, attr_valid_nanoseconds: u32, attr: Attr,
    }
    AttrReply { attr_valid: u64, attr_valid_nanoseconds: u32, dummy: u32, attr: Attr }
    StatxTime { seconds: i64, nanoseconds: u32, reserved: i32 }
    StatxReply {
        attr_valid: u64, attr_valid_nanoseconds: u32, flags: u32, spare: [u64; 2],
        mask: u32, block_size: u32, attributes: u64, links: u32, uid: u32, gid: u32, mode: u16, spare0: u16,
        ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        accessed: StatxTime, born: StatxTime, changed: StatxTime, modified: StatxTime,
        device_major: u32, device_minor: u32, filesystem_major: u32, filesystem_minor: u32, spare2: [u64; 14],
    }
    OpenReply { handle: u64, open_flags: OpenedFlags, backing_id: i32 }
    /// Of WRITE and COPY_FILE_RANGE; of GETXATTR and LISTXATTR if they ask for the size only.
    CountReply { size: u32, padding: u32 }
    /// Of LSEEK and COPY_FILE_RANGE_64.
    OffsetReply { offset: u64 }
    IoctlReply { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// The data of the reply to FS_IOC_FSGETXATTR, and of the request FS_IOC_FSSETXATTR.
    ExtendedFlags { flags: u32, extent_size: u32, extents: u32, project: u32, copy_extent_size: u32, padding: [u32; 2] }
    StatfsReply {
        blocks: u64, blocks_free: u64, blocks_available: u64, files: u64, files_free: u64,
        block_size: u32, name_length: u32, fragment_size: u32, padding: u32, spare: [u32; 6],
    }
    /// Of `FUSE_NOTIFY_INVAL_INODE`: the bytes of a file that the kernel must drop from its cache. A negative offset
    /// stands for none, a length of 0 for all up to the end. The attributes are always dropped.
    InvalidateInode { ino: u64, offset: i64, length: i64 }
    /// A directory entry; its name follows, padded to 8 bytes.
    Dirent { ino: u64, cookie: u64, name_length: u32, kind: u32 }
    InitReply {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_granularity: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16, unused: [u16; 11],
    }
}

flags! {
    /// Of GETATTR and STATX.
    GetattrFlags {
        /// `handle` names an open file.
        BY_FILE = 0,
    }
    /// Of SETATTR: which attributes it sets.
    SetattrValid {
        MODE = 0, UID = 1, GID = 2, SIZE = 3, ACCESSED = 4, MODIFIED = 5,
        /// `handle` names an open file.
        HANDLE = 6,
        /// `ACCESSED` is the present time.
        ACCESSED_NOW = 7,
        /// `MODIFIED` is the present time.
        MODIFIED_NOW = 8,
        CHANGED = 10,
        /// Set-user-id and set-group-id go.
        KILL_PRIVILEGES = 11,
    }
    /// Of WRITE.
    WriteFlags {
        /// The data was collected in the page cache.
        CACHE = 0,
        /// Set-user-id and set-group-id go.
        KILL_PRIVILEGES = 2,
    }
    /// Of SETXATTR, with SETXATTR_EXT.
    SetxattrFlags {
        /// If the attribute is the access control list, set-group-id goes.
        KILL_SET_GROUP_ID = 0,
    }
    /// Of OPEN and CREATE, besides the flags of open(2).
    OpenFlags {
        /// Set-user-id and set-group-id go.
        KILL_PRIVILEGES = 0,
    }
    /// Of the reply to OPEN and CREATE.
    OpenedFlags {
        /// Reads and writes bypass the page cache.
        DIRECT_IO = 0,
        /// Cached pages of the file stay valid.
        KEEP_CACHE = 1,
        /// The listing may be cached.
        CACHE_DIR = 3,
        /// The kernel need not ask when a descriptor is closed.
        NO_FLUSH = 5,
        /// Direct writes may run in parallel.
        PARALLEL_DIRECT_WRITES = 6,
        /// The kernel reads and writes a backing file itself.
        PASSTHROUGH = 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_knows() {
        let of_requests = [
            (size_of::<RequestHeader>(), 40),
            (size_of::<ReleaseArguments>(), 24),
            (size_of::<FsyncArguments>(), 16),
            (size_of::<FlushArguments>(), 24),
            (size_of::<LockArguments>(), 48),
            (size_of::<PollArguments>(), 24),
            (size_of::<LseekArguments>(), 24),
            (size_of::<CopyFileRangeArguments>(), 56),
            (size_of::<FallocateArguments>(), 32),
            (size_of::<StatxArguments>(), 24),
            (size_of::<InitArguments>(), 64),
        ];
        assert!(of_requests.into_iter().all(|(ours, theirs)| ours == theirs), "{of_requests:?}");
        assert_eq!(size_of::<ReplyHeader>(), 16);
        assert_eq!(size_of::<SetattrArguments>(), 88);
        assert_eq!(size_of::<ReadArguments>(), 40);
        assert_eq!(size_of::<Attr>(), 88);
        assert_eq!(size_of::<EntryReply>(), 128);
        assert_eq!(size_of::<AttrReply>(), 104);
        assert_eq!(size_of::<StatxReply>(), 32 + 256);
        assert_eq!(size_of::<StatfsReply>(), 80);
        assert_eq!(size_of::<InitReply>(), 64);
        assert_eq!(size_of::<Dirent>(), 24);
        assert_eq!(size_of::<IoctlArguments>(), 32);
        assert_eq!(size_of::<IoctlReply>(), 16);
        assert_eq!(size_of::<ExtendedFlags>(), 28);
    }
}
