//! The service: changes of the address space, and reads.
//!
//! # Changes that span logs
//!
//! A change of one slice is one operation in one log, and runs concurrently with others. A change of slices in several
//! logs, or of several areas, first locks all other changes out, then checks that nothing will refuse it, and then
//! makes an operation for each slice of each area, none of which can fail. So every change succeeds as a whole or
//! changes nothing, and all nodes see changes in the same order. But a concurrent read may see some slices changed and
//! others not yet, as it may during munmap(2).

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::slice;
use std::sync::{Arc, PoisonError};

use crossbeam_utils::sync::ShardedLock;
use machines::address_space::{
    self, Area, Change, Changed, Error, Mapping, PAGE_SHIFT, PageNumber, PageSize, Rights, Run, WriteOperation,
};
use machines::digest::Digest;
use machines::placed::Placed;
use memory::heap::Home;
use memory::{Topology, current_cpu};
use nr::{LogId, LogPosition, NodeId, NodeReplicated};

use crate::by_slice::BySlice;
use crate::core::{Core, Replicated, State, Statistics};
use crate::frames::Frames;
use crate::view::{Backing, View, ViewError, ViewStatistics, Views};

/// One of the cores of an address space, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub usize);

/// The size of an address space.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The nodes to replicate on.
    pub topology: Topology,
    /// Parallel logs, 1 to [`LOGS_MAX`].
    pub logs: usize,
    /// Cores, divided evenly among the nodes: at least one per node, at most [`CORES_MAX`]. `None`: as many as the
    /// topology has CPUs. At most [`PLACES_MAX`] divided by `logs`.
    pub cores: Option<usize>,
    /// Frames of 4 KiB on each node, at least 1; on all nodes together at most [`FRAMES_MAX`].
    pub frames_per_node: u64,
    /// Whether there is memory behind the frames, so that there can be [`View`]s.
    pub backed: bool,
}

/// The most logs. More would only cost memory, as no machine has as many threads to fill them.
pub const LOGS_MAX: usize = 1024;

/// The most cores, which is the most CPUs that Linux supports.
pub const CORES_MAX: usize = 8192;

/// The most cores times logs. Each core takes some hundred bytes per log; more would take GiB, and seconds to set up.
pub const PLACES_MAX: usize = 1 << 16;

/// The most frames: physical addresses of x86-64 have at most 52 bits.
pub const FRAMES_MAX: u64 = 1 << (52 - PAGE_SHIFT);

/// The most entries of all logs together.
const ENTRIES: usize = 1 << 20;

/// Which part of a [`Configuration`] is out of range.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ConfigurationError {
    Logs,
    Cores,
    Places,
    Frames,
    /// The system refused memory for the frames.
    Memory(io::Error),
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Logs => return write!(formatter, "a number of logs from 1 to {LOGS_MAX} is needed"),
            Self::Cores => {
                return write!(formatter, "at least one core a node is needed, and at most {CORES_MAX} in all");
            }
            Self::Places => return write!(formatter, "cores times logs must be no more than {PLACES_MAX}"),
            Self::Frames => "memory of at least one frame a node is needed, and at most 4 PiB in all",
            Self::Memory(error) => return error.fmt(formatter),
        })
    }
}

impl std::error::Error for ConfigurationError {}

/// How a new mapping treats existing ones in its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// They are removed: MAP_FIXED.
    Replace,
    /// They are an error: MAP_FIXED_NOREPLACE.
    NoReplace,
}

/// Contiguous pages with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// How they may be used.
    pub rights: Rights,
}

/// The digests of all replicas at one position of one log.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The position.
    pub position: LogPosition,
    /// By node.
    pub digests: Vec<Digest>,
}

/// An address space, replicated on every node.
pub struct AddressSpace {
    topology: Topology,
    space: Arc<Replicated>,
    cores: Box<[Core]>,
    frames: Frames,
    backing: Option<Arc<Backing>>,
    /// Held for writing to change several logs, or to make or drop a view; for reading by changes of one log.
    views: Arc<ShardedLock<Views>>,
}

