//! The address space service: the address space machine, replicated on every node, and the emulated hardware, which
//! is not replicated.
//!
//! From the bottom up:
//!
//! - `by_slice`: which log a part of the address space belongs to;
//! - `frames`: the memory of each node, and a small cache of it for each core;
//! - `tlb`: the translations that one core keeps;
//! - `core`: a core, its TLB, and shootdowns;
//! - `view`: the memory behind the frames, and views of it;
//! - `space`: [`AddressSpace`], the service.

#![forbid(unsafe_code)]

mod by_slice;
mod core;
mod frames;
mod space;
mod tlb;
mod view;

pub use crate::core::Statistics;
pub use machines::address_space::{Area, Error, Mapping, PAGE_SHIFT, PageNumber, PageSize, Rights, Run};
pub use machines::digest::Digest;
pub use memory::{Topology, TopologyError};
pub use nr::{LogPosition, NodeId};
pub use space::{AddressSpace, Configuration, ConfigurationError, CoreId, Placement, Region, Verification};
pub use view::{View, ViewError, ViewStatistics};
