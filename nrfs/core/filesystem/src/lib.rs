//! The file system service: joins two machines that are replicated on every node, the tree and the content of files.
//!
//! The tree has one log. The content of files is spread over parallel logs by inode number. A change of both is two
//! operations, the tree's first, each complete in itself. State about the use of the files is not replicated:
//!
//! - [`capacity`](Capacity): the pages and the inode space that are left; grants, before the log;
//! - `holds`: which inodes are kept though they have lost their last name;
//! - `promises`: space for data that the kernel has collected and not yet sent;
//! - `by_inode`: the log that the content of a file belongs to;
//! - `clock`: the time with which operations are stamped;
//! - `size`: the text that sets a limit on content;
//! - `tokens`: a thread's place at the replicas of a node.
//!
//! [`Filesystem`] is the service. `tree` and `files` have its operations, [`status`] what concerns all of it: its
//! state, and memory that it gives back.

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