impl AddressSpace {
    /// An empty address space.
    pub fn new(configuration: Configuration) -> Result<Self, ConfigurationError> {
        let Configuration { topology, logs, cores, frames_per_node, backed } = configuration;
        let nodes = topology.nodes().len();
        let cores = cores.unwrap_or_else(|| topology.nodes().iter().map(|node| node.cpus.len()).sum());
        if !(1..=LOGS_MAX).contains(&logs) {
            return Err(ConfigurationError::Logs);
        }
        if !(nodes..=CORES_MAX).contains(&cores) {
            return Err(ConfigurationError::Cores);
        }
        if cores * logs > PLACES_MAX {
            return Err(ConfigurationError::Places);
        }
        if frames_per_node == 0 || frames_per_node > FRAMES_MAX / nodes as u64 {
            return Err(ConfigurationError::Frames);
        }
        let usual = nr::Configuration::default();
        let log_entries = usual.log_entries.min(ENTRIES / logs);
        let configuration = nr::Configuration { nodes, logs, log_entries, ..usual };
        let home = |node: NodeId| Home::of(topology.nodes()[node.0].physical);
        let make = |node, _| Placed::new(home(node), address_space::AddressSpace::default);
        let space = Home::Interleaved.during(|| NodeReplicated::new(configuration, BySlice, make));
        let frames = Frames::new(nodes, cores, frames_per_node);
        let cores = (0..cores).map(|core| Core::new(NodeId(core * nodes / cores), &space)).collect();
        let views = Arc::default();
        let backing = backed.then(|| Backing::new(&topology, frames_per_node, &space, &views)).transpose();
        let backing = backing.map_err(ConfigurationError::Memory)?;
        Ok(Self { topology, space, cores, frames, backing: backing.map(Arc::new), views })
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.space.nodes()
    }

    /// The node of a core.
    pub fn node_of(&self, core: CoreId) -> NodeId {
        self.core(core).node
    }

    /// The first core of a node.
    pub fn first_core(&self, node: NodeId) -> CoreId {
        CoreId((node.0 * self.cores.len()).div_ceil(self.nodes()))
    }

    /// The core that stands for the calling thread's CPU.
    pub fn core_here(&self) -> CoreId {
        let cpu = current_cpu();
        let node = self.topology.node_of(cpu, || 0);
        let (first, end) = (self.first_core(NodeId(node)).0, self.first_core(NodeId(node + 1)).0);
        CoreId(first + cpu.0 % (end - first))
    }

    /// Maps an area to frames of the core's node, or of other nodes if it has none left.
    pub fn map(
        &self,
        core: CoreId,
        area: &Area,
        page: PageSize,
        rights: Rights,
        placement: Placement,
    ) -> Result<(), Error> {
        self.map_areas(core, slice::from_ref(area), page, rights, placement)
    }

    /// Maps pages of one size at many addresses, as [`map`](Self::map) does: all, or none. An address that occurs more
    /// than once counts once.
    pub fn map_many(
        &self,
        core: CoreId,
        addresses: &[u64],
        page: PageSize,
        rights: Rights,
        placement: Placement,
    ) -> Result<(), Error> {
        self.map_areas(core, &areas(addresses, page)?, page, rights, placement)
    }

    fn map_areas(
        &self,
        core: CoreId,
        areas: &[Area],
        page: PageSize,
        rights: Rights,
        placement: Placement,
    ) -> Result<(), Error> {
        if !areas.iter().all(|area| area.is_aligned(page)) {
            return Err(Error::Unaligned);
        }
        let node = self.core(core).node.0;
        let pages = areas.iter().map(Area::len).sum::<u64>() / page.pages();
        let frames = self.frames.allocate(core.0, node, page, pages).ok_or(Error::NoMemory)?;
        let replace = placement == Placement::Replace;
        let change =
            Change::Map { page, rights, first: frames.first().map_or(0, |run| run.first), owned: true, replace };
        self.change(core, areas, change, &frames).inspect_err(|_| self.frames.free(core.0, node, &frames))
    }

    /// Allocates a frame that no mapping owns: it can be mapped at many addresses, and is never freed.
    pub fn frame(&self, core: CoreId, page: PageSize) -> Result<Run, Error> {
        let node = self.core(core).node.0;
        let frames = self.frames.allocate(core.0, node, page, 1).ok_or(Error::NoMemory)?;
        frames.first().copied().ok_or(Error::NoMemory)
    }

