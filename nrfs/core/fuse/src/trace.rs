//! Traces requests, for `nrfs trace`: what was asked, by whom, how it ended and how long that took, and for a change the
//! logs that it went to, with the number of operations that the combiner appended together.
//!
//! While nobody looks, a request costs one load. A tracer has a bounded queue for each worker, so that a worker never
//! waits for it: what has no room is counted as lost. Paths are found when a tracer takes what has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use filesystem::{Errno, Filesystem, Ino, LogId, NodeId, Path, Paths, Token};

use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{
    CopyFileRangeArguments, FallocateArguments, LinkArguments, ReadArguments, Rename2Arguments, RenameArguments,
    WriteArguments,
};

/// Requests that each queue of a tracer has room for.
const ROOM: usize = 4096;

/// A request that was traced.
#[derive(Clone, Debug)]
pub struct Traced {
    /// When a worker had the request.
    pub began: SystemTime,
    clock: Instant,
    worker: usize,
    /// How long it took, until the kernel had the reply.
    pub took: Duration,
    /// The kind of the request.
    pub opcode: Opcode,
    /// The inode that the request names; the directory, if `entry` is a name there.
    pub ino: Ino,
    /// A name in the directory `ino`.
    pub entry: Option<Box<[u8]>>,
    /// Another inode that the request names; a directory, if there is a name.
    pub other: Option<(Ino, Option<Box<[u8]>>)>,
    /// The name of an extended attribute.
    pub attribute: Option<Box<[u8]>>,
    /// Offset and length of the bytes that the request is about.
    pub range: Option<(u64, u64)>,
    /// The caller: its process, as this process sees it, and its user and group.
    pub caller: (u32, u32, u32),
    /// The inode that the reply names.
    pub found: Option<Ino>,
    /// The errno of the reply, if it is an error.
    pub errno: Option<i32>,
    /// The node whose replica answered, if that is known.
    pub node: Option<NodeId>,
    /// By log, how many operations the batch of a change had. The first log is the namespace's.
    pub batches: Vec<(LogId, u64)>,
}

impl Traced {
    fn new(request: Request, worker: usize) -> Option<Self> {
        let (opcode, header) = (request.opcode()?, request.header());
        let name = || request.name().ok().map(Box::from);
        let (mut entry, mut other, mut attribute, mut range) = (None, None, None, None);
        let moved = |to: Option<u64>| {
            let (_, name) = request.names().ok()?;
            Some((Ino(to?), Some(name.into())))
        };
        // What is malformed has none of these.
        match opcode {
            Opcode::Lookup
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Symlink
            | Opcode::Create
            | Opcode::Unlink
            | Opcode::Rmdir => entry = name(),
            Opcode::Link => {
                entry = name();
                other = request.argument().ok().map(|LinkArguments { old_node }| (Ino(old_node), None));
            }
            Opcode::Rename => {
                entry = name();
                other = moved(request.argument().ok().map(|RenameArguments { new_parent }| new_parent));
            }
            Opcode::Rename2 => {
                entry = name();
                other = moved(request.argument().ok().map(|Rename2Arguments { new_parent, .. }| new_parent));
            }
            Opcode::Setxattr | Opcode::Getxattr | Opcode::Removexattr => attribute = name(),
            Opcode::Read => {
                range = request.argument().ok().map(|ReadArguments { offset, size, .. }| (offset, size.into()));
            }
            Opcode::Write => {
                range = request.argument().ok().map(|WriteArguments { offset, size, .. }| (offset, size.into()));
            }
            Opcode::Fallocate => {
                range = request.argument().ok().map(|FallocateArguments { offset, length, .. }| (offset, length));
            }
            Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
                let arguments = request.argument::<CopyFileRangeArguments>().ok();
                range = arguments.map(|arguments| (arguments.offset_in, arguments.length));
                other = arguments.map(|arguments| (Ino(arguments.node_out), None));
            }
            _ => {}
        }
        Some(Self {
            began: SystemTime::now(),
            clock: Instant::now(),
            worker,
            took: Duration::ZERO,
            opcode,
            ino: request.ino(),
            entry,
            other,
            attribute,
            range,
            caller: (header.pid, header.uid, header.gid),
            found: None,
            errno: None,
            node: None,
            batches: Vec::new(),
        })
    }

    /// The inodes that the request names, with names in them.
    fn names(&self) -> impl Iterator<Item = (Ino, Option<&[u8]>)> {
        let own = (self.ino != Ino(0)).then_some((self.ino, self.entry.as_deref()));
        own.into_iter().chain(self.other.iter().map(|(ino, name)| (*ino, name.as_deref())))
    }
}

