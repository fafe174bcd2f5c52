//! Forwards requests to pyfuse3 and receives its replies, through a socket pair: pyfuse3 serves one end as if it were
//! /dev/fuse.
//!
//! Forwarding never waits: requests that the socket has no room for are kept in a backlog, and sent later.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use filesystem::{Errno as Refusal, Ino};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair, sockopt,
};
use zerocopy::IntoBytes;

use crate::channel::Origin;
use crate::protocol::opcode::Opcode;
use crate::protocol::{DATA_MAX, HEADER_ROOM, reply};
use crate::trace::Traced;
use crate::wake::{Wake, retry};

/// The socket must hold messages with at least so many bytes of data: the longest value of an extended attribute, which
/// the kernel cannot divide into several requests.
const LEAST_DATA: usize = 1 << 16;

/// Our end of the socket pair, and the requests that pyfuse3 is to answer.
pub(crate) struct Python {
    socket: OwnedFd,
    /// Bytes of data in the largest message that the socket can hold.
    data: usize,
    waiting: Mutex<Waiting>,
    /// Signalled when a request is added to the backlog.
    has_backlog: Wake,
}

#[derive(Default)]
struct Waiting {
    /// The requests that pyfuse3 has, by `unique`.
    forwarded: HashMap<u64, Forwarded>,
    /// How many have been forwarded.
    count: u64,
    /// Requests that the socket had no room for, with `unique`.
    backlog: VecDeque<(u64, Vec<u8>)>,
}

/// What must be known of a forwarded request when its reply comes.
pub(crate) struct Forwarded {
    pub origin: Origin,
    /// For a WRITE of collected data: the file, and the number of bytes.
    pub collected: Option<(Ino, u32)>,
    /// Its kind, and when it was forwarded.
    pub timed: Option<(Opcode, Instant)>,
    /// Is ended when the reply comes.
    pub traced: Option<Box<Traced>>,
    /// Set by `send`: how many were forwarded with this one, if pyfuse3 had no other.
    pub alone: Option<u64>,
}

impl Python {
    /// Makes the socket pair. Returns our end, and pyfuse3's.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let data = largest_data(&socket, &theirs)?;
        Ok((Self { socket, data, waiting: Mutex::default(), has_backlog: Wake::new()? }, theirs))
    }

    /// Bytes of data in the largest request that can be forwarded.
    pub fn data(&self) -> usize {
        self.data
    }

    /// Forwards a request. EIO if it is too large, or if pyfuse3 has closed its end. Does not wait.
    pub fn send(&self, unique: u64, message: &[u8], mut forwarded: Forwarded) -> Result<(), Refusal> {
        let mut waiting = self.waiting();
        waiting.count += 1;
        forwarded.alone = waiting.forwarded.is_empty().then_some(waiting.count);
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

    /// How many requests have been forwarded.
    pub fn count(&self) -> u64 {
        self.waiting().count
    }

    /// Receives replies, and calls `deliver` with each and what is known of its request. Also sends the backlog; a
    /// request there that cannot be sent gets the reply EIO. Returns when pyfuse3 has closed its end, or
    /// [`shut_down`](Self::shut_down) is called.
    pub fn receive(&self, mut deliver: impl FnMut(&mut [u8], Forwarded)) {
        let mut buffer = vec![0; DATA_MAX + HEADER_ROOM];
        loop {
            match retry(|| recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)) {
                Ok((0, _)) => return,
                Ok((length, _)) => {
                    let reply = &mut buffer[..length];
                    let forwarded = reply::unique(reply).and_then(|unique| self.waiting().forwarded.remove(&unique));
                    // Without a request it is a notification of pyfuse3's.
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

    /// Ends the traffic in both directions.
    pub fn shut_down(&self) {
        // It fails if the other end is closed already.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Waits until there is a reply, or until the backlog may be sent.
    fn wait(&self) {
        let has_backlog = !self.waiting().backlog.is_empty();
        let events = if has_backlog { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut ready =
            [PollFd::new(&self.socket, events), PollFd::from_borrowed_fd(self.has_backlog.as_fd(), PollFlags::IN)];
        // If this fails, so does the socket.
        let _ = retry(|| poll(&mut ready, None));
        self.has_backlog.clear();
    }

    /// Sends the backlog, as far as there is room. Returns the requests that cannot be sent at all.
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
        // Each change is one step, so a panic cannot have left it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of data, at most [`DATA_MAX`], that a message of this pair can hold besides its headers. For an ordinary user
/// net.core.wmem_max bounds it.
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

    /// An origin that expects the reply with this `unique`.
    struct Numbered(u64);

    impl ReplyTo for Numbered {
        fn deliver(&self, message: &[u8]) {
            assert_eq!(reply::unique(message), Some(self.0));
        }
    }

    fn forwarded(number: u64) -> Forwarded {
        Forwarded { origin: Arc::new(Numbered(number)), collected: None, timed: None, traced: None, alone: None }
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
        // From now on sending fails.
        shutdown(&theirs, Shutdown::Read).unwrap();
        let mut refused = python.send_backlog();
        assert_eq!(refused.pop().map(|(refused, _)| refused), Some(unique));
        assert!(refused.is_empty() && python.waiting().backlog.is_empty());
    }
}
