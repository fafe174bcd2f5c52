//! Parses requests of the kernel.

use filesystem::{Errno, Ino, Name, Privileges};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::opcode::Opcode;
use super::wire::{
    BatchForgetArguments, ForgetArguments, ForgetOne, OpenArguments, OpenFlags, RequestHeader, SetattrArguments,
    SetattrValid, SetxattrArguments, SetxattrExtension, SetxattrFlags, WriteArguments, WriteFlags,
};

/// A request: its header, the structure that its arguments begin with, and the names or data that follow (the payload).
#[derive(Clone, Copy)]
pub struct Request<'a> {
    header: RequestHeader,
    opcode: Option<Opcode>,
    argument: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Request<'a> {
    /// Parses a message that was read from the device. `None` if it has no complete header. `setxattr_extended`:
    /// whether SETXATTR_EXT was agreed on.
    pub fn from_message(message: &'a [u8], setxattr_extended: bool) -> Option<Self> {
        let (header, behind) = RequestHeader::read_from_prefix(message).ok()?;
        let size = Self::argument_size(&header, setxattr_extended).min(behind.len());
        let (argument, payload) = behind.split_at(size);
        Some(Self { header, opcode: Opcode::from_number(header.opcode), argument, payload })
    }

    /// Parses a request that came in parts, as on the ring. `argument` begins with the structure, and may be longer.
    pub fn from_parts(header: &[u8], argument: &'a [u8], payload: &'a [u8], setxattr_extended: bool) -> Option<Self> {
        let (header, _) = RequestHeader::read_from_prefix(header).ok()?;
        let size = Self::argument_size(&header, setxattr_extended).min(argument.len());
        Some(Self { header, opcode: Opcode::from_number(header.opcode), argument: &argument[..size], payload })
    }

    fn argument_size(header: &RequestHeader, setxattr_extended: bool) -> usize {
        match Opcode::from_number(header.opcode) {
            Some(Opcode::Setxattr) if setxattr_extended => {
                size_of::<SetxattrArguments>() + size_of::<SetxattrExtension>()
            }
            opcode => opcode.map_or(0, Opcode::argument_size),
        }
    }

    /// The message in one piece, as pyfuse3 expects it: without the extension of SETXATTR_EXT.
    pub fn to_message(self) -> Vec<u8> {
        let size = self.opcode.map_or(0, Opcode::argument_size).min(self.argument.len());
        let argument = &self.argument[..size];
        let length = size_of::<RequestHeader>() + argument.len() + self.payload.len();
        let header = RequestHeader { length: length as u32, ..self.header };
        [header.as_bytes(), argument, self.payload].concat()
    }

    /// The kind of the request; `None` if it is not known.
    pub fn opcode(self) -> Option<Opcode> {
        self.opcode
    }

    /// Whether it is FORGET or BATCH_FORGET.
    pub fn is_forget(self) -> bool {
        matches!(self.opcode, Some(Opcode::Forget | Opcode::BatchForget))
    }

    /// The header.
    pub fn header(self) -> RequestHeader {
        self.header
    }

    /// The number of the request; its reply has the same.
    pub fn unique(self) -> u64 {
        self.header.unique
    }

    /// The inode that the header names.
    pub fn ino(self) -> Ino {
        Ino(self.header.node)
    }

    /// The structure that the arguments begin with. EIO if the message is too short for it.
    pub fn argument<T: FromBytes + KnownLayout + Immutable>(self) -> Result<T, Errno> {
        T::read_from_prefix(self.argument).map(|(argument, _)| argument).map_err(|_| Errno::EIO)
    }

    /// The extension of SETXATTR, if SETXATTR_EXT was agreed on.
    pub fn setxattr_extension(self) -> Option<SetxattrExtension> {
        let extension = self.argument.get(size_of::<SetxattrArguments>()..)?;
        SetxattrExtension::read_from_prefix(extension).ok().map(|(extension, _)| extension)
    }

    /// How many bytes of names or data there are behind the structure.
    pub fn payload_size(self) -> usize {
        self.payload.len()
    }

    /// The first `size` bytes behind the structure. EIO if there are fewer.
    pub fn data(self, size: u32) -> Result<&'a [u8], Errno> {
        self.payload.get(..size as usize).ok_or(Errno::EIO)
    }

    /// The name behind the structure. EIO if it has no NUL; so also for the next three.
    pub fn name(self) -> Result<&'a [u8], Errno> {
        self.name_and_rest().map(|(name, _)| name)
    }

    /// The two names behind the structure.
    pub fn names(self) -> Result<(&'a [u8], &'a [u8]), Errno> {
        let (first, rest) = self.name_and_rest()?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or(Errno::EIO)?;
        Ok((first, &rest[..end]))
    }

    /// The name behind the structure, and the bytes behind its NUL.
    pub fn name_and_rest(self) -> Result<(&'a [u8], &'a [u8]), Errno> {
        let end = self.payload.iter().position(|&byte| byte == 0).ok_or(Errno::EIO)?;
        Ok((&self.payload[..end], &self.payload[end + 1..]))
    }

    /// As [`name`](Self::name), if it is valid as the name of a directory entry.
    pub fn entry_name(self) -> Result<Name, Errno> {
        Name::new(self.name()?)
    }

    /// The inodes that a FORGET or BATCH_FORGET names, with how many lookups of each are given up. EIO if the request is
    /// malformed.
    pub fn forgotten(self) -> Result<impl Iterator<Item = (Ino, u64)> + 'a, Errno> {
        let (alone, count) = match self.opcode {
            Some(Opcode::Forget) => (Some((self.ino(), self.argument::<ForgetArguments>()?.lookups)), 0),
            _ => (None, self.argument::<BatchForgetArguments>()?.count),
        };
        let whole = self.payload.chunks_exact(size_of::<ForgetOne>()).take(count as usize);
        let batch = whole.filter_map(|bytes| ForgetOne::read_from_bytes(bytes).ok());
        Ok(alone.into_iter().chain(batch.map(|ForgetOne { node, lookups }| (Ino(node), lookups))))
    }

    /// The inode that loses privileges by this request, and which. The kernel marks requests that take set-user-id and
    /// set-group-id away, if `HANDLE_KILLPRIV_V2` and `SETXATTR_EXT` were agreed on. A WRITE of collected data takes
    /// none away: that happened when the data was collected.
    pub fn kills_privileges(self) -> Option<(Ino, Privileges)> {
        let ino = self.ino();
        let (is_marked, changes) = match self.opcode? {
            Opcode::Setattr => {
                let bits = self.argument::<SetattrArguments>().ok()?.valid;
                (bits.contains(SetattrValid::KILL_PRIVILEGES), bits.contains(SetattrValid::SIZE))
            }
            Opcode::Open => {
                let OpenArguments { flags, open_flags } = self.argument().ok()?;
                (open_flags.contains(OpenFlags::KILL_PRIVILEGES), flags & libc::O_TRUNC as u32 != 0)
            }
            Opcode::Write => {
                let bits = self.argument::<WriteArguments>().ok()?.write_flags;
                (bits.contains(WriteFlags::KILL_PRIVILEGES), !bits.contains(WriteFlags::CACHE))
            }
            Opcode::Setxattr => {
                let bits = self.setxattr_extension()?.setxattr_flags;
                let is_access_list = self.name() == Ok(b"system.posix_acl_access");
                let is_marked = is_access_list && bits.contains(SetxattrFlags::KILL_SET_GROUP_ID);
                return is_marked.then_some((ino, Privileges::SetGroupId));
            }
            _ => return None,
        };
        let privileges = if is_marked { Privileges::All } else { Privileges::Capability };
        (is_marked || changes).then_some((ino, privileges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(opcode: u32, node: u64, arguments: &[u32]) -> Vec<u8> {
        let length = size_of::<RequestHeader>() + 4 * arguments.len();
        let header = RequestHeader {
            length: length as u32,
            opcode,
            unique: 77,
            node,
            uid: 1,
            gid: 2,
            pid: 3,
            extensions: 0,
            padding: 0,
        };
        [header.as_bytes(), arguments.as_bytes()].concat()
    }

    fn request(message: &[u8]) -> Request<'_> {
        Request::from_message(message, false).unwrap()
    }

    #[test]
    fn a_change_of_content_takes_privileges_away() {
        const OPEN: u32 = 14;
        let o_trunc = libc::O_TRUNC as u32;
        let kills = |opcode, arguments: &[u32]| {
            let killed = request(&message(opcode, 9, arguments)).kills_privileges();
            killed.map(|(_, privileges)| privileges)
        };
        let setattr = |valid| kills(4, &[[valid].as_slice(), &[0; 21]].concat());
        let write = |flags| kills(16, &[0, 0, 0, 0, 0, flags, 0, 0, 0, 0]);
        assert_eq!(write(0), Some(Privileges::Capability));
        assert_eq!(write(1), None);
        assert_eq!(write(1 << 2), Some(Privileges::All));
        assert_eq!(setattr(1), None);
        assert_eq!(setattr(1 << 3), Some(Privileges::Capability));
        assert_eq!(setattr(1 << 3 | 1 << 11), Some(Privileges::All));
        assert_eq!(kills(OPEN, &[2, 0]), None);
        assert_eq!(kills(OPEN, &[o_trunc | 2, 0]), Some(Privileges::Capability));
        assert_eq!(kills(OPEN, &[o_trunc | 2, 1]), Some(Privileges::All));
        assert_eq!(kills(26, &[u32::MAX; 16]), None);
    }

    fn setxattr_message(mark: u32, name: &[u8]) -> Vec<u8> {
        [&message(21, 9, &[5, 0, mark, 0])[..], name, b"\0value"].concat()
    }

    #[test]
    fn an_access_list_set_from_outside_the_group_takes_set_group_id_away() {
        let kills = |mark, name| {
            Request::from_message(&setxattr_message(mark, name), true).and_then(|request| request.kills_privileges())
        };
        assert_eq!(kills(1, b"system.posix_acl_access"), Some((Ino(9), Privileges::SetGroupId)));
        assert_eq!(kills(0, b"system.posix_acl_access"), None);
        assert_eq!(kills(1, b"system.posix_acl_default"), None);
    }

    #[test]
    fn the_extension_is_cut_out_for_pyfuse3() {
        let long = setxattr_message(1, b"user.name");
        let cut = Request::from_message(&long, true).unwrap().to_message();
        assert_eq!(cut[40..], *b"\x05\0\0\0\0\0\0\0user.name\0value");
        assert_eq!(cut[..4], (cut.len() as u32).to_ne_bytes());
    }

    #[test]
    fn names_end_at_their_nul() {
        let mut rename = message(12, 9, &[5, 0]);
        rename.extend(b"old\0new\0");
        assert_eq!(request(&rename).names(), Ok((&b"old"[..], &b"new"[..])));
        rename.pop();
        assert_eq!(request(&rename).names(), Err(Errno::EIO));
        assert_eq!(request(&rename).name(), Ok(&b"old"[..]));
    }

    #[test]
    fn a_message_in_parts_is_the_same_as_in_one_piece() {
        let mut whole = message(16, 9, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        whole.extend(b"data");
        let length = whole.len() as u32;
        whole[..4].copy_from_slice(&length.to_ne_bytes());
        let mut argument = [0xff; 128];
        argument[..40].copy_from_slice(&whole[40..80]);
        let parts = Request::from_parts(&whole[..40], &argument, &whole[80..], false).unwrap();
        assert_eq!(parts.to_message(), whole);
    }
}
