//! Serves requests: answers them natively, forwards them to pyfuse3, or leaves them to the steward.
//!
//! The server knows no descriptor and no worker: it takes a request, and returns what the worker must do.

use std::sync::Arc;
use std::time::Instant;

use filesystem::{Errno, Filesystem, Ino, Token};
use zerocopy::{FromBytes, IntoBytes};

use crate::channel::Origin;
use crate::inode_flags;
use crate::kernel::Kernel;
use crate::latency::Latencies;
use crate::native::{Answer, Native};
use crate::negotiation::Negotiation;
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{CountReply, EntryReply, ReplyHeader, WriteArguments, WriteFlags};
use crate::python::{Forwarded, Python};
use crate::steward::{Need, Steward};
use crate::trace::{Trace, Traced};

/// Serves the requests of one mount.
pub(crate) struct Server {
    pub native: Arc<Native>,
    pub kernel: Arc<Kernel>,
    /// `None` if the kernel collects no data: it reads and writes the bytes of files itself.
    pub steward: Option<Arc<Steward>>,
    pub python: Python,
    /// How long it took to answer those that were forwarded.
    pub forwarded: Latencies,
    pub trace: Arc<Trace>,
    pub negotiation: Negotiation,
    /// Whether requests are answered natively if possible. Otherwise pyfuse3 answers all but a few.
    pub is_native: bool,
}

/// What a worker must do about a request.
pub(crate) enum Outcome {
    /// Reply with this answer.
    Reply(Answer),
    /// Nothing: the request gets no reply.
    NoReply,
    /// Leave the request to another thread, which will reply by its origin.
    Left,
}

impl Server {
    /// Does what a request asks, forwards it, or leaves it to the steward. `may_wait` says whether the request may be
    /// kept while the kernel writes collected data. If the request is left to another thread, so is `traced`. An error
    /// is the errno to reply with.
    pub fn serve(
        &self,
        request: Request,
        origin: &Origin,
        may_wait: bool,
        traced: &mut Option<Box<Traced>>,
        token: &Token,
    ) -> Result<Outcome, Errno> {
        inode_flags::check(self.filesystem(), request, token)?;
        if let Some((ino, privileges)) = request.kills_privileges() {
            // If the inode has been dropped, the request itself fails.
            let _ = self.filesystem().kill_privileges(ino, privileges, token);
        }
        self.negotiation.note(request);
        let Some(steward) = &self.steward else { return self.answer(request, origin, traced, token) };
        match steward.need(request, may_wait, token)? {
            None => self.answer(request, origin, traced, token),
            Some(Need::Attributes(attributes)) => Ok(Outcome::Reply(Answer::Attributes(attributes))),
            Some(Need::Time(wants)) => {
                steward.take(request, Arc::clone(origin), wants, traced.take());
                Ok(Outcome::Left)
            }
        }
    }

    fn answer(
        &self,
        request: Request,
        origin: &Origin,
        traced: &mut Option<Box<Traced>>,
        token: &Token,
    ) -> Result<Outcome, Errno> {
        let collected = collected(request);
        let is_native = self.is_native || request.opcode().is_some_and(Self::is_always_native);
        match if is_native { self.native.answer(request, token) } else { Ok(Answer::Python) } {
            Ok(Answer::NoReply) => Ok(Outcome::NoReply),
            Ok(Answer::Python) => {
                let timed = request.opcode().map(|opcode| (opcode, Instant::now()));
                if traced.is_some() {
                    self.filesystem().take_batches();
                }
                let (origin, traced) = (Arc::clone(origin), traced.take());
                let forwarded = Forwarded { origin, collected, timed, traced, alone: None };
                self.python.send(request.unique(), &request.to_message(), forwarded).map(|()| Outcome::Left)
            }
            Ok(answer) => {
                if let Some(steward) = &self.steward {
                    steward.note_told(request, &answer);
                }
                if inode_flags::sets_flags(request) {
                    // The flags may say that the attributes must not be cached any more, and the inode has changed.
                    self.kernel.forget_attributes(request.ino());
                }
                Ok(Outcome::Reply(answer))
            }
            Err(errno) => {
                if let Some((ino, _)) = collected {
                    self.collected_in_vain(ino);
                }
                Err(errno)
            }
        }
    }

    /// Requests that pyfuse3 never gets: FORGETs, which Python must not delay; IOCTL, for which pyfuse3 has no handler;
    /// LISTXATTR, whose answer depends on the caller's capabilities.
    fn is_always_native(opcode: Opcode) -> bool {
        matches!(opcode, Opcode::Forget | Opcode::BatchForget | Opcode::Ioctl | Opcode::Listxattr)
    }

