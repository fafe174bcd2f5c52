//! Node replication: from a sequential data structure to a concurrent, NUMA-aware one.
//!
//! The structure is copied once per NUMA node. Every change is an operation in a shared *log*, and
//! every copy (a *replica*) applies the log in order, so all replicas pass through the same states.
//! The threads of a node hand their operations to one of them, the *combiner*, which appends the
//! whole batch to the log, brings the local replica up to date, and hands each thread its response.
//! A read runs on the local replica alone, once that has caught up with every operation completed
//! when the read began; so reads are linearizable and touch no other node's memory. Operations that
//! commute may go to different, *parallel logs*, and do not wait for each other.
//!
//! The method is that of "Black-box Concurrent Data Structures for NUMA Architectures" (Calciu et
//! al., ASPLOS '17); parallel logs and their use in a kernel are from "NrOS: Effective Replication
//! and Sharing in an Operating System" (Bhardwaj et al., OSDI '21).
//!
//! The layers, bottom to top:
//!
//! - `sync`: the atomics, and how a thread waits;
//! - `log`: the bounded circular buffer of operations;
//! - `rwlock`: the distributed readers-writer lock around a replica's structure;
//! - `slot`: where a thread hands its operation to a combiner and finds the response;
//! - `replica`: the structure with its lock, its combiner and its place in the log;
//! - `replicated`: the replicas joined, and the tokens of the threads that use them.
//!
//! # A replicated hash map
//!
//! ```
//! use std::collections::HashMap;
//!
//! use nr::{Configuration, Dispatch, NodeId, NodeReplicated, OneLog};
//!
//! #[derive(Default)]
//! struct Map(HashMap<u64, u64>);
//!
//! enum Write {
//!     Put(u64, u64),
//! }
//!
//! impl Dispatch for Map {
//!     type WriteOperation = Write;
//!     type Response = Option<u64>;
//!
//!     fn dispatch_mut(&mut self, operation: &Write) -> Option<u64> {
//!         match *operation {
//!             Write::Put(key, value) => self.0.insert(key, value),
//!         }
//!     }
//! }
//!
//! let configuration = Configuration { nodes: 2, ..Configuration::default() };
//! let map = NodeReplicated::new(configuration, OneLog, |_node, _log| Map::default());
//!
//! std::thread::scope(|scope| {
//!     for node in 0..2 {
//!         let token = map.register(NodeId(node));
//!         let map = &map;
//!         scope.spawn(move || {
//!             map.execute_mut(Write::Put(node as u64, 7), &token);
//!             assert_eq!(map.execute(|map| map.0.get(&(node as u64)).copied(), &token), Some(7));
//!         });
//!     }
//! });
//! ```

mod dispatch;
mod identity;
mod log;
#[cfg(all(test, loom))]
mod models;
mod replica;
mod replicated;
mod rwlock;
mod slot;
mod statistics;
mod sync;

pub use dispatch::{Dispatch, LogMapper, OneLog};
pub use identity::{LogId, LogPosition, NodeId};
pub use replicated::{Configuration, NodeReplicated, Token};
pub use statistics::{LogStatistics, PartitionStatistics, ReplicaStatistics, Statistics};
