//! The operations on an address space, and their answers.

use std::mem::needs_drop;

use smallvec::SmallVec;

use super::address::{Area, Error, PageSize, Rights, Run};

/// Runs of frames, mostly only one.
pub type Runs = SmallVec<[Run; 1]>;

/// A change to the pages of an area. It succeeds for all of them, or changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOperation {
    /// The pages.
    pub area: Area,
    /// The change.
    pub change: Change,
}

// Replicas fetch operations from each other's caches, and operations that own something cost more to drop.
const _: () = assert!(size_of::<WriteOperation>() <= 32 && !needs_drop::<WriteOperation>());

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Maps contiguous frames, which were granted before the log.
    Map {
        /// The size of the pages. The area and the frames are aligned to it.
        page: PageSize,
        /// The rights of the pages.
        rights: Rights,
        /// The first frame. There is one frame for each 4 KiB page of the area.
        first: u64,
        /// Whether the frames are freed with the mapping; if not, they have another owner.
        owned: bool,
        /// Whether an existing mapping is removed (MAP_FIXED) or an error (MAP_FIXED_NOREPLACE).
        replace: bool,
    },
    /// Removes all mappings in the area, if there are any. A large page of which a part stays is split.
    Unmap,
    /// Changes the rights. The whole area must be mapped.
    Protect {
        /// The new rights.
        rights: Rights,
    },
}

/// The answer to a change.
pub type Response = Result<Changed, Error>;

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Frames of removed mappings that owned them. They are free when no core can reach them any more.
    pub freed: Runs,
    /// How many pages of 4 KiB were unmapped or have other rights now: cores may still cache their
    /// translations.
    pub outdated: u64,
}

impl Changed {
    /// Adds a run of frames.
    pub fn free(&mut self, run: Run) {
        match self.freed.last_mut() {
            Some(last) if last.first + last.frames == run.first => last.frames += run.frames,
            _ => self.freed.push(run),
        }
    }
}
