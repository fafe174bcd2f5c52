//! The workers of a connection: threads that take requests from a channel, let the server serve them, and reply.
//!
//! A worker is pinned to its CPU and uses the replicas of its nodes. After a request, a worker of the device polls for
//! the next one for a moment before it sleeps, because to be woken costs more than a short wait: see [`Patience`].
//! While requests come fast, a worker leaves its CPU to the processes that it serves: see [`Yielding`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use filesystem::{Cpu, Filesystem, LARGE, NodeId, Token, Topology};
use memory::current_cpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::channel::{Channel, Event};
use crate::latency::Latencies;
use crate::protocol::handshake::InitFlags;
use crate::protocol::opcode::Opcode;
use crate::server::{Outcome, Server};
use crate::wake::Wake;
use crate::yielding::{Watch, Yielding};

/// How long a worker polls for the next request before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);

/// How long a worker sleeps after a FORGET when it gets little else, so that the next FORGETs come together.
const GATHERING: Duration = Duration::from_millis(1);

/// After so many written bytes, workers of other nodes are woken to follow.
const ENOUGH_TO_FOLLOW: u64 = 1 << 20;

/// All workers of a connection.
pub(crate) struct Crew {
    workers: Box<[Worker]>,
    watch: Watch,
    /// By node: the number of a worker that is pinned there, if there is one.
    followers: Box<[Option<usize>]>,
    /// Bytes written since the followers were last woken.
    unfollowed: AtomicU64,
    /// Whether a worker polls for requests before it sleeps.
    is_somebody_looking: AtomicBool,
    is_ending: AtomicBool,
}

/// What all threads know of one worker.
pub(crate) struct Worker {
    /// The CPU that it is pinned to; `None` if it runs on any.
    pub cpu: Option<Cpu>,
    pub wake: Arc<Wake>,
    yielding: Yielding,
    /// By opcode: how many it has taken.
    requests: Box<[AtomicU64]>,
    /// How long it took to answer those that it answered itself.
    pub latencies: Latencies,
    /// How many the replica of another node has answered.
    elsewhere: AtomicU64,
}

/// How many requests of each kind a worker has taken.
#[derive(Clone, Debug)]
pub struct WorkerStatistics {
    /// The CPU that the worker is pinned to; `None` if it runs on any.
    pub cpu: Option<Cpu>,
    /// By name of the request.
    pub requests: BTreeMap<&'static str, u64>,
    /// How many were answered by the replica of another node than the CPU's that the caller was on; or that the worker
    /// was on, if the channel does not tell.
    pub elsewhere: u64,
}

impl Crew {
    /// Makes the state for a worker on each of `cpus`; `None` stands for any CPU.
    pub fn new(cpus: &[Option<Cpu>], topology: &Topology) -> io::Result<Self> {
        let is_of = |cpu: &Option<Cpu>, node| cpu.is_some_and(|cpu| topology.nodes_of(cpu).contains(&node));
        let nodes = 0..topology.nodes().len();
        Ok(Self {
            workers: cpus.iter().map(|&cpu| Worker::new(cpu)).collect::<Result<_, _>>()?,
            watch: Watch::new()?,
            followers: nodes.map(|node| cpus.iter().position(|cpu| is_of(cpu, node))).collect(),
            unfollowed: AtomicU64::new(0),
            is_somebody_looking: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
        })
    }

    /// All workers.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Whether the workers must end.
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Makes all workers and the watch end.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
        self.wake_all();
        self.watch.wake();
    }

    /// Wakes all workers, so that each looks whether what it waits for has happened.
    pub fn wake_all(&self) {
        self.workers.iter().for_each(|worker| worker.wake.signal());
    }

    /// What the watch does: makes workers yield, and stop yielding, until the end.
    pub fn watch(&self) {
        self.watch.work(|| self.workers.iter().map(|worker| &worker.yielding).collect(), || self.is_ending());
    }

    /// Makes the calling thread worker `number`.
    pub fn begin(&self, number: usize) {
        pin(self.workers[number].cpu);
        self.workers[number].yielding.begin();
    }

    /// What worker `number` does: serves the requests of a channel, until the crew or the mount ends. With `looks`, it
    /// polls for requests before it sleeps.
    pub fn work(&self, number: usize, server: &Server, channel: impl Channel, looks: bool) -> io::Result<()> {
        let worker = &self.workers[number];
        let tokens = tokens(server.filesystem(), worker.cpu);
        let patience = Patience { is_somebody_looking: &self.is_somebody_looking, looks, until: None };
        let shift =
            Shift { crew: self, number, worker, server, channel, tokens, turn: 0, patience, has_forgotten: false };
        let ended = shift.work();
        worker.yielding.end();
        ended
    }

    /// Notes that bytes were written of which other nodes have no copy yet. After each [`ENOUGH_TO_FOLLOW`] of them, wakes
    /// workers there. Otherwise a thread that finds a log full would have to bring their replicas up to date, while their
    /// CPUs may be idle.
    fn note(&self, written: u64, here: NodeId) {
        if self.unfollowed.fetch_add(written, Ordering::Relaxed) + written >= ENOUGH_TO_FOLLOW {
            self.unfollowed.store(0, Ordering::Relaxed);
            self.lead(here);
        }
    }

    /// Wakes workers of other nodes so that they bring their replicas up to date.
    fn lead(&self, here: NodeId) {
        let others = self.followers.iter().enumerate().filter(|&(node, _)| node != here.0);
        others.filter_map(|(_, follower)| *follower).for_each(|follower| self.workers[follower].wake.signal());
    }
}

