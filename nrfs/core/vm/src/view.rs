//! The memory behind the frames of an address space, and views: addresses of this process that show what is mapped.
//!
//! # First touches
//!
//! All frames are one file in memory, frame after frame; each node's part is on that node. A [`View`] is a range of
//! this process's addresses. If the process may use userfaultfd(2), nothing is mapped there at first. A thread that
//! touches an address waits, while a thread of the address space resolves it on the replica of the node where the view
//! was made, and maps the frames there, a page of size [`STEP`] at once. If the process may not, all frames are mapped
//! when the view is made. The thread of the address space takes no lock that is held while somebody touches a view:
//! neither a core's, nor one of the caller's, such as Python's.
//!
//! # Why no view shows what is unmapped
//!
//! While there is a view, what it shows stays mapped, with at least the rights of the view. A change that would take
//! that away is refused ([`Error::Viewed`]), as Python refuses to resize an object that a memoryview shows. If the
//! change were made, the holder of the view would have addresses whose next touch kills the process, or reads what was
//! never written. So when unmap returns, no view shows the area, and its frames are wiped before they can be mapped
//! again. Views are made and dropped while all changes are locked out: so no change comes between the look at what is
//! mapped and the entry in [`Views`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;

use crossbeam_utils::sync::ShardedLock;
use machines::address_space::{self, Area, Change, Error, PAGE_SHIFT, PageNumber, PageSize, Rights, Run, Runs};
use machines::placed::Placed;
use memory::{Faults, Piece, SharedMemory, Topology, Window};
use nr::{NodeId, Token};

use crate::by_slice::BySlice;
use crate::core::Replicated;

/// How much a first touch makes visible: so little that it is quick, and so much that a view has few mappings.
const STEP: PageSize = PageSize::Large2M;

/// Why a view cannot be made.
#[derive(Debug)]
pub enum ViewError {
    /// The frames of the address space have no memory.
    NotBacked,
    /// The area is not mapped everywhere, or may not be read everywhere.
    Refused(Error),
    /// The system refused memory or mappings.
    System(io::Error),
}

impl fmt::Display for ViewError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBacked => formatter.write_str("the address space is not backed by memory"),
            Self::Refused(error) => error.fmt(formatter),
            Self::System(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for ViewError {}

impl From<io::Error> for ViewError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// What is mapped in an area, as memory of this process. It stays mapped as long as the view lives.
pub struct View {
    backing: Arc<Backing>,
    shown: Arc<Shown>,
}

impl View {
    pub(crate) fn new(backing: Arc<Backing>, shown: Arc<Shown>) -> Self {
        Self { backing, shown }
    }

    /// The first address in this process. As long as the view lives, its memory can be read there, and written if
    /// [`is_writable`](Self::is_writable). It is shared: others may write it at any time.
    pub fn base(&self) -> NonNull<u8> {
        self.shown.window.base()
    }

    /// The length in bytes, at least a page.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.shown.window.size()
    }

    /// Whether all of it may be written.
    pub fn is_writable(&self) -> bool {
        self.shown.window.is_writable()
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Not in a forked process: a thread that does not exist there may hold the lock.
        if self.shown.window.is_here() {
            self.backing.forget(self.base());
        }
    }
}

/// All views, by first address.
#[derive(Default)]
pub(crate) struct Views(BTreeMap<usize, Arc<Shown>>);

/// What a view shows, and at which addresses.
pub(crate) struct Shown {
    area: Area,
    rights: Rights,
    /// The node whose replica answers touches.
    node: NodeId,
    window: Window,
    /// For each step of the area, whether the window shows it. Stored only by the thread that answers touches.
    steps: Box<[AtomicBool]>,
}

impl Views {
    pub fn insert(&mut self, shown: &Arc<Shown>) {
        self.0.insert(shown.base(), Arc::clone(shown));
    }

    fn remove(&mut self, base: NonNull<u8>) {
        self.0.remove(&base.addr().get());
    }

    /// The view with the highest base that is not above `address`: the only one that may contain it.
    fn around(&self, address: usize) -> Option<Arc<Shown>> {
        self.0.range(..=address).next_back().map(|(_, shown)| Arc::clone(shown))
    }

    /// Whether a change of `area` would take away what a view shows.
    pub fn forbid(&self, area: &Area, change: &Change) -> bool {
        let disturbed = |shown: &Shown| match change {
            Change::Map { replace, .. } => *replace,
            Change::Unmap => true,
            Change::Protect { rights } => !rights.allow(shown.rights),
        };
        self.0.values().any(|shown| shown.area.intersection(&area.pages()).is_some() && disturbed(shown))
    }
}

impl Shown {
    fn base(&self) -> usize {
        self.window.base().addr().get()
    }

    /// Maps frames into the window, at the pages that they are mapped to in the address space.
    fn show(&self, memory: &SharedMemory, pieces: &[(PageNumber, Run)]) -> io::Result<()> {
        pieces.iter().map(|piece| self.piece(piece)).try_for_each(|piece| self.window.show(memory, piece))
    }

    fn piece(&self, &(page, run): &(PageNumber, Run)) -> Piece {
        let at = ((page.0 - self.area.pages().start) << PAGE_SHIFT) as usize;
        Piece { at, offset: run.first << PAGE_SHIFT, size: (run.frames << PAGE_SHIFT) as usize }
    }
}

/// Figures about views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewStatistics {
    /// Whether memory is shown when it is first touched; if not, all of it when the view is made.
    pub on_touch: bool,
    /// How many views there are.
    pub views: usize,
    /// How many first touches were answered.
    pub touches: u64,
}

