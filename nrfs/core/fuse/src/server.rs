//! What is done about a request: it is answered from the service, handed on to pyfuse3, or left to the steward.
//!
//! A server knows no descriptor and no worker: it is given a request, and says what the worker is to do.

use std::sync::Arc;

use filesystem::{Errno, Filesystem, Ino, Token};
use zerocopy::{FromBytes, IntoBytes};

use crate::channel::Origin;
use crate::inode_flags;
use crate::kernel::Kernel;
use crate::native::{Answer, Native};
use crate::negotiation::Negotiation;
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{CountReply, ReplyHeader, WriteArguments, WriteFlags};
use crate::python::{Forwarded, Python};
use crate::steward::{Need, Steward};

/// Serves the requests of one mount.
pub(crate) struct Server {
    pub native: Arc<Native>,
    pub kernel: Arc<Kernel>,
    pub steward: Arc<Steward>,
    pub python: Python,
    pub negotiation: Negotiation,
    /// Whether requests are answered natively where that can be; otherwise pyfuse3 answers all but a few.
    pub is_native: bool,
}

/// What a worker is to do about a request.
pub(crate) enum Outcome {
    /// To reply with this.
    Reply(Answer),
    /// Nothing: no reply is wanted.
    NoReply,
    /// Nothing: somebody else will reply, by the request's origin.
    Left,
}

impl Server {
    /// Does what a request asks, hands it on, or leaves it to the steward, for which it must be one that `may_wait` for
    /// the kernel itself. The errno is for who asked.
    pub fn serve(&self, request: Request, origin: &Origin, may_wait: bool, token: &Token) -> Result<Outcome, Errno> {
        self.native.check_flags(request, token)?;
        if let Some((ino, privileges)) = request.kills_privileges() {
            // The request itself will tell if the inode is gone.
            let _ = self.filesystem().kill_privileges(ino, privileges, token);
        }
        self.negotiation.note(request);
        match self.steward.need(request, may_wait, token)? {
            None => self.answer(request, origin, token),
            Some(Need::Attributes(attributes)) => Ok(Outcome::Reply(Answer::Attributes(attributes))),
            Some(Need::Time(wants)) => {
                self.steward.take(request, Arc::clone(origin), wants);
                Ok(Outcome::Left)
            }
        }
    }

    fn answer(&self, request: Request, origin: &Origin, token: &Token) -> Result<Outcome, Errno> {
        let collected = collected(request);
        let is_native = self.is_native || request.opcode().is_some_and(Self::is_always_native);
        match if is_native { self.native.answer(request, token) } else { Ok(Answer::Python) } {
            Ok(Answer::NoReply) => Ok(Outcome::NoReply),
            Ok(Answer::Python) => {
                let forwarded = Forwarded { origin: Arc::clone(origin), collected };
                self.python.send(request.unique(), &request.to_message(), forwarded).map(|()| Outcome::Left)
            }
            Ok(answer) => {
                self.steward.note_told(request, &answer);
                if inode_flags::sets_flags(request) {
                    // Its attributes must be asked for from now on, and it has changed.
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

    /// What is never left to pyfuse3: what it has no request for, what Python must not hold up, and what takes a look
    /// at the caller.
    fn is_always_native(opcode: Opcode) -> bool {
        matches!(opcode, Opcode::Forget | Opcode::BatchForget | Opcode::Ioctl | Opcode::Listxattr)
    }

    /// Data that was collected could not be written. The kernel has to ask for the attributes: before the next write is
    /// collected, and since the file takes less space than it believes.
    fn collected_in_vain(&self, ino: Ino) {
        self.kernel.forget_attributes(ino);
    }

    /// Passes pyfuse3's replies to where their requests came from, until pyfuse3 has come to its end. Calls `agreed` when
    /// the handshake is done.
    pub fn pass_replies(&self, agreed: impl Fn()) {
        self.python.receive(|message, Forwarded { origin, collected }| {
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
            if is_agreed {
                agreed();
            }
        });
    }

    pub fn filesystem(&self) -> &Filesystem {
        self.native.filesystem()
    }
}

/// The file and the bytes of a write that the kernel had collected.
fn collected(request: Request) -> Option<(Ino, u32)> {
    let WriteArguments { size, write_flags, .. } =
        (request.opcode()? == Opcode::Write).then(|| request.argument().ok())??;
    write_flags.contains(WriteFlags::CACHE).then_some((request.ino(), size))
}

/// What must be replied in place of `reply` to a write of `size` collected bytes, unless all were written: nobody looks at
/// how much of a cached page was written, only at an error.
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
