//! The file system service: its parts, and what all of its operations use.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use machines::content;
use machines::namespace::{self, Attributes, INODE_SPACE, Namespace};
use machines::placed::Placed;
use machines::types::{Errno, Ino, Kind, Owner, Permissions};
use memory::heap::Home;
use memory::shortage::{self, Left};
use memory::{Nearby, PAGE_SIZE, Topology};
use nr::{LogId, NodeId, NodeReplicated, OneLog};
use rustix::io;

use crate::capacity::{Capacity, InodeSpace};
use crate::clock;
use crate::contents::{self, Contents, Replicated, Shared, Space};
use crate::holds::{Holder, Holds};
use crate::size::Size;
use crate::tokens::Token;

/// Describes the file system that [`Filesystem::new`] makes.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The nodes. Each gets a replica.
    pub topology: Topology,
    /// Where the bytes of files lie.
    pub content: ContentPlace,
    /// The number of parallel logs for replicated content, 1 to [`LOGS_MAX`].
    pub logs: usize,
    /// The most content of files. Each page counts once, however many replicas have it.
    pub size: Size,
    /// The most inodes. `None`: as many as half of a node's memory has pages, shared by the replicas there, as a size of
    /// 50% is.
    pub inodes: Option<u64>,
    /// Permissions of the root directory.
    pub permissions: Permissions,
    /// The owner of the root directory.
    pub owner: Owner,
}

/// Where the bytes of files lie.
#[derive(Clone, Debug)]
pub enum ContentPlace {
    /// At every node.
    Replicated,
    /// Once, in a tmpfs that no path leads to.
    Shared {
        /// Its option `huge`, as tmpfs(5) has it.
        huge: Option<String>,
        /// Its option `mpol`. `None` interleaves over the nodes.
        policy: Option<String>,
        /// Its option `noswap`.
        noswap: bool,
    },
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
pub(crate) const LOG_PAYLOAD: usize = 2 << 20;

/// The most bytes that are reserved for operations under way, however many logs there are.
const UNDER_WAY_MAX: usize = 1 << 30;

/// Bytes that are reserved for operations under way of all threads, and for the allocator of small objects.
const UNDER_WAY: usize = 64 << 20;

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
    /// The tmpfs for shared content cannot be made: the option, if it is that, and the reason.
    Tmpfs(Option<&'static str>, io::Errno),
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Logs => return write!(formatter, "a number of logs from 1 to {LOGS_MAX} is needed"),
            Self::Size => "a size of at least 4096 bytes is needed",
            Self::Inodes => return write!(formatter, "a number of inodes from 1 to {INODES_MAX} is needed"),
            Self::Partitions => return write!(formatter, "nodes times logs must be no more than {PARTITIONS_MAX}"),
            Self::Memory => "there is no memory for a file system",
            Self::Tmpfs(Some(option), _) => return write!(formatter, "tmpfs does not accept this option '{option}'"),
            Self::Tmpfs(None, io::Errno::PERM) => "shared content needs CAP_SYS_ADMIN",
            Self::Tmpfs(None, errno) => return write!(formatter, "no tmpfs for shared content: {errno}"),
        })
    }
}

impl std::error::Error for ConfigurationError {}

/// Why a limit of a file system cannot be changed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeError {
    /// More content is in use, or there would be no room for a single page.
    Size,
    /// More inodes are in use, or it is more than [`INODES_MAX`].
    Inodes,
    /// The tmpfs with shared content refuses.
    Tmpfs(Errno),
}

impl fmt::Display for ResizeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Size => "the size is too small for what is in use",
            Self::Inodes => "the inodes are too few for those in use, or more than can be counted",
            Self::Tmpfs(errno) => return write!(formatter, "tmpfs refuses the size: {errno:?}"),
        })
    }
}

impl std::error::Error for ResizeError {}

/// A file system in memory, replicated on every node.
pub struct Filesystem {
    pub(crate) topology: Topology,
    pub(crate) namespace: Arc<NodeReplicated<Placed<Namespace>>>,
    pub(crate) contents: Box<dyn Contents>,
    inodes: InodeSpace,
    pub(crate) holds: Arc<Holds>,
    tokens: Nearby<Token>,
    /// Whether any directory may have a default access control list so long that inodes made there take inode space for
    /// it. False on most file systems: then creating need not look at the parent.
    has_long_lists: AtomicBool,
}

