//! The structures of requests and replies, as `linux/fuse.h` has them, field by field.
#![allow(missing_docs, reason = "linux/fuse.h has the names, and most say it all")]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Defines structures that any bytes can be read as.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $($(#[$about])* pub $field: $type),* }
    )* };
}

/// Defines structures that can be written as bytes, and begin as zeros.
macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $($(#[$about])* pub $field: $type),* }
    )* };
}

requests! {
    /// What every request begins with.
    RequestHeader {
        length: u32, opcode: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
        /// Of extensions behind the arguments, in units of 8 bytes.
        extensions: u16,
        padding: u16,
    }
    ForgetOne { node: u64, lookups: u64 }
    ForgetArguments { lookups: u64 }
    BatchForgetArguments { count: u32, dummy: u32 }
    GetattrArguments { flags: u32, padding: u32, handle: u64 }
    SetattrArguments {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64,
        accessed: u64, modified: u64, changed: u64,
        accessed_nanoseconds: u32, modified_nanoseconds: u32, changed_nanoseconds: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    MknodArguments { mode: u32, device: u32, umask: u32, padding: u32 }
    MkdirArguments { mode: u32, umask: u32 }
    RenameArguments { new_parent: u64 }
    Rename2Arguments { new_parent: u64, flags: u32, padding: u32 }
    LinkArguments { old_node: u64 }
    OpenArguments { flags: u32, open_flags: u32 }
    CreateArguments { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// Of READ, READDIR and READDIRPLUS.
    ReadArguments { handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    WriteArguments { handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    SetxattrArguments { size: u32, flags: u32 }
    /// What SETXATTR_EXT adds.
    SetxattrExtension { setxattr_flags: u32, padding: u32 }
    /// Of GETXATTR and LISTXATTR.
    GetxattrArguments { size: u32, padding: u32 }
    FallocateArguments { handle: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    LseekArguments { handle: u64, offset: u64, whence: u32, padding: u32 }
    CopyFileRangeArguments {
        handle_in: u64, offset_in: u64, node_out: u64, handle_out: u64, offset_out: u64, length: u64, flags: u64,
    }
    IoctlArguments { handle: u64, flags: u32, command: u32, argument: u64, in_size: u32, out_size: u32 }
    InitArguments { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32 }
}

replies! {
    /// What every reply begins with.
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
    OpenReply { handle: u64, open_flags: u32, backing_id: i32 }
    /// Of WRITE, COPY_FILE_RANGE, and of GETXATTR and LISTXATTR that ask for a size.
    CountReply { size: u32, padding: u32 }
    /// Of LSEEK and COPY_FILE_RANGE_64.
    OffsetReply { offset: u64 }
    IoctlReply { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// Of FS_IOC_FSGETXATTR, and as FS_IOC_FSSETXATTR gives it.
    ExtendedFlags { flags: u32, extent_size: u32, extents: u32, project: u32, copy_extent_size: u32, padding: [u32; 2] }
    StatfsReply {
        blocks: u64, blocks_free: u64, blocks_available: u64, files: u64, files_free: u64,
        block_size: u32, name_length: u32, fragment_size: u32, padding: u32, spare: [u32; 6],
    }
    /// Of `FUSE_NOTIFY_INVAL_INODE`: which bytes of a file are no good any more. With a negative offset none are, and
    /// a length of 0 goes to the end; its attributes always are.
    InvalidateInode { ino: u64, offset: i64, length: i64 }
    /// A directory entry; its name follows, padded to 8 bytes.
    Dirent { ino: u64, cookie: u64, name_length: u32, kind: u32 }
    InitReply {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_granularity: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16, unused: [u16; 11],
    }
}

/// Bits of [`GetattrArguments::flags`].
pub mod getattr {
    /// By an open file, which is named.
    pub const BY_FILE: u32 = 1 << 0;
}

/// Bits of [`SetattrArguments::valid`].
pub mod valid {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ACCESSED: u32 = 1 << 4;
    pub const MODIFIED: u32 = 1 << 5;
    pub const HANDLE: u32 = 1 << 6;
    /// Of `ACCESSED`: now.
    pub const ACCESSED_NOW: u32 = 1 << 7;
    /// Of `MODIFIED`: now.
    pub const MODIFIED_NOW: u32 = 1 << 8;
    pub const CHANGED: u32 = 1 << 10;
    /// Set-user-id and set-group-id go.
    pub const KILL_PRIVILEGES: u32 = 1 << 11;
}

/// Bits of [`WriteArguments::write_flags`].
pub mod write {
    /// The kernel had collected it.
    pub const CACHE: u32 = 1 << 0;
    /// Set-user-id and set-group-id go.
    pub const KILL_PRIVILEGES: u32 = 1 << 2;
}

/// Bits of [`SetxattrExtension::setxattr_flags`].
pub mod setxattr {
    /// Set-group-id goes, if it is the access control list.
    pub const KILL_SET_GROUP_ID: u32 = 1 << 0;
}

/// Bits of `open_flags`: in a request, in a reply.
pub mod open {
    /// In a request: set-user-id and set-group-id go.
    pub const KILL_PRIVILEGES: u32 = 1 << 0;
    /// Reads and writes pass the page cache by.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// What is cached of the file stays valid.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// The listing may be cached.
    pub const CACHE_DIR: u32 = 1 << 3;
    /// Several direct writes may run at a time.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_knows() {
        assert_eq!(size_of::<RequestHeader>(), 40);
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
