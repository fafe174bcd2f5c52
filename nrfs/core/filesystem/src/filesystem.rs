//! The service itself: what it is made of, and what its operations share.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use machines::content::{self, Content, HEAP_PER_PAGE};
use machines::namespace::{self, Attributes, INODE_SPACE, Namespace};
use machines::types::{Errno, Ino, Kind, Owner, Permissions};
use memory::shortage::{self, Left};
use memory::{Arena, Nearby, PAGE_SIZE, Pool, Topology, Vacancy};
use nr::{NodeId, NodeReplicated, OneLog};

use crate::by_inode::ByInode;
use crate::capacity::{Capacity, Ledger, Limits};
use crate::clock;
use crate::holds::Holds;
use crate::promises::Promises;
use crate::size::{Size, machine_memory};
use crate::tokens::Token;

/// How a file system is to be.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The nodes to replicate on.
    pub topology: Topology,
    /// Parallel logs for the content of files, 1 to [`LOGS_MAX`].
    pub logs: usize,
    /// File content at the most, counted once.
    pub size: Size,
    /// Inodes at the most; `None`: as many as half the machine's memory has pages.
    pub inodes: Option<u64>,
    /// Permissions of the root directory.
    pub permissions: Permissions,
    /// The owner of the root directory.
    pub owner: Owner,
}

/// Logs beyond this would only cost memory: more than there are threads to fill them.
pub const LOGS_MAX: usize = 1024;

/// Each replica has a part for each log, which takes some KiB though nothing is in it: more would take seconds, and GiB.
pub const PARTITIONS_MAX: usize = 1 << 16;

/// The space of more inodes would be more bytes than can be counted.
pub const INODES_MAX: u64 = u64::MAX / INODE_SPACE;

/// Operations on files take a system call each: no replica falls far behind while it loses its CPUs for a moment.
const LOG_ENTRIES: usize = 1024;

/// Content under way to replicas, in each log: two of the largest requests. As more, it would leave the caches of a CPU
/// before the last replica has copied it.
const LOG_PAYLOAD: usize = 2 << 20;

/// Bytes that operations under way are to find memory for at the most, as many as they may be.
const UNDER_WAY_MAX: usize = 1 << 30;

/// Bytes for what operations of all threads take that are under way, and the allocator of small things.
const UNDER_WAY: usize = 64 << 20;

/// Pages that are freed, and that replicas without threads may still have. As much may be under way to them in each log.
const FREED_MAX: u64 = content::pages_in(8 << 20);

/// There can be no such file system: not enough, or too much, of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// Not one log, or too many.
    Logs,
    /// Room for at least one page is needed.
    Size,
    /// At least the root's inode is needed, and no more than whose space has a number.
    Inodes,
    /// Too many nodes, for so many logs.
    Partitions,
    /// The system has no memory even for what operations under way may take.
    Memory,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Logs => return write!(formatter, "a number of logs from 1 to {LOGS_MAX} is needed"),
            Self::Size => "a size of at least 4096 bytes is needed",
            Self::Inodes => return write!(formatter, "a number of inodes from 1 to {INODES_MAX} is needed"),
            Self::Partitions => return write!(formatter, "nodes times logs must be no more than {PARTITIONS_MAX}"),
            Self::Memory => "there is no memory for a file system",
        })
    }
}

impl std::error::Error for ConfigurationError {}

/// A file system in memory, replicated on every node.
pub struct Filesystem {
    pub(crate) topology: Topology,
    pub(crate) namespace: Arc<NodeReplicated<Namespace>>,
    pub(crate) content: Arc<NodeReplicated<Content, ByInode>>,
    /// By node: memory that is between two uses.
    pub(crate) pools: Box<[Arc<Pool>]>,
    /// By node and log: free pages among others that are in use.
    vacancies: Box<[Vec<Vacancy>]>,
    /// Held by who takes such pages, while there are no others.
    pub(crate) scarcity: Mutex<()>,
    pub(crate) ledger: Ledger,
    pub(crate) holds: Holds,
    pub(crate) promises: Promises,
    tokens: Nearby<Token>,
    /// Whether a directory may have a default access control list for which what is made there takes space. Few have:
    /// so whoever makes something need not look.
    has_long_lists: AtomicBool,
    /// Pages that were freed since all replicas were brought up to date.
    freed: AtomicU64,
    holder: OnceLock<Weak<dyn Holder>>,
}