    /// Maps an area to a frame that [`frame`](Self::frame) returned.
    pub fn map_frame(
        &self,
        core: CoreId,
        area: &Area,
        page: PageSize,
        frame: Run,
        rights: Rights,
        placement: Placement,
    ) -> Result<(), Error> {
        // An aligned page is in one slice.
        if !area.is_aligned(page) {
            return Err(Error::Unaligned);
        }
        let replace = placement == Placement::Replace;
        let change = Change::Map { page, rights, first: frame.first, owned: false, replace };
        self.change(core, slice::from_ref(area), change, slice::from_ref(&frame))
    }

    /// Removes all mappings in an area. When it returns, no core can use the old translations.
    pub fn unmap(&self, core: CoreId, area: &Area) -> Result<(), Error> {
        self.change(core, slice::from_ref(area), Change::Unmap, &[])
    }

    /// Removes all mappings in pages of one size at many addresses, as [`unmap`](Self::unmap) does: all or none, with
    /// one shootdown.
    pub fn unmap_many(&self, core: CoreId, addresses: &[u64], page: PageSize) -> Result<(), Error> {
        self.change(core, &areas(addresses, page)?, Change::Unmap, &[])
    }

    /// Changes the rights of an area, which must be mapped everywhere. When it returns, no core can use the old rights.
    pub fn protect(&self, core: CoreId, area: &Area, rights: Rights) -> Result<(), Error> {
        self.change(core, slice::from_ref(area), Change::Protect { rights }, &[])
    }

    /// What is mapped in an area, as memory of this process. All of the area must be readable; the view is writable if
    /// all of it is. While the view lives, changes that would take that away are refused.
    pub fn view(&self, core: CoreId, area: &Area) -> Result<View, ViewError> {
        let backing = self.backing.as_ref().ok_or(ViewError::NotBacked)?;
        let core = self.core(core);
        let state = core.enter();
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        let mapped = self.mapped(&state, slice::from_ref(area));
        if total(&mapped) != area.len() {
            return Err(ViewError::Refused(Error::NotMapped));
        }
        let all = |rights: Rights| mapped.iter().all(|(_, allowed)| allowed.allow(rights));
        if !all(Rights::READ) {
            return Err(ViewError::Refused(Error::Denied));
        }
        let rights = if all(Rights::WRITE) { Rights::READ.or(Rights::WRITE) } else { Rights::READ };
        let frames = |space: &Placed<address_space::AddressSpace>| space.frames_within(area);
        let logs = BySlice::logs(area, self.space.logs());
        let pieces: Vec<_> = logs.flat_map(|log| self.space.execute_on(log, frames, &state.token)).collect();
        let shown = Arc::new(backing.show(area, rights, core.node, &pieces)?);
        views.insert(&shown);
        Ok(View::new(Arc::clone(backing), shown))
    }

    /// Figures about views; `None` if the address space is not backed.
    pub fn view_statistics(&self) -> Option<ViewStatistics> {
        self.backing.as_ref().map(|backing| backing.statistics())
    }

    /// The mapping of an address, after all changes that have completed.
    pub fn resolve(&self, core: CoreId, address: u64) -> Result<Mapping, Error> {
        let log = BySlice::log_of(PageNumber::of(address)?, self.space.logs());
        let state = self.core(core).enter();
        self.space.execute_on(log, |space| space.resolve(address), &state.token)
    }

    /// Resolves many addresses. Calls `visit` with the index of each and its mapping, as [`resolve`](Self::resolve)
    /// returns it. The mappings may belong to different moments.
    pub fn resolve_many(&self, core: CoreId, addresses: &[u64], mut visit: impl FnMut(usize, Result<Mapping, Error>)) {
        /// How many addresses one read resolves: few, so that changes do not wait for long.
        const READ: usize = 256;
        let logs = self.space.logs();
        let log_of = |address: u64| PageNumber::of(address).ok().map(|page| BySlice::log_of(page, logs));
        let state = self.core(core).enter();
        let mut first = 0;
        for run in addresses.chunk_by(|&one, &next| log_of(one) == log_of(next)).flat_map(|run| run.chunks(READ)) {
            let log = log_of(run[0]).unwrap_or_default();
            let mut read = |space: &Placed<address_space::AddressSpace>| {
                run.iter().enumerate().for_each(|(number, &address)| visit(first + number, space.resolve(address)));
            };
            self.space.execute_on(log, &mut read, &state.token);
            first += run.len();
        }
    }

