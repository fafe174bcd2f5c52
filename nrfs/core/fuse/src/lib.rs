//! The kernel's side of a mount: the FUSE wire protocol, and how requests reach us.
//!
//! From the bottom up:
//!
//! - [`protocol`]: what requests and replies look like;
//! - `rights`: what the kernel does not say of who asks;
//! - `native`: answers requests from the file system service;
//! - `inode_flags`: of these what has to do with chattr(1), and what that forbids;
//! - `kernel`: tells the kernel that what it keeps holds no more;
//! - `caller`: what the caller of a request is about to do;
//! - `peek`: memory of a caller, read without waiting for it;
//! - `python`: hands requests on to pyfuse3;
//! - `yielding`: how workers make room on their CPUs for those they serve;
//! - `steward`: a thread for requests that must wait for the kernel itself;
//! - `device`: workers that read requests from /dev/fuse;
//! - `uring`: FUSE over io_uring, made safe;
//! - [`ring`]: workers that take requests from a ring for each CPU;
//! - [`connection`]: all of these joined, for one mount.

#![deny(unsafe_code)]

mod caller;
pub mod connection;
mod device;
mod inode_flags;
mod kernel;
#[cfg(test)]
mod malformed;
mod native;
mod peek;
pub mod protocol;
mod python;
mod rights;
pub mod ring;
mod steward;
mod uring;
mod wake;
mod yielding;
