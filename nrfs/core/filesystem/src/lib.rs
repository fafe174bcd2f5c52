//! The file system service: joins two machines that are replicated on every node, the tree and the content of files.
//!
//! The tree has one log. The content of files is spread over parallel logs by inode number. A change of both is two
//! operations, the tree's first, each complete in itself. State about the use of the files is not replicated:
//!
//! - `contents`: where the bytes of files lie, at every node or once;
//! - [`capacity`](Capacity): the space in all; the inode space that is left;
//! - `holds`: which inodes are kept though they have lost their last name;
//! - `clock`: the time with which operations are stamped;
//! - `size`: the text that sets a limit on content;
//! - `tokens`: a thread's place at the replicas of a node.
//!
//! [`Filesystem`] is the service. `tree` and `files` have its operations, [`status`] what concerns all of it: its
//! state, and memory that it gives back. `paths` finds the paths of inodes for those who look at requests.

#![forbid(unsafe_code)]

mod capacity;
mod clock;
mod contents;
mod files;
mod filesystem;
mod holds;
mod paths;
mod size;
pub mod status;
mod tokens;
mod tree;

pub use capacity::Capacity;
pub use clock::now;
pub use contents::{LARGE, Replicated};
pub use files::Whence;
pub use filesystem::{Configuration, ConfigurationError, ContentPlace, Filesystem, ResizeError};
pub use holds::Holder;
pub use machines::content::AllocateMode;
pub use machines::digest::Digest;
pub use machines::namespace::{
    Attributes, Cookie, NewAttributes, NewInode, NewNode, Privileges, RenameMode, XattrMode,
};
pub use machines::types::{Errno, Ino, InodeFlags, Kind, Name, Owner, Permissions, Time};
pub use memory::{Cpu, HardwareNode, Node, PhysicalNode, Topology, TopologyError};
pub use nr::{LogId, LogPosition, NodeId};
pub use paths::{Path, Paths};
pub use size::{ParseSizeError, Size};
pub use tokens::Token;
pub use tree::{Entry, Made};
