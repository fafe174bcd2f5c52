#![doc = include_str!("../README.md")]
//!
//! # The layers, bottom to top
//!
//! - `sync`: the atomics, and how a thread waits;
//! - `log`: the bounded circular buffer of operations;
//! - `rwlock`: the distributed readers-writer lock around a replica's structure;
//! - `slot`: where a thread hands its operation to a combiner and finds the response;
//! - `replica`: the structure with its lock, its combiner and its place in the log;
//! - `replicated`: the replicas joined, and the tokens of the threads that use them.

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
