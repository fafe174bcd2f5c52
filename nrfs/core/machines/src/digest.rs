//! One number for a whole state.
//!
//! Replicas at the same position of a log must have equal digests. A machine feeds its whole state, in an
//! order that depends only on its operations, and nothing about how the state is stored.

use xxhash_rust::xxh3::Xxh3Default;

use crate::types::{Ino, Time};

/// A hash of a whole state (XXH3, 128 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u128);

/// Gathers a state into a [`Digest`].
#[derive(Default)]
pub(crate) struct Digester(Xxh3Default);

impl Digester {
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    pub fn ino(&mut self, ino: Ino) {
        self.number(ino.0);
    }

    pub fn time(&mut self, time: Time) {
        self.0.update(&time.nanoseconds_since_epoch().to_le_bytes());
    }

    /// Feeds any number of bytes. Their count goes first, so that different sequences never feed the same.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.digest128())
    }
}
