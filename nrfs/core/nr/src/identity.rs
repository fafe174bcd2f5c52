//! The integers of this crate, each with its own type.

use std::ops::{Add, AddAssign, Sub};

/// A NUMA node, real or emulated, and with it the replica that serves the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One of the parallel logs, and with it the partition of each replica that follows the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub usize);

/// A position in a log, counted from the first operation ever appended; positions are not reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPosition(pub u64);

impl Add<u64> for LogPosition {
    type Output = Self;

    /// The position `entries` after this one.
    fn add(self, entries: u64) -> Self {
        Self(self.0 + entries)
    }
}

impl AddAssign<u64> for LogPosition {
    fn add_assign(&mut self, entries: u64) {
        *self = *self + entries;
    }
}

impl Sub for LogPosition {
    type Output = u64;

    /// The number of entries from `before` to this position.
    fn sub(self, before: Self) -> u64 {
        self.0 - before.0
    }
}
