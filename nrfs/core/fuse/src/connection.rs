//! A connection to the kernel: the descriptors on which requests arrive, and who answers them.
//!
//! Every request is read by a worker. With the native channels it answers the frequent ones itself and
//! hands all others on to pyfuse3; with the pyfuse3 channel it hands on all but a few: see
//! [`Shared::is_always_native`].

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use filesystem::{Cpu, Errno, Filesystem, Holder, Ino, Token};
use zerocopy::{FromBytes, IntoBytes};

use crate::device::{self, Read};
use crate::inode_flags;
use crate::kernel::Kernel;
use crate::native::{Answer, Native};
use crate::protocol::handshake::{self, Agreement, Offer, Terms, flags};
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{CountReply, ReplyHeader, WriteArguments, write};
use crate::protocol::{DATA_MAX, HEADER_ROOM, reply};
use crate::python::{Forwarded, Origin, Python};
use crate::ring::{self, Mailbox};
use crate::steward::{self, Steward};
use crate::wake::{Wake, retry};
use crate::yielding::{Watch, Yielding};

/// How requests reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// One reader, and pyfuse3 answers.
    Pyfuse3,
    /// A worker for each CPU, each with a descriptor of its own.
    Device,
    /// A worker for each CPU, each with a ring of its own.
    Ring,
}

/// A connection whose requests are answered until it is dropped.
pub struct Connection {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Of `threads`, the one that may wait for the others.
    steward: Option<usize>,
}

/// What the threads of a connection share.
pub(crate) struct Shared {
    pub filesystem: Arc<Filesystem>,
    pub channel: Channel,
    caching: bool,
    /// The mount's own descriptor, and behind it its clones.
    pub devices: Vec<OwnedFd>,
    pub workers: Box<[Worker]>,
    pub watch: Watch,
    pub steward: Steward,
    python: Python,
    offer: Mutex<Option<Offer>>,
    agreement: OnceLock<Agreement>,
    /// Held for reading while a worker takes a request and, if it is a FORGET, acts on it. Whoever has
    /// it for writing knows that no FORGET is under way.
    gate: RwLock<()>,
    /// Requests that somebody read who looked for FORGETs, all from the mount's own descriptor.
    inbox: Mutex<VecDeque<Vec<u8>>>,
    inbox_is_empty: AtomicBool,
    /// Whether a worker of the device is looking for requests before it sleeps.
    pub is_somebody_looking: AtomicBool,
    /// By node: a worker there, if one is pinned there.
    followers: Box<[Option<usize>]>,
    /// Bytes written since the followers were last woken.
    unfollowed: AtomicU64,
    is_ending: AtomicBool,
    /// Readable once the requests have come to their end.
    ended: Wake,
}

/// What is known of one worker.
pub(crate) struct Worker {
    /// Where it runs; anywhere, if `None`.
    pub cpu: Option<Cpu>,
    pub wake: Wake,
    pub mailbox: Mailbox,
    pub yielding: Yielding,
    /// By opcode.
    requests: Box<[AtomicU64]>,
}

/// How many requests of each kind a worker has taken.
#[derive(Clone, Debug)]
pub struct WorkerStatistics {
    /// Where it runs; anywhere, if `None`.
    pub cpu: Option<Cpu>,
    /// By name.
    pub requests: BTreeMap<&'static str, u64>,
}

