//! The inode flags that chattr(1) sets: answers the ioctls that read and set them, and refuses requests that they
//! forbid.
//!
//! The kernel does not know which of our files are immutable or append-only. So the checks that it makes for tmpfs are
//! made here; the tree itself checks changes of names and of extended attributes. As on tmpfs, a file is checked when
//! it is opened, and a process that has it open may go on writing.
//!
//! The kernel may open files without a request. So it may not cache the attributes of such a file ([`must_ask`]):
//! before each open it sends a GETATTR, and [`rights`] finds out that this is for an open.

use filesystem::{Attributes, Errno, Filesystem, Ino, InodeFlags, Kind, Token};
use zerocopy::{FromBytes, IntoBytes};

use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{
    CopyFileRangeArguments, ExtendedFlags, FallocateArguments, GetattrArguments, GetattrFlags, IoctlArguments,
    IoctlReply, OpenArguments, SetattrArguments, SetattrValid,
};
use crate::rights::{self, Purpose};

type Result<T> = std::result::Result<T, Errno>;

/// The flags' bits in the structure of FS_IOC_FSGETXATTR.
const EXTENDED: [(InodeFlags, u32); 4] = [
    (InodeFlags::IMMUTABLE, 1 << 3),
    (InodeFlags::APPEND_ONLY, 1 << 4),
    (InodeFlags::NO_ACCESS_TIME, 1 << 6),
    (InodeFlags::NO_DUMP, 1 << 7),
];

/// FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR, for which libc has no names.
const GET_EXTENDED: u32 = 0x801c_581f;
const SET_EXTENDED: u32 = 0x401c_5820;

const GET: u32 = libc::FS_IOC_GETFLAGS as u32;
const SET: u32 = libc::FS_IOC_SETFLAGS as u32;

/// Whether the kernel must ask for the attributes of an inode each time that it needs them: so that we see each open of
/// a file that may not be written.
pub(crate) fn must_ask(attributes: &Attributes) -> bool {
    attributes.kind == Kind::File && attributes.flags.check_change().is_err()
}

