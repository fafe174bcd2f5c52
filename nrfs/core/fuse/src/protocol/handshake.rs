//! What is agreed on in INIT, the request that opens a connection.
#![allow(missing_docs, reason = "linux/fuse.h documents the flags")]

use bitflags::bitflags;
use zerocopy::{FromBytes, IntoBytes};

use super::opcode::Opcode;
use super::request::Request;
use super::wire::{InitArguments, InitReply, ReplyHeader};

bitflags! {
    /// What may be agreed on; `linux/fuse.h` documents the flags.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        const ASYNC_READ = 1 << 0;
        const EXPORT_SUPPORT = 1 << 4;
        const BIG_WRITES = 1 << 5;
        /// The file system takes the umask off the mode of what is made, where it should.
        const DONT_MASK = 1 << 6;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        /// Asynchronous direct I/O need not wait. When it completes, the kernel leaves the pages in its cache as they
        /// were, so that later reads there are stale.
        const ASYNC_DIO = 1 << 15;
        const WRITEBACK_CACHE = 1 << 16;
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        /// As `HANDLE_KILLPRIV_V2`, but without a mark in the requests that it is about.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The file system has access control lists: the kernel keeps them, and lets in whom they let in.
        const POSIX_ACL = 1 << 20;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        const NO_OPENDIR_SUPPORT = 1 << 24;
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// The file system takes set-user-id and set-group-id away when a file is written, truncated or
        /// given away. Without it the kernel asks for `security.capability` before every single write.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// Setting an access control list says whether set-group-id must go.
        const SETXATTR_EXT = 1 << 29;
        /// The upper half of the flags is there.
        const INIT_EXT = 1 << 30;
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// The mount may be mounted with mapped ids. The kernel then names the users of no requests but those that make
        /// inodes.
        const ALLOW_IDMAP = 1 << 40;
        const OVER_IO_URING = 1 << 41;
    }
}

/// The kernel's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names the request; its reply has the same.
    pub unique: u64,
    /// What the kernel can do.
    pub flags: InitFlags,
}

/// What we want of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of what pyfuse3 has agreed on, what stays.
    pub kept: InitFlags,
    /// What to agree on, where it is offered.
    pub wanted: InitFlags,
    /// Bytes of data in a request at the most.
    pub data: usize,
}

/// What holds for the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    flags: InitFlags,
}

impl Agreement {
    /// Whether all of these were agreed on.
    pub fn has(self, flags: InitFlags) -> bool {
        self.flags.contains(flags)
    }
}

/// The offer, if that is what the request is.
pub fn offer(request: Request) -> Option<Offer> {
    if request.opcode()? != Opcode::Init {
        return None;
    }
    let InitArguments { flags, flags2, .. } = request.argument().ok()?;
    let upper = if u64::from(flags) & InitFlags::INIT_EXT.bits() != 0 { flags2 } else { 0 };
    Some(Offer { unique: request.unique(), flags: joined(flags, upper) })
}

/// The flags of both halves.
fn joined(lower: u32, upper: u32) -> InitFlags {
    InitFlags::from_bits_retain(u64::from(lower) | u64::from(upper) << 32)
}

/// Changes pyfuse3's reply to INIT to our terms. A refusal stays as it is, and there is no agreement.
pub fn conclude(reply: &mut [u8], offer: Offer, terms: Terms) -> Option<Agreement> {
    const PAGE_SIZE: usize = 4096;
    let body = reply.get_mut(size_of::<ReplyHeader>()..)?;
    let (mut init, _) = InitReply::read_from_prefix(body).ok()?;
    let mut agreed = joined(init.flags, init.flags2) & terms.kept | terms.wanted & offer.flags;
    if agreed.bits() >> 32 != 0 {
        agreed |= InitFlags::INIT_EXT;
    }
    init.flags = agreed.bits() as u32;
    init.flags2 = (agreed.bits() >> 32) as u32;
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
        let arguments = InitArguments { major: 7, minor: 44, max_readahead: 1 << 17, flags, flags2, unused: [0; 11] };
        [header.as_bytes(), arguments.as_bytes()].concat()
    }

    #[test]
    fn the_offer_is_recognised_with_all_its_flags() {
        let offered = (InitFlags::INIT_EXT | InitFlags::HANDLE_KILLPRIV_V2).bits() as u32;
        let message = init(offered, 5);
        let expected = Offer { unique: 77, flags: joined(offered, 5) };
        assert_eq!(offer(Request::from_message(&message, false).unwrap()), Some(expected));
    }

    #[test]
    fn concluding_agrees_on_what_is_offered_and_wanted_and_bounds_the_data() {
        let theirs = InitReply {
            flags: (InitFlags::HANDLE_KILLPRIV | InitFlags::ASYNC_READ).bits() as u32,
            max_write: 1 << 20,
            ..InitReply::default()
        };
        let mut reply = [&[0; size_of::<ReplyHeader>()], theirs.as_bytes()].concat();
        let offer =
            Offer { unique: 77, flags: InitFlags::CACHE_SYMLINKS | InitFlags::OVER_IO_URING | InitFlags::ASYNC_READ };
        let terms = Terms {
            kept: !InitFlags::HANDLE_KILLPRIV,
            wanted: InitFlags::CACHE_SYMLINKS | InitFlags::MAX_PAGES | InitFlags::OVER_IO_URING,
            data: 1 << 17,
        };
        let agreement = conclude(&mut reply, offer, terms).unwrap();
        let expected =
            InitFlags::ASYNC_READ | InitFlags::CACHE_SYMLINKS | InitFlags::OVER_IO_URING | InitFlags::INIT_EXT;
        assert_eq!(agreement.flags, expected);
        let (concluded, _) = InitReply::read_from_prefix(&reply[size_of::<ReplyHeader>()..]).unwrap();
        assert_eq!(joined(concluded.flags, concluded.flags2), expected);
        assert_eq!((concluded.max_write, concluded.max_pages), (1 << 17, 32));
    }

    #[test]
    fn a_refusal_stays_as_it_is() {
        let mut refusal = vec![7; size_of::<ReplyHeader>()];
        let terms = Terms { kept: InitFlags::all(), wanted: InitFlags::all(), data: 4096 };
        assert_eq!(conclude(&mut refusal, Offer { unique: 1, flags: InitFlags::all() }, terms), None);
        assert_eq!(refusal, [7; size_of::<ReplyHeader>()]);
    }
}
