//! How many operations threads do together.

use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::contender::Contender;
use crate::random::Random;
use crate::structures::Workload;

/// Operations between two looks at whether to stop.
pub const SLICE: u64 = 64;

/// What one thread does while it is measured.
pub trait Worker: Send {
    /// Does [`SLICE`] operations.
    fn slice(&mut self);

    /// Does what the others need of a thread that is done. Called again and again until all are.
    fn idle(&mut self) {}
}

/// Operations per second of all workers together, and the workers as they are then. Each has a thread, and is made by
/// it: so its memory is near, and apart from that of the others. Thread by thread they are pinned to `cpus`, in turn;
/// not at all if there are none.
pub fn rate<W: Worker>(workers: Vec<impl FnOnce() -> W + Send>, cpus: &[usize], duration: Duration) -> (f64, Vec<W>) {
    let stop = AtomicBool::new(false);
    let running = AtomicUsize::new(workers.len());
    let start = Barrier::new(workers.len() + 1);
    let work = |mut worker: W| {
        let mut operations = 0_u64;
        start.wait();
        // Each by its own clock: on a busy CPU a thread begins later than the others.
        let began = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            worker.slice();
            operations += SLICE;
        }
        let elapsed = began.elapsed();
        running.fetch_sub(1, Ordering::Relaxed);
        while running.load(Ordering::Relaxed) > 0 {
            worker.idle();
            thread::yield_now();
        }
        (operations as f64 / elapsed.as_secs_f64(), worker)
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(thread, worker)| {
                scope.spawn(move || {
                    pin_one(cpus, thread);
                    work(worker())
                })
            })
            .collect();
        start.wait();
        thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        let done = threads.into_iter().map(|thread| thread.join().expect("a worker does not panic"));
        let (rates, workers): (Vec<f64>, Vec<W>) = done.unzip();
        (rates.iter().sum(), workers)
    })
}

/// Operations per second of `threads` threads together on a structure that they share, `writes` of a hundred being
/// changes. They are pinned as by [`rate`].
pub fn throughput<S: Workload, C: Contender<S>>(
    contender: &C,
    threads: usize,
    cpus: &[usize],
    writes: u64,
    duration: Duration,
) -> f64 {
    rate(sharers::<S, C>(contender, threads, writes), cpus, duration).0
}

/// What makes the workers of [`throughput`].
pub(crate) fn sharers<'a, S: Workload, C: Contender<S>>(
    contender: &'a C,
    threads: usize,
    writes: u64,
) -> Vec<impl FnOnce() -> Sharer<'a, S, C> + Send> {
    let sharer = |thread: usize| {
        let handle = contender.handle(thread);
        move || Sharer { contender, handle, random: Random::of_thread(thread), writes, structure: PhantomData::<fn(S)> }
    };
    (0..threads).map(sharer).collect()
}

/// One of the threads that share a structure.
pub(crate) struct Sharer<'a, S: Workload, C: Contender<S>> {
    contender: &'a C,
    handle: C::Handle,
    random: Random,
    /// Of a hundred operations.
    writes: u64,
    structure: PhantomData<fn(S)>,
}

impl<S: Workload, C: Contender<S>> Worker for Sharer<'_, S, C> {
    fn slice(&mut self) {
        for _ in 0..SLICE {
            let random = self.random.number();
            if (random >> 32) % 100 < self.writes {
                black_box(self.contender.write(&mut self.handle, S::any_write(random)));
            } else {
                black_box(self.contender.read(&mut self.handle, &S::any_read(random)));
            }
        }
    }

    fn idle(&mut self) {
        self.contender.idle(&mut self.handle);
    }
}

/// Keeps the calling thread, whose number is `thread`, on one of `cpus`, if there are any.
pub(crate) fn pin_one(cpus: &[usize], thread: usize) {
    if !cpus.is_empty() {
        pin(cpus[thread % cpus.len()]);
    }
}

/// Keeps the calling thread on one CPU; a CPU that went away meanwhile is no reason to stop.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    let _ = sched_setaffinity(None, &set);
}