/// EPERM if the flags of its inode forbid a request. A malformed request passes: it is refused when it is answered.
pub(crate) fn check(fs: &Filesystem, request: Request, token: &Token) -> Result<()> {
    let of = |ino| fs.flags(ino, token);
    match request.opcode() {
        Some(Opcode::Setattr) => check_setattr(fs, request, token),
        Some(Opcode::Open) => match request.argument() {
            Ok(OpenArguments { flags, .. }) => check_open(of(request.ino())?, flags),
            Err(_) => Ok(()),
        },
        Some(Opcode::Getattr) => match request.argument() {
            Ok(GetattrArguments { flags, .. }) if !flags.contains(GetattrFlags::BY_FILE) => {
                check_named(fs, request, token)
            }
            _ => Ok(()),
        },
        Some(Opcode::Fallocate) => match request.argument() {
            Ok(FallocateArguments { mode, .. }) if mode & !(libc::FALLOC_FL_KEEP_SIZE as u32) != 0 => {
                of(request.ino())?.check_change()
            }
            _ => of(request.ino())?.check_addition(),
        },
        Some(Opcode::CopyFileRange | Opcode::CopyFileRange64) => match request.argument() {
            Ok(CopyFileRangeArguments { node_out, .. }) => of(Ino(node_out))?.check_addition(),
            Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// As [`check`], for a GETATTR that does not name an open file. Only files are checked: a directory may be just a part
/// of the path in the system call.
fn check_named(fs: &Filesystem, request: Request, token: &Token) -> Result<()> {
    let flags = fs.flags(request.ino(), token)?;
    if flags.check_change().is_ok() || fs.attributes(request.ino(), token)?.kind != Kind::File {
        return Ok(());
    }
    match rights::purpose(request.header().pid) {
        Purpose::Open(how) => check_open(flags, how),
        Purpose::Access(how) if how & libc::W_OK as u32 != 0 => flags.check_addition(),
        _ => Ok(()),
    }
}

fn check_setattr(fs: &Filesystem, request: Request, token: &Token) -> Result<()> {
    let Ok(SetattrArguments { valid, .. }) = request.argument() else { return Ok(()) };
    let has = |any: SetattrValid| valid.intersects(any);
    let of_owner = SetattrValid::MODE | SetattrValid::UID | SetattrValid::GID;
    if !has(of_owner | SetattrValid::SIZE | SetattrValid::ACCESSED | SetattrValid::MODIFIED) {
        return Ok(());
    }
    let flags = fs.flags(request.ino(), token)?;
    if flags.check_change().is_ok() {
        return Ok(());
    }
    // Whether these may be times that the kernel cached and now writes back, so that no process sets them.
    let may_be_kept = has(SetattrValid::CHANGED) && !has(SetattrValid::ACCESSED);
    if has(of_owner) {
        flags.check_change()
    } else if has(SetattrValid::SIZE) {
        // By an open file it is ftruncate(2): the file was checked when it was opened for writing.
        if has(SetattrValid::HANDLE) && !flags.has(InodeFlags::APPEND_ONLY) { Ok(()) } else { flags.check_change() }
    } else if has(SetattrValid::ACCESSED_NOW) && has(SetattrValid::MODIFIED_NOW | SetattrValid::CHANGED) {
        // Both times become the present, as far as can be seen: that is what touch(1) does.
        flags.check_addition()
    } else if may_be_kept && rights::purpose(request.header().pid) != Purpose::SetTimes {
        Ok(())
    } else {
        flags.check_change()
    }
}

/// The bytes with which to answer an IOCTL: those that get and set flags, which the kernel itself sends after it has
/// checked the caller's rights, so that their argument is no pointer of the caller's. All others get ENOTTY, also the
/// same commands with a pointer: the kernel passes these on from the caller unchecked.
pub(crate) fn ioctl(fs: &Filesystem, request: Request, token: &Token) -> Result<Box<[u8]>> {
    let IoctlArguments { command, argument, in_size, .. } = request.argument()?;
    let ino = request.ino();
    if argument != 0 || !matches!(command, GET | SET | GET_EXTENDED | SET_EXTENDED) {
        return Err(Errno::ENOTTY);
    }
    let given = request.data(in_size)?;
    let data: Box<[u8]> = match command {
        GET => fs.flags(ino, token)?.bits().as_bytes().into(),
        GET_EXTENDED => {
            let all = fs.flags(ino, token)?;
            let flags = EXTENDED.iter().filter(|(flag, _)| all.has(*flag)).map(|(_, bit)| bit).sum();
            ExtendedFlags { flags, ..ExtendedFlags::default() }.as_bytes().into()
        }
        SET => {
            let (bits, _) = u32::read_from_prefix(given).map_err(|_| Errno::EINVAL)?;
            fs.set_flags(ino, InodeFlags::from_bits(bits)?, token)?;
            Box::default()
        }
        _ => {
            let (given, _) = ExtendedFlags::read_from_prefix(given).map_err(|_| Errno::EINVAL)?;
            fs.set_flags(ino, from_extended(given)?, token)?;
            Box::default()
        }
    };
    Ok([IoctlReply::default().as_bytes(), &data].concat().into())
}

/// The flags that the structure of FS_IOC_FSSETXATTR sets. EOPNOTSUPP if it sets anything else.
fn from_extended(given: ExtendedFlags) -> Result<InodeFlags> {
    let ExtendedFlags { flags, extent_size, project, copy_extent_size, .. } = given;
    let known: u32 = EXTENDED.iter().map(|(_, bit)| bit).sum();
    if flags & !known != 0 || [extent_size, project, copy_extent_size] != [0; 3] {
        return Err(Errno::EOPNOTSUPP);
    }
    let asked = EXTENDED.iter().filter(|(_, bit)| flags & bit != 0);
    Ok(asked.fold(InodeFlags::default(), |all, (flag, _)| all.with(*flag)))
}

/// Whether a file with `flags` may be opened with the flags `how` of open(2). EPERM if not.
fn check_open(flags: InodeFlags, how: u32) -> Result<()> {
    let has = |bits: i32| how & bits as u32 != 0;
    let is_for_reading = how & libc::O_ACCMODE as u32 == libc::O_RDONLY as u32 && !has(libc::O_TRUNC);
    if is_for_reading || has(libc::O_PATH) {
        Ok(())
    } else if has(libc::O_APPEND) && !has(libc::O_TRUNC) {
        flags.check_addition()
    } else {
        flags.check_change()
    }
}

/// Whether a request changes flags, if it is well formed.
pub(crate) fn sets_flags(request: Request) -> bool {
    let is_ioctl = request.opcode() == Some(Opcode::Ioctl);
    is_ioctl && request.argument().is_ok_and(|IoctlArguments { command, .. }| matches!(command, SET | SET_EXTENDED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::RequestHeader;
    use filesystem::{
        Configuration, ContentPlace, Name, NewInode, NewNode, NodeId, Owner, Permissions, Size, Topology, XattrMode,
    };

    const OWNER: Owner = Owner { uid: 0, gid: 0 };

    /// A file system with one file, and the file's inode number.
    fn with_file() -> (Filesystem, Ino) {
        let configuration = Configuration {
            topology: Topology::emulated(1).unwrap(),
            content: ContentPlace::Replicated,
            logs: 1,
            size: Size::Bytes(1 << 20),
            inodes: Some(10),
            permissions: Permissions::from_mode(0o755),
            owner: OWNER,
        };
        let filesystem = Filesystem::new(configuration).unwrap();
        let token = filesystem.register(NodeId(0));
        let inode = NewInode::new(NewNode::File, 0o644, 0, OWNER);
        let ino = filesystem.create(Ino::ROOT, Name::new(b"file").unwrap(), inode, &token).unwrap().ino;
        drop(token);
        (filesystem, ino)
    }

    /// A request whose caller the kernel does not name.
    fn message(opcode: Opcode, ino: Ino, argument: &[u8], data: &[u8]) -> Vec<u8> {
        let opcode = (0..64).find(|&number| Opcode::from_number(number) == Some(opcode)).unwrap();
        let length = (size_of::<RequestHeader>() + argument.len() + data.len()) as u32;
        let (unique, node, nobody) = (1, ino.0, u32::MAX);
        let header =
            RequestHeader { length, opcode, unique, node, uid: nobody, gid: nobody, pid: 0, extensions: 0, padding: 0 };
        [header.as_bytes(), argument, data].concat()
    }

    /// The data of the reply to an ioctl, without the structure that all replies to ioctls begin with.
    fn ioctl(fs: &Filesystem, ino: Ino, command: u32, argument: u64, data: &[u8]) -> Result<Vec<u8>> {
        let in_size = data.len() as u32;
        let argument = IoctlArguments { handle: 0, flags: 0, command, argument, in_size, out_size: 28 };
        let message = message(Opcode::Ioctl, ino, argument.as_bytes(), data);
        let request = Request::from_message(&message, false).unwrap();
        let bytes = super::ioctl(fs, request, &fs.register(NodeId(0)))?;
        Ok(bytes[size_of::<IoctlReply>()..].to_vec())
    }

    #[test]
    fn the_kernels_own_ioctls_set_and_show_flags() {
        let (fs, ino) = with_file();
        let all = 0xf0_u32.to_ne_bytes();
        assert_eq!(ioctl(&fs, ino, SET, 0, &all), Ok(vec![]));
        assert_eq!(ioctl(&fs, ino, GET, 0, b""), Ok(all.to_vec()));
        let extended = ioctl(&fs, ino, GET_EXTENDED, 0, b"").unwrap();
        assert_eq!((extended.len(), &extended[..4]), (28, &0xd8_u32.to_ne_bytes()[..]));
        let other = ExtendedFlags { flags: 1 << 7, ..ExtendedFlags::default() };
        assert_eq!(ioctl(&fs, ino, SET_EXTENDED, 0, other.as_bytes()), Ok(vec![]));
        assert_eq!(ioctl(&fs, ino, GET, 0, b""), Ok(0x40_u32.to_ne_bytes().to_vec()));
        for refused in [
            ExtendedFlags { flags: 1 << 5, ..ExtendedFlags::default() },
            ExtendedFlags { project: 5, ..ExtendedFlags::default() },
            ExtendedFlags { extent_size: 4096, ..ExtendedFlags::default() },
        ] {
            assert_eq!(ioctl(&fs, ino, SET_EXTENDED, 0, refused.as_bytes()), Err(Errno::EOPNOTSUPP));
        }
        assert_eq!(ioctl(&fs, ino, SET, 0, b"\x10"), Err(Errno::EINVAL));
        assert_eq!(ioctl(&fs, ino, GET, 0, b""), Ok(0x40_u32.to_ne_bytes().to_vec()));
    }

    #[test]
    fn a_callers_own_ioctl_is_refused_as_the_kernel_has_not_checked_its_rights() {
        const TCGETS: u32 = 0x5401;
        let (fs, ino) = with_file();
        for command in [SET, GET, SET_EXTENDED, GET_EXTENDED, TCGETS] {
            assert_eq!(ioctl(&fs, ino, command, 0x7fff_0000, &[0x10; 28]), Err(Errno::ENOTTY));
        }
        assert_eq!(ioctl(&fs, ino, TCGETS, 0, b""), Err(Errno::ENOTTY));
        assert_eq!(fs.flags(ino, &fs.register(NodeId(0))), Ok(InodeFlags::default()));
    }

    #[test]
    fn the_kernel_asks_for_attributes_of_a_file_that_may_not_be_written() {
        let (fs, ino) = with_file();
        let token = fs.register(NodeId(0));
        let must_ask = |flags, ino| {
            fs.set_flags(ino, flags, &token).unwrap();
            must_ask(&fs.attributes(ino, &token).unwrap())
        };
        for flags in [InodeFlags::default(), InodeFlags::NO_DUMP, InodeFlags::NO_ACCESS_TIME] {
            assert!(!must_ask(flags, ino));
        }
        for flags in [InodeFlags::IMMUTABLE, InodeFlags::APPEND_ONLY] {
            assert!(must_ask(flags, ino));
            assert!(!must_ask(flags, Ino::ROOT));
        }
    }

    /// Whether SETATTR with these bits passes.
    fn may_set(fs: &Filesystem, ino: Ino, valid: SetattrValid) -> bool {
        let words: Vec<u32> = [valid.bits()].into_iter().chain([0; 21]).collect();
        let message = message(Opcode::Setattr, ino, words.as_bytes(), b"");
        check(fs, Request::from_message(&message, false).unwrap(), &fs.register(NodeId(0))).is_ok()
    }

    #[test]
    fn times_that_the_kernel_kept_are_taken_in_whatever_the_flags() {
        let (fs, ino) = with_file();
        let kept = SetattrValid::MODIFIED | SetattrValid::CHANGED;
        let touch =
            SetattrValid::ACCESSED | SetattrValid::ACCESSED_NOW | SetattrValid::MODIFIED | SetattrValid::MODIFIED_NOW;
        let set = SetattrValid::ACCESSED | kept;
        let truncate = SetattrValid::SIZE | kept;
        for (flags, may) in [
            (InodeFlags::default(), [true; 6]),
            (InodeFlags::IMMUTABLE, [true, false, false, false, true, false]),
            (InodeFlags::APPEND_ONLY, [true, true, false, false, false, false]),
        ] {
            fs.set_flags(ino, flags, &fs.register(NodeId(0))).unwrap();
            let asked = [kept, touch, set, truncate, truncate | SetattrValid::HANDLE, SetattrValid::MODE];
            assert_eq!(asked.map(|valid| may_set(&fs, ino, valid)), may);
        }
    }

    #[test]
    fn an_extended_attribute_is_refused_by_the_tree_itself() {
        let (fs, ino) = with_file();
        let token = fs.register(NodeId(0));
        fs.set_flags(ino, InodeFlags::IMMUTABLE, &token).unwrap();
        let set = |name: &[u8]| fs.set_xattr(ino, name.into(), b"v"[..].into(), XattrMode::Set, &token);
        assert_eq!((set(b"user.a"), set(b"other.a")), (Err(Errno::EPERM), Err(Errno::EPERM)));
    }
}
