//! The token: a thread's place at the replicas of one node.

use machines::content::Content;
use machines::namespace::Namespace;
use machines::placed::Placed;
use nr::NodeId;

use crate::by_inode::ByInode;

/// A thread's place at the replicas of one node, of the tree and of the content. It serves one thread at a time.
pub struct Token {
    pub(crate) namespace: nr::Token<Placed<Namespace>>,
    pub(crate) content: nr::Token<Placed<Content>, ByInode>,
}

impl Token {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.namespace.node()
    }
}