    /// Loads, stores or fetches through the core's TLB; returns the physical address. Calls `use_it` with it before
    /// another core can make this one forget the translation.
    pub fn access(&self, core: CoreId, address: u64, need: Rights, use_it: impl FnOnce(u64)) -> Result<u64, Error> {
        let core = self.core(core);
        let mut state = core.enter();
        let physical = core.translate(&mut state, &self.space, address, need)?;
        use_it(physical);
        Ok(physical)
    }

    /// All regions in ascending order. Those of one log belong to one moment, those of several logs may not.
    pub fn regions(&self, core: CoreId) -> Vec<Region> {
        let mut parts = self.of_all_logs(core, |space| space.regions().collect::<Vec<_>>());
        parts.sort_unstable_by_key(|(pages, _)| pages.start);
        let mut regions: Vec<Region> = Vec::new();
        for (pages, rights) in parts {
            let address = PageNumber(pages.start).address();
            let length = (pages.end - pages.start) * PageSize::Small4K.bytes();
            match regions.last_mut() {
                Some(last) if last.address + last.length == address && last.rights == rights => last.length += length,
                _ => regions.push(Region { address, length, rights }),
            }
        }
        regions
    }

    /// All pages in the page table of a core's node, in ascending order.
    pub fn page_table(&self, core: CoreId) -> Vec<Mapping> {
        let mut pages = self.of_all_logs(core, address_space::AddressSpace::pages);
        pages.sort_unstable_by_key(|mapping| mapping.start);
        pages
    }

    /// How many frames of 4 KiB are free, on all nodes.
    pub fn frames_left(&self) -> u64 {
        self.frames.left()
    }

    /// Figures about a core.
    pub fn statistics(&self, core: CoreId) -> Statistics {
        self.core(core).statistics()
    }

    /// Brings all replicas to the same position of each log; returns their digests there, by log.
    pub fn verify(&self, core: CoreId) -> Vec<Verification> {
        let state = self.core(core).enter();
        let observe = |log| {
            let seen = self.space.observe(LogId(log), |_, position, space| (position, space.digest()), &state.token);
            Verification { position: seen[0].0, digests: seen.into_iter().map(|(_, digest)| digest).collect() }
        };
        (0..self.space.logs()).map(observe).collect()
    }

    fn core(&self, core: CoreId) -> &Core {
        &self.cores[core.0]
    }

    fn of_all_logs<T>(&self, core: CoreId, read: impl Fn(&address_space::AddressSpace) -> Vec<T>) -> Vec<T> {
        let state = self.core(core).enter();
        (0..self.space.logs())
            .flat_map(|log| self.space.execute_on(LogId(log), |space| read(space), &state.token))
            .collect()
    }

    /// Makes a change to areas, which are in ascending order and do not overlap. Then makes all cores forget outdated
    /// translations, and then frees the frames of removed mappings. New mappings get `frames`, in their order.
    fn change(&self, core: CoreId, areas: &[Area], change: Change, frames: &[Run]) -> Result<(), Error> {
        let (id, core) = (core, self.core(core));
        let mut state = core.enter();
        core.answer(&mut state, &self.space);
        let changed = match areas {
            [area] if frames.len() <= 1 && !BySlice::spans_logs(area, self.space.logs()) => {
                let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
                if views.forbid(area, &change) {
                    return Err(Error::Viewed);
                }
                self.space.execute_mut(WriteOperation { area: area.clone(), change }, &state.token)?
            }
            _ => self.change_alone(&state, areas, change, frames)?,
        };
        if changed.outdated > 0 {
            core.shoot_down(&mut state, &self.cores, &self.space, areas);
        }
        let freed = match &self.backing {
            Some(backing) => backing.wiped(changed.freed),
            None => changed.freed,
        };
        self.frames.free(id.0, core.node.0, &freed);
        Ok(())
    }

