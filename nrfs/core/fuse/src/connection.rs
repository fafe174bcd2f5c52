//! The connection to the kernel for one mount: starts and ends its threads, and owns what they share.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use filesystem::{Cpu, Filesystem, Holder, Ino};

use crate::device::{Device, Intake};
use crate::kernel::Kernel;
use crate::latency::{self, Bucket, Latencies};
use crate::native::Native;
use crate::negotiation::{Negotiation, native_terms, terms_for_python};
use crate::passthrough::Passthrough;
use crate::protocol::handshake::InitFlags;
use crate::python::Python;
use crate::ring::{self, Ring};
use crate::server::Server;
use crate::steward::Steward;
use crate::trace::{Filter, Trace, Tracer};
use crate::uring::Uring;
use crate::wake::Wake;
use crate::worker::{Crew, WorkerStatistics};

/// Which channel requests come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// One worker, which reads a descriptor. pyfuse3 answers.
    Pyfuse3,
    /// A worker for each CPU, each with a descriptor of its own.
    Device,
    /// A worker for each CPU, each with a ring of its own.
    Ring,
}

/// A connection. Its requests are answered until it is ended or dropped.
pub struct Connection {
    crew: Arc<Crew>,
    server: Arc<Server>,
    /// The file system's holder. It is owned here, as the file system has only a weak reference.
    holder: Arc<KernelHolds>,
    /// Signalled when any of `threads` ends: with the mount, or because it failed.
    ended: Arc<Wake>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// The steward's place in `threads`. It may be waiting for the others.
    steward: Option<usize>,
}

impl Connection {
    /// Starts threads that answer the requests of a mount, which was made with the descriptor `device`. Also returns
    /// the descriptor that pyfuse3 must serve. `caching` says whether the kernel may cache replies; `collected` is the
    /// most bytes of data that it collects before it writes them.
    pub fn start(
        filesystem: Arc<Filesystem>,
        device: OwnedFd,
        channel: ChannelKind,
        caching: bool,
        collected: u64,
    ) -> io::Result<(Self, OwnedFd)> {
        let topology = filesystem.topology();
        let has_ring = channel == ChannelKind::Ring;
        let rings = if has_ring { ring::for_each(&topology.cpus(), topology)? } else { Vec::new() };
        let pinned = topology.cpus().into_iter().map(Some);
        // Workers that read descriptors come before those of rings.
        let cpus: Vec<Option<Cpu>> = match channel {
            ChannelKind::Pyfuse3 => vec![None],
            ChannelKind::Device => pinned.collect(),
            ChannelKind::Ring => iter::once(None).chain(pinned).collect(),
        };
        let crew = Arc::new(Crew::new(&cpus, topology)?);
        let readers = cpus.len() - rings.len();
        let intake = Arc::new(Intake::new(device, readers, Arc::clone(&crew.workers()[0].wake))?);
        let is_native = channel != ChannelKind::Pyfuse3;
        let (python, theirs) = Python::new()?;
        let is_shared = filesystem.collecting().is_none();
        let terms = if is_native {
            native_terms(caching, has_ring, is_shared)
        } else {
            terms_for_python(caching, python.data())
        };
        let kernel = Arc::new(Kernel::of(intake.device())?);
        let passthrough = match is_shared {
            true => Some(Passthrough::new(intake.device().try_clone()?, Arc::clone(&kernel))?),
            false => None,
        };
        let native = Arc::new(Native::new(Arc::clone(&filesystem), caching, passthrough));
        let trace = Arc::new(Trace::default());
        let steward =
            || Arc::new(Steward::new(Arc::clone(&native), Arc::clone(&kernel), Arc::clone(&trace), is_native));
        let steward = (!is_shared).then(steward);
        let negotiation = Negotiation::new(terms);
        let forwarded = Latencies::new();
        let server = Arc::new(Server { native, kernel, steward, python, forwarded, trace, negotiation, is_native });
        let holder = Arc::new(KernelHolds { server: Arc::clone(&server), intake, crew: Arc::clone(&crew) });
        let weak: Weak<KernelHolds> = Arc::downgrade(&holder);
        filesystem.set_holder(weak);
        let ended = Arc::new(Wake::new()?);
        let mut connection = Self { crew, server, holder, ended, threads: Vec::new(), steward: None };
        connection.set_collected(collected);
        connection.start_threads(rings)?;
        Ok((connection, theirs))
    }

