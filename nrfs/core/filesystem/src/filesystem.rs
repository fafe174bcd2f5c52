//! The file system service: its parts, and what all of its operations use.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use machines::content::{self, Content, HEAP_PER_PAGE};
use machines::namespace::{self, Attributes, INODE_SPACE, Namespace};
use machines::placed::Placed;
use machines::types::{Errno, Ino, Kind, Owner, Permissions};
use memory::heap::Home;
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

/// Describes the file system that [`Filesystem::new`] makes.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The nodes. Each gets a replica.
    pub topology: Topology,
    /// The number of parallel logs for the content of files, 1 to [`LOGS_MAX`].
    pub logs: usize,
    /// The most content of files. Each page counts once, however many replicas have it.
    pub size: Size,
    /// The most inodes. `None`: as many as half the machine's memory has pages.
    pub inodes: Option<u64>,
    /// Permissions of the root directory.
    pub permissions: Permissions,
    /// The owner of the root directory.
    pub owner: Owner,
}

/// The most logs. More would only cost memory, as there are not as many threads.
pub const LOGS_MAX: usize = 1024;

/// The most partitions, on all nodes. An empty one takes some KiB: to make more of them would take seconds, and GiB.
pub const PARTITIONS_MAX: usize = 1 << 16;

/// The most inodes: the inode space of more could not be counted in bytes.
pub const INODES_MAX: u64 = u64::MAX / INODE_SPACE;

/// Entries of a log. As each operation takes a system call, not many are appended while a node has lost its CPUs for a
/// moment.
const LOG_ENTRIES: usize = 1024;

/// Bytes of content in a log: two of the largest requests. More would leave the CPU's caches before the last replica
/// has copied it.
const LOG_PAYLOAD: usize = 2 << 20;

/// The most bytes that are reserved for operations under way, however many logs there are.
const UNDER_WAY_MAX: usize = 1 << 30;

/// Bytes that are reserved for operations under way of all threads, and for the allocator of small objects.
const UNDER_WAY: usize = 64 << 20;

/// The most pages that may be free in the ledger while replicas without running threads still have them. Besides these,
/// each log may have as much content that they have not applied.
const FREED_MAX: u64 = content::pages_in(8 << 20);

/// Why there cannot be such a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// No log, or more than [`LOGS_MAX`].
    Logs,
    /// No room for a single page.
    Size,
    /// No inode, not even for the root, or more than [`INODES_MAX`].
    Inodes,
    /// Nodes times logs is more than [`PARTITIONS_MAX`].
    Partitions,
    /// The system has not even the memory that operations under way may take.
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
    pub(crate) namespace: Arc<NodeReplicated<Placed<Namespace>>>,
    pub(crate) content: Arc<NodeReplicated<Placed<Content>, ByInode>>,
    /// By node: chunks of memory that no arena uses.
    pub(crate) pools: Box<[Arc<Pool>]>,
    /// By node and log: free pages in chunks with other pages in use.
    vacancies: Box<[Vec<Vacancy>]>,
    /// Held while pages counted in `vacancies` are taken, when there are no others.
    pub(crate) scarcity: Mutex<()>,
    pub(crate) ledger: Ledger,
    pub(crate) holds: Holds,
    pub(crate) promises: Promises,
    tokens: Nearby<Token>,
    /// Whether any directory may have a default access control list so long that inodes made there take inode space for
    /// it. False on most file systems: then creating need not look at the parent.
    has_long_lists: AtomicBool,
    /// Pages that were freed since all replicas were brought up to date.
    freed: AtomicU64,
    holder: OnceLock<Weak<dyn Holder>>,
}

/// Holds inodes on behalf of the kernel: the connection to it.
pub trait Holder: Send + Sync {
    /// Processes all FORGETs that the kernel has sent until now: gives up the holds.
    fn take_in_forgets(&self);

    /// Called when space has become scarce: from now on it must be promised before data is collected.
    fn space_is_scarce(&self);

    /// Called when attributes of an inode have changed that no reply tells the kernel of.
    fn forget_attributes(&self, ino: Ino);
}

