//! The kernel's side of a mount: the FUSE wire protocol, and how requests reach us.
//!
//! From the bottom up:
//!
//! - [`protocol`]: what requests and replies look like;
//! - `channel`: what a channel is, on which a worker gets requests and replies;
//! - `peek`: memory of a caller, read without waiting for it;
//! - `caller`: what the caller of a request is about to do;
//! - `rights`: what the kernel does not say of who asks;
//! - `kernel`: tells the kernel that what it keeps holds no more;
//! - `native`: answers requests from the file system service;
//! - `inode_flags`: of these what has to do with chattr(1), and what that forbids;
//! - `steward`: a thread for requests that must wait for the kernel itself;
//! - `python`: hands requests on to pyfuse3;
//! - `negotiation`: the handshake with the kernel;
//! - `server`: what is done about a request: all of these together;
//! - `yielding`: how workers make room on their CPUs for those they serve;
//! - `worker`: takes requests from a channel, has them served, and replies;
//! - `device`: the channel of /dev/fuse;
//! - `uring`: FUSE over io_uring, made safe;
//! - [`ring`]: the channel of a ring for each CPU;
//! - [`connection`]: all of these joined, for one mount.

#![deny(unsafe_code)]

mod caller;
mod channel;
pub mod connection;
mod device;
mod inode_flags;
mod kernel;
mod lock;
#[cfg(test)]
mod malformed;
mod native;
mod negotiation;
mod peek;
pub mod protocol;
mod python;
mod rights;
pub mod ring;
mod server;
mod steward;
mod uring;
mod wake;
mod worker;
mod yielding;
