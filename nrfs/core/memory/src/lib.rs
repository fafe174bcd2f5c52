//! Where memory and CPUs are: the machine's NUMA nodes, and pages bound to them.
//!
//! [`Topology`] says which CPUs belong to which node, real or emulated. An [`Arena`] hands out 4 KiB pages from memory
//! of one node, whose [`Pool`] keeps what no arena uses, and [`Nearby`] keeps what threads use at the node they are on.
//! [`SharedMemory`] has a part on each node, and is seen through [`Window`]s. [`shortage`] says whether there is memory for
//! more, and [`Process`] whether this one was forked. This is the only crate that knows about
//! either; behind it everything is safe code that was handed its arena.

mod arena;
mod buffer;
mod chunk;
mod faults;
mod forks;
mod mapping;
mod nearby;
mod pool;
mod shared;
pub mod shortage;
mod topology;
mod window;

pub use arena::{Arena, PAGE_SIZE, Page, Vacancy};
pub use buffer::Buffer;
pub use faults::Faults;
pub use forks::Process;
pub use nearby::Nearby;
pub use pool::Pool;
pub use shared::SharedMemory;
pub use topology::{Cpu, Node, PhysicalNode, Topology, TopologyError, current_cpu, possible_cpus};
pub use window::{Piece, Window};
