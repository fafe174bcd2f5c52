//! The file system service: the tree and the content of files, each replicated on every node, joined
//! into one.
//!
//! The tree has a log of its own; the content of files is spread over parallel logs by inode number.
//! What spans both is two operations in a fixed order, tree first, each complete in itself. What is not
//! replicated, because it belongs to the use of the files and not to the files, lives here beside them:
//!
//! - [`capacity`](Capacity): the bytes and inodes that are left, granted before the log;
//! - `holds`: who still uses an inode that has lost its last name;
//! - `promises`: space for data that the kernel has, and we have not seen yet;
//! - `by_inode`: which log the content of a file belongs to;
//! - `clock`: the time, stamped on an operation once;
//! - `tokens`: the place of a thread at the replica of its node.
//!
//! [`Filesystem`] is the service; `tree` and `files` hold its operations, [`status`] what can be asked of
//! it as a whole.

#![forbid(unsafe_code)]

mod by_inode;
mod capacity;
mod clock;
mod files;
mod filesystem;
mod holds;
mod promises;
mod size;
pub mod status;
mod tokens;
mod tree;

pub use capacity::Capacity;
pub use files::Whence;
pub use filesystem::{Configuration, ConfigurationError, Filesystem, Holder};
pub use machines::content::AllocateMode;
pub use machines::digest::Digest;
pub use machines::namespace::{
    Attributes, Cookie, NewAttributes, NewInode, NewNode, Privileges, RenameMode, XattrMode,
};
pub use machines::types::{Errno, Ino, InodeFlags, Kind, Name, Owner, Permissions, Time};
pub use memory::{Cpu, HardwareNode, Node, PhysicalNode, Topology, TopologyError};
pub use nr::{LogPosition, NodeId};
pub use size::{ParseSizeError, Size};
pub use tokens::Token;
pub use tree::Entry;
