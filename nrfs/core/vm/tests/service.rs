//! The service under concurrent cores: no translation outlives its mapping, a refused change changes nothing, and all
//! replicas agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use vm::{AddressSpace, Area, Configuration, CoreId, Error, PageSize, Placement, Region, Rights, Topology};

const PAGE: u64 = 4096;
const GIB: u64 = 1 << 30;
const READ_WRITE: Rights = Rights::READ.or(Rights::WRITE);
/// Numbers of nodes, and of logs.
const SHAPES: [(usize, usize); 4] = [(1, 1), (2, 1), (2, 2), (4, 4)];
const CORES: usize = 4;

fn space(nodes: usize, logs: usize, frames_per_node: u64) -> AddressSpace {
    let topology = Topology::emulated(nodes).unwrap();
    AddressSpace::new(Configuration { topology, logs, cores: Some(CORES), frames_per_node, backed: false }).unwrap()
}

fn area(address: u64, pages: u64) -> Area {
    Area::new(address, pages * PAGE).unwrap()
}

fn map(space: &AddressSpace, core: CoreId, area: &Area) -> Result<(), Error> {
    space.map(core, area, PageSize::Small4K, READ_WRITE, Placement::NoReplace)
}

fn check_replicas(space: &AddressSpace) {
    for verification in space.verify(CoreId(0)) {
        assert!(verification.digests.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Something that happened between two moments.
#[derive(Clone, Copy, Debug)]
struct Event<T> {
    began: u64,
    ended: u64,
    what: T,
}

/// A page was mapped to a frame, writable or not. As a mapping it lasts from the beginning of the change that made it
/// to the return of the one that removed it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Use {
    page: u64,
    physical: u64,
    writes: bool,
}

/// The accesses that no mapping explains which overlaps them in time.
fn stale(mappings: &[Event<Use>], accesses: &[Event<Use>]) -> Vec<Event<Use>> {
    let mut of_page: BTreeMap<u64, Vec<&Event<Use>>> = BTreeMap::new();
    for mapping in mappings {
        of_page.entry(mapping.what.page).or_default().push(mapping);
    }
    of_page.values_mut().for_each(|of_page| of_page.sort_by_key(|mapping| mapping.ended));
    let explained = |access: &Event<Use>| {
        let of_page = of_page.get(&access.what.page).map_or(&[][..], Vec::as_slice);
        let not_over = of_page.partition_point(|mapping| mapping.ended < access.began);
        // A page's mappings begin in the order in which they end.
        of_page[not_over..].iter().take_while(|mapping| mapping.began <= access.ended).any(|mapping| {
            mapping.what.physical == access.what.physical && (mapping.what.writes || !access.what.writes)
        })
    };
    accesses.iter().filter(|access| !explained(access)).copied().collect()
}

/// Maps, protects and unmaps pages on two cores while the others access them; returns the mappings and the accesses.
fn record(nodes: usize, logs: usize, rounds: u64) -> (Vec<Event<Use>>, Vec<Event<Use>>) {
    let space = space(nodes, logs, 4096);
    let clock = AtomicU64::new(0);
    let now = || clock.fetch_add(1, Ordering::SeqCst);
    let done = AtomicBool::new(false);
    let (mappings, accesses) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let page_of = |owner: u64, number: u64| owner * GIB + number % 4 * PAGE;
    thread::scope(|scope| {
        let owners: Vec<_> = (0..2)
            .map(|owner| {
                let (space, now, mappings) = (&space, &now, &mappings);
                scope.spawn(move || {
                    let core = CoreId(owner as usize);
                    for round in 0..rounds {
                        let page = page_of(owner, round);
                        let area = area(page, 1);
                        let began = now();
                        map(space, core, &area).unwrap();
                        let physical = space.resolve(core, page).unwrap().physical(page);
                        if round % 3 == 0 {
                            thread::yield_now();
                        }
                        let protecting = now();
                        space.protect(core, &area, Rights::READ).unwrap();
                        let protected = now();
                        if round % 3 == 1 {
                            thread::yield_now();
                        }
                        if round % 2 == 0 {
                            space.unmap(core, &area).unwrap();
                        } else {
                            space.unmap_many(core, &[page, page + 8 * PAGE], PageSize::Small4K).unwrap();
                        }
                        let ended = now();
                        let what = Use { page, physical, writes: true };
                        let mut mappings = mappings.lock().unwrap();
                        mappings.push(Event { began, ended: protected, what });
                        mappings.push(Event { began: protecting, ended, what: Use { writes: false, ..what } });
                        if round % 3 == 2 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for core in 0..CORES {
            let (space, now, accesses, done) = (&space, &now, &accesses, &done);
            scope.spawn(move || {
                let mut number = core as u64;
                let mut seen = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    number += 1;
                    let (page, writes) = (page_of(number % 2, number / 2), number % 3 == 0);
                    let need = if writes { Rights::WRITE } else { Rights::READ };
                    let began = now();
                    if let Ok(physical) = space.access(CoreId(core), page, need, |_| ()) {
                        seen.push(Event { began, ended: now(), what: Use { page, physical, writes } });
                    }
                    // Leaves the CPUs and the cores to the threads that own them.
                    if number % 8 == 0 {
                        thread::yield_now();
                    }
                }
                accesses.lock().unwrap().extend(seen);
            });
        }
        owners.into_iter().for_each(|owner| owner.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(space.frames_left(), nodes as u64 * 4096, "every frame came back");
    check_replicas(&space);
    (mappings.into_inner().unwrap(), accesses.into_inner().unwrap())
}

#[test]
fn no_core_uses_a_translation_after_unmap_or_protect_has_returned() {
    for (nodes, logs) in SHAPES {
        let (mappings, accesses) = record(nodes, logs, 300);
        let stale = stale(&mappings, &accesses);
        assert!(!accesses.is_empty());
        assert!(stale.is_empty(), "{nodes} nodes, {logs} logs: {} of {}: {:?}", stale.len(), accesses.len(), stale[0]);
    }
}

#[test]
fn the_checker_finds_an_access_behind_its_mapping() {
    let what = Use { page: 1, physical: 2, writes: false };
    let mapping = Event { began: 1, ended: 5, what };
    assert!(stale(&[mapping], &[Event { began: 5, ended: 9, what }]).is_empty());
    assert_eq!(stale(&[mapping], &[Event { began: 6, ended: 9, what }]).len(), 1);
    assert_eq!(stale(&[mapping], &[Event { began: 2, ended: 3, what: Use { writes: true, ..what } }]).len(), 1);
    assert_eq!(stale(&[mapping], &[Event { began: 2, ended: 3, what: Use { physical: 3, ..what } }]).len(), 1);
}

#[test]
fn an_idle_core_forgets_what_another_unmaps() {
    for (nodes, logs) in SHAPES {
        let space = space(nodes, logs, 4096);
        let (first, last) = (CoreId(0), CoreId(CORES - 1));
        map(&space, first, &area(0, 2)).unwrap();
        assert!(space.access(last, 8, Rights::WRITE, |_| ()).is_ok());
        assert!(space.access(last, 8, Rights::WRITE, |_| ()).is_ok());
        assert_eq!(space.statistics(last).hits, 1);
        space.protect(first, &area(0, 1), Rights::READ).unwrap();
        assert_eq!(space.access(last, 8, Rights::WRITE, |_| ()), Err(Error::Denied));
        assert!(space.access(last, 8, Rights::READ, |_| ()).is_ok());
        space.unmap(first, &area(0, 1)).unwrap();
        assert_eq!(space.access(last, 8, Rights::READ, |_| ()), Err(Error::NotMapped));
        let statistics = space.statistics(first);
        assert_eq!(statistics.requests, 2);
        assert!(Duration::ZERO < statistics.waited_longest && statistics.waited_longest <= statistics.waited);
        assert_eq!(space.statistics(last).waited, Duration::ZERO);
    }
}

#[test]
fn a_walk_on_a_replica_that_is_behind_resolves_through_the_log() {
    let space = space(2, 1, 4096);
    let (first, last) = (CoreId(0), CoreId(CORES - 1));
    map(&space, first, &area(0, 1)).unwrap();
    assert!(space.access(last, 0, Rights::READ, |_| ()).is_ok());
    map(&space, first, &area(PAGE, 1)).unwrap();
    assert!(space.access(last, PAGE, Rights::READ, |_| ()).is_ok());
    assert_eq!(space.statistics(last).behind, 1);
}

#[test]
fn running_out_of_frames_is_decided_once() {
    for (nodes, logs) in SHAPES {
        let frames = 1000 * nodes as u64;
        let space = space(nodes, logs, 1000);
        let mapped = AtomicU64::new(0);
        thread::scope(|scope| {
            for core in 0..CORES {
                let (space, mapped) = (&space, &mapped);
                scope.spawn(move || {
                    let page = |number| area(core as u64 * GIB + number * PAGE, 1);
                    let refused = (0..).find_map(|number| {
                        let refused = map(space, CoreId(core), &page(number)).err();
                        mapped.fetch_add(u64::from(refused.is_none()), Ordering::Relaxed);
                        refused
                    });
                    assert_eq!(refused, Some(Error::NoMemory));
                });
            }
        });
        assert_eq!((mapped.into_inner(), space.frames_left()), (frames, 0));
        space.unmap(CoreId(0), &area(0, CORES as u64 * GIB / PAGE)).unwrap();
        assert_eq!(space.frames_left(), frames);
        let all = area(0, 512);
        space.map(CoreId(0), &all, PageSize::Large2M, READ_WRITE, Placement::NoReplace).unwrap();
        check_replicas(&space);
    }
}

#[test]
fn what_spans_logs_is_done_whole_or_not_at_all() {
    for (nodes, logs) in SHAPES {
        let space = space(nodes, logs, 4096);
        let over_the_border = area(GIB - 2 * PAGE, 4);
        thread::scope(|scope| {
            for core in (0..CORES).map(CoreId) {
                let (space, area) = (&space, &over_the_border);
                scope.spawn(move || {
                    for round in 0..100 {
                        // Only the thread that mapped it may unmap it.
                        if map(space, core, area).is_ok() {
                            let rights = if round % 2 == 0 { Rights::READ } else { Rights::EXECUTE };
                            space.protect(core, area, rights).unwrap();
                            let region = Region { address: GIB - 2 * PAGE, length: 4 * PAGE, rights };
                            assert_eq!(space.regions(core), [region]);
                            space.unmap(core, area).unwrap();
                        }
                    }
                });
            }
        });
        assert_eq!((space.regions(CoreId(0)), space.frames_left()), (vec![], 4096 * nodes as u64));
        map(&space, CoreId(0), &area(GIB, 1)).unwrap();
        assert_eq!(map(&space, CoreId(1), &over_the_border), Err(Error::Overlapping));
        assert_eq!(space.protect(CoreId(1), &over_the_border, Rights::READ), Err(Error::NotMapped));
        assert_eq!(space.regions(CoreId(1)), [Region { address: GIB, length: PAGE, rights: READ_WRITE }]);
        check_replicas(&space);
    }
}

#[test]
fn many_pages_go_with_one_request_to_each_core() {
    for (nodes, logs) in SHAPES {
        let space = space(nodes, logs, 4096);
        let pages: Vec<u64> = (0..100).map(|number| number % 3 * GIB + number * 2 * PAGE).collect();
        let small = PageSize::Small4K;
        space.map_many(CoreId(0), &pages, small, READ_WRITE, Placement::NoReplace).unwrap();
        for core in (0..CORES).map(CoreId) {
            assert!(pages.iter().all(|&page| space.access(core, page, Rights::WRITE, |_| ()).is_ok()));
        }
        let refused = space.map_many(CoreId(1), &[GIB, 5 * GIB, pages[4]], small, READ_WRITE, Placement::NoReplace);
        assert_eq!(refused, Err(Error::Overlapping));
        assert_eq!(space.unmap_many(CoreId(1), &[pages[0], pages[1] + 1], small), Err(Error::Unaligned));
        assert_eq!(space.page_table(CoreId(0)).len(), pages.len());
        space.unmap_many(CoreId(0), &pages[1..], small).unwrap();
        let statistics = space.statistics(CoreId(0));
        assert_eq!((statistics.shootdowns, statistics.requests), (1, CORES as u64 - 1));
        for core in (0..CORES).map(CoreId) {
            assert_eq!(space.access(core, pages[99], Rights::READ, |_| ()), Err(Error::NotMapped));
            assert!(space.access(core, pages[0], Rights::READ, |_| ()).is_ok());
        }
        assert_eq!(space.frames_left(), 4096 * nodes as u64 - 1);
        check_replicas(&space);
    }
}

#[test]
fn scattered_frames_are_mapped_whole_and_come_back() {
    for (nodes, logs) in SHAPES {
        let space = space(nodes, logs, 64);
        let all = 64 * nodes as u64;
        map(&space, CoreId(0), &area(0, all)).unwrap();
        (0..all).step_by(2).for_each(|page| space.unmap(CoreId(0), &area(page * PAGE, 1)).unwrap());
        let over_the_border = area(2 * GIB - 3 * PAGE, all / 2);
        map(&space, CoreId(0), &over_the_border).unwrap();
        let frames: BTreeSet<u64> = space.page_table(CoreId(0)).iter().map(|mapping| mapping.frame).collect();
        assert_eq!((frames.len() as u64, space.frames_left()), (all, 0));
        space.unmap(CoreId(0), &area(0, 3 * GIB / PAGE)).unwrap();
        assert_eq!(space.frames_left(), all);
        check_replicas(&space);
    }
}

#[test]
fn a_panic_in_one_access_stops_nobody() {
    let space = space(2, 1, 4096);
    let (first, last) = (CoreId(0), CoreId(CORES - 1));
    map(&space, first, &area(0, 1)).unwrap();
    let failing = || space.access(last, 0, Rights::READ, |_| panic!("on purpose"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(failing)).is_err());
    space.unmap(first, &area(0, 1)).unwrap();
    assert_eq!(space.access(last, 0, Rights::READ, |_| ()), Err(Error::NotMapped));
}