impl Filesystem {
    /// Makes a file system with nothing but its root directory.
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
        // For the content in logs that replicas have not applied. Each partition takes memory in whole chunks.
        let logged = if nodes > 1 { nodes * logs * (LOG_PAYLOAD + Pool::CHUNK) } else { 0 };
        if !shortage::prepare((UNDER_WAY + logged).min(UNDER_WAY_MAX)) {
            return Err(ConfigurationError::Memory);
        }
        let (time, seed) = (clock::now(), RandomState::new().hash_one(()));
        let one_log = nr::Configuration { nodes, logs: 1, log_entries: LOG_ENTRIES, log_payload_bytes: LOG_PAYLOAD };
        let many_logs = nr::Configuration { logs, ..one_log };
        let home = |node: NodeId| Home::of(topology.nodes()[node.0].physical);
        let tree = |node, _| Placed::new(home(node), || Namespace::new(permissions, owner, time, seed));
        let namespace = Home::Interleaved.during(|| NodeReplicated::new(one_log, OneLog, tree));
        let pools: Box<[Arc<Pool>]> = topology.nodes().iter().map(|node| Arc::new(Pool::new(node.physical))).collect();
        let mut vacancies: Box<[Vec<Vacancy>]> = pools.iter().map(|_| Vec::new()).collect();
        let files = |node: NodeId, _| {
            let make = || Arena::new(Arc::clone(&pools[node.0]));
            let arena = home(node).during(make);
            vacancies[node.0].push(arena.vacancy());
            Placed::new(home(node), || Content::new(arena))
        };
        let content = Home::Interleaved.during(|| NodeReplicated::new(many_logs, ByInode, files));
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

    /// Registers at the replica of `node`, for a thread that keeps the token.
    pub fn register(&self, node: NodeId) -> Token {
        Token { namespace: self.namespace.register(node), content: self.content.register(node) }
    }

    /// Runs `call` with a token of the node that the calling thread runs on.
    pub fn with_token<R>(&self, call: impl FnOnce(&Token) -> R) -> R {
        self.tokens.with(&self.topology, |node| self.register(NodeId(node)), call)
    }

    /// The nodes of the replicas.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Sets the holder of inodes for the kernel. Only the first call counts.
    pub fn set_holder(&self, holder: Weak<dyn Holder>) {
        // A file system has one mount.
        let _ = self.holder.set(holder);
    }

    /// Processes FORGETs that the kernel has sent, as they may free deleted files. Called before an operation is
    /// refused for lack of space. Returns false if no deleted inode is held: then no FORGET could free anything.
    pub fn take_in_forgets(&self) -> bool {
        let holder = self.holder().filter(|_| self.holds.has_orphans());
        holder.inspect(|holder| holder.take_in_forgets()).is_some()
    }