impl Connection {
    /// Starts to answer what arrives at `device`, on which a mount was made, and returns the descriptor
    /// that pyfuse3 is to serve. `caching` says whether the kernel may keep what it is told, and `collected` how many
    /// bytes of data it collects at the most before it writes them.
    pub fn start(
        filesystem: Arc<Filesystem>,
        device: OwnedFd,
        channel: Channel,
        caching: bool,
        collected: u64,
    ) -> io::Result<(Self, OwnedFd)> {
        let (python, theirs) = Python::new()?;
        let cpus = filesystem.topology().cpus();
        let rings = if channel == Channel::Ring { ring::for_each(&cpus, &filesystem)? } else { Vec::new() };
        // The workers of the device come first.
        let cpus: Vec<Option<Cpu>> = match channel {
            Channel::Pyfuse3 => vec![None],
            Channel::Device => cpus.into_iter().map(Some).collect(),
            Channel::Ring => iter::once(None).chain(cpus.into_iter().map(Some)).collect(),
        };
        let mut devices = vec![device];
        for _ in 1..cpus.len() - rings.len() {
            devices.push(device::clone(&devices[0])?);
        }
        for device in &devices {
            rustix::io::ioctl_fionbio(device, true)?;
        }
        let nodes_of = |cpu: &Option<Cpu>| cpu.map_or(&[][..], |cpu| filesystem.topology().nodes_of(cpu));
        let nodes = 0..filesystem.topology().nodes().len();
        let followers = nodes.map(|node| cpus.iter().position(|cpu| nodes_of(cpu).contains(&node))).collect();
        let workers = cpus.into_iter().map(Worker::new).collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared {
            filesystem,
            channel,
            caching,
            devices,
            workers,
            watch: Watch::new()?,
            steward: Steward::default(),
            python,
            offer: Mutex::new(None),
            agreement: OnceLock::new(),
            gate: RwLock::new(()),
            inbox: Mutex::default(),
            inbox_is_empty: AtomicBool::new(true),
            is_somebody_looking: AtomicBool::new(false),
            followers,
            unfollowed: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
            ended: Wake::new()?,
        });
        let holder: Weak<Shared> = Arc::downgrade(&shared);
        shared.filesystem.set_holder(holder);
        shared.filesystem.set_collected(collected);
        let mut connection = Self { shared, threads: Vec::new(), steward: None };
        let readers = connection.shared.devices.len();
        for number in 0..readers {
            connection.spawn(format!("nrfs-device-{number}"), move |shared| device::work(shared, number))?;
        }
        for (number, ring) in rings.into_iter().enumerate() {
            let worker = readers + number;
            let cpu = connection.shared.workers[worker].cpu.map_or(number, |Cpu(cpu)| cpu);
            connection.spawn(format!("nrfs-ring-{cpu}"), move |shared| ring::work(shared, worker, ring))?;
        }
        connection.spawn("nrfs-replies".into(), Shared::deliver_replies)?;
        connection.spawn("nrfs-steward".into(), steward::work)?;
        connection.steward = Some(connection.threads.len() - 1);
        connection.spawn("nrfs-watch".into(), Shared::watch)?;
        Ok((connection, theirs))
    }

    /// Readable once no more requests will come: time to end pyfuse3.
    pub fn ended(&self) -> impl AsFd + '_ {
        self.shared.ended.as_fd()
    }

    /// What each worker has done so far.
    pub fn statistics(&self) -> Vec<WorkerStatistics> {
        self.shared.workers.iter().map(Worker::statistics).collect()
    }

    /// Ends all threads. Requests without a reply stay so: the kernel aborts them once the descriptors,
    /// which are closed then, are no more.
    ///
    /// Fails where a worker had come to an end before, other than with the mount; with its reason.
    pub fn end(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        self.shared.filesystem.set_collected(0);
        let mut result = self.end_steward();
        self.shared.is_ending.store(true, Ordering::SeqCst);
        self.shared.workers.iter().for_each(|worker| worker.wake.signal());
        self.shared.watch.wake();
        self.shared.python.shut_down();
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            // A panic was reported when it happened.
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            result = result.and(ended.map_err(|error| io::Error::other(format!("worker {name}: {error}"))));
        }
        result
    }

    /// Ends the steward while there still are workers, as he may be waiting for what the kernel has to write. Where a
    /// worker has failed that may never come: then he is left behind, until the kernel gives the mount up.
    fn end_steward(&mut self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.shared.steward.end();
        let Some(steward) = self.steward.take() else { return Ok(()) };
        let until = Instant::now() + PATIENCE;
        while !self.threads[steward].is_finished() {
            if Instant::now() > until {
                drop(self.threads.swap_remove(steward));
                return Err(io::Error::other("worker nrfs-steward: the kernel does not write what it has collected"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn spawn(&mut self, name: String, work: impl FnOnce(&Shared) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Also when it panics: nobody must wait for requests that nobody answers.
            let _end = SignalAtEnd(&shared.ended);
            work(&shared)
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Who wants to know calls `end`.
        let _ = self.join();
    }
}

struct SignalAtEnd<'a>(&'a Wake);

impl Drop for SignalAtEnd<'_> {
    fn drop(&mut self) {
        self.0.signal();
    }
}

impl Worker {
    fn new(cpu: Option<Cpu>) -> Result<Self, rustix::io::Errno> {
        let requests = Opcode::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self { cpu, wake: Wake::new()?, mailbox: Mailbox::default(), yielding: Yielding::default(), requests })
    }

    fn count(&self, request: Request) {
        let Some(opcode) = request.opcode() else { return };
        self.requests[opcode as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn statistics(&self) -> WorkerStatistics {
        let mut requests = BTreeMap::new();
        for (opcode, count) in Opcode::ALL.iter().zip(&self.requests) {
            *requests.entry(opcode.name()).or_default() += count.load(Ordering::Relaxed);
        }
        WorkerStatistics { cpu: self.cpu, requests }
    }
}

impl Shared {
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Whether SETXATTR has its longer form.
    pub fn setxattr_is_extended(&self) -> bool {
        self.agreement().has(flags::SETXATTR_EXT)
    }

    /// Whether requests come over the ring.
    pub fn has_ring(&self) -> bool {
        self.agreement().has(flags::OVER_IO_URING)
    }

    fn agreement(&self) -> Agreement {
        self.agreement.get().copied().unwrap_or_default()
    }

    /// Whether the kernel may keep what it is told.
    pub fn is_caching(&self) -> bool {
        self.caching
    }

    /// Whether requests are answered natively where that can be.
    pub fn is_native(&self) -> bool {
        self.channel != Channel::Pyfuse3
    }

    /// The kernel, to be told something.
    pub fn kernel(&self) -> Kernel<&OwnedFd> {
        Kernel(&self.devices[0])
    }

    /// Does what a request asks, or hands it on; [`Answer::Silence`] then. The errno is for who asked. `may_wait` says
    /// whether the request can wait for the kernel itself: see the steward.
    pub fn answer(
        &self,
        worker: &Worker,
        request: Request,
        origin: Origin,
        may_wait: bool,
        token: &Token,
    ) -> Result<Answer, i32> {
        worker.count(request);
        self.native().check_flags(request, token).map_err(Errno::code)?;
        if let Some((ino, privileges)) = request.kills_privileges() {
            // The request itself will tell if the inode is gone.
            let _ = self.filesystem.kill_privileges(ino, privileges, token);
        }
        if let Some(offer) = handshake::offer(request) {
            *lock(&self.offer) = Some(offer);
        }
        if let Some(answer) = self.mind_the_cache(request, origin, may_wait, token).map_err(Errno::code)? {
            return Ok(answer);
        }
        let is_native = self.is_native() || request.opcode().is_some_and(Self::is_always_native);
        let collected = collected(request);
        match if is_native { self.native().answer(request, token) } else { Ok(Answer::Python) } {
            Ok(Answer::Python) => {
                let forwarded = Forwarded { origin, collected };
                match self.python.send(request.unique(), &request.to_message(), forwarded) {
                    Ok(()) => Ok(Answer::Silence),
                    Err(errno) => Err(errno.raw_os_error()),
                }
            }
            answer => {
                if let (Some((ino, _)), Err(_)) = (collected, &answer) {
                    self.collected_in_vain(ino);
                }
                self.note_told(request, &answer);
                if answer.is_ok() && inode_flags::sets_flags(request) {
                    // Its attributes must be asked for from now on, and it has changed.
                    self.kernel().forget_attributes(request.ino());
                }
                match (request.opcode(), &answer) {
                    (Some(Opcode::Write | Opcode::CopyFileRange), Ok(Answer::Count(written))) => {
                        self.lead(u64::from(*written), token);
                    }
                    (Some(Opcode::CopyFileRange64), Ok(Answer::Offset(written))) => self.lead(*written, token),
                    _ => {}
                }
                answer.map_err(Errno::code)
            }
        }
    }

    /// What is never left to pyfuse3: what it has no request for, what Python must not hold up, and what takes a look
    /// at the caller.
    fn is_always_native(opcode: Opcode) -> bool {
        matches!(opcode, Opcode::Forget | Opcode::BatchForget | Opcode::Ioctl | Opcode::Listxattr)
    }

    /// Writes an answer into `buffer`; returns its length.
    pub fn write(&self, answer: Answer, buffer: &mut [u8], token: &Token) -> Result<usize, i32> {
        self.native().write(answer, buffer, token).map_err(Errno::code)
    }

    /// Data that was collected could not be written. The kernel has to ask for the attributes: before the next write is
    /// collected, and since the file takes less space than it believes.
    fn collected_in_vain(&self, ino: Ino) {
        self.kernel().forget_attributes(ino);
    }

    /// Notes of which inode an answer tells while the kernel must ask for attributes.
    fn note_told(&self, request: Request, answer: &Result<Answer, Errno>) {
        if !self.filesystem.is_scarce() {
            return;
        }
        match (request.opcode(), answer) {
            (_, Ok(Answer::Entry(Some(attributes)) | Answer::Created(attributes, _)))
            | (Some(Opcode::Setattr), Ok(Answer::Attributes(attributes))) => self.steward.tell(attributes.ino),
            _ => {}
        }
    }

    /// Has workers of other nodes bring their replicas up to date, once there is enough to do. Otherwise whoever
    /// finds a log full would do it for them, and wait for it, though their CPUs may be idle.
    fn lead(&self, written: u64, token: &Token) {
        const ENOUGH: u64 = 1 << 20;
        if self.unfollowed.fetch_add(written, Ordering::Relaxed) + written < ENOUGH {
            return;
        }
        self.unfollowed.store(0, Ordering::Relaxed);
        let others = self.followers.iter().enumerate().filter(|&(node, _)| node != token.node().0);
        others.filter_map(|(_, follower)| *follower).for_each(|follower| self.workers[follower].wake.signal());
    }

    /// Brings the replicas of a worker's nodes up to date.
    pub fn follow(&self, tokens: &[Token]) {
        tokens.iter().for_each(|token| self.filesystem.follow(token));
    }

    pub fn native(&self) -> Native<'_> {
        Native {
            filesystem: &self.filesystem,
            agreement: self.agreement(),
            caching: self.caching,
            scarce: self.filesystem.is_scarce(),
        }
    }

    /// Reads a request that is there now. A FORGET has been acted on when this returns.
    pub fn take<'a>(&self, worker: usize, buffer: &'a mut [u8], token: &Token) -> Read<'a> {
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.read(&self.devices[worker], &self.workers[worker], buffer, token)
    }

    /// A request that was read by somebody who looked for FORGETs.
    pub fn take_from_inbox(&self) -> Option<Vec<u8>> {
        if self.inbox_is_empty.load(Ordering::SeqCst) {
            return None;
        }
        let mut inbox = lock(&self.inbox);
        let message = inbox.pop_front();
        self.inbox_is_empty.store(inbox.is_empty(), Ordering::SeqCst);
        message
    }

    fn read<'a>(&self, device: &OwnedFd, worker: &Worker, buffer: &'a mut [u8], token: &Token) -> Read<'a> {
        let read = device::read(device, buffer);
        let Read::Message(message) = read else { return read };
        match Request::from_message(message, false) {
            Some(request) if matches!(request.opcode(), Some(Opcode::Forget | Opcode::BatchForget)) => {
                // A malformed one names nothing to forget.
                let _ = self.answer(worker, request, Origin::Device(0), false, token);
                Read::Forgotten
            }
            _ => read,
        }
    }

    /// Writes the reply to a request that was read at descriptor `device`: `data` behind its header.
    pub fn reply(&self, device: usize, unique: u64, error: i32, data: &[u8]) {
        let header = reply::header(unique, error, data.len());
        let parts = [io::IoSlice::new(header.as_bytes()), io::IoSlice::new(data)];
        // An error means that nobody waits for the reply any more.
        let _ = retry(|| rustix::io::writev(&self.devices[device], &parts));
    }

    fn deliver_replies(&self) -> io::Result<()> {
        self.python.receive(|reply, Forwarded { origin, collected }| {
            let is_handshake = self.settle_handshake(reply);
            match collected.filter(|&(_, size)| !is_count(reply, size)) {
                // Nobody looks at how much of a cached page was written, only at an error.
                Some((ino, _)) => {
                    self.collected_in_vain(ino);
                    let error = ReplyHeader::read_from_prefix(reply).map_or(libc::EIO, |(header, _)| -header.error);
                    let error = if error == 0 { Errno::ENOSPC.code() } else { error };
                    let unique = reply::unique(reply).unwrap_or_default();
                    self.deliver(reply::header(unique, error, 0).as_bytes(), origin);
                }
                None => self.deliver(reply, origin),
            }
            if is_handshake {
                // Those of the ring wait for it.
                self.workers.iter().for_each(|worker| worker.wake.signal());
            }
        });
        Ok(())
    }

    /// Gives a whole reply to whoever must hand it to the kernel.
    fn deliver(&self, reply: &[u8], origin: Origin) {
        match origin {
            Origin::Device(device) => {
                // An error means that nobody waits for the reply any more.
                let _ = retry(|| rustix::io::write(&self.devices[device], reply));
            }
            Origin::Ring(number) => {
                let worker = &self.workers[number];
                lock(&worker.mailbox).push(reply.to_vec());
                worker.wake.signal();
            }
        }
    }

    /// Replies to a request that no worker has any more.
    pub fn reply_later(&self, unique: u64, origin: Origin, answer: Result<Answer, Errno>, token: &Token) {
        const HEADER: usize = size_of::<ReplyHeader>();
        let room = match &answer {
            Ok(Answer::Content { size, .. }) => (*size).min(DATA_MAX),
            _ => HEADER_ROOM,
        };
        let mut message = vec![0; HEADER + room];
        let written = answer.and_then(|answer| self.native().write(answer, &mut message[HEADER..], token));
        let (error, length) = written.map_or_else(|errno| (errno.code(), 0), |length| (0, length));
        message[..HEADER].copy_from_slice(reply::header(unique, error, length).as_bytes());
        self.deliver(&message[..HEADER + length], origin);
    }

    /// Looks after workers that yield.
    fn watch(&self) -> io::Result<()> {
        self.watch.work(|| self.workers.iter().map(|worker| &worker.yielding).collect(), || self.is_ending());
        Ok(())
    }

    /// If this is the reply to the handshake, makes it ours; whether it was.
    fn settle_handshake(&self, reply: &mut [u8]) -> bool {
        let Some(offer) = lock(&self.offer).take_if(|offer| reply::unique(reply) == Some(offer.unique)) else {
            return false;
        };
        if let Some(agreement) = handshake::settle(reply, offer, self.terms()) {
            // The kernel shakes hands once.
            let _ = self.agreement.set(agreement);
        }
        true
    }

    /// What we want of the kernel's offer.
    fn terms(&self) -> Terms {
        let cached = |flags| if self.caching { flags } else { 0 };
        let always = flags::DONT_MASK
            | flags::POSIX_ACL
            | flags::SETXATTR_EXT
            | flags::HANDLE_KILLPRIV_V2
            // Refused without default_permissions, which every mount has.
            | flags::ALLOW_IDMAP
            | cached(flags::CACHE_SYMLINKS);
        let ring = if self.channel == Channel::Ring { flags::OVER_IO_URING } else { 0 };
        match self.channel {
            Channel::Pyfuse3 => {
                Terms { kept: !(flags::HANDLE_KILLPRIV | flags::ASYNC_DIO), wanted: always, data: self.python.data() }
            }
            Channel::Device | Channel::Ring => Terms {
                kept: 0,
                wanted: always
                    | ring
                    | flags::ASYNC_READ
                    | flags::EXPORT_SUPPORT
                    | flags::BIG_WRITES
                    | flags::DO_READDIRPLUS
                    | flags::READDIRPLUS_AUTO
                    | flags::PARALLEL_DIROPS
                    | flags::MAX_PAGES
                    | flags::EXPLICIT_INVAL_DATA
                    | flags::DIRECT_IO_ALLOW_MMAP
                    | cached(flags::WRITEBACK_CACHE | flags::NO_OPEN_SUPPORT | flags::NO_OPENDIR_SUPPORT),
                data: DATA_MAX,
            },
        }
    }
}

