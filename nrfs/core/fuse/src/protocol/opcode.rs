//! The kinds of requests.

/// Defines the opcodes: number, name in the statistics, and the structure that its arguments begin with.
macro_rules! opcodes {
    ($($variant:ident = $number:literal, $name:literal, $argument:expr;)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "linux/fuse.h names them so")]
        pub enum Opcode { $($variant),* }

        impl Opcode {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The opcode of this number.
            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// What the statistics call it. Two forms of one request have one name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Bytes of the structure that its arguments begin with; names and data follow it.
            pub fn argument_size(self) -> usize {
                match self { $(Self::$variant => $argument),* }
            }
        }
    };
}

opcodes! {
    Lookup = 1, "lookup", 0;
    Forget = 2, "forget", 8;
    Getattr = 3, "getattr", 16;
    Setattr = 4, "setattr", 88;
    Readlink = 5, "readlink", 0;
    Symlink = 6, "symlink", 0;
    Mknod = 8, "mknod", 16;
    Mkdir = 9, "mkdir", 8;
    Unlink = 10, "unlink", 0;
    Rmdir = 11, "rmdir", 0;
    Rename = 12, "rename", 8;
    Link = 13, "link", 8;
    Open = 14, "open", 8;
    Read = 15, "read", 40;
    Write = 16, "write", 40;
    Statfs = 17, "statfs", 0;
    Release = 18, "release", 24;
    Fsync = 20, "fsync", 16;
    // Longer where SETXATTR_EXT was agreed on: see `Request`.
    Setxattr = 21, "setxattr", 8;
    Getxattr = 22, "getxattr", 8;
    Listxattr = 23, "listxattr", 8;
    Removexattr = 24, "removexattr", 0;
    Flush = 25, "flush", 24;
    Init = 26, "init", 64;
    Opendir = 27, "opendir", 8;
    Readdir = 28, "readdir", 40;
    Releasedir = 29, "releasedir", 24;
    Fsyncdir = 30, "fsyncdir", 16;
    Getlk = 31, "getlk", 48;
    Setlk = 32, "setlk", 48;
    Setlkw = 33, "setlkw", 48;
    Access = 34, "access", 8;
    Create = 35, "create", 16;
    Interrupt = 36, "interrupt", 8;
    Bmap = 37, "bmap", 16;
    Destroy = 38, "destroy", 0;
    Ioctl = 39, "ioctl", 32;
    Poll = 40, "poll", 24;
    BatchForget = 42, "forget", 8;
    Fallocate = 43, "fallocate", 32;
    Readdirplus = 44, "readdir", 40;
    Rename2 = 45, "rename", 16;
    Lseek = 46, "lseek", 24;
    CopyFileRange = 47, "copy_file_range", 56;
    Syncfs = 50, "syncfs", 8;
    Tmpfile = 51, "tmpfile", 16;
    Statx = 52, "statx", 24;
    CopyFileRange64 = 53, "copy_file_range", 56;
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