impl Worker {
    fn new(cpu: Option<Cpu>) -> Result<Self, rustix::io::Errno> {
        let requests = Opcode::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            cpu,
            wake: Arc::new(Wake::new()?),
            yielding: Yielding::default(),
            requests,
            latencies: Latencies::new(),
            elsewhere: AtomicU64::new(0),
        })
    }

    /// Counts a request, unless it is of an unknown kind. Returns when it began, if it is to be timed.
    pub fn count(&self, opcode: Option<Opcode>) -> Option<(Opcode, Instant)> {
        let opcode = opcode?;
        let before = self.requests[opcode as usize].fetch_add(1, Ordering::Relaxed);
        Latencies::times(before).then(|| (opcode, Instant::now()))
    }

    /// Notes that a request that is timed has its reply.
    fn time(&self, timed: Option<(Opcode, Instant)>) {
        if let Some((opcode, began)) = timed {
            self.latencies.record(opcode, began.elapsed());
        }
    }

    pub fn statistics(&self) -> WorkerStatistics {
        let mut requests = BTreeMap::new();
        for (opcode, count) in Opcode::ALL.iter().zip(&self.requests) {
            *requests.entry(opcode.name()).or_default() += count.load(Ordering::Relaxed);
        }
        WorkerStatistics { cpu: self.cpu, requests, elsewhere: self.elsewhere.load(Ordering::Relaxed) }
    }
}

/// The state of a running worker.
struct Shift<'a, C> {
    crew: &'a Crew,
    number: usize,
    worker: &'a Worker,
    server: &'a Server,
    channel: C,
    /// A token for each of the worker's nodes. Requests use them in turn.
    tokens: Vec<Token>,
    turn: usize,
    patience: Patience<'a>,
    /// Whether a request without a reply (FORGET, INTERRUPT) has come since the worker last waited.
    has_forgotten: bool,
}

