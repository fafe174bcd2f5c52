//! The way to pyfuse3 and back: a socket pair, one end of which pyfuse3 serves as if it were the device.
//!
//! Whoever hands a request on never waits: what the socket has no room for stays here until it has.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use filesystem::{Errno as Refusal, Ino};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair, sockopt,
};
use zerocopy::IntoBytes;

use crate::channel::Origin;
use crate::protocol::{DATA_MAX, HEADER_ROOM, reply};
use crate::wake::{Wake, retry};

/// The largest request that cannot be divided: an extended attribute.
const LEAST_DATA: usize = 1 << 16;

/// Our end of the socket pair, and the requests that pyfuse3 is to answer.
pub(crate) struct Python {
    socket: OwnedFd,
    /// Bytes of data in the largest message that fits the socket.
    data: usize,
    waiting: Mutex<Waiting>,
    /// Signalled when there is something to send that had no room.
    has_backlog: Wake,
}

#[derive(Default)]
struct Waiting {
    /// The requests that pyfuse3 has, by `unique`.
    forwarded: HashMap<u64, Forwarded>,
    backlog: VecDeque<(u64, Vec<u8>)>,
}

/// What must be known of a request when its reply comes.
pub(crate) struct Forwarded {
    pub origin: Origin,
    /// The file and the bytes of a write that the kernel had collected.
    pub collected: Option<(Ino, u32)>,
}

