//! Where things are in a message of the FUSE protocol.
//!
//! Source: `include/uapi/linux/fuse.h`, protocol 7.31 and later. All numbers are in the machine's own
//! byte order. A message may hold anything: what is not there reads as nothing.
//!
//! - [`opcode`]: the kinds of requests;
//! - [`wire`]: the structures of requests and replies, field by field;
//! - [`request`]: a message taken apart;
//! - [`reply`]: replies put together;
//! - [`handshake`]: what is agreed on in INIT.

pub mod handshake;
pub mod opcode;
pub mod reply;
pub mod request;
pub mod wire;

/// The largest buffer that the kernel's requests need beside their data.
pub const HEADER_ROOM: usize = 4096;

/// Bytes of data in the largest request.
pub const DATA_MAX: usize = 1 << 20;
