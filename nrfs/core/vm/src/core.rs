//! A core: its translations, and how other cores have it forget some (a *shootdown*).
//!
//! # Why no core uses a translation after unmap or protect has returned
//!
//! A core walks its node's table as it is there, which may be behind. So whoever has changed the address space asks each
//! core that may keep translations to bring its node's replica up to date *and then* to forget, and waits for the
//! acknowledgement. A core that is busy answers when its access is over, all requests at once; for an idle one the
//! asker does it, holding that core's lock. A core with no translations is not asked: its next walk is one that catches
//! up first. It says that it may keep some before it walks, and the asker looks after its change is complete, with a
//! fence between on both sides: so one sees the other. Who waits answers for its own core meanwhile.
//!
//! All areas of a change are asked for at once, and waited for once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam_utils::{Backoff, CachePadded};
use machines::address_space::{self, Area, Error, Mapping, PageNumber, Rights};
use nr::{LogId, NodeId, NodeReplicated, Token};

use crate::by_slice::BySlice;
use crate::tlb::Tlb;

pub(crate) type Replicated = NodeReplicated<address_space::AddressSpace, BySlice>;

pub(crate) struct Core {
    pub node: NodeId,
    state: CachePadded<Mutex<State>>,
    requests: Mutex<Requests>,
    /// Whether there are requests. Stored under their lock.
    requested: CachePadded<AtomicBool>,
    /// The number of requests that are answered.
    acknowledged: AtomicU64,
    /// Whether there may be translations. Stored under the lock of the state. Others look at it with every change of
    /// theirs.
    loaded: CachePadded<AtomicBool>,
    counters: CachePadded<Counters>,
}

/// What the core works with, for one call at a time.
pub(crate) struct State {
    pub token: Token<address_space::AddressSpace, BySlice>,
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
    /// Walks that the replica, being behind, would have refused, and the log allowed.
    pub behind: u64,
    /// Accesses that were refused.
    pub faults: u64,
    /// Changes by this core that outdated translations.
    pub shootdowns: u64,
    /// Requests to other cores for them.
    pub requests: u64,
    /// Answers by this core, each to all requests there were.
    pub batches: u64,
    /// Time that this core's shootdowns waited for the answers of others, all together.
    pub waited: Duration,
    /// The longest that one of them did.
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

    /// Waits for the core.
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

    /// Translates for an access, by the TLB or a walk. The caller uses the translation before it leaves the core.
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
        let walk = |table: &address_space::AddressSpace| table.resolve(address);
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

    /// Does what other cores have asked for.
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
        // A read of nothing catches up with all that is complete.
        logs.into_iter().for_each(|log| space.execute_on(log, |_| (), &state.token));
        self.forget(state, &areas);
        self.acknowledged.store(made, Ordering::Release);
        count(&self.counters.batches);
    }

    /// Forgets the translations of this core itself.
    pub fn forget(&self, state: &mut State, areas: &[Area]) {
        state.tlb.invalidate(areas);
        // Others look at it all the time: so it is left alone if it is as it should be.
        if state.tlb.is_empty() && self.loaded.load(Ordering::Relaxed) {
            self.loaded.store(false, Ordering::Relaxed);
        }
    }

    /// Has all cores forget areas; returns when they have. The change is complete, at this core's node.
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

/// Counts under the lock of the core.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A panic while a core is used is one of the access, and leaves everything whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