/// Which requests a tracer wants.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Kinds, by name; empty for all.
    pub kinds: Vec<String>,
    /// The process that they come from.
    pub process: Option<u32>,
    /// Only those that fail.
    pub fails: bool,
    /// Only those that take longer.
    pub longer: Duration,
}

impl Filter {
    fn wants(&self, traced: &Traced) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == traced.opcode.name()))
            && self.process.is_none_or(|process| process == traced.caller.0)
            && (!self.fails || traced.errno.is_some())
            && traced.took >= self.longer
    }
}

/// All who trace the requests of a connection.
#[derive(Default)]
pub(crate) struct Trace {
    /// How many there are.
    count: CachePadded<AtomicUsize>,
    tracers: ArcSwap<Vec<Arc<Queues>>>,
}

/// What waits for one tracer.
struct Queues {
    filter: Filter,
    /// By worker.
    queues: Box<[ArrayQueue<Arc<Traced>>]>,
    lost: AtomicU64,
}

impl Trace {
    /// Begins to trace a request that a worker answers by this token; `None` if nobody looks.
    #[inline]
    pub fn begin(&self, request: Request, worker: usize, token: &Token) -> Option<Box<Traced>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        token.take_batches();
        Traced::new(request, worker).map(Box::new)
    }

    /// Ends a request that was answered by this token.
    #[cold]
    pub fn end_by(&self, token: &Token, mut traced: Box<Traced>, errno: Option<Errno>) {
        traced.node = Some(token.node());
        traced.batches = token.take_batches();
        self.end(traced, errno.map(Errno::code));
    }

    /// Ends a request, which now has its reply, with this errno if it is an error.
    pub fn end(&self, mut traced: Box<Traced>, errno: Option<i32>) {
        traced.errno = errno;
        traced.took = traced.clock.elapsed();
        let traced = Arc::new(*traced);
        for tracer in self.tracers.load().iter() {
            let is_lost = || tracer.queues[traced.worker].push(Arc::clone(&traced)).is_err();
            if tracer.filter.wants(&traced) && is_lost() {
                tracer.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<Queues>>)) {
        self.tracers.rcu(|tracers| {
            let mut tracers = Vec::clone(tracers);
            change(&mut tracers);
            tracers
        });
    }
}

/// One who traces requests, from when this is made until it is dropped.
pub struct Tracer {
    trace: Arc<Trace>,
    filesystem: Arc<Filesystem>,
    queues: Arc<Queues>,
    paths: Paths,
}

/// A request, with the path that it is about, if any, and a second one, if there is `other`.
pub type Located = (Arc<Traced>, Vec<Path>);

impl Tracer {
    pub(crate) fn new(trace: Arc<Trace>, filesystem: Arc<Filesystem>, workers: usize, filter: Filter) -> Self {
        let queues = (0..workers).map(|_| ArrayQueue::new(ROOM)).collect();
        let queues = Arc::new(Queues { filter, queues, lost: AtomicU64::new(0) });
        trace.change(|tracers| tracers.push(Arc::clone(&queues)));
        trace.count.fetch_add(1, Ordering::Relaxed);
        Self { trace, filesystem, queues, paths: Paths::default() }
    }

    /// At most so many requests of each worker that have come since the last call, in the order in which they ended;
    /// and how many were lost since then.
    pub fn take(&mut self, most: usize) -> (Vec<Located>, u64) {
        let every = self.queues.queues.iter().flat_map(|queue| std::iter::from_fn(|| queue.pop()).take(most));
        let mut taken: Vec<Arc<Traced>> = every.collect();
        taken.sort_by_key(|traced| traced.clock + traced.took);
        let (filesystem, paths) = (&self.filesystem, &mut self.paths);
        let located = filesystem.with_token(|token| {
            // The names of those that these requests found will be known.
            let found: Vec<Ino> = taken.iter().filter_map(|traced| traced.found).collect();
            let nameless = taken.iter().flat_map(|traced| traced.names()).filter(|(_, name)| name.is_none());
            let unknown = nameless.map(|(ino, _)| ino).filter(|ino| !found.contains(ino));
            paths.look_for(unknown, filesystem, token);
            let mut locate = |traced: Arc<Traced>| {
                let located = traced.names().map(|(ino, name)| match name {
                    Some(name) => paths.of_entry(ino, name, filesystem, token),
                    None => paths.of(ino, filesystem, token),
                });
                let located = located.collect();
                if let (Some(found), Some(name)) = (traced.found, &traced.entry) {
                    paths.learn(found, traced.ino, name);
                }
                (traced, located)
            };
            taken.into_iter().map(&mut locate).collect()
        });
        (located, self.queues.lost.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.trace.count.fetch_sub(1, Ordering::Relaxed);
        self.trace.change(|tracers| tracers.retain(|queues| !Arc::ptr_eq(queues, &self.queues)));
    }
}
