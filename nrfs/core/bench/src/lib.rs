//! What node replication is measured against, in one run on any machine; and the file system service itself.
//!
//! For developers: `nrfs bench` builds this crate when it needs it. Nothing else uses it.
//!
//! - [`contender`]: the traits of a structure, and of a way to share it;
//! - [`locks`]: the structure behind a mutex, or a readers-writer lock;
//! - [`replicated`]: the structure replicated by `nr`, and by the `node-replication` crate;
//! - [`multikernel`]: a copy for each core, kept equal by messages, as in Barrelfish;
//! - [`structures`]: the structures: a hash map (also a sharded one), a stack, a queue, the scheduler;
//! - [`throughput`]: measures how many operations per second threads do together;
//! - [`vm`]: address spaces that threads share: ours, the same machine shared in other ways, and the kernel's;
//! - [`service`]: the file system service, with more threads against one;
//! - [`fxmark`]: FxMark's workloads and NrOS's mix, by system calls in a directory or on the file system service;
//! - [`calibrate`]: what the parts of an operation cost, for the simulation;
//! - [`random`]: random numbers that cost next to nothing;
//! - [`program`]: what the programs of this crate have in common.

#![deny(unsafe_code)]

pub mod calibrate;
pub mod contender;
pub mod fxmark;
pub mod locks;
pub mod multikernel;
mod page;
pub mod program;
pub mod random;
pub mod replicated;
pub mod service;
pub mod structures;
pub mod throughput;
pub mod vm;
