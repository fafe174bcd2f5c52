//! Answers the kernel's FUSE requests for a mount of the file system service.
//!
//! From the bottom up; each uses only what is above it in this list:
//!
//! - [`protocol`]: the format of requests and replies;
//! - `channel`: the trait of channels, through which a worker takes requests and replies to them;
//! - `kernel`: notifications that make the kernel drop cached data and write collected data;
//! - `latency`: histograms of how long requests take;
//! - `yielding`: makes workers leave their CPUs to the processes that they serve;
//! - `peek`: reads what /proc shows of a caller, and its memory, for a limited time;
//! - `caller`: what the caller of a request is about to do;
//! - `rights`: the caller's capabilities, and for what purpose its system call names a file;
//! - `inode_flags`: the flags of chattr(1): answers the ioctls that set and show them, and refuses what they forbid;
//! - `backing`: the system calls about backing files, which the kernel reads and writes itself;
//! - `passthrough`: opens files that have one, and finds out what the kernel does with it;
//! - `trace`: notes requests for those who trace them;
//! - `native`: answers requests from the file system service;
//! - `steward`: a thread for requests that must wait until the kernel has written collected data;
//! - `python`: forwards requests to pyfuse3, and receives its replies;
//! - `negotiation`: negotiates features with the kernel (INIT);
//! - `server`: decides how a request is answered;
//! - `worker`: the loop that takes requests from a channel, lets the server serve them, and replies;
//! - `device`: the channel of /dev/fuse;
//! - `uring`: a safe interface to FUSE over io_uring;
//! - [`ring`]: the channel of io_uring, with a ring for each CPU;
//! - [`connection`]: starts and ends all threads for one mount.
//!
//! Below all of these are `lock` and `wake`: locking a mutex, and waking a thread that waits for descriptors.

#![deny(unsafe_code)]

mod backing;
mod caller;
mod channel;
pub mod connection;
mod device;
mod inode_flags;
mod kernel;
mod latency;
mod lock;
#[cfg(test)]
mod malformed;
mod native;
mod negotiation;
mod passthrough;
mod peek;
pub mod protocol;
mod python;
mod rights;
pub mod ring;
mod server;
mod steward;
pub mod trace;
mod uring;
mod wake;
mod worker;
mod yielding;
