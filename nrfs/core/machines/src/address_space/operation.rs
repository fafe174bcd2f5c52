//! What can be done to an address space, and what it answers.

use std::mem::needs_drop;

use smallvec::SmallVec;

use super::address::{Area, Error, PageSize, Rights, Run};

/// Runs of frames; mostly one.
pub type Runs = SmallVec<[Run; 1]>;

/// A change to the pages of an area: the whole, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOperation {
    /// The pages.
    pub area: Area,
    /// What to do with them.
    pub change: Change,
}

// Replicas fetch operations from each other, and count those that own something.
const _: () = assert!(size_of::<WriteOperation>() <= 32 && !needs_drop::<WriteOperation>());

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Maps frames next to each other, which were granted before the log.
    Map {
        /// The size of the pages; the area consists of whole ones, and so do the frames.
        page: PageSize,
        /// What may be done with them.
        rights: Rights,
        /// The first of the frames, which are as many as the area has pages.
        first: u64,
        /// Whether the frames go with the mapping, or are somebody's who keeps them.
        owned: bool,
        /// Whether what is mapped there goes (MAP_FIXED), or is an error (MAP_FIXED_NOREPLACE).
        replace: bool,
    },
    /// Removes what is mapped; it need not be mapped everywhere. A large page of which a part stays
    /// is split.
    Unmap,
    /// Changes the rights. It must be mapped everywhere.
    Protect {
        /// What may be done from now on.
        rights: Rights,
    },
}

/// What a change answers.
pub type Response = Result<Changed, Error>;

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Frames that went with a mapping that is gone: free, once no core can reach them.
    pub freed: Runs,
    /// Pages, counted in the smallest, that were mapped and are gone or have other rights now:
    /// translations of them may still be cached.
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
