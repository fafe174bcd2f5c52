//! The machine's NUMA nodes: their CPUs, and memory bound to them.
//!
//! - [`Topology`] says which CPUs belong to which node, real or emulated, and which memory.
//! - An [`Arena`] hands out 4 KiB pages of one node's memory; the node's [`Pool`] keeps the memory that no arena uses.
//! - A [`Payload`] is what an operation carries: bytes of its own, or lent.
//! - [`Nearby`] keeps things that belong to a node, for threads that come and go.
//! - [`SharedMemory`] has a part on each node, and is seen through [`Window`]s, whose first touches [`Faults`] reports.
//! - [`heap`] says where small objects are allocated, and [`placement`] where memory lies.
//! - [`shortage`] says whether there is memory for more.
//! - [`Process`] says whether this process was forked since.
//!
//! Only this crate maps memory and asks where CPUs are; its users need no unsafe code for that.

mod arena;
mod buffer;
mod chunk;
mod faults;
mod forks;
pub mod heap;
mod mapping;
mod nearby;
mod payload;
pub mod placement;
mod pool;
mod shared;
pub mod shortage;
mod topology;
mod window;

pub use arena::{Arena, PAGE_SIZE, Page, Vacancy};
pub use buffer::Buffer;
pub use faults::Faults;
pub use forks::Process;
pub use mapping::map_for;
pub use nearby::Nearby;
pub use payload::Payload;
pub use pool::Pool;
pub use shared::SharedMemory;
pub use topology::{
    Cpu, Hardware, HardwareNode, Node, PhysicalNode, Topology, TopologyError, current_cpu, physical_node_of,
    possible_cpus,
};
pub use window::{Piece, Window};
