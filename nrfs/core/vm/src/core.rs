//! A core: its translations, and how other cores make it forget some (a *shootdown*).
//!
//! # Why no core uses a translation after unmap or protect has returned
//!
//! A core walks the page table of its node's replica, which may be behind. So a core that has changed the address space
//! asks each core that may keep translations to bring its node's replica up to date *and then* to forget some, and
//! waits for the acknowledgement. A busy core answers all requests at once when its access is over. For an idle one the
//! asking core answers, holding the idle core's lock. While it waits, the asking core answers requests to itself.
//!
//! A core with no translations is not asked, as its next walk first catches up. Before that walk it sets a flag
//! (`loaded`); the asking core loads that flag after its change is complete. There is a fence between the two steps on
//! both sides: so the asking core sees the flag, or the walk sees the change.
//!
//! One request covers all areas of a change.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam_utils::{Backoff, CachePadded};
use machines::address_space::{self, Area, Error, Mapping, PageNumber, Rights};
use machines::placed::Placed;
use nr::{LogId, NodeId, NodeReplicated, Token};

use crate::by_slice::BySlice;
use crate::tlb::Tlb;

pub(crate) type Replicated = NodeReplicated<Placed<address_space::AddressSpace>, BySlice>;

pub(crate) struct Core {
    pub node: NodeId,
    state: CachePadded<Mutex<State>>,
    requests: Mutex<Requests>,
    /// Whether there are requests. Stored under the lock of `requests`.
    requested: CachePadded<AtomicBool>,
    /// How many of the requests made are answered.
    acknowledged: AtomicU64,
    /// Whether there may be translations. Stored under the lock of `state`. Other cores load it with every change.
    loaded: CachePadded<AtomicBool>,
    counters: CachePadded<Counters>,
}

/// The token and the TLB of the core, which one call at a time uses.
pub(crate) struct State {
    pub token: Token<Placed<address_space::AddressSpace>, BySlice>,
    tlb: Tlb,
}

#[derive(Default)]
struct Requests {
    made: u64,
    areas: Vec<Area>,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    walks: AtomicU64,
    behind: AtomicU64,
    faults: AtomicU64,
    shootdowns: AtomicU64,
    requests: AtomicU64,
    batches: AtomicU64,
    waited: AtomicU64,
    waited_longest: AtomicU64,
}

/// What one core has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Accesses that the TLB answered.
    pub hits: u64,
    /// Walks of the node's table.
    pub walks: u64,
    /// Walks that failed because the replica was behind, and succeeded after it had caught up.
    pub behind: u64,
    /// Accesses that were refused.
    pub faults: u64,
    /// Changes by this core that outdated translations.
    pub shootdowns: u64,
    /// Requests to other cores to forget translations.
    pub requests: u64,
    /// Answers by this core. Each answers all requests that have come.
    pub batches: u64,
    /// How long this core's shootdowns waited for the answers of others, in all.
    pub waited: Duration,
    /// How long the longest of them waited.
    pub waited_longest: Duration,
}

impl Core {
    pub fn new(node: NodeId, space: &Arc<Replicated>) -> Self {
        Self {
            node,
            state: CachePadded::new(Mutex::new(State { token: space.register(node), tlb: Tlb::new() })),
            requests: Mutex::default(),
            requested: CachePadded::default(),
            acknowledged: AtomicU64::new(0),
            loaded: CachePadded::default(),
            counters: CachePadded::default(),
        }
    }