    pub(crate) fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.holder.get().and_then(Weak::upgrade)
    }

    /// All inodes with a hold, among them those that the kernel remembers.
    pub fn held(&self) -> impl Iterator<Item = Ino> + '_ {
        self.holds.all()
    }

    /// The whole space and the space that is left. Promised pages count as used.
    pub fn capacity(&self) -> Capacity {
        self.take_in_forgets();
        self.ledger.capacity()
    }

    /// The attributes of an inode.
    pub fn attributes(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        let look = || self.namespace.execute(|tree| tree.attributes(ino), &token.namespace);
        let attributes = self.join(look()?, token);
        // A file without content may just have been dropped: its content may be gone, so the tree is asked again.
        if attributes.kind == Kind::File && attributes.blocks == 0 {
            look().map(|_| attributes)
        } else {
            Ok(attributes)
        }
    }

    /// Takes `count` holds: they keep the inode when it loses its last name. ENOENT if it is dying or dropped.
    pub fn hold(&self, ino: Ino, count: u64, token: &Token) -> Result<(), Errno> {
        self.holds.add(ino, count)?;
        let there = self.namespace.execute(|tree| tree.attributes(ino), &token.namespace);
        there.map(drop).inspect_err(|_| self.forget(ino, count, token))
    }

    /// Gives up `count` holds. An inode without names and holds is dropped, with its content.
    pub fn forget(&self, ino: Ino, count: u64, token: &Token) {
        if self.holds.remove(ino, count) {
            self.drop_inode(ino, token);
        }
    }

    /// Completes attributes from the tree with those from the content.
    pub(crate) fn join(&self, tree: Attributes, token: &Token) -> Attributes {
        let content = || self.read_content(tree.ino, |content| content.attributes(tree.ino), token);
        let content = (tree.kind == Kind::File).then(content).flatten();
        let Some(content::Attributes { size, pages, modified, changed }) = content else { return tree };
        let blocks = pages * Attributes::BLOCKS_PER_PAGE;
        Attributes { size, blocks, modified, changed: changed.max(tree.changed), ..tree }
    }

    /// Reads the content of one file.
    pub(crate) fn read_content<R>(&self, ino: Ino, read: impl FnOnce(&Content) -> R, token: &Token) -> R {
        self.content.execute_on(ByInode::log_of(ino, self.content.logs()), |content| read(content), &token.content)
    }

    /// Changes the content of one file.
    pub(crate) fn change_content(&self, ino: Ino, change: content::Change, token: &Token) -> content::Response {
        let operation = content::WriteOperation { ino, time: clock::now(), change };
        self.content.execute_mut(operation, &token.content)
    }

    /// Changes the tree. If there is not enough inode space, fails as [`refusal`](Self::refusal) says. An inode that
    /// loses its last name by the change is dropped as soon as it has no holds.
    ///
    /// The inode space is computed and taken before the log. If the directory gets a longer default access control list
    /// before the change is applied, the change takes more than that, possibly beyond the limit.
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

    /// What memory is left after all replicas together take `bytes` more. 0 stands for a few bytes.
    pub(crate) fn memory_left(&self, bytes: u64) -> Left {
        shortage::left(bytes, |left| match left {
            // The arenas keep their free pages: the operation may need them.
            Left::Enough | Left::Vacancies => self.pools.iter().for_each(|pool| pool.give_back()),
            Left::Nothing => self.with_token(|token| self.give_back_memory(false, token)),
        })
    }

    /// Whether each replica has `pages` free pages for the file `ino`, in chunks with other pages in use. The caller
    /// holds `scarcity`.
    pub(crate) fn has_vacancies(&self, ino: Ino, pages: u64) -> bool {
        // Grants are counted first: those closed before are in the log, which all replicas apply next.
        let granted = self.ledger.granted();
        self.content.sync_all();
        let log = ByInode::log_of(ino, self.content.logs());
        self.vacancies.iter().all(|node| node[log.0].pages() as u64 >= granted + pages)
    }

    /// Bytes of memory that so many pages take, on all replicas.
    pub(crate) fn memory_of(&self, pages: u64) -> u64 {
        pages.saturating_mul(PAGE_SIZE as u64 + HEAP_PER_PAGE).saturating_mul(self.pools.len() as u64)
    }

    /// The pages that there was memory for when it was last measured.
    pub(crate) fn pages_in_memory(&self) -> u64 {
        shortage::content_left() / self.memory_of(1)
    }

    /// Takes inode space. If there is not enough, processes FORGETs and tries again; ENOSPC if that does not help.
    fn take_inode_space(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > 0 && self.memory_left(0) == Left::Nothing {
            return Err(Errno::ENOSPC);
        }
        let take = || self.ledger.take_inode_space(bytes);
        take().or_else(|errno| if self.take_in_forgets() { take() } else { Err(errno) })
    }

    /// The errno for a change that there is no inode space for: ENOSPC, unless the change could not make its new name
    /// anyway.
    fn refusal(&self, change: &namespace::Change, token: &Token) -> Errno {
        use namespace::Change;
        let (parent, name) = match change {
            Change::Create { parent, name, .. } | Change::Link { parent, name, .. } => (parent, name),
            Change::CreateNameless { .. }
            | Change::Unlink { .. }
            | Change::RemoveDirectory { .. }
            | Change::Rename { .. }
            | Change::SetAttributes { .. }
            | Change::SetFlags { .. }
            | Change::KillPrivileges { .. }
            | Change::SetXattr { .. }
            | Change::RemoveXattr { .. }
            | Change::Drop { .. } => return Errno::ENOSPC,
        };
        let refusal = |tree: &Placed<Namespace>| {
            tree.attributes(*parent)?;
            match tree.lookup(*parent, name) {
                Ok(_) => Err(Errno::EEXIST),
                Err(Errno::ENOENT) => tree.flags(*parent)?.check_addition().map(|()| Errno::ENOSPC),
                Err(errno) => Err(errno),
            }
        };
        self.namespace.execute(refusal, &token.namespace).unwrap_or_else(|errno| errno)
    }

    /// Counts pages as free again that an operation freed. After each [`FREED_MAX`] pages it first brings all replicas
    /// up to date: a replica that no thread uses may apply what takes the pages again, from another log, before it has
    /// freed them, and so would have more and more memory.
    pub(crate) fn free_pages(&self, pages: u64) {
        if pages > 0 && self.freed.fetch_add(pages, Ordering::AcqRel) + pages > FREED_MAX {
            // Operations whose pages are counted here were logged before: `sync_all` applies them, too.
            self.freed.swap(0, Ordering::AcqRel);
            self.content.sync_all();
        }
        self.ledger.free_pages(pages);
        self.note_space();
    }

    /// Drops an inode: first from the tree, then its content. Reads rely on this order: as inode numbers are never used
    /// again, content was read before it was dropped if the tree has the inode afterwards.
    fn drop_inode(&self, ino: Ino, token: &Token) {
        if let Ok(dropped) = self.change_tree(namespace::Change::Drop { ino }, token) {
            if dropped.attributes.kind == Kind::File {
                self.drop_content(ino, token);
            }
        }
        self.holds.bury(ino);
    }

    /// Drops a file's content, and what was promised to the file.
    pub(crate) fn drop_content(&self, ino: Ino, token: &Token) {
        self.cut_promises(ino, 0);
        if let Ok(changed) = self.change_content(ino, content::Change::Drop, token) {
            self.free_pages(changed.freed);
        }
    }
}