    fn change_alone(&self, state: &State, areas: &[Area], change: Change, frames: &[Run]) -> Result<Changed, Error> {
        let views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        if areas.iter().any(|area| views.forbid(area, &change)) {
            return Err(Error::Viewed);
        }
        let mapped = self.mapped(state, areas);
        match change {
            Change::Map { replace: false, .. } if !mapped.is_empty() => return Err(Error::Overlapping),
            Change::Protect { .. } if total(&mapped) != areas.iter().map(Area::len).sum::<u64>() => {
                return Err(Error::NotMapped);
            }
            Change::Map { .. } | Change::Unmap | Change::Protect { .. } => {}
        }
        let used: Option<BTreeSet<u64>> =
            (change == Change::Unmap).then(|| mapped.iter().flat_map(|(pages, _)| BySlice::slices(pages)).collect());
        let mut granted = Granted { runs: frames, gone: 0 };
        let mut all = Changed::default();
        for area in areas {
            let mut slices = BySlice::slices(&area.pages());
            let slices: &mut dyn Iterator<Item = u64> = match &used {
                // An area to be unmapped may have far more slices than those in which something is mapped.
                Some(used) => &mut used.range(slices).copied(),
                None => &mut slices,
            };
            for part in slices.filter_map(|slice| area.intersection(&BySlice::pages(slice))) {
                let mut rest = part.pages();
                while let Some(area) = part.intersection(&rest) {
                    let operation = granted.operation(area, change);
                    rest.start = operation.area.pages().end;
                    let changed = self.space.execute_mut(operation, &state.token)?;
                    all.outdated += changed.outdated;
                    changed.freed.into_iter().for_each(|run| all.free(run));
                }
            }
        }
        Ok(all)
    }

    /// The parts of regions that lie in `areas`.
    fn mapped(&self, state: &State, areas: &[Area]) -> Vec<(Range<u64>, Rights)> {
        let logs = self.space.logs();
        let within = |log: LogId| {
            let here = |area: &&Area| BySlice::logs(area, logs).any(|of_area| of_area == log);
            let read = |space: &Placed<address_space::AddressSpace>| {
                areas.iter().filter(here).flat_map(|area| space.regions_within(area)).collect::<Vec<_>>()
            };
            if areas.iter().any(|area| here(&area)) {
                self.space.execute_on(log, read, &state.token)
            } else {
                Vec::new()
            }
        };
        (0..logs).map(LogId).flat_map(within).collect()
    }
}

/// How many pages these regions have.
fn total(regions: &[(Range<u64>, Rights)]) -> u64 {
    regions.iter().map(|(pages, _)| pages.end - pages.start).sum()
}

/// The pages of one size at these addresses, as areas in ascending order; adjacent pages are joined.
fn areas(addresses: &[u64], page: PageSize) -> Result<Vec<Area>, Error> {
    let mut pages = addresses.iter().map(|&address| Area::new(address, page.bytes())).collect::<Result<Vec<_>, _>>()?;
    pages.sort_unstable_by_key(|area| area.pages().start);
    pages.dedup();
    let mut areas: Vec<Area> = Vec::new();
    for area in pages {
        match areas.last_mut().and_then(|last| Some((last.joined(&area)?, last))) {
            Some((joined, last)) => *last = joined,
            None => areas.push(area),
        }
    }
    Ok(areas)
}

/// Granted frames, which are used in their order.
struct Granted<'a> {
    runs: &'a [Run],
    /// How many frames of the first run are used.
    gone: u64,
}

impl Granted<'_> {
    /// The operation for the change of an area. If it maps frames: for as many first pages of the area as the next run
    /// has frames.
    fn operation(&mut self, mut area: Area, mut change: Change) -> WriteOperation {
        if let (Change::Map { first, .. }, Some((run, behind))) = (&mut change, self.runs.split_first()) {
            *first = run.first + self.gone;
            area = area.first(run.frames - self.gone);
            self.gone += area.len();
            if self.gone == run.frames {
                (self.runs, self.gone) = (behind, 0);
            }
        }
        WriteOperation { area, change }
    }
}