    /// Waits until the core is idle, and uses it.
    pub fn enter(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn try_enter(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Translates an address for an access, by the TLB or a walk. The caller uses the translation while it holds
    /// `state`.
    pub fn translate(&self, state: &mut State, space: &Replicated, address: u64, need: Rights) -> Result<u64, Error> {
        self.answer(state, space);
        let page = PageNumber::of(address)?;
        let usable = |mapping: &Mapping| mapping.rights.allow(need);
        if let Some(mapping) = state.tlb.lookup(page).filter(usable) {
            count(&self.counters.hits);
            return Ok(mapping.physical(address));
        }
        count(&self.counters.walks);
        let log = BySlice::log_of(page, space.logs());
        let walk = |table: &Placed<address_space::AddressSpace>| table.resolve(address);
        let found = if state.tlb.is_empty() {
            self.loaded.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            space.execute_on(log, walk, &state.token)
        } else {
            match space.peek_on(log, walk, &state.token).ok().filter(usable) {
                Some(mapping) => Ok(mapping),
                None => {
                    let found = space.execute_on(log, walk, &state.token);
                    if found.as_ref().is_ok_and(usable) {
                        count(&self.counters.behind);
                    }
                    found
                }
            }
        };
        let allowed = found.and_then(|mapping| if usable(&mapping) { Ok(mapping) } else { Err(Error::Denied) });
        match allowed {
            Ok(mapping) => state.tlb.insert(mapping),
            Err(_) => count(&self.counters.faults),
        }
        allowed.map(|mapping| mapping.physical(address))
    }

    /// Answers the requests of other cores.
    pub fn answer(&self, state: &mut State, space: &Replicated) {
        if !self.requested.load(Ordering::Acquire) {
            return;
        }
        let (made, areas) = {
            let mut requests = lock(&self.requests);
            self.requested.store(false, Ordering::Relaxed);
            (requests.made, std::mem::take(&mut requests.areas))
        };
        let logs: BTreeSet<LogId> = areas.iter().flat_map(|area| BySlice::logs(area, space.logs())).collect();
        // An empty read catches up with all changes that are complete.
        logs.into_iter().for_each(|log| space.execute_on(log, |_| (), &state.token));
        self.forget(state, &areas);
        self.acknowledged.store(made, Ordering::Release);
        count(&self.counters.batches);
    }

    /// Removes areas from this core's TLB.
    pub fn forget(&self, state: &mut State, areas: &[Area]) {
        state.tlb.invalidate(areas);
        // Other cores load `loaded` often, so it is stored only if it changes.
        if state.tlb.is_empty() && self.loaded.load(Ordering::Relaxed) {
            self.loaded.store(false, Ordering::Relaxed);
        }
    }

    /// Makes all cores forget areas; returns when they have. The change must have been applied on this core's node.
    pub fn shoot_down(&self, state: &mut State, cores: &[Core], space: &Replicated, areas: &[Area]) {
        count(&self.counters.shootdowns);
        self.forget(state, areas);
        fence(Ordering::SeqCst);
        let others = cores.iter().filter(|core| !std::ptr::eq(*core, self) && core.loaded.load(Ordering::SeqCst));
        let asked: Vec<(&Core, u64)> = others.map(|core| (core, core.request(areas))).collect();
        if asked.is_empty() {
            return;
        }
        self.counters.requests.fetch_add(asked.len() as u64, Ordering::Relaxed);
        let asked_at = Instant::now();
        for (core, request) in asked {
            let backoff = Backoff::new();
            while core.acknowledged.load(Ordering::Acquire) < request {
                if let Some(mut idle) = core.try_enter() {
                    core.answer(&mut idle, space);
                } else {
                    self.answer(state, space);
                    backoff.snooze();
                }
            }
        }
        let waited = asked_at.elapsed().as_nanos() as u64;
        self.counters.waited.fetch_add(waited, Ordering::Relaxed);
        self.counters.waited_longest.fetch_max(waited, Ordering::Relaxed);
    }

    fn request(&self, areas: &[Area]) -> u64 {
        let mut requests = lock(&self.requests);
        requests.made += 1;
        requests.areas.extend_from_slice(areas);
        self.requested.store(true, Ordering::Release);
        requests.made
    }

    pub fn statistics(&self) -> Statistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { hits, walks, behind, faults, shootdowns, requests, batches, waited, waited_longest } =
            &*self.counters;
        Statistics {
            hits: of(hits),
            walks: of(walks),
            behind: of(behind),
            faults: of(faults),
            shootdowns: of(shootdowns),
            requests: of(requests),
            batches: of(batches),
            waited: Duration::from_nanos(of(waited)),
            waited_longest: Duration::from_nanos(of(waited_longest)),
        }
    }
}

/// Adds 1 to a counter. The caller holds the lock of the core, so no read-modify-write is needed.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Locks a mutex, and ignores poison: only the caller's access can panic, which leaves the state whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
