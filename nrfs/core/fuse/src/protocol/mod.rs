//! The format of messages of the FUSE protocol.
//!
//! Source: `include/uapi/linux/fuse.h`, protocol 7.31 and later. All numbers are in the machine's own
//! byte order. A message may contain any bytes: a missing part is an error or `None`, and never a panic.
//!
//! - [`opcode`]: the kinds of requests;
//! - [`wire`]: the structures of requests and replies, field by field;
//! - [`request`]: parses requests;
//! - [`reply`]: builds replies;
//! - [`handshake`]: reads and changes what INIT agrees on.

pub mod handshake;
pub mod opcode;
pub mod reply;
pub mod request;
pub mod wire;

/// Bytes that a message may need besides its data, at the most.
pub const HEADER_ROOM: usize = 4096;

/// Bytes of data in the largest request.
pub const DATA_MAX: usize = 1 << 20;
