//! The kernel's side of a mount: the FUSE wire protocol, and how requests reach us.
//!
//! - [`protocol`]: where things are in a message;
//! - [`relay`]: hands every request on to pyfuse3, and does on the way what only the message tells.

#![forbid(unsafe_code)]

pub mod protocol;
pub mod relay;
