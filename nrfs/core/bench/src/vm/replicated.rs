//! Our address space service. Each thread is a core.

use vm::{AddressSpace, Area, Configuration, CoreId, PageSize, Placement, Rights, Topology};

use super::Space;

const PART: u64 = 1 << 30;
const PAGE: u64 = 4096;
const FRAMES: u64 = 1 << 20;

/// The service.
pub struct Replicated(AddressSpace);

impl Replicated {
    /// On `nodes` nodes with `logs` logs, for `threads` threads.
    pub fn new(nodes: usize, logs: usize, threads: usize) -> Self {
        let topology = Topology::emulated(nodes).expect("a few nodes");
        let cores = Some(threads.max(nodes));
        let configuration = Configuration { topology, logs, cores, frames_per_node: FRAMES, backed: false };
        Self(AddressSpace::new(configuration).expect("there is enough of everything"))
    }
}

fn address(thread: usize, page: u64) -> u64 {
    thread as u64 * PART + page * PAGE
}

fn area(CoreId(thread): CoreId, page: u64) -> Area {
    Area::new(address(thread, page), PAGE).expect("it is aligned")
}

impl Space for Replicated {
    type Handle = CoreId;

    fn handle(&self, thread: usize) -> CoreId {
        CoreId(thread)
    }

    fn map(&self, &mut core: &mut CoreId, page: u64) {
        let rights = Rights::READ.or(Rights::WRITE);
        let done = self.0.map(core, &area(core, page), PageSize::Small4K, rights, Placement::NoReplace);
        done.expect("there is memory");
    }

    fn protect(&self, &mut core: &mut CoreId, page: u64) {
        self.0.protect(core, &area(core, page), Rights::READ).expect("it is mapped");
    }

    fn resolve(&self, &mut core: &mut CoreId, page: u64) -> u64 {
        self.0.resolve(core, address(core.0, page)).expect("it is mapped").frame
    }

    fn unmap(&self, &mut core: &mut CoreId, page: u64) {
        self.0.unmap(core, &area(core, page)).expect("it is mapped");
    }

    fn waited(&self) -> Option<[u64; 2]> {
        let cores = (0..self.0.cores()).map(|core| self.0.statistics(CoreId(core)));
        let waited = cores.map(|of| [of.waited, of.waited_longest].map(|waited| waited.as_nanos() as u64));
        waited.reduce(|[all, longest], [waited, most]| [all + waited, longest.max(most)])
    }

    fn touch(&self, &mut core: &mut CoreId, thread: usize, page: u64) {
        self.0.access(core, address(thread, page), Rights::READ, |_| ()).expect("it is mapped");
    }
}