/// The file and the bytes of a write that the kernel had collected.
fn collected(request: Request) -> Option<(Ino, u32)> {
    let WriteArguments { size, write_flags, .. } =
        (request.opcode()? == Opcode::Write).then(|| request.argument().ok())??;
    (write_flags & write::CACHE != 0).then_some((request.ino(), size))
}

/// Whether a reply says that `size` bytes were written.
fn is_count(reply: &[u8], size: u32) -> bool {
    let counted = reply.get(size_of::<ReplyHeader>()..).and_then(|data| CountReply::read_from_prefix(data).ok());
    counted.is_some_and(|(count, _)| count.size == size)
}

impl Holder for Shared {
    fn space_is_scarce(&self) {
        self.steward.space_is_scarce();
    }

    fn forget_attributes(&self, ino: Ino) {
        self.kernel().forget_attributes(ino);
    }

    fn settle(&self) {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; device::BUFFER_SIZE];
        self.filesystem.with_token(|token| {
            loop {
                match self.read(&self.devices[0], &self.workers[0], &mut buffer, token) {
                    Read::Forgotten => {}
                    Read::Message(message) => {
                        let mut inbox = lock(&self.inbox);
                        inbox.push_back(message.to_vec());
                        self.inbox_is_empty.store(false, Ordering::SeqCst);
                        self.workers[0].wake.signal();
                    }
                    Read::Nothing | Read::End => return,
                }
            }
        });
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks changes in single steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use filesystem::{Configuration, Owner, Permissions, Size, Topology};
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// A connection to nobody, who never asks for anything.
    fn connection() -> (Connection, OwnedFd) {
        let configuration = Configuration {
            topology: Topology::emulated(1).unwrap(),
            logs: 1,
            size: Size::Bytes(1 << 20),
            inodes: Some(10),
            permissions: Permissions::from_mode(0o755),
            owner: Owner { uid: 0, gid: 0 },
        };
        let filesystem = Arc::new(Filesystem::new(configuration).unwrap());
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (connection, _python) = Connection::start(filesystem, ours, Channel::Pyfuse3, true, 0).unwrap();
        (connection, theirs)
    }

    #[test]
    fn a_worker_that_fails_ends_the_connection_and_says_why() {
        let failing: [fn(&Shared) -> io::Result<()>; 2] =
            [|_| panic!("as a test does"), |_| Err(io::ErrorKind::OutOfMemory.into())];
        for (work, reason) in
            failing.into_iter().zip(["worker nrfs-ring-7: it panicked", "worker nrfs-ring-7: out of memory"])
        {
            let (mut connection, _kernel) = connection();
            connection.spawn("nrfs-ring-7".into(), work).unwrap();
            poll(&mut [PollFd::new(&connection.ended(), PollFlags::IN)], None).unwrap();
            assert_eq!(connection.end().unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn pyfuse3_is_not_asked_for_what_it_cannot_answer() {
        for native in [Opcode::Ioctl, Opcode::Listxattr, Opcode::Forget, Opcode::BatchForget] {
            assert!(Shared::is_always_native(native));
        }
        assert!(!Shared::is_always_native(Opcode::Getattr));
    }

    #[test]
    fn a_connection_that_is_ended_ends_well() {
        let (connection, _kernel) = connection();
        connection.end().unwrap();
    }
}
