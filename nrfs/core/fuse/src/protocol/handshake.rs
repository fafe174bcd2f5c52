//! What is agreed on in INIT, the request that opens a connection.

use zerocopy::{FromBytes, IntoBytes};

use super::opcode::Opcode;
use super::request::Request;
use super::wire::{InitArguments, InitReply, ReplyHeader};

/// What may be agreed on; each is one bit.
#[allow(missing_docs, reason = "linux/fuse.h documents them")]
pub mod flags {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    /// The file system takes the umask off the mode of what is made, where it should.
    pub const DONT_MASK: u64 = 1 << 6;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Asynchronous direct I/O need not wait. When it completes, the kernel leaves the pages in its cache as they
    /// were, so that later reads there are stale.
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// As `HANDLE_KILLPRIV_V2`, but without a mark in the requests that it is about.
    pub const HANDLE_KILLPRIV: u64 = 1 << 19;
    /// The file system has access control lists: the kernel keeps them, and lets in whom they let in.
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// The file system takes set-user-id and set-group-id away when a file is written, truncated or
    /// given away. Without it the kernel asks for `security.capability` before every single write.
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// Setting an access control list says whether set-group-id must go.
    pub const SETXATTR_EXT: u64 = 1 << 29;
    /// The upper half of the flags is there.
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    /// The mount may be mounted with mapped ids. The kernel then names the users of no requests but those that make
    /// inodes.
    pub const ALLOW_IDMAP: u64 = 1 << 40;
    pub const OVER_IO_URING: u64 = 1 << 41;
}

/// The kernel's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the request; its reply has the same.
    pub unique: u64,
    /// Bits of [`flags`].
    pub flags: u64,
}

/// What we want of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bits of [`flags`] that pyfuse3 has agreed on and that stay.
    pub kept: u64,
    /// Bits of [`flags`] to agree on, where they are offered.
    pub wanted: u64,
    /// Bytes of data in a request at the most.
    pub data: usize,
}

/// What holds for the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    flags: u64,
}

impl Agreement {
    /// Whether all of these bits of [`flags`] were agreed on.
    pub fn has(self, flags: u64) -> bool {
        self.flags & flags == flags
    }
}

/// The offer, if that is what the request is.
pub fn offer(request: Request) -> Option<Offer> {
    if request.opcode()? != Opcode::Init {
        return None;
    }
    let InitArguments { flags, flags2, .. } = request.argument().ok()?;
    let lower = u64::from(flags);
    let upper = if lower & flags::INIT_EXT != 0 { u64::from(flags2) } else { 0 };
    Some(Offer { unique: request.unique(), flags: lower | upper << 32 })
}

/// Changes pyfuse3's reply to INIT to our terms. A refusal stays as it is, and there is no agreement.
pub fn settle(reply: &mut [u8], offer: Offer, terms: Terms) -> Option<Agreement> {
    const PAGE_SIZE: usize = 4096;
    let body = reply.get_mut(size_of::<ReplyHeader>()..)?;
    let (mut init, _) = InitReply::read_from_prefix(body).ok()?;
    let theirs = u64::from(init.flags) | u64::from(init.flags2) << 32;
    let mut agreed = theirs & terms.kept | terms.wanted & offer.flags;
    if agreed >> 32 != 0 {
        agreed |= flags::INIT_EXT;
    }
    init.flags = agreed as u32;
    init.flags2 = (agreed >> 32) as u32;
    init.max_write = init.max_write.min(terms.data as u32);
    init.max_pages = (init.max_write as usize / PAGE_SIZE) as u16;
    init.write_to_prefix(body).ok()?;
    Some(Agreement { flags: agreed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire::RequestHeader;

    fn init(flags: u32, flags2: u32) -> Vec<u8> {
        let header = RequestHeader {
            length: 104,
            opcode: 26,
            unique: 77,
            node: 0,
            uid: 0,
            gid: 0,
            pid: 0,
            extensions: 0,
            padding: 0,
        };
        let arguments = InitArguments { major: 7, minor: 44, max_readahead: 1 << 17, flags, flags2 };
        [header.as_bytes(), arguments.as_bytes(), &[0; 44]].concat()
    }

    #[test]
    fn the_offer_is_recognised_with_all_its_flags() {
        let offered = (flags::INIT_EXT | flags::HANDLE_KILLPRIV_V2) as u32;
        let message = init(offered, 5);
        let expected = Offer { unique: 77, flags: u64::from(offered) | 5 << 32 };
        assert_eq!(offer(Request::from_message(&message, false).unwrap()), Some(expected));
    }

    #[test]
    fn settling_agrees_on_what_is_offered_and_wanted_and_bounds_the_data() {
        let theirs = InitReply {
            flags: (flags::HANDLE_KILLPRIV | flags::ASYNC_READ) as u32,
            max_write: 1 << 20,
            ..InitReply::default()
        };
        let mut reply = [&[0; size_of::<ReplyHeader>()], theirs.as_bytes()].concat();
        let offer = Offer { unique: 77, flags: flags::CACHE_SYMLINKS | flags::OVER_IO_URING | flags::ASYNC_READ };
        let terms = Terms {
            kept: !flags::HANDLE_KILLPRIV,
            wanted: flags::CACHE_SYMLINKS | flags::MAX_PAGES | flags::OVER_IO_URING,
            data: 1 << 17,
        };
        let agreement = settle(&mut reply, offer, terms).unwrap();
        let expected = flags::ASYNC_READ | flags::CACHE_SYMLINKS | flags::OVER_IO_URING | flags::INIT_EXT;
        assert_eq!(agreement.flags, expected);
        let (settled, _) = InitReply::read_from_prefix(&reply[size_of::<ReplyHeader>()..]).unwrap();
        assert_eq!(u64::from(settled.flags) | u64::from(settled.flags2) << 32, expected);
        assert_eq!((settled.max_write, settled.max_pages), (1 << 17, 32));
    }

    #[test]
    fn a_refusal_stays_as_it_is() {
        let mut refusal = vec![7; size_of::<ReplyHeader>()];
        let terms = Terms { kept: u64::MAX, wanted: u64::MAX, data: 4096 };
        assert_eq!(settle(&mut refusal, Offer { unique: 1, flags: u64::MAX }, terms), None);
        assert_eq!(refusal, [7; size_of::<ReplyHeader>()]);
    }
}