    /// Called when collected data could not be written. Makes the kernel ask for the file's attributes: so it asks
    /// before it collects the next write, and does not use those that count the lost data.
    fn collected_in_vain(&self, ino: Ino) {
        self.kernel.forget_attributes(ino);
    }

    /// Delivers pyfuse3's replies to the origins of their requests, until pyfuse3 ends. Calls `agreed` after the reply
    /// to INIT.
    pub fn pass_replies(&self, agreed: impl Fn()) {
        self.python.receive(|message, Forwarded { origin, collected, timed, traced, alone }| {
            let agreement = self.negotiation.conclude(message);
            let is_agreed = agreement.is_some();
            agreement.into_iter().for_each(|agreement| self.native.agree(agreement));
            match collected.and_then(|(ino, size)| Some((ino, refusal_of_a_part(message, size)?))) {
                Some((ino, refusal)) => {
                    self.collected_in_vain(ino);
                    origin.deliver(refusal.as_bytes());
                }
                None => origin.deliver(message),
            }
            if let Some((opcode, began)) = timed {
                self.forwarded.record(opcode, began.elapsed());
            }
            if let Some(traced) = traced {
                self.end_forwarded(traced, message, alone);
            }
            if is_agreed {
                agreed();
            }
        });
    }

    /// Ends to trace a request that pyfuse3 has answered. If it had no other meanwhile, all that was changed without a
    /// worker's token was for this one.
    fn end_forwarded(&self, mut traced: Box<Traced>, reply: &[u8], alone: Option<u64>) {
        let Ok((header, data)) = ReplyHeader::read_from_prefix(reply) else { return };
        let names = matches!(
            traced.opcode,
            Opcode::Lookup | Opcode::Create | Opcode::Mknod | Opcode::Mkdir | Opcode::Symlink | Opcode::Link
        );
        traced.found = EntryReply::read_from_prefix(data).ok().map(|(entry, _)| Ino(entry.node)).filter(|_| names);
        let batches = self.filesystem().take_batches();
        if alone == Some(self.python.count()) {
            traced.node = batches.first().map(|&(node, ..)| node);
            traced.batches = batches.into_iter().map(|(_, log, operations)| (log, operations)).collect();
        }
        self.trace.end(traced, (header.error != 0).then_some(-header.error));
    }

    pub fn filesystem(&self) -> &Filesystem {
        self.native.filesystem()
    }
}

/// The file, and the number of bytes, if the request is a WRITE of collected data.
fn collected(request: Request) -> Option<(Ino, u32)> {
    let WriteArguments { size, write_flags, .. } =
        (request.opcode()? == Opcode::Write).then(|| request.argument().ok())??;
    write_flags.contains(WriteFlags::CACHE).then_some((request.ino(), size))
}

/// The reply to send in place of `reply` to a WRITE of `size` collected bytes, unless all were written. For collected
/// data the kernel ignores how much was written, but not an error.
fn refusal_of_a_part(reply: &[u8], size: u32) -> Option<ReplyHeader> {
    let (header, data) = ReplyHeader::read_from_prefix(reply).ok()?;
    let written = CountReply::read_from_prefix(data).map_or(0, |(count, _)| count.size);
    let error = if header.error == 0 { -Errno::ENOSPC.code() } else { header.error };
    (header.error != 0 || written != size).then_some(ReplyHeader {
        length: size_of::<ReplyHeader>() as u32,
        error,
        unique: header.unique,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pyfuse3_is_not_asked_for_what_it_cannot_answer() {
        for native in [Opcode::Ioctl, Opcode::Listxattr, Opcode::Forget, Opcode::BatchForget] {
            assert!(Server::is_always_native(native));
        }
        assert!(!Server::is_always_native(Opcode::Getattr));
    }

    #[test]
    fn a_collected_write_is_refused_unless_all_of_it_was_written() {
        let reply = |error, size| {
            let header = ReplyHeader { length: 24, error, unique: 7 };
            [header.as_bytes(), CountReply { size, padding: 0 }.as_bytes()].concat()
        };
        let refused = |error, size| refusal_of_a_part(&reply(error, size), 4096).map(|header| header.error);
        assert_eq!(refused(0, 4096), None);
        assert_eq!(refused(0, 100), Some(-libc::ENOSPC));
        assert_eq!(refused(-libc::EIO, 4096), Some(-libc::EIO));
    }
}
