//! Where things are in a message of the FUSE protocol, as far as we look into them.
//!
//! Source: `include/uapi/linux/fuse.h`, protocol 7.31 and later. All numbers are in the machine's own
//! byte order. A message may hold anything: what is not there reads as nothing.

use std::ops::Range;

use filesystem::Privileges;

/// What may be negotiated in the handshake; each is one bit of [`Init::flags`].
pub mod flags {
    /// The file system takes the umask off the mode of what is made, where it should.
    pub const DONT_MASK: u64 = 1 << 6;
    /// As `HANDLE_KILLPRIV_V2`, but without a mark in the requests that it is about.
    pub const HANDLE_KILLPRIV: u64 = 1 << 19;
    /// The file system has access control lists: the kernel keeps them, and lets in whom they let in.
    pub const POSIX_ACL: u64 = 1 << 20;
    /// A symlink's target may be kept.
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    /// The file system takes set-user-id and set-group-id away when a file is written, truncated or
    /// given away. Without it the kernel asks for `security.capability` before every single write.
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// Setting an access control list says whether set-group-id must go.
    pub const SETXATTR_EXT: u64 = 1 << 29;
    /// The upper half of the flags is there.
    pub const INIT_EXT: u64 = 1 << 30;
}

/// The largest buffer that the kernel's requests need beside their data.
pub const HEADER_ROOM: usize = 4096;

/// Bytes of data in the largest request.
pub const MAX_WRITE: usize = 1 << 20;

const PAGE_SIZE: usize = 4096;

const O_TRUNC: u32 = 0o1000;

const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
const SETXATTR: u32 = 21;
const INIT: u32 = 26;

/// Bytes before a request's own arguments.
const REQUEST_HEADER: usize = 40;

/// Bytes before a reply's own results.
const REPLY_HEADER: usize = 16;

/// A request of the kernel.
#[derive(Clone, Copy)]
pub struct Request<'a>(&'a [u8]);

/// The request that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Names the request; its reply has the same.
    pub unique: u64,
    /// What the kernel offers: bits of [`flags`].
    pub flags: u64,
}

impl<'a> Request<'a> {
    /// A message as it was read from the device.
    pub fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The handshake, if that is what it is.
    pub fn init(self) -> Option<Init> {
        if self.opcode()? != INIT {
            return None;
        }
        let lower = u64::from(self.argument(12)?);
        let upper = if lower & flags::INIT_EXT != 0 { u64::from(self.argument(16)?) } else { 0 };
        Some(Init { unique: u64_at(self.0, 8)?, flags: lower | upper << 32 })
    }

    /// The inode whose content or access control list this request changes, if it does, and the
    /// privileges that go with that. Which, the kernel says only with [`flags::HANDLE_KILLPRIV_V2`] and
    /// [`flags::SETXATTR_EXT`]. Of what it had collected it says nothing: it has seen to that when it was
    /// written.
    pub fn kills_privileges(self) -> Option<(u64, Privileges)> {
        const SIZE: u32 = 1 << 3;
        const COLLECTED: u32 = 1 << 0;
        const ACCESS_LIST: &[u8] = b"system.posix_acl_access\0";
        // Where the mark is, what it stands for, and whether content changes without it, too.
        let (place, mark, marked, changes) = match self.opcode()? {
            SETATTR => (0, 1 << 11, Privileges::All, self.argument(0)? & SIZE != 0),
            OPEN => (4, 1 << 0, Privileges::All, self.argument(0)? & O_TRUNC != 0),
            WRITE => (20, 1 << 2, Privileges::All, self.argument(20)? & COLLECTED == 0),
            SETXATTR if self.0.get(REQUEST_HEADER + 16..)?.starts_with(ACCESS_LIST) => {
                (8, 1 << 0, Privileges::SetGroupId, false)
            }
            _ => return None,
        };
        let node = u64_at(self.0, 16)?;
        match (self.argument(place)? & mark != 0, changes) {
            (true, _) => Some((node, marked)),
            (false, true) => Some((node, Privileges::Capability)),
            (false, false) => None,
        }
    }