impl Filesystem {
    /// Makes a file system with nothing but its root directory.
    pub fn new(configuration: Configuration) -> Result<Self, ConfigurationError> {
        let Configuration { topology, content, logs, size, inodes, permissions, owner } = configuration;
        let is_shared = matches!(content, ContentPlace::Shared { .. });
        let pages = pages_of(size, &topology, is_shared);
        let half = || Size::Percent(50).bytes(&topology) / PAGE_SIZE as u64;
        let inodes = inodes.unwrap_or_else(|| half().clamp(1, INODES_MAX));
        if !(1..=LOGS_MAX).contains(&logs) {
            return Err(ConfigurationError::Logs);
        }
        if pages == 0 {
            return Err(ConfigurationError::Size);
        }
        if !(1..=INODES_MAX).contains(&inodes) {
            return Err(ConfigurationError::Inodes);
        }
        let nodes = topology.nodes().len();
        if nodes * logs > PARTITIONS_MAX {
            return Err(ConfigurationError::Partitions);
        }
        if !shortage::prepare((UNDER_WAY + Replicated::logged(nodes, logs)).min(UNDER_WAY_MAX)) {
            return Err(ConfigurationError::Memory);
        }
        let (time, seed) = (clock::now(), RandomState::new().hash_one(()));
        let one_log = nr::Configuration { nodes, logs: 1, log_entries: LOG_ENTRIES, log_payload_bytes: LOG_PAYLOAD };
        let tree = |node, _| Placed::new(home(&topology, node), || Namespace::new(permissions, owner, time, seed));
        let namespace = Home::Interleaved.during(|| NodeReplicated::new(one_log, OneLog, tree));
        let holds = Arc::new(Holds::new());
        let contents: Box<dyn Contents> = match content {
            ContentPlace::Replicated => {
                let many_logs = nr::Configuration { logs, ..one_log };
                Box::new(Replicated::new(&topology, many_logs, pages, Arc::clone(&holds)))
            }
            ContentPlace::Shared { huge, policy, noswap } => {
                let policy = policy.or_else(|| interleaved(&topology));
                let options =
                    [("size", Some((pages * PAGE_SIZE as u64).to_string())), ("huge", huge), ("mpol", policy)];
                let made = Shared::new(options, noswap);
                Box::new(made.map_err(|(option, errno)| ConfigurationError::Tmpfs(option, errno))?)
            }
        };
        let (inodes, tokens) = (InodeSpace::new(inodes, nodes), Nearby::new(&topology));
        Ok(Self { topology, namespace, contents, inodes, holds, tokens, has_long_lists: AtomicBool::new(false) })
    }

    /// Changes the limits on content and on inodes, both or neither; `None` leaves one as it is. A limit cannot be lower
    /// than what is in use. A lower size may have to wait until the kernel has written what it has collected.
    pub fn resize(&self, size: Option<Size>, inodes: Option<u64>) -> Result<(), ResizeError> {
        let before = self.inodes.inodes();
        if inodes.is_some_and(|inodes| inodes > INODES_MAX || !self.inodes.resize(inodes)) {
            return Err(ResizeError::Inodes);
        }
        let Some(size) = size else { return Ok(()) };
        let is_shared = self.collecting().is_none();
        let resized = match pages_of(size, &self.topology, is_shared) {
            0 => Err(Errno::EINVAL),
            pages => self.contents.resize(pages),
        };
        resized.map_err(|errno| {
            self.inodes.resize(before);
            if errno == Errno::EINVAL { ResizeError::Size } else { ResizeError::Tmpfs(errno) }
        })
    }

    /// Registers at the replica of `node`, for a thread that keeps the token.
    pub fn register(&self, node: NodeId) -> Token {
        Token { namespace: self.namespace.register(node), contents: self.contents.register(node) }
    }

    /// Runs `call` with a token of the node that the calling thread runs on.
    pub fn with_token<R>(&self, call: impl FnOnce(&Token) -> R) -> R {
        self.tokens.with(&self.topology, |node| self.register(NodeId(node)), call)
    }

    /// The batches of those who call [`with_token`](Self::with_token), as [`Token::take_batches`] returns them, with the
    /// node of each.
    pub fn take_batches(&self) -> Vec<(NodeId, LogId, u64)> {
        let mut every = Vec::new();
        self.tokens.each_idle(|token| {
            every.extend(token.take_batches().into_iter().map(|(log, operations)| (token.node(), log, operations)));
        });
        every
    }