/// Who holds inodes on behalf of the kernel.
pub trait Holder: Send + Sync {
    /// Takes in all that the kernel has forgotten until now, and gives up the holds on it.
    fn take_in_forgets(&self);

    /// Space has become scarce: from now on it must be promised before data is collected.
    fn space_is_scarce(&self);

    /// Attributes of an inode have changed otherwise than by an operation whose result tells of them.
    fn forget_attributes(&self, ino: Ino);
}

impl Filesystem {
    /// A file system of nothing but its root.
    pub fn new(configuration: Configuration) -> Result<Self, ConfigurationError> {
        let Configuration { topology, logs, size, inodes, permissions, owner } = configuration;
        let limits = Limits {
            pages: content::pages_in(size.bytes(&topology)),
            inodes: inodes.unwrap_or_else(|| machine_memory() / 2 / PAGE_SIZE as u64),
        };
        if !(1..=LOGS_MAX).contains(&logs) {
            return Err(ConfigurationError::Logs);
        }
        if limits.pages == 0 {
            return Err(ConfigurationError::Size);
        }
        if !(1..=INODES_MAX).contains(&limits.inodes) {
            return Err(ConfigurationError::Inodes);
        }
        let nodes = topology.nodes().len();
        if nodes * logs > PARTITIONS_MAX {
            return Err(ConfigurationError::Partitions);
        }
        // In the logs, for replicas that are behind: and each takes memory chunk by chunk.
        let logged = if nodes > 1 { nodes * logs * (LOG_PAYLOAD + Pool::CHUNK) } else { 0 };
        if !shortage::prepare((UNDER_WAY + logged).min(UNDER_WAY_MAX)) {
            return Err(ConfigurationError::Memory);
        }
        let (time, seed) = (clock::now(), RandomState::new().hash_one(()));
        let one_log = nr::Configuration { nodes, logs: 1, log_entries: LOG_ENTRIES, log_payload_bytes: LOG_PAYLOAD };
        let many_logs = nr::Configuration { logs, ..one_log };
        let namespace = NodeReplicated::new(one_log, OneLog, |_, _| Namespace::new(permissions, owner, time, seed));
        let pools: Box<[Arc<Pool>]> = topology.nodes().iter().map(|node| Arc::new(Pool::new(node.physical))).collect();
        let mut vacancies: Box<[Vec<Vacancy>]> = pools.iter().map(|_| Vec::new()).collect();
        let content = NodeReplicated::new(many_logs, ByInode, |node: NodeId, _| {
            let arena = Arena::new(Arc::clone(&pools[node.0]));
            vacancies[node.0].push(arena.vacancy());
            Content::new(arena)
        });
        let (ledger, holds, tokens) = (Ledger::new(limits, nodes), Holds::new(), Nearby::new(&topology));
        Ok(Self {
            topology,
            namespace,
            content,
            pools,
            vacancies,
            scarcity: Mutex::default(),
            ledger,
            holds,
            promises: Promises::new(),
            tokens,
            has_long_lists: AtomicBool::new(false),
            freed: AtomicU64::new(0),
            holder: OnceLock::new(),
        })
    }

    /// A place at the replica of `node`, for a thread that keeps it.
    pub fn register(&self, node: NodeId) -> Token {
        Token { namespace: self.namespace.register(node), content: self.content.register(node) }
    }

    /// Calls with a place at the replica of the node that the calling thread runs on.
    pub fn with_token<R>(&self, call: impl FnOnce(&Token) -> R) -> R {
        self.tokens.with(&self.topology, |node| self.register(NodeId(node)), call)
    }

    /// The nodes that it is replicated on.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Names who holds inodes for the kernel; only the first counts.
    pub fn set_holder(&self, holder: Weak<dyn Holder>) {
        // There is one mount of a file system.
        let _ = self.holder.set(holder);
    }

