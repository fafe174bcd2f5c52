//! Measures how many operations per second threads do together.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::contender::Contender;
use crate::structures::Workload;

/// How many operations a thread does between checks whether to stop.
const SLICE: u64 = 64;

/// Operations per second of `threads` threads together; `writes` percent of the operations are changes. Thread `n` is
/// pinned to CPU `n` of `cpus`, modulo their number; to none if `cpus` is empty.
pub fn throughput<S: Workload, C: Contender<S>>(
    contender: &C,
    threads: usize,
    cpus: &[usize],
    writes: u64,
    duration: Duration,
) -> f64 {
    let stop = AtomicBool::new(false);
    let running = AtomicUsize::new(threads);
    let start = Barrier::new(threads + 1);
    let work = |thread: usize, mut handle: C::Handle| {
        if !cpus.is_empty() {
            pin(cpus[thread % cpus.len()]);
        }
        let mut random = 0x9E37_79B9_7F4A_7C15_u64 ^ (thread as u64 + 1);
        let mut operations = 0_u64;
        start.wait();
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..SLICE {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if (random >> 32) % 100 < writes {
                    black_box(contender.write(&mut handle, S::any_write(random)));
                } else {
                    black_box(contender.read(&mut handle, &S::any_read(random)));
                }
            }
            operations += SLICE;
        }
        running.fetch_sub(1, Ordering::Relaxed);
        while running.load(Ordering::Relaxed) > 0 {
            contender.idle(&mut handle);
            thread::yield_now();
        }
        operations
    };
    let (operations, elapsed) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (work, handle) = (&work, contender.handle(thread));
                scope.spawn(move || work(thread, handle))
            })
            .collect();
        start.wait();
        let began = Instant::now();
        thread::sleep(duration);
        stop.store(true, Ordering::Relaxed);
        // The time that a thread waits for others at the end does not count.
        let elapsed = began.elapsed();
        let operations: u64 = workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).sum();
        (operations, elapsed)
    });
    operations as f64 / elapsed.as_secs_f64()
}

/// Pins the calling thread to a CPU. Ignores errors, as the CPU may have gone offline.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    let _ = sched_setaffinity(None, &set);
}
