//! Places at the replicas.

use machines::content::Content;
use machines::namespace::Namespace;
use machines::placed::Placed;
use nr::NodeId;

use crate::by_inode::ByInode;

/// A place at the replica of one node. It serves one thread at a time.
pub struct Token {
    pub(crate) namespace: nr::Token<Placed<Namespace>>,
    pub(crate) content: nr::Token<Placed<Content>, ByInode>,
}

impl Token {
    /// The node of the replica.
    pub fn node(&self) -> NodeId {
        self.namespace.node()
    }
}
