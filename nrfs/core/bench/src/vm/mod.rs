//! Address spaces that threads share. Each thread uses a part of its own.
//!
//! Every thread maps pages one by one, changes their rights, resolves them, and unmaps them. All threads begin
//! each of these phases together, so one pass gives the rate of each operation.

mod linux;
mod replicated;
mod shared;

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub use linux::Linux;
pub use replicated::Replicated;
pub use shared::{Machine, Shared};

use crate::throughput::pin_one;

/// How many pages a thread maps in one pass: several times the entries of a log, so that the time in which replicas
/// apply the operations is measured, too.
const PAGES: u64 = 65_536;

/// How many times a latency is measured.
const SAMPLES: usize = 2_000;

/// An address space that threads share. Pages are numbered within each thread's part.
pub trait Space: Sync {
    /// What a thread needs to use it.
    type Handle;

    /// Whether the address space has a call that resolves.
    const RESOLVES: bool = true;

    /// Registers thread `thread`, counted from 0.
    fn handle(&self, thread: usize) -> Self::Handle;

    /// Maps a page of 4 KiB, readable and writable.
    fn map(&self, handle: &mut Self::Handle, page: u64);

    /// Makes a page read-only.
    fn protect(&self, handle: &mut Self::Handle, page: u64);

    /// Looks up the frame of a page, if the address space [`RESOLVES`](Self::RESOLVES).
    fn resolve(&self, handle: &mut Self::Handle, page: u64) -> u64;

    /// Unmaps a page.
    fn unmap(&self, handle: &mut Self::Handle, page: u64);

    /// Reads from a page of another thread.
    fn touch(&self, handle: &mut Self::Handle, thread: usize, page: u64);

    /// Nanoseconds that shootdowns have waited for other cores: all together, and the longest. `None` if not known.
    fn waited(&self) -> Option<[u64; 2]> {
        None
    }

    /// Does what other threads need of this one while it has nothing else to do.
    fn idle(&self, _handle: &mut Self::Handle) {}
}

/// Operations per second of all threads together.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say of which")]
pub struct Rates {
    pub map: f64,
    pub protect: f64,
    /// `None` for Linux, which has no such call.
    pub resolve: Option<f64>,
    pub unmap: f64,
    /// The same number of each operation.
    pub mix: f64,
}

/// Latencies of a call in nanoseconds.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// Measures the rates in one pass. Threads are pinned to `cpus`, in turn; to none if `cpus` is empty.
pub fn rates<S: Space>(space: &S, threads: usize, cpus: &[usize]) -> Rates {
    let barrier = Barrier::new(threads);
    let running = [const { AtomicUsize::new(0) }; 4];
    let work = |thread: usize| {
        pin_one(cpus, thread);
        let mut handle = space.handle(thread);
        let mut phase = 0;
        let mut each = |operation: &dyn Fn(&mut S::Handle, u64)| {
            running[phase].fetch_add(1, Ordering::SeqCst);
            barrier.wait();
            let began = Instant::now();
            (0..PAGES).for_each(|page| operation(&mut handle, page));
            let took = began.elapsed();
            running[phase].fetch_sub(1, Ordering::SeqCst);
            while running[phase].load(Ordering::SeqCst) > 0 {
                space.idle(&mut handle);
                thread::yield_now();
            }
            phase += 1;
            took
        };
        let map = each(&|handle, page| space.map(handle, page));
        let protect = each(&|handle, page| space.protect(handle, page));
        let resolve = each(&|handle, page| {
            black_box(space.resolve(handle, page));
        });
        let unmap = each(&|handle, page| space.unmap(handle, page));
        [map, protect, resolve, unmap]
    };
    let times: Vec<[Duration; 4]> = thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let rate = |took: Duration, operations: u64| operations as f64 / took.as_secs_f64();
    let of = |phase: usize| times.iter().map(|times| rate(times[phase], PAGES)).sum::<f64>();
    let phases: &[usize] = if S::RESOLVES { &[0, 1, 2, 3] } else { &[0, 1, 3] };
    let all = |times: &[Duration; 4]| rate(phases.iter().map(|&phase| times[phase]).sum(), PAGES * phases.len() as u64);
    Rates {
        map: of(0),
        protect: of(1),
        resolve: S::RESOLVES.then(|| of(2)),
        unmap: of(3),
        mix: times.iter().map(all).sum(),
    }
}

/// Measures the latencies of map, and of unmap after all other threads have used the page; and how many nanoseconds the
/// unmaps waited for other cores, on average and at most, if that is known.
pub fn latencies<S: Space>(space: &S, threads: usize, cpus: &[usize]) -> (Latency, Latency, Option<[u64; 2]>) {
    let mapped = AtomicUsize::new(0);
    let touched = AtomicUsize::new(0);
    let others = threads - 1;
    let follow = |thread: usize| {
        pin_one(cpus, thread);
        let mut handle = space.handle(thread);
        for sample in 1..=SAMPLES {
            while mapped.load(Ordering::SeqCst) < sample {
                space.idle(&mut handle);
                std::hint::spin_loop();
            }
            space.touch(&mut handle, 0, sample as u64);
            touched.fetch_add(1, Ordering::SeqCst);
        }
        while mapped.load(Ordering::SeqCst) <= SAMPLES {
            space.idle(&mut handle);
            thread::yield_now();
        }
    };
    let lead = || {
        pin_one(cpus, 0);
        let mut handle = space.handle(0);
        let timed = |operation: &mut dyn FnMut()| {
            let began = Instant::now();
            operation();
            began.elapsed().as_nanos() as u64
        };
        let (mut maps, mut unmaps) = (Vec::new(), Vec::new());
        for sample in 1..=SAMPLES {
            maps.push(timed(&mut || space.map(&mut handle, sample as u64)));
            mapped.store(sample, Ordering::SeqCst);
            while touched.load(Ordering::SeqCst) < others * sample {
                space.idle(&mut handle);
                thread::yield_now();
            }
            unmaps.push(timed(&mut || space.unmap(&mut handle, sample as u64)));
        }
        mapped.store(SAMPLES + 1, Ordering::SeqCst);
        (Latency::of(maps), Latency::of(unmaps))
    };
    let (maps, unmaps) = thread::scope(|scope| {
        let (follow, lead) = (&follow, &lead);
        (1..threads).for_each(|thread| drop(scope.spawn(move || follow(thread))));
        scope.spawn(lead).join().expect("a worker does not panic")
    });
    (maps, unmaps, space.waited().map(|[all, longest]| [all / SAMPLES as u64, longest]))
}

impl Latency {
    fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| samples[(samples.len() - 1) * percent / 100];
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}