    /// The reply that refuses the request with an errno.
    pub fn refusal(self, errno: i32) -> Option<[u8; REPLY_HEADER]> {
        let mut reply = [0; REPLY_HEADER];
        reply[..4].copy_from_slice(&(REPLY_HEADER as u32).to_ne_bytes());
        reply[4..8].copy_from_slice(&(-errno).to_ne_bytes());
        reply[8..].copy_from_slice(&u64_at(self.0, 8)?.to_ne_bytes());
        Some(reply)
    }

    fn opcode(self) -> Option<u32> {
        u32_at(self.0, 4)
    }

    /// The number at `offset` in the request's own arguments.
    fn argument(self, offset: usize) -> Option<u32> {
        u32_at(self.0, REQUEST_HEADER + offset)
    }
}

/// Takes what [`flags::SETXATTR_EXT`] adds out of a request, for who does not expect it there. Returns
/// how long the message is then.
pub fn cut_extension(message: &mut [u8]) -> usize {
    const EXTENSION: Range<usize> = REQUEST_HEADER + 8..REQUEST_HEADER + 16;
    if Request(message).opcode() != Some(SETXATTR) || message.len() < EXTENSION.end {
        return message.len();
    }
    message.copy_within(EXTENSION.end.., EXTENSION.start);
    let length = message.len() - EXTENSION.len();
    message[..4].copy_from_slice(&(length as u32).to_ne_bytes());
    length
}

/// Names the request that a reply answers.
pub fn reply_unique(reply: &[u8]) -> Option<u64> {
    u64_at(reply, 8)
}

/// Changes what a reply to the handshake settles: adds `wanted` flags, takes `unwanted` ones out, and lets no request hold more
/// than `data` bytes. A refusal stays as it is.
pub fn settle_init(reply: &mut [u8], wanted: u64, unwanted: u64, data: usize) {
    const FLAGS: usize = REPLY_HEADER + 12;
    const MAX_WRITE: usize = REPLY_HEADER + 20;
    const MAX_PAGES: usize = REPLY_HEADER + 28;
    const FLAGS2: usize = REPLY_HEADER + 32;
    let (Some(lower), Some(upper)) = (u32_at(reply, FLAGS), u32_at(reply, FLAGS2)) else { return };
    let wanted = if wanted >> 32 == 0 { wanted } else { wanted | flags::INIT_EXT };
    reply[FLAGS..][..4].copy_from_slice(&(lower & !(unwanted as u32) | wanted as u32).to_ne_bytes());
    reply[FLAGS2..][..4].copy_from_slice(&(upper | (wanted >> 32) as u32).to_ne_bytes());
    if let Some(max_write) = u32_at(reply, MAX_WRITE) {
        let max_write = (max_write as usize).min(data);
        reply[MAX_WRITE..][..4].copy_from_slice(&(max_write as u32).to_ne_bytes());
        reply[MAX_PAGES..][..2].copy_from_slice(&((max_write / PAGE_SIZE) as u16).to_ne_bytes());
    }
}

