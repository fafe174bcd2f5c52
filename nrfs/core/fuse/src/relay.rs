//! Hands every request on to pyfuse3, and every reply back.
//!
//! pyfuse3 is served through a socket pair as if it had the device itself. In between we settle the
//! handshake, which libfuse offers only a part of, and take privileges away where a request says so: a
//! mark in the message that pyfuse3 does not pass on. Where the handshake makes a request longer than
//! libfuse expects it, we cut it to that.
//!
//! One thread takes requests from the device to the socket, the other replies back. Both end when the
//! mount is taken away, when pyfuse3's end of the socket is closed, or when they are told to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use filesystem::{Filesystem, Ino, Token};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown, socketpair, sockopt,
};

use crate::protocol::{self, HEADER_ROOM, Init, MAX_WRITE, Request, flags};

/// The largest request that cannot be divided: an extended attribute.
const LEAST_DATA: usize = 1 << 16;

/// A connection to the kernel whose requests pyfuse3 answers. Dropped, it ends.
pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    filesystem: Arc<Filesystem>,
    device: OwnedFd,
    socket: OwnedFd,
    /// Readable once the threads are to end.
    told_to_end: OwnedFd,
    /// Readable once the requests have come to their end.
    ended: OwnedFd,
    /// The handshake whose reply is still to come.
    init: Mutex<Option<Init>>,
    wanted: u64,
    /// Bytes of data in the largest message that fits the socket.
    data: usize,
}

impl Relay {
    /// Starts to relay between `device`, on which a mount was made, and the descriptor that it
    /// returns, which is pyfuse3's. The kernel may keep symlinks if `caching`.
    pub fn start(filesystem: Arc<Filesystem>, device: OwnedFd, caching: bool) -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let data = largest_data(&socket, &theirs)?;
        let caches = if caching { flags::CACHE_SYMLINKS } else { 0 };
        let wanted = flags::DONT_MASK | flags::POSIX_ACL | flags::SETXATTR_EXT | flags::HANDLE_KILLPRIV_V2 | caches;
        rustix::io::ioctl_fionbio(&device, true)?;
        let shared = Arc::new(Shared {
            filesystem,
            device,
            socket,
            told_to_end: eventfd(0, EventfdFlags::CLOEXEC)?,
            ended: eventfd(0, EventfdFlags::CLOEXEC)?,
            init: Mutex::new(None),
            wanted,
            data,
        });
        let mut relay = Self { shared, threads: Vec::new() };
        relay.spawn("nrfs-requests", Shared::relay_requests)?;
        relay.spawn("nrfs-replies", Shared::relay_replies)?;
        Ok((relay, theirs))
    }

    /// Readable once no more requests will come: time to end pyfuse3.
    pub fn ended(&self) -> impl AsFd + '_ {
        &self.shared.ended
    }

    /// Ends both threads. Requests without a reply stay so: the kernel aborts them once the device,
    /// which the relay owns, is closed.
    fn end(&mut self) {
        signal(&self.shared.told_to_end);
        // Wakes whoever waits at the socket; it may be closed already.
        let _ = shutdown(&self.shared.socket, Shutdown::Both);
        for thread in self.threads.drain(..) {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            // Also when it panics: pyfuse3 must not wait for requests that nobody relays.
            let _end = SignalAtEnd(&shared.ended);
            work(&shared);
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn relay_requests(&self) {
        // No larger than what the socket holds: the kernel fills it, with FORGETs if with nothing else.
        let mut buffer = vec![0; self.data + HEADER_ROOM];
        let mut has_extensions = false;
        while let Some(length) = self.next_request(&mut buffer) {
            let message = &mut buffer[..length];
            let request = Request::new(message);
            if let Some((node, privileges)) = request.kills_privileges() {
                let kill = |token: &Token| self.filesystem.kill_privileges(Ino(node), privileges, token);
                // The request itself will tell if the inode is gone.
                let _ = self.filesystem.with_token(kill);
            }
            if let Some(init) = request.init() {
                has_extensions = init.flags & self.wanted & flags::SETXATTR_EXT != 0;
                *self.init.lock().unwrap_or_else(PoisonError::into_inner) = Some(init);
            }
            let length = if has_extensions { protocol::cut_extension(message) } else { length };
            match retry(|| send(&self.socket, &message[..length], SendFlags::NOSIGNAL)) {
                Ok(_) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return,
                // This one cannot be handed on, the next may be.
                Err(errno) => self.refuse(Request::new(message), errno),
            }
        }
    }

    /// Answers a request with an errno.
    fn refuse(&self, request: Request, errno: Errno) {
        if let Some(reply) = request.refusal(errno.raw_os_error()) {
            let _ = rustix::io::write(&self.device, &reply);
        }
    }

    /// Reads a request; `None` when there will be no more.
    fn next_request(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match rustix::io::read(&self.device, &mut *buffer) {
                Ok(length) => return Some(length),
                Err(Errno::AGAIN) => {
                    let mut waiting = [&self.device, &self.told_to_end].map(|fd| PollFd::new(fd, PollFlags::IN));
                    let _ = retry(|| poll(&mut waiting, None));
                    if !waiting[1].revents().is_empty() {
                        return None;
                    }
                }
                // A request that was given up before it was read.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn relay_replies(&self) {
        let mut buffer = vec![0; MAX_WRITE + HEADER_ROOM];
        loop {
            let length = match retry(|| recv(&self.socket, &mut *buffer, RecvFlags::empty())) {
                Ok((length, _)) if length > 0 => length,
                _ => return,
            };
            let reply = &mut buffer[..length];
            self.settle_handshake(reply);
            // An error means that nobody waits for the reply any more.
            let _ = retry(|| rustix::io::write(&self.device, reply));
        }
    }

    /// If this is the reply to the handshake, adds what libfuse does not offer.
    fn settle_handshake(&self, reply: &mut [u8]) {
        let mut waiting = self.init.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(init) = waiting.take_if(|init| protocol::reply_unique(reply) == Some(init.unique)) {
            protocol::settle_init(reply, self.wanted & init.flags, flags::HANDLE_KILLPRIV, self.data);
        }
    }
}

/// The data, at most [`MAX_WRITE`] bytes, that a message of this pair can hold beside its headers. An
/// ordinary user's sockets are bounded by net.core.wmem_max.
fn largest_data(socket: &OwnedFd, theirs: &OwnedFd) -> io::Result<usize> {
    let mut data = MAX_WRITE;
    let room = 2 * (MAX_WRITE + HEADER_ROOM);
    for end in [socket, theirs] {
        if sockopt::set_socket_send_buffer_size_force(end, room).is_err() {
            sockopt::set_socket_send_buffer_size(end, room)?;
        }
    }
    let mut message = vec![0; MAX_WRITE + HEADER_ROOM];
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

struct SignalAtEnd<'a>(&'a OwnedFd);

impl Drop for SignalAtEnd<'_> {
    fn drop(&mut self) {
        signal(self.0);
    }
}

fn signal(eventfd: &OwnedFd) {
    // It fails only where the count is full, and then it has been signalled.
    let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