/// The memory behind the frames of an address space, and its views.
pub(crate) struct Backing {
    shared: Arc<Shared>,
    views: Arc<ShardedLock<Views>>,
}

/// What [`Backing`] shares with the thread that answers touches.
struct Shared {
    memory: Arc<SharedMemory>,
    /// `None` if this process may not use userfaultfd(2).
    faults: Option<Faults>,
    touches: AtomicU64,
}

impl Backing {
    pub fn new(
        topology: &Topology,
        frames_per_node: u64,
        space: &Arc<Replicated>,
        views: &Arc<ShardedLock<Views>>,
    ) -> io::Result<Self> {
        let nodes = topology.nodes().iter().map(|node| node.physical);
        let memory = Arc::new(SharedMemory::new(nodes, frames_per_node)?);
        let shared = Arc::new(Shared { memory, faults: Faults::new().ok(), touches: AtomicU64::new(0) });
        let views = Arc::clone(views);
        if shared.faults.is_some() {
            let tokens = (0..space.nodes()).map(|node| space.register(NodeId(node))).collect();
            let handler = Handler { shared: Arc::clone(&shared), views: Arc::clone(&views), tokens };
            thread::Builder::new().name("nrfs-views".into()).spawn(|| handler.run())?;
        }
        Ok(Self { shared, views })
    }

    /// Makes a window that shows an area, at once or on first touches. `pieces` are all frames behind it.
    pub fn show(&self, area: &Area, rights: Rights, node: NodeId, pieces: &[(PageNumber, Run)]) -> io::Result<Shown> {
        let Range { start, end } = area.pages();
        let size = area.len() << PAGE_SHIFT;
        let steps = (end - 1) / STEP.pages() - start / STEP.pages() + 1;
        // Each step may cut a piece in two, and has a gap on either side before it is shown.
        let mappings = pieces.len() + 2 * steps as usize + 1;
        let alike = PageNumber(start).address();
        let window = Window::new(size as usize, alike, rights.allow(Rights::WRITE), mappings)?;
        let steps = (0..steps).map(|_| AtomicBool::new(false)).collect();
        let shown = Shown { area: area.clone(), rights, node, window, steps };
        match &self.shared.faults {
            Some(faults) => faults.watch(&shown.window)?,
            None => shown.show(&self.shared.memory, pieces)?,
        }
        // These pieces stay mapped as long as the view lives.
        shown.window.will_show(&self.shared.memory, pieces.iter().map(|piece| shown.piece(piece)));
        Ok(shown)
    }

    /// Allows again the changes that the view at `base` forbids.
    fn forget(&self, base: NonNull<u8>) {
        self.views.write().unwrap_or_else(PoisonError::into_inner).remove(base);
    }

    /// Wipes frames that were mapped. Returns those that were wiped; the others must not be mapped again.
    pub fn wiped(&self, mut frames: Runs) -> Runs {
        let wipe = |run: &Run| self.shared.memory.wipe(run.first << PAGE_SHIFT, run.frames << PAGE_SHIFT);
        frames.retain(|run| wipe(run).is_ok());
        frames
    }

    pub fn statistics(&self) -> ViewStatistics {
        ViewStatistics {
            on_touch: self.shared.faults.is_some(),
            views: self.views.read().unwrap_or_else(PoisonError::into_inner).0.len(),
            touches: self.shared.touches.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // No view is left: each of them holds the backing. The thread ends by itself.
        self.shared.faults.iter().for_each(Faults::stop);
    }
}

/// The thread that answers touches.
struct Handler {
    shared: Arc<Shared>,
    views: Arc<ShardedLock<Views>>,
    /// By node.
    tokens: Vec<Token<Placed<address_space::AddressSpace>, BySlice>>,
}

impl Handler {
    /// Answers touches until [`Faults::stop`]. If one cannot be answered, the process ends: otherwise the touching
    /// thread would wait for ever.
    fn run(self) {
        let answered = catch_unwind(AssertUnwindSafe(|| {
            let Some(faults) = &self.shared.faults else { return Ok(()) };
            while let Some(address) = faults.next()? {
                self.answer(faults, address)?;
            }
            Ok::<_, io::Error>(())
        }));
        if !matches!(answered, Ok(Ok(()))) {
            eprintln!("vm: a touch of a view cannot be answered; the process ends here: {answered:?}");
            process::abort();
        }
    }

    fn answer(&self, faults: &Faults, address: usize) -> io::Result<()> {
        let found = self.views.read().unwrap_or_else(PoisonError::into_inner).around(address);
        let Some(shown) = found else { return Ok(()) };
        let Range { start, .. } = shown.area.pages();
        let page = PageNumber(start + ((address - shown.base()) >> PAGE_SHIFT) as u64);
        let Some(step) = Area::around(page, STEP).intersection(&shown.area.pages()) else { return Ok(()) };
        let is_shown = &shown.steps[(page.0 / STEP.pages() - start / STEP.pages()) as usize];
        if !is_shown.load(Ordering::Relaxed) {
            let log = BySlice::log_of(page, self.space().logs());
            let resolve = |space: &Placed<address_space::AddressSpace>| space.frames_within(&step);
            shown.show(&self.shared.memory, &self.space().execute_on(log, resolve, &self.tokens[shown.node.0]))?;
            is_shown.store(true, Ordering::Relaxed);
            self.shared.touches.fetch_add(1, Ordering::Relaxed);
        }
        let at = (step.pages().start - start) << PAGE_SHIFT;
        faults.wake(&shown.window, at as usize, (step.len() << PAGE_SHIFT) as usize)
    }

    fn space(&self) -> &Arc<Replicated> {
        self.tokens[0].instance()
    }
}
