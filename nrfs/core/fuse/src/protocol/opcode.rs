//! The kinds of requests that are known.

use super::wire::*;

/// Defines the opcodes. For each: number, name in the statistics, and the structure that the arguments begin with.
macro_rules! opcodes {
    ($($variant:ident = $number:literal, $name:literal, $argument:ty;)*) => {
        /// The kind of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "linux/fuse.h names them so")]
        pub enum Opcode { $($variant),* }

        impl Opcode {
            /// All opcodes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The opcode with this number; `None` if it is not known.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The name in the statistics. Both forms of a request have the same name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The size in bytes of the structure that the arguments begin with; names and data follow it.
            pub fn argument_size(self) -> usize {
                match self { $(Self::$variant => size_of::<$argument>()),* }
            }
        }
    };
}

opcodes! {
    Lookup = 1, "lookup", ();
    Forget = 2, "forget", ForgetArguments;
    Getattr = 3, "getattr", GetattrArguments;
    Setattr = 4, "setattr", SetattrArguments;
    Readlink = 5, "readlink", ();
    Symlink = 6, "symlink", ();
    Mknod = 8, "mknod", MknodArguments;
    Mkdir = 9, "mkdir", MkdirArguments;
    Unlink = 10, "unlink", ();
    Rmdir = 11, "rmdir", ();
    Rename = 12, "rename", RenameArguments;
    Link = 13, "link", LinkArguments;
    Open = 14, "open", OpenArguments;
    Read = 15, "read", ReadArguments;
    Write = 16, "write", WriteArguments;
    Statfs = 17, "statfs", ();
    Release = 18, "release", ReleaseArguments;
    Fsync = 20, "fsync", FsyncArguments;
    // The structure is longer if SETXATTR_EXT was agreed on: see `Request`.
    Setxattr = 21, "setxattr", SetxattrArguments;
    Getxattr = 22, "getxattr", GetxattrArguments;
    Listxattr = 23, "listxattr", GetxattrArguments;
    Removexattr = 24, "removexattr", ();
    Flush = 25, "flush", FlushArguments;
    Init = 26, "init", InitArguments;
    Opendir = 27, "opendir", OpenArguments;
    Readdir = 28, "readdir", ReadArguments;
    Releasedir = 29, "releasedir", ReleaseArguments;
    Fsyncdir = 30, "fsyncdir", FsyncArguments;
    Getlk = 31, "getlk", LockArguments;
    Setlk = 32, "setlk", LockArguments;
    Setlkw = 33, "setlkw", LockArguments;
    Access = 34, "access", AccessArguments;
    Create = 35, "create", CreateArguments;
    Interrupt = 36, "interrupt", InterruptArguments;
    Bmap = 37, "bmap", BmapArguments;
    Destroy = 38, "destroy", ();
    Ioctl = 39, "ioctl", IoctlArguments;
    Poll = 40, "poll", PollArguments;
    BatchForget = 42, "forget", BatchForgetArguments;
    Fallocate = 43, "fallocate", FallocateArguments;
    Readdirplus = 44, "readdir", ReadArguments;
    Rename2 = 45, "rename", Rename2Arguments;
    Lseek = 46, "lseek", LseekArguments;
    CopyFileRange = 47, "copy_file_range", CopyFileRangeArguments;
    Syncfs = 50, "syncfs", SyncfsArguments;
    Tmpfile = 51, "tmpfile", CreateArguments;
    Statx = 52, "statx", StatxArguments;
    CopyFileRange64 = 53, "copy_file_range", CopyFileRangeArguments;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_has_a_number_of_its_own() {
        let known: Vec<Opcode> = (0..64).filter_map(Opcode::from_number).collect();
        assert_eq!(known, Opcode::ALL);
    }
}
