//! The sequential structures that nrfs replicates.
//!
//! Each is plain data with plain functions: no locks, no threads, no clocks, no randomness, no I/O.
//! The same operations in the same order give the same state and the same responses. So an operation
//! carries all that it depends on: the time, the caller's ids, the pages it may take. Nothing here
//! panics on bad input; an error is a response, with the errno that tmpfs would return.
//!
//! From the bottom up:
//!
//! - [`types`]: inode numbers, names, times, errnos;
//! - [`digest`]: one number for a whole state, to compare replicas;
//! - [`namespace`]: the tree, and everything about an inode except its content;
//! - [`content`]: the bytes of each file;
//! - [`scheduler`]: which process runs on which core;
//! - [`address_space`]: regions, and the page table that translates them;
//! - [`placed`]: any of these, with its memory on one node.

#![forbid(unsafe_code)]

pub mod address_space;
pub mod content;
pub mod digest;
pub mod namespace;
pub mod placed;
pub mod scheduler;
mod table;
pub mod types;