impl Python {
    /// Makes the pair; the second is pyfuse3's.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let data = largest_data(&socket, &theirs)?;
        Ok((Self { socket, data, waiting: Mutex::default(), has_backlog: Wake::new()? }, theirs))
    }

    /// Bytes of data in the largest request that can be handed on.
    pub fn data(&self) -> usize {
        self.data
    }

    /// Hands a request on. EIO if that cannot be: it is too large, or pyfuse3 has gone.
    pub fn send(&self, unique: u64, message: &[u8], forwarded: Forwarded) -> Result<(), Refusal> {
        let mut waiting = self.waiting();
        waiting.forwarded.insert(unique, forwarded);
        let sent = if waiting.backlog.is_empty() { self.try_send(message) } else { Err(Errno::AGAIN) };
        match sent {
            Err(Errno::AGAIN) => {
                waiting.backlog.push_back((unique, message.to_vec()));
                self.has_backlog.signal();
                Ok(())
            }
            Err(_) => {
                waiting.forwarded.remove(&unique);
                Err(Refusal::EIO)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Receives replies and calls `deliver` with each and what is known of its request, until pyfuse3 has
    /// closed its end or [`shut_down`](Self::shut_down) is called. A request that could not be handed on after all is
    /// replied to with EIO.
    pub fn receive(&self, mut deliver: impl FnMut(&mut [u8], Forwarded)) {
        let mut buffer = vec![0; DATA_MAX + HEADER_ROOM];
        loop {
            match retry(|| recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)) {
                Ok((0, _)) => return,
                Ok((length, _)) => {
                    let reply = &mut buffer[..length];
                    let forwarded = reply::unique(reply).and_then(|unique| self.waiting().forwarded.remove(&unique));
                    // What nobody waits for is a notification, or the reply to a request taken back.
                    if let Some(forwarded) = forwarded {
                        deliver(reply, forwarded);
                    }
                }
                Err(Errno::AGAIN) => {
                    self.wait();
                    for (unique, forwarded) in self.send_backlog() {
                        deliver(reply::header(unique, Err(Refusal::EIO)).as_mut_bytes(), forwarded);
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Nothing more goes through, either way.
    pub fn shut_down(&self) {
        // It may be closed already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Waits until there is a reply, or room and something to send.
    fn wait(&self) {
        let has_backlog = !self.waiting().backlog.is_empty();
        let events = if has_backlog { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut ready =
            [PollFd::new(&self.socket, events), PollFd::from_borrowed_fd(self.has_backlog.as_fd(), PollFlags::IN)];
        // A failure shows at the socket again.
        let _ = retry(|| poll(&mut ready, None));
        self.has_backlog.clear();
    }

    /// Sends what had no room, as far as there is room now. Returns what cannot be sent.
    fn send_backlog(&self) -> Vec<(u64, Forwarded)> {
        let mut refused = Vec::new();
        let mut waiting = self.waiting();
        while let Some((unique, message)) = waiting.backlog.front() {
            let unique = *unique;
            match self.try_send(message) {
                Err(Errno::AGAIN) => break,
                Err(_) => refused.extend(waiting.forwarded.remove(&unique).map(|known| (unique, known))),
                Ok(()) => {}
            }
            waiting.backlog.pop_front();
        }
        refused
    }

    fn try_send(&self, message: &[u8]) -> Result<(), Errno> {
        retry(|| send(&self.socket, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)).map(drop)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one step, so a panic elsewhere cannot have left it half done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data, at most [`DATA_MAX`] bytes, that a message of this pair can hold beside its headers. An
/// ordinary user's sockets are bounded by net.core.wmem_max.
fn largest_data(socket: &OwnedFd, theirs: &OwnedFd) -> io::Result<usize> {
    let mut data = DATA_MAX;
    let room = 2 * (DATA_MAX + HEADER_ROOM);
    for end in [socket, theirs] {
        if sockopt::set_socket_send_buffer_size_force(end, room).is_err() {
            sockopt::set_socket_send_buffer_size(end, room)?;
        }
    }
    let mut message = vec![0; DATA_MAX + HEADER_ROOM];
    while data >= LEAST_DATA {
        match send(socket, &message[..data + HEADER_ROOM], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => {
                recv(theirs, &mut *message, RecvFlags::empty())?;
                return Ok(data);
            }
            Err(Errno::MSGSIZE | Errno::NOBUFS) => data /= 2,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::NOBUFS.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::channel::ReplyTo;
    use crate::protocol::wire::ReplyHeader;

    /// An origin that only has a number.
    struct Numbered(u64);

    impl ReplyTo for Numbered {
        fn deliver(&self, message: &[u8]) {
            assert_eq!(reply::unique(message), Some(self.0));
        }
    }

    fn forwarded(number: u64) -> Forwarded {
        Forwarded { origin: Arc::new(Numbered(number)), collected: None }
    }

    #[test]
    fn what_has_no_room_is_sent_later_and_every_reply_finds_its_origin() {
        const REQUESTS: u64 = 40;
        let (python, theirs) = Python::new().unwrap();
        let message = vec![7; 1 << 18];
        for unique in 0..REQUESTS {
            python.send(unique, &message, forwarded(unique)).unwrap();
        }
        assert!(!python.waiting().backlog.is_empty());
        let mut delivered = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = vec![0; message.len()];
                for unique in 0..REQUESTS {
                    recv(&theirs, &mut *buffer, RecvFlags::empty()).unwrap();
                    assert_eq!(buffer, message);
                    let reply = ReplyHeader { length: 16, error: 0, unique };
                    send(&theirs, reply.as_bytes(), SendFlags::empty()).unwrap();
                }
                shutdown(&theirs, Shutdown::Both).unwrap();
            });
            python.receive(|reply, forwarded| {
                forwarded.origin.deliver(reply);
                delivered += 1;
            });
        });
        assert_eq!(delivered, REQUESTS);
    }

    #[test]
    fn what_cannot_be_sent_after_all_is_replied_to() {
        let (python, theirs) = Python::new().unwrap();
        let message = vec![7; 1 << 18];
        let mut unique = 0;
        while python.waiting().backlog.is_empty() {
            unique += 1;
            python.send(unique, &message, forwarded(unique)).unwrap();
        }
        // It will have no reader when there is room.
        shutdown(&theirs, Shutdown::Read).unwrap();
        let mut refused = python.send_backlog();
        assert_eq!(refused.pop().map(|(refused, _)| refused), Some(unique));
        assert!(refused.is_empty() && python.waiting().backlog.is_empty());
    }
}
