//! The token: a thread's place at the replicas of one node.

use machines::namespace::Namespace;
use machines::placed::Placed;
use nr::NodeId;

use crate::contents;

/// A thread's place at the replicas of one node. It serves one thread at a time.
pub struct Token {
    pub(crate) namespace: nr::Token<Placed<Namespace>>,
    pub(crate) contents: Option<contents::Token>,
}

impl Token {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.namespace.node()
    }

    /// The place at the replica of the contents.
    pub(crate) fn content(&self) -> &contents::Token {
        self.contents.as_ref().expect("only replicated contents ask, and these give one to each token")
    }
}