    /// Sets the most bytes of data that the kernel collects before it writes them.
    pub fn set_collected(&self, bytes: u64) {
        self.server.filesystem().collecting().inspect(|content| content.set_collected(bytes));
    }

    fn start_threads(&mut self, rings: Vec<Uring>) -> io::Result<()> {
        let readers = self.holder.intake.workers();
        for number in readers.clone() {
            let (crew, server, intake) = (self.crew.clone(), self.server.clone(), self.holder.intake.clone());
            self.spawn(format!("nrfs-device-{number}"), move || {
                crew.begin(number);
                let device = Device::new(&intake, number, &crew.workers()[number].wake)?;
                crew.work(number, &server, device, true)
            })?;
        }
        for (number, uring) in (readers.end..).zip(rings) {
            let (crew, server, intake) = (self.crew.clone(), self.server.clone(), self.holder.intake.clone());
            let cpu = crew.workers()[number].cpu.map_or(number, |Cpu(cpu)| cpu);
            self.spawn(format!("nrfs-ring-{cpu}"), move || {
                crew.begin(number);
                let wake = &crew.workers()[number].wake;
                while !server.native.has(InitFlags::OVER_IO_URING) {
                    wake.wait();
                    wake.clear();
                    if crew.is_ending() {
                        return Ok(());
                    }
                }
                crew.work(number, &server, Ring::open(uring, intake.device().as_fd(), wake)?, false)
            })?;
        }
        let (crew, server) = (self.crew.clone(), self.server.clone());
        self.spawn("nrfs-replies".into(), move || {
            // Workers of rings wait until INIT has been answered.
            server.pass_replies(|| crew.wake_all());
            Ok(())
        })?;
        if let Some(steward) = self.server.steward.clone() {
            self.steward = Some(self.threads.len());
            self.spawn("nrfs-steward".into(), move || {
                steward.work();
                Ok(())
            })?;
        }
        let crew = self.crew.clone();
        self.spawn("nrfs-watch".into(), move || {
            crew.watch();
            Ok(())
        })
    }

    fn spawn(&mut self, name: String, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let ended = Arc::clone(&self.ended);
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Signals also after a panic: then requests are not answered any more, and the connection must be ended.
            let _end = SignalAtEnd(&ended);
            work()
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// A descriptor that is readable when the mount has ended, or a thread has failed: then pyfuse3 must be ended.
    pub fn ended(&self) -> impl AsFd + '_ {
        self.ended.as_fd()
    }

    /// Whether the kernel offers to read and write backing files itself. Known when pyfuse3 gets INIT.
    pub fn offers_passthrough(&self) -> bool {
        self.server.negotiation.was_offered(InitFlags::PASSTHROUGH)
    }

