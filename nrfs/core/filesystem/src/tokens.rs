//! The token: a thread's place at the replicas of one node.

use machines::namespace::Namespace;
use machines::placed::Placed;
use nr::{LogId, NodeId};

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

    /// The batches in which changes were appended that this token was used for since the last such call: of each log the
    /// last one, with the number of operations in it. The first log is the namespace's, the others are the content's.
    pub fn take_batches(&self) -> Vec<(LogId, u64)> {
        let of_contents = self.contents.iter().flat_map(nr::Token::take_batches);
        let behind = of_contents.map(|(LogId(log), operations)| (LogId(log + 1), operations));
        self.namespace.take_batches().into_iter().chain(behind).collect()
    }

    /// The place at the replica of the contents.
    pub(crate) fn content(&self) -> &contents::Token {
        self.contents.as_ref().expect("only replicated contents ask, and these give one to each token")
    }
}
