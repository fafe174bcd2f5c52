//! INIT, the request that opens a connection: reads the kernel's offer, and changes the reply to our terms.
#![allow(missing_docs, reason = "linux/fuse.h documents the flags")]

use bitflags::bitflags;
use zerocopy::{FromBytes, IntoBytes};

use super::opcode::Opcode;
use super::request::Request;
use super::wire::{InitArguments, InitReply, ReplyHeader};

bitflags! {
    /// Features that INIT may agree on; `linux/fuse.h` documents the flags.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        const ASYNC_READ = 1 << 0;
        /// OPEN has O_TRUNC, instead of a SETATTR after it.
        const ATOMIC_O_TRUNC = 1 << 3;
        const EXPORT_SUPPORT = 1 << 4;
        const BIG_WRITES = 1 << 5;
        /// The file system applies the umask to the mode of new inodes, not the kernel.
        const DONT_MASK = 1 << 6;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        /// Asynchronous direct I/O returns before it completes. The kernel then does not update its cached pages, so
        /// that later reads of them are stale.
        const ASYNC_DIO = 1 << 15;
        const WRITEBACK_CACHE = 1 << 16;
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        /// As `HANDLE_KILLPRIV_V2`, but the requests do not say whether privileges must go.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The file system has access control lists: the kernel caches and checks them.
        const POSIX_ACL = 1 << 20;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        const NO_OPENDIR_SUPPORT = 1 << 24;
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// The file system takes set-user-id and set-group-id away when a file is written, truncated or gets another
        /// owner. Otherwise the kernel asks for `security.capability` before each write.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has an extension, which says whether set-group-id must go when an access control list is set.
        const SETXATTR_EXT = 1 << 29;
        /// INIT has the upper half of the flags.
        const INIT_EXT = 1 << 30;
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// The kernel may read and write backing files itself.
        const PASSTHROUGH = 1 << 37;
        /// The mount may be mounted with mapped ids. Then only requests that make inodes name the user.
        const ALLOW_IDMAP = 1 << 40;
        const OVER_IO_URING = 1 << 41;
    }
}

/// The kernel's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The number of INIT; the reply has the same.
    pub unique: u64,
    /// The features that the kernel offers.
    pub flags: InitFlags,
}

/// Our terms: how to change pyfuse3's reply to INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The features that stay if pyfuse3 has agreed on them.
    pub kept: InitFlags,
    /// The features to agree on if the kernel offers them.
    pub wanted: InitFlags,
    /// The most bytes of data in a request.
    pub data: usize,
}

/// The features that INIT agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    flags: InitFlags,
}

impl Agreement {
    /// Whether all of `flags` were agreed on.
    pub fn has(self, flags: InitFlags) -> bool {
        self.flags.contains(flags)
    }
}

/// The kernel's offer, if the request is INIT and well formed.
pub fn offer(request: Request) -> Option<Offer> {
    if request.opcode()? != Opcode::Init {
        return None;
    }
    let InitArguments { flags, flags2, .. } = request.argument().ok()?;
    let upper = if u64::from(flags) & InitFlags::INIT_EXT.bits() != 0 { flags2 } else { 0 };
    Some(Offer { unique: request.unique(), flags: joined(flags, upper) })
}

/// Joins the two halves of the flags.
fn joined(lower: u32, upper: u32) -> InitFlags {
    InitFlags::from_bits_retain(u64::from(lower) | u64::from(upper) << 32)
}

/// Changes pyfuse3's reply to INIT to our terms, and returns the agreement. If pyfuse3 has refused, the reply stays as
/// it is, and the result is `None`.
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
    // No backing file is of a file system that itself lies above another.
    init.max_stack_depth = u32::from(agreed.contains(InitFlags::PASSTHROUGH));
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
