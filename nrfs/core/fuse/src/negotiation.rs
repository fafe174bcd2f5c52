//! Negotiates features with the kernel: pyfuse3 answers INIT, and its reply is changed on the way to the kernel.

use std::sync::Mutex;

use crate::lock::lock;
use crate::protocol::DATA_MAX;
use crate::protocol::handshake::{self, Agreement, InitFlags, Offer, Terms};
use crate::protocol::reply;
use crate::protocol::request::Request;

/// The negotiation for one connection.
pub(crate) struct Negotiation {
    terms: Terms,
    /// The kernel's INIT, until its reply comes.
    offer: Mutex<Option<Offer>>,
}

impl Negotiation {
    pub fn new(terms: Terms) -> Self {
        Self { terms, offer: Mutex::new(None) }
    }

    /// Notes the kernel's offer, if the request is INIT.
    pub fn note(&self, request: Request) {
        if let Some(offer) = handshake::offer(request) {
            *lock(&self.offer) = Some(offer);
        }
    }

    /// Whether the kernel offers all of `flags`. False before INIT, and after its reply.
    pub fn was_offered(&self, flags: InitFlags) -> bool {
        lock(&self.offer).is_some_and(|offer| offer.flags.contains(flags))
    }

    /// If `message` is pyfuse3's reply to INIT, changes it to our terms, and returns what is agreed on.
    pub fn conclude(&self, message: &mut [u8]) -> Option<Agreement> {
        let offer = lock(&self.offer).take_if(|offer| reply::unique(message) == Some(offer.unique))?;
        handshake::conclude(message, offer, self.terms)
    }
}

/// Features wanted on every channel. ALLOW_IDMAP needs default_permissions, which every mount has.
fn wanted_always(caching: bool) -> InitFlags {
    let cached = if caching { InitFlags::CACHE_SYMLINKS } else { InitFlags::empty() };
    InitFlags::DONT_MASK
        | InitFlags::POSIX_ACL
        | InitFlags::SETXATTR_EXT
        | InitFlags::HANDLE_KILLPRIV_V2
        | InitFlags::ALLOW_IDMAP
        | cached
}

/// The terms on the channel pyfuse3, whose requests have at most `data` bytes of data.
pub(crate) fn terms_for_python(caching: bool, data: usize) -> Terms {
    Terms { kept: !(InitFlags::HANDLE_KILLPRIV | InitFlags::ASYNC_DIO), wanted: wanted_always(caching), data }
}

/// The terms on a native channel. `ring` asks for requests through io_uring; with `passthrough` the kernel reads and
/// writes the bytes of files itself.
pub(crate) fn native_terms(caching: bool, ring: bool, passthrough: bool) -> Terms {
    let wanted = wanted_always(caching)
        | InitFlags::ASYNC_READ
        | InitFlags::EXPORT_SUPPORT
        | InitFlags::BIG_WRITES
        | InitFlags::DO_READDIRPLUS
        | InitFlags::READDIRPLUS_AUTO
        | InitFlags::PARALLEL_DIROPS
        | InitFlags::MAX_PAGES
        | InitFlags::EXPLICIT_INVAL_DATA
        | InitFlags::DIRECT_IO_ALLOW_MMAP;
    let bytes = match passthrough {
        true => InitFlags::PASSTHROUGH | InitFlags::ATOMIC_O_TRUNC,
        false if caching => InitFlags::WRITEBACK_CACHE | InitFlags::NO_OPEN_SUPPORT,
        false => InitFlags::empty(),
    };
    let optional = [(true, bytes), (caching, InitFlags::NO_OPENDIR_SUPPORT), (ring, InitFlags::OVER_IO_URING)];
    let wanted = optional.into_iter().filter(|(is_wanted, _)| *is_wanted).fold(wanted, |all, (_, flags)| all | flags);
    Terms { kept: InitFlags::empty(), wanted, data: DATA_MAX }
}