    /// The nodes of the replicas.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Sets the holder of inodes for the kernel. Only the first call counts.
    pub fn set_holder(&self, holder: Weak<dyn Holder>) {
        self.holds.set_holder(holder);
    }

    /// Processes FORGETs that the kernel has sent, as they may free deleted files.
    pub fn take_in_forgets(&self) {
        self.holds.take_in_forgets();
    }

    /// All inodes with a hold, among them those that the kernel remembers.
    pub fn held(&self) -> impl Iterator<Item = Ino> + '_ {
        self.holds.all()
    }

    /// The whole space and the space that is left. Promised pages count as used.
    pub fn capacity(&self) -> Capacity {
        self.take_in_forgets();
        self.capacity_now()
    }

    /// The same, without looking for deleted files that the kernel has forgotten.
    pub(crate) fn capacity_now(&self) -> Capacity {
        let Space { pages, free } = self.contents.space();
        Capacity {
            block_size: PAGE_SIZE as u64,
            blocks: pages,
            blocks_free: free,
            inodes: self.inodes.inodes(),
            inodes_free: self.inodes.inodes_free(),
        }
    }

    /// The replicated contents, for which the kernel may collect data. `None` if the kernel itself reads and writes
    /// the bytes.
    pub fn collecting(&self) -> Option<&Replicated> {
        self.contents.collecting()
    }

    /// Whether space is scarce: then it must be promised before data is collected.
    pub fn is_scarce(&self) -> bool {
        self.collecting().is_some_and(Replicated::is_scarce)
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

    /// Completes attributes from the tree with those from the contents.
    pub(crate) fn join(&self, tree: Attributes, token: &Token) -> Attributes {
        let known = || self.contents.attributes(tree.ino, token);
        let known = (tree.kind == Kind::File).then(known).flatten();
        known.map_or(tree, |known| Self::joined(tree, known))
    }

    pub(crate) fn joined(tree: Attributes, known: contents::Attributes) -> Attributes {
        let contents::Attributes { size, blocks, accessed, modified, changed } = known;
        let accessed = accessed.unwrap_or(tree.accessed);
        Attributes { size, blocks, accessed, modified, changed: changed.max(tree.changed), ..tree }
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
        self.inodes.close(granted + freed, taken);
        if let Some(orphan) = changed?.orphan {
            if self.holds.orphan(orphan) {
                self.drop_inode(orphan, token);
            } else if self.contents.is_nearly_full() {
                // The kernel may forget the inode only in some milliseconds.
                self.holds.holder().inspect(|holder| holder.unless_open(orphan, &|| self.contents.end(orphan, token)));
            }
        }
        changed
    }

    /// Takes inode space. If there is not enough, processes FORGETs and tries again; ENOSPC if that does not help.
    fn take_inode_space(&self, bytes: u64) -> Result<(), Errno> {
        if bytes > 0 && self.contents.memory_left(0) == Left::Nothing {
            return Err(Errno::ENOSPC);
        }
        let take = || self.inodes.take(bytes);
        take().or_else(|errno| if self.holds.take_in_forgets() { take() } else { Err(errno) })
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

    /// Drops an inode: first from the tree, then its content. Reads rely on this order: as inode numbers are never used
    /// again, content was read before it was dropped if the tree has the inode afterwards.
    fn drop_inode(&self, ino: Ino, token: &Token) {
        if let Ok(dropped) = self.change_tree(namespace::Change::Drop { ino }, token) {
            if dropped.attributes.kind == Kind::File {
                self.contents.end(ino, token);
            }
        }
        self.holds.bury(ino);
    }
}

/// The option `mpol` of tmpfs by which pages come from the hardware nodes of all replicas in turn. `None` if they are on
/// one.
fn interleaved(topology: &Topology) -> Option<String> {
    let nodes: Vec<String> = topology.hosts().map(|(node, _)| node.node.0.to_string()).collect();
    (nodes.len() > 1).then(|| format!("interleave:{}", nodes.join(",")))
}

/// The pages that a size stands for.
fn pages_of(size: Size, topology: &Topology, is_shared: bool) -> u64 {
    content::pages_in(if is_shared { size.bytes_of_one_copy(topology) } else { size.bytes(topology) })
}

/// Where the memory of the replica of `node` lies.
pub(crate) fn home(topology: &Topology, node: NodeId) -> Home {
    Home::of(topology.nodes()[node.0].physical)
}