    /// By name of the request: how long those took that were timed, from when a worker had the request to when the
    /// kernel had its reply. Those that waited for space are not among them.
    pub fn latencies(&self) -> BTreeMap<&'static str, Vec<Bucket>> {
        let workers = self.crew.workers().iter().map(|worker| &worker.latencies);
        latency::together(workers.chain([&self.server.forwarded]))
    }

    /// Begins to trace requests.
    pub fn trace(&self, filter: Filter) -> Tracer {
        let workers = self.crew.workers().len();
        Tracer::new(Arc::clone(&self.server.trace), Arc::clone(self.server.native.filesystem()), workers, filter)
    }

    /// How many requests each worker has taken so far.
    pub fn statistics(&self) -> Vec<WorkerStatistics> {
        self.crew.workers().iter().map(|worker| worker.statistics()).collect()
    }

    /// Ends all threads, and closes the descriptors. Then the kernel fails the requests that have no reply.
    ///
    /// Returns the error of a thread that failed before, or an error if the steward cannot be ended.
    pub fn end(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        self.set_collected(0);
        let mut result = self.end_steward();
        self.crew.end();
        self.server.python.shut_down();
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            // A panic was reported when it happened.
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            result = result.and(ended.map_err(|error| io::Error::other(format!("worker {name}: {error}"))));
        }
        result
    }

    /// Ends the steward while there are still workers, as it may be waiting for the kernel to write, which workers must
    /// answer. If a worker has failed, this may never happen: after 10 seconds it leaves the thread behind, which ends
    /// with the mount, and returns an error.
    fn end_steward(&mut self) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.server.steward.iter().for_each(|steward| steward.end());
        let Some(steward) = self.steward.take() else { return Ok(()) };
        let until = Instant::now() + PATIENCE;
        while self.threads.get(steward).is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() > until {
                drop(self.threads.swap_remove(steward));
                return Err(io::Error::other("worker nrfs-steward: the kernel does not write what it has collected"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Callers that need the error call `end`.
        let _ = self.join();
    }
}

struct SignalAtEnd<'a>(&'a Wake);

impl Drop for SignalAtEnd<'_> {
    fn drop(&mut self) {
        self.0.signal();
    }
}

/// The file system's holder: this connection.
struct KernelHolds {
    server: Arc<Server>,
    intake: Arc<Intake>,
    crew: Arc<Crew>,
}

impl Holder for KernelHolds {
    fn space_is_scarce(&self) {
        self.server.steward.iter().for_each(|steward| steward.space_is_scarce());
    }

    fn forget_attributes(&self, ino: Ino) {
        self.server.kernel.forget_attributes(ino);
    }

    fn unless_open(&self, ino: Ino, end: &dyn Fn()) {
        self.server.native.passthrough.iter().for_each(|passthrough| passthrough.unless_open(ino, end));
    }

    fn take_in_forgets(&self) {
        let native = &self.server.native;
        native.filesystem().with_token(|token| {
            self.intake.drain(|request| {
                self.crew.workers()[0].count(request.opcode());
                self.server.steward.iter().for_each(|steward| steward.untell(request));
                let traced = self.server.trace.begin(request, 0, token);
                // It fails if the request is malformed, and then nothing is forgotten.
                let _ = native.forget(request, token);
                if let Some(traced) = traced {
                    self.server.trace.end_by(token, traced, None);
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use filesystem::{Configuration, ContentPlace, Owner, Permissions, Size, Topology};
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// A connection to a socket from which no request comes.
    fn connection() -> (Connection, OwnedFd) {
        let configuration = Configuration {
            topology: Topology::emulated(1).unwrap(),
            content: ContentPlace::Replicated,
            logs: 1,
            size: Size::Bytes(1 << 20),
            inodes: Some(10),
            permissions: Permissions::from_mode(0o755),
            owner: Owner { uid: 0, gid: 0 },
        };
        let filesystem = Arc::new(Filesystem::new(configuration).unwrap());
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (connection, _python) = Connection::start(filesystem, ours, ChannelKind::Pyfuse3, true, 0).unwrap();
        (connection, theirs)
    }

    #[test]
    fn a_worker_that_fails_ends_the_connection_and_says_why() {
        let failing: [fn() -> io::Result<()>; 2] =
            [|| panic!("as a test does"), || Err(io::ErrorKind::OutOfMemory.into())];
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
    fn a_connection_that_is_ended_ends_well() {
        let (connection, _kernel) = connection();
        connection.end().unwrap();
    }
}