    /// Before the file system says that it is full: what was deleted before may still be held, because
    /// word of the kernel that it has forgotten it is under way. False if there is nothing to wait for.
    pub fn take_in_forgets(&self) -> bool {
        let holder = self.holder().filter(|_| self.holds.has_orphans());
        holder.inspect(|holder| holder.take_in_forgets()).is_some()
    }

    pub(crate) fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.holder.get().and_then(Weak::upgrade)
    }

    /// The inodes that somebody holds, the kernel's among them.
    pub fn held(&self) -> impl Iterator<Item = Ino> + '_ {
        self.holds.all()
    }

    /// How much there is and how much is left. What is promised is not left.
    pub fn capacity(&self) -> Capacity {
        self.take_in_forgets();
        self.ledger.capacity()
    }

    /// The attributes of an inode.
    pub fn attributes(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        let look = || self.namespace.execute(|tree| tree.attributes(ino), &token.namespace);
        let attributes = self.join(look()?, token);
        // A file without content may be one that has just gone.
        if attributes.kind == Kind::File && attributes.blocks == 0 {
            look().map(|_| attributes)
        } else {
            Ok(attributes)
        }
    }

    /// Keeps an inode alive though it loses its last name.
    pub fn hold(&self, ino: Ino, count: u64, token: &Token) -> Result<(), Errno> {
        self.holds.add(ino, count)?;
        let there = self.namespace.execute(|tree| tree.attributes(ino), &token.namespace);
        there.map(drop).inspect_err(|_| self.forget(ino, count, token))
    }

    /// Gives up `count` holds; an inode without names and holds is dropped with its content.
    pub fn forget(&self, ino: Ino, count: u64, token: &Token) {
        if self.holds.remove(ino, count) {
            self.drop_inode(ino, token);
        }
    }

    /// The attributes of an inode from what the tree knows and what the content knows.
    pub(crate) fn join(&self, tree: Attributes, token: &Token) -> Attributes {
        let content = || self.read_content(tree.ino, |content| content.attributes(tree.ino), token);
        let content = (tree.kind == Kind::File).then(content).flatten();
        let Some(content::Attributes { size, pages, modified, changed }) = content else { return tree };
        let blocks = pages * Attributes::BLOCKS_PER_PAGE;
        Attributes { size, blocks, modified, changed: changed.max(tree.changed), ..tree }
    }

    /// Reads the content of one file.
    pub(crate) fn read_content<R>(&self, ino: Ino, read: impl FnOnce(&Content) -> R, token: &Token) -> R {
        self.content.execute_on(ByInode::log_of(ino, self.content.logs()), read, &token.content)
    }

    /// Changes the content of one file.
    pub(crate) fn change_content(&self, ino: Ino, change: content::Change, token: &Token) -> content::Response {
        let operation = content::WriteOperation { ino, time: clock::now(), change };
        self.content.execute_mut(operation, &token.content)
    }

    /// Changes the tree, if there is space for it; an inode that lost its last name goes once nobody holds it.
    ///
    /// The space is taken before the log, for what the change would take now. If the directory is given a larger
    /// default access control list meanwhile, it takes more: so much can be used beyond the limit, once.
    pub(crate) fn change_tree(&self, change: namespace::Change, token: &Token) -> namespace::Response {
        if change.sets_long_default_list() {
            self.has_long_lists.store(true, Ordering::Relaxed);
        }
        let look = || self.namespace.execute(|tree| tree.space_wanted(&change), &token.namespace);
        let without_lists = change.space_without_lists().filter(|_| !self.has_long_lists.load(Ordering::Relaxed));
        let granted = without_lists.unwrap_or_else(look);
        if self.take_inode_space(granted).is_err() {
            return Err(self.refusal(&change, token));
        }
        let operation = namespace::WriteOperation { time: clock::now(), change };
        let changed = self.namespace.execute_mut(operation, &token.namespace);
        let (taken, freed) = changed.map_or((0, 0), |changed| (changed.taken, changed.freed));
        self.ledger.close_inode_space(granted + freed, taken);
        if let Some(orphan) = changed?.orphan {
            if self.holds.orphan(orphan) {
                self.drop_inode(orphan, token);
            }
        }
        changed
    }

    /// What there is if all replicas together take so many bytes more, or a few.
    pub(crate) fn memory_left(&self, bytes: u64) -> Left {
        shortage::left(bytes, |left| match left {
            // Pages of the arenas are what is wanted then.
            Left::Enough | Left::Vacancies => self.pools.iter().for_each(|pool| pool.give_back()),
            Left::Nothing => self.with_token(|token| self.give_back_memory(false, token)),
        })
    }

    /// Whether there are free pages, in chunks that have others in use, for so many pages more of a file. Who asks
    /// is alone among those who need some.
    pub(crate) fn has_vacancies(&self, ino: Ino, pages: u64) -> bool {
        // What is not counted any more has been logged, and so is applied then.
        let granted = self.ledger.granted();
        self.content.sync_all();
        let log = ByInode::log_of(ino, self.content.logs());
        self.vacancies.iter().all(|node| node[log.0].pages() as u64 >= granted + pages)
    }

    /// The memory of so many pages, on all replicas.
    pub(crate) fn memory_of(&self, pages: u64) -> u64 {
        pages.saturating_mul(PAGE_SIZE as u64 + HEAP_PER_PAGE).saturating_mul(self.pools.len() as u64)
    }

    /// The pages that there was memory for at the last look.
    pub(crate) fn pages_in_memory(&self) -> u64 {
        shortage::content_left() / self.memory_of(1)
    }

    /// Takes space of inodes, if need be once what the kernel has forgotten is gone.
    fn take_inode_space(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > 0 && self.memory_left(0) == Left::Nothing {
            return Err(Errno::ENOSPC);
        }
        let take = || self.ledger.take_inode_space(bytes);
        take().or_else(|errno| if self.take_in_forgets() { take() } else { Err(errno) })
    }

    /// Why there is no space for a change: what is wrong with a new name comes first.
    fn refusal(&self, change: &namespace::Change, token: &Token) -> Errno {
        let (namespace::Change::Create { parent, name, .. } | namespace::Change::Link { parent, name, .. }) = change
        else {
            return Errno::ENOSPC;
        };
        let refusal = |tree: &Namespace| {
            tree.attributes(*parent)?;
            match tree.lookup(*parent, name) {
                Ok(_) => Err(Errno::EEXIST),
                Err(Errno::ENOENT) => tree.flags(*parent)?.check_addition().map(|()| Errno::ENOSPC),
                Err(errno) => Err(errno),
            }
        };
        self.namespace.execute(refusal, &token.namespace).unwrap_or_else(|errno| errno)
    }

    /// Lets pages be taken again that an operation freed. If those are many, all replicas apply it first: else one
    /// that nobody uses would have more and more memory, as what takes the pages again may come to it by another log.
    pub(crate) fn free_pages(&self, pages: u64) {
        if pages > 0 && self.freed.fetch_add(pages, Ordering::AcqRel) + pages > FREED_MAX {
            // What others counted, they have done before.
            self.freed.swap(0, Ordering::AcqRel);
            self.content.sync_all();
        }
        self.ledger.free_pages(pages);
        self.note_space();
    }

    /// The end of an inode: first in the tree, then its content. As its number is never used again, content that was read
    /// before the tree was asked, and had the inode, is content of before its end.
    fn drop_inode(&self, ino: Ino, token: &Token) {
        if let Ok(dropped) = self.change_tree(namespace::Change::Drop { ino }, token) {
            if dropped.attributes.kind == Kind::File {
                self.drop_content(ino, token);
            }
        }
        self.holds.bury(ino);
    }

    /// The end of a file's content.
    pub(crate) fn drop_content(&self, ino: Ino, token: &Token) {
        self.cut_promises(ino, 0);
        if let Ok(changed) = self.change_content(ino, content::Change::Drop, token) {
            self.free_pages(changed.freed);
        }
    }
}
