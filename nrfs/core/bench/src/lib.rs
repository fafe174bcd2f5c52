//! What node replication is measured against, in one run on any machine; and the file system service itself.
//!
//! For developers: `nrfs bench` builds it when it is asked for, and nothing that a user runs needs it.
//!
//! - [`contender`]: a structure that threads share, however they do;
//! - [`locks`]: the structure behind a mutex, or a readers-writer lock;
//! - [`replicated`]: the structure replicated by `nr`, and by the `node-replication` crate;
//! - [`multikernel`]: a copy for each core, kept alike by messages, in Barrelfish's manner;
//! - [`structures`]: what is shared: a hash map (also as a sharded one), a stack, a queue, the scheduler;
//! - [`throughput`]: how many operations threads do together;
//! - [`vm`]: address spaces that threads share: ours, the same machine shared otherwise, the kernel's;
//! - [`service`]: the file system service, with more threads against one;
//! - [`random`]: random numbers that cost next to nothing;
//! - [`program`]: what the programs that measure have in common.

#![deny(unsafe_code)]

pub mod contender;
pub mod locks;
pub mod multikernel;
pub mod program;
pub mod random;
pub mod replicated;
pub mod service;
pub mod structures;
pub mod throughput;
pub mod vm;