impl<C: Channel> Shift<'_, C> {
    fn work(mut self) -> io::Result<()> {
        while !self.crew.is_ending() {
            match self.channel.next()? {
                Event::Request(slot) => self.serve(slot)?,
                Event::Woken => self.tokens.iter().for_each(|token| self.server.filesystem().follow(token)),
                Event::Nothing => self.wait()?,
                Event::End => break,
            }
        }
        Ok(())
    }

    /// Chooses the token for a request: of the node of the CPU that its caller was on, or else the worker is on.
    fn choose_token(&mut self, slot: C::Slot) {
        self.turn = (self.turn + 1) % self.tokens.len();
        let filesystem = self.server.filesystem();
        let callers = self.channel.cpu_of(slot);
        let cpu = callers.unwrap_or_else(current_cpu);
        // A CPU that was not there at the start belongs to no node.
        let nodes = filesystem.topology().nodes_of(cpu);
        let is_of = |token: &Token| nodes.contains(&token.node().0);
        if nodes.is_empty() || is_of(&self.tokens[self.turn]) {
            return;
        }
        if let Some(fitting) = self.tokens.iter().position(is_of) {
            self.turn = fitting;
        } else if callers.is_none() {
            // The worker has lost its CPU, or got it back.
            (self.tokens, self.turn) = (tokens(filesystem, Some(cpu)), 0);
        } else {
            self.worker.elsewhere.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn serve(&mut self, slot: C::Slot) -> io::Result<()> {
        self.choose_token(slot);
        let extended = self.server.native.has(InitFlags::SETXATTR_EXT);
        let Some(request) = self.channel.request(slot, extended) else { return Ok(()) };
        let timed = self.worker.count(request.opcode());
        let (unique, token) = (request.unique(), &self.tokens[self.turn]);
        let mut traced = self.server.trace.begin(request, self.number, token);
        let may_wait = self.channel.may_wait(slot);
        if request.opcode() == Some(Opcode::Write) && request.payload_size() >= LARGE {
            // So that they copy at the same time as this worker: it must wait until all replicas have.
            self.crew.lead(token.node());
        }
        match self.server.serve(request, self.channel.origin(slot), may_wait, &mut traced, token) {
            Ok(Outcome::Reply(answer)) => {
                let (written, native) = (answer.written(), &self.server.native);
                if let Some(traced) = &mut traced {
                    traced.found = answer.found();
                }
                let mut refusal = None;
                self.channel.reply(slot, unique, |buffer| {
                    native.pack(answer, buffer, token).inspect_err(|&errno| refusal = Some(errno))
                })?;
                self.worker.time(timed);
                if let Some(traced) = traced {
                    self.server.trace.end_by(token, traced, refusal);
                }
                if (1..LARGE as u64).contains(&written) {
                    self.crew.note(written, token.node());
                }
            }
            Ok(Outcome::Left) => self.channel.leave(slot, unique),
            Ok(Outcome::NoReply) => {
                self.has_forgotten = true;
                if let Some(traced) = traced {
                    self.server.trace.end_by(token, traced, None);
                }
                return Ok(());
            }
            Err(errno) => {
                self.channel.reply(slot, unique, |_| Err(errno))?;
                self.worker.time(timed);
                if let Some(traced) = traced {
                    self.server.trace.end_by(token, traced, Some(errno));
                }
            }
        }
        if self.worker.cpu.is_some() {
            self.worker.yielding.serve(&self.crew.watch);
        }
        self.patience.renew();
        Ok(())
    }

    /// Waits for the next request; or returns soon, so that the worker looks for it again.
    fn wait(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.has_forgotten) && self.server.native.has(InitFlags::OVER_IO_URING) {
            // On the ring this worker gets little but FORGETs, which no process waits for. It need not wake for each.
            thread::sleep(GATHERING);
        } else if self.patience.lasts() {
            thread::yield_now();
        } else {
            self.patience.end();
            self.channel.wait()?;
            pin_again(self.worker.cpu);
        }
        Ok(())
    }
}

/// Decides whether a worker polls for requests before it sleeps. Only one at a time does, it lets other threads run
/// meanwhile, and it ends [`PATIENCE`] after its last request: so a mount that is not used takes no CPU time.
struct Patience<'a> {
    is_somebody_looking: &'a AtomicBool,
    /// Whether this worker polls at all.
    looks: bool,
    until: Option<Instant>,
}

impl Patience<'_> {
    /// Called after a request: begins to poll, or goes on longer, unless another worker polls.
    fn renew(&mut self) {
        if self.looks && (self.until.is_some() || !self.is_somebody_looking.swap(true, Ordering::Relaxed)) {
            self.until = Some(Instant::now() + PATIENCE);
        }
    }

    fn lasts(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    fn end(&mut self) {
        if self.until.take().is_some() {
            self.is_somebody_looking.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Pins the calling thread to a CPU, if that is allowed.
fn pin(cpu: Option<Cpu>) {
    if let Some(Cpu(cpu)) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        // If the CPU has gone offline since the start, the thread runs on any other.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Pins the calling thread again if its CPU went offline, so that the kernel let it run elsewhere, and is back.
fn pin_again(cpu: Option<Cpu>) {
    let Some(here) = cpu.filter(|cpu| *cpu != current_cpu()) else { return };
    // If only one CPU is allowed, or its own is not, the affinity was set from outside, and stays.
    if sched_getaffinity(None).is_ok_and(|set| set.count() > 1 && set.is_set(here.0)) {
        pin(cpu);
    }
}

/// Tokens of all nodes that a CPU belongs to; of all nodes, for a worker that runs on any CPU.
fn tokens(filesystem: &Filesystem, cpu: Option<Cpu>) -> Vec<Token> {
    let topology = filesystem.topology();
    let nodes = match cpu {
        Some(cpu) => topology.nodes_of(cpu).to_vec(),
        None => (0..topology.nodes().len()).collect(),
    };
    nodes.into_iter().map(|node| filesystem.register(NodeId(node))).collect()
}