fn u32_at(message: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(message.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(message: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(message.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, node: u64, arguments: &[u32]) -> Vec<u8> {
        let mut message = vec![0; REQUEST_HEADER];
        message[4..8].copy_from_slice(&opcode.to_ne_bytes());
        message[8..16].copy_from_slice(&77_u64.to_ne_bytes());
        message[16..24].copy_from_slice(&node.to_ne_bytes());
        message.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        message
    }

    #[test]
    fn the_handshake_is_recognised_with_all_its_flags() {
        let offered = (flags::INIT_EXT | flags::HANDLE_KILLPRIV_V2) as u32;
        let init = request(INIT, 0, &[7, 44, 0, offered, 5]);
        let expected = Init { unique: 77, flags: u64::from(offered) | 5 << 32 };
        assert_eq!(Request::new(&init).init(), Some(expected));
        assert_eq!(Request::new(&request(OPEN, 0, &[0; 5])).init(), None);
    }

    #[test]
    fn who_changes_content_takes_privileges_away() {
        let kills = |opcode, arguments: &[u32]| Request::new(&request(opcode, 9, arguments)).kills_privileges();
        let write = |flags| kills(WRITE, &[0, 0, 0, 0, 0, flags]);
        assert_eq!(write(0), Some((9, Privileges::Capability)));
        assert_eq!(write(1), None);
        assert_eq!(write(1 << 2), Some((9, Privileges::All)));
        assert_eq!(kills(SETATTR, &[1]), None);
        assert_eq!(kills(SETATTR, &[1 << 3]), Some((9, Privileges::Capability)));
        assert_eq!(kills(SETATTR, &[1 << 3 | 1 << 11]), Some((9, Privileges::All)));
        assert_eq!(kills(OPEN, &[2, 0]), None);
        assert_eq!(kills(OPEN, &[O_TRUNC | 2, 0]), Some((9, Privileges::Capability)));
        assert_eq!(kills(OPEN, &[O_TRUNC | 2, 1]), Some((9, Privileges::All)));
        assert_eq!(kills(INIT, &[u32::MAX; 16]), None);
        assert_eq!(kills(SETXATTR, &[u32::MAX; 16]), None);
    }

    fn setxattr(mark: u32, name: &[u8]) -> Vec<u8> {
        let mut message = request(SETXATTR, 9, &[1, 0, mark, 0]);
        message.extend_from_slice(name);
        message.extend_from_slice(b"\0value");
        message
    }

    #[test]
    fn who_sets_an_access_list_from_outside_the_group_takes_set_group_id_away() {
        let kills = |mark, name| Request::new(&setxattr(mark, name)).kills_privileges();
        assert_eq!(kills(1, b"system.posix_acl_access"), Some((9, Privileges::SetGroupId)));
        assert_eq!(kills(0, b"system.posix_acl_access"), None);
        assert_eq!(kills(1, b"system.posix_acl_default"), None);
    }

    #[test]
    fn an_extension_is_cut_out_of_what_has_one() {
        let mut message = setxattr(1, b"user.name");
        let length = cut_extension(&mut message);
        assert_eq!(message[..length][REQUEST_HEADER..], *b"\x01\0\0\0\0\0\0\0user.name\0value");
        assert_eq!(u32_at(&message, 0), Some(length as u32));
        for mut other in [request(WRITE, 9, &[7; 10]), request(SETXATTR, 9, &[7; 3])] {
            let before = other.clone();
            assert_eq!((cut_extension(&mut other), &other), (before.len(), &before));
        }
    }

    #[test]
    fn a_message_cut_short_reads_as_nothing() {
        let whole = request(WRITE, 9, &[u32::MAX; 10]);
        for length in 0..whole.len() {
            let request = Request::new(&whole[..length]);
            assert_eq!(request.init(), None);
            assert_eq!(request.kills_privileges().is_some(), length >= REQUEST_HEADER + 24);
            settle_init(&mut whole[..length].to_vec(), u64::MAX, 0, 0);
        }
    }

    #[test]
    fn a_refusal_names_its_request() {
        let refusal = Request::new(&request(WRITE, 9, &[])).refusal(5).unwrap();
        assert_eq!((u32_at(&refusal, 0), reply_unique(&refusal)), (Some(16), Some(77)));
        assert_eq!(u32_at(&refusal, 4), Some((-5_i32) as u32));
    }

    #[test]
    fn settling_adds_flags_and_bounds_the_data() {
        let mut reply = vec![0; REPLY_HEADER + 64];
        reply[REPLY_HEADER + 12..][..4].copy_from_slice(&(flags::HANDLE_KILLPRIV as u32).to_ne_bytes());
        reply[REPLY_HEADER + 20..][..4].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
        settle_init(&mut reply, flags::CACHE_SYMLINKS | 1 << 40, flags::HANDLE_KILLPRIV, 1 << 17);
        let number = |place| u32_at(&reply, REPLY_HEADER + place).unwrap();
        assert_eq!(u64::from(number(12)), flags::CACHE_SYMLINKS | flags::INIT_EXT);
        assert_eq!((number(20), number(28) & 0xffff, number(32)), (1 << 17, 32, 1 << 8));
    }
}
