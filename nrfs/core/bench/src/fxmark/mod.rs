//! FxMark's workloads, by their own names (Min et al., "Understanding Manycore Scalability of File Systems", USENIX ATC
//! '16), and the mix of reads and writes that the NrOS paper measures. Each is what one core does again and again:
//!
//! - by system calls in a directory, each core a process;
//! - or on the file system service itself, each core a thread: what NrOS measures, whose system calls lead straight
//!   into its replicas.
//!
//! From the bottom up:
//!
//! - [`calls`]: what a workload asks of a file system; `system` and `service` are the two ways, and [`calls::Nothing`] a
//!   third, which does nothing: so it measures the harness;
//! - `paths`: where the files are;
//! - [`worker`]: what one core does in each workload;
//! - [`team`]: all cores together.

pub mod calls;
mod paths;
mod service;
mod system;
pub mod team;
pub mod worker;

use std::fmt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use service::Service;
pub use system::System;

/// What a core does. In FxMark's names D is data, M metadata; R reads, W writes; and the last letter says how much is
/// shared: Low is nothing, Medium the directory or the file, High all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Workload {
    /// Reads a block of 4 KiB of its own file.
    DRBL,
    /// Reads its own block of a file that all share.
    DRBM,
    /// Reads the same block as all others.
    DRBH,
    /// Appends a block to its own file.
    DWAL,
    /// Overwrites a block of its own file.
    DWOL,
    /// Overwrites its own block of a file that all share.
    DWOM,
    /// Overwrites a block of its own file, and syncs it.
    DWSL,
    /// Cuts a block off its own file.
    DWTL,
    /// Asks for its own file, five names deep.
    MRPL,
    /// Asks for any file of a tree that all share, five names deep.
    MRPM,
    /// Asks for the same file as all others, five names deep.
    MRPH,
    /// Reads an entry of its own directory.
    MRDL,
    /// Reads an entry of a directory that all share.
    MRDM,
    /// Makes a file in its own directory.
    MWCL,
    /// Makes a file in a directory that all share.
    MWCM,
    /// Unlinks a file of its own directory.
    MWUL,
    /// Unlinks a file of a directory that all share.
    MWUM,
    /// Renames a file within its own directory.
    MWRL,
    /// Moves a file from its own directory into one that all share.
    MWRM,
    /// NrOS's: reads or writes 1,008 bytes at any multiple of 4 KiB in a large file.
    #[serde(rename = "mix")]
    Mix,
}

impl Workload {
    /// All there are.
    pub const ALL: [Self; 20] = [
        Self::DRBL,
        Self::DRBM,
        Self::DRBH,
        Self::DWAL,
        Self::DWOL,
        Self::DWOM,
        Self::DWSL,
        Self::DWTL,
        Self::MRPL,
        Self::MRPM,
        Self::MRPH,
        Self::MRDL,
        Self::MRDM,
        Self::MWCL,
        Self::MWCM,
        Self::MWUL,
        Self::MWUM,
        Self::MWRL,
        Self::MWRM,
        Self::Mix,
    ];
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// What all cores of a measurement know of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// What they do.
    pub workload: Workload,
    /// How many they are.
    pub cores: usize,
    /// Of [`Workload::Mix`]: how many files they share, core by core in turn.
    pub open_files: usize,
    /// Of [`Workload::Mix`]: how many of a hundred operations are writes.
    pub writes: u64,
    /// Of [`Workload::Mix`]: bytes of each file, in whole pages.
    pub file_size: u64,
}

/// Why a figure is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A call failed.
    Refused(&'static str, Errno),
    /// A call brought something else than what is there.
    Wrong(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(call, errno) => write!(formatter, "{call}: {errno}"),
            Self::Wrong(call) => write!(formatter, "{call}: something else is there than what was written"),
        }
    }
}

impl std::error::Error for Failure {}
