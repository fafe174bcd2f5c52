//! What the parts of an operation cost, in nanoseconds: the figures on which `nrfs simulate` reckons.
//!
//! Two kinds of measurement. Threads repeat something, and its cost is the time of one repetition. Or two threads pass
//! a *baton* to and fro, in one cache line or by a message, and its cost is the time of one pass: a pass in a cache line
//! is the store of the one thread and the load of the other.
//!
//! Time is taken of short runs, and the cost is that of the median run. So it is not disturbed by what happens seldom:
//! a thread that loses its CPU, or a log that is full.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use nr::NodeId;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::contender::Contender;
use crate::random::Random;
use crate::replicated::by_nr;
use crate::structures::{Map, Workload};
use crate::throughput::{SLICE, Worker, pin_one, rate, sharers};

/// A way not to share: each thread has a structure of its own.
pub struct Alone;

impl<S: Workload + Send> Contender<S> for Alone {
    type Handle = S;

    fn handle(&self, _thread: usize) -> S {
        S::filled()
    }

    fn read(&self, structure: &mut S, operation: &S::ReadOperation) -> S::Response {
        structure.dispatch(operation)
    }

    fn write(&self, structure: &mut S, operation: S::WriteOperation) -> S::Response {
        structure.dispatch_mut(&operation)
    }
}

/// Slices of a worker in a run: so many that to read the clock costs nothing beside them.
const RUN: u64 = 8;

/// A worker that notes how long its runs take.
struct Timed<W> {
    worker: W,
    /// Nanoseconds of one step, by run.
    runs: Vec<f64>,
}

impl<W: Worker> Worker for Timed<W> {
    fn slice(&mut self) {
        let began = Instant::now();
        (0..RUN).for_each(|_| self.worker.slice());
        self.runs.push(began.elapsed().as_nanos() as f64 / (RUN * SLICE) as f64);
    }

    fn idle(&mut self) {
        self.worker.idle();
    }
}

/// Nanoseconds of one step of one worker, in the median run of all.
fn median_step<W: Worker>(workers: Vec<impl FnOnce() -> W + Send>, cpus: &[usize], duration: Duration) -> f64 {
    let timed = workers.into_iter().map(|make| move || Timed { worker: make(), runs: Vec::new() }).collect();
    let (_, workers) = rate(timed, cpus, duration);
    median(workers.into_iter().flat_map(|worker| worker.runs).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Repeats a step.
struct Repeated<F>(F);

impl<F: FnMut() + Send> Worker for Repeated<F> {
    fn slice(&mut self) {
        (0..SLICE).for_each(|_| (self.0)());
    }
}

/// Nanoseconds of one step. Each of `threads` threads repeats it.
pub fn repeated(step: impl Fn() + Sync, threads: usize, cpus: &[usize], duration: Duration) -> f64 {
    median_step((0..threads).map(|_| || Repeated(&step)).collect(), cpus, duration)
}

/// Nanoseconds of one operation on a map. Each of `threads` threads repeats it, `writes` of a hundred being changes.
pub fn operation<C: Contender<Map>>(
    contender: &C,
    threads: usize,
    cpus: &[usize],
    writes: u64,
    duration: Duration,
) -> f64 {
    median_step(sharers::<Map, C>(contender, threads, writes), cpus, duration)
}

/// Passes a baton to another thread, when it has it.
trait Runner: Send {
    /// Returns false if this thread does not have the baton.
    fn pass(&mut self) -> bool;
}

/// A runner that waits for the baton, [`SLICE`] times. When it is done, it goes on passing it, for the other's sake.
struct Relay<R>(R);

impl<R: Runner> Worker for Relay<R> {
    fn slice(&mut self) {
        for _ in 0..SLICE {
            while !self.0.pass() {}
        }
    }

    fn idle(&mut self) {
        self.0.pass();
    }
}

/// The baton is a number in a cache line: even for the one thread, odd for the other.
struct ByLine<'a> {
    line: &'a CachePadded<AtomicU64>,
    parity: u64,
}

impl ByLine<'_> {
    fn is_mine(&self) -> bool {
        self.line.load(Ordering::Acquire) % 2 == self.parity
    }
}

impl Runner for ByLine<'_> {
    fn pass(&mut self) -> bool {
        let is_mine = self.is_mine();
        if is_mine {
            self.line.store(self.parity ^ 1, Ordering::Release);
        }
        is_mine
    }
}

/// Nanoseconds in which two threads pass a baton once, in a cache line.
pub fn pass_by_line(cpus: &[usize], duration: Duration) -> f64 {
    let line = CachePadded::new(AtomicU64::new(0));
    let line = &line;
    let workers = (0..2).map(|parity| move || Relay(ByLine { line, parity })).collect();
    // Of the passes, a worker makes every other.
    median_step(workers, cpus, duration) / 2.0
}

/// The baton is a number, and with it go lines, which each thread changes one after the other.
struct WithLines<'a> {
    baton: ByLine<'a>,
    lines: &'a [CachePadded<AtomicU64>],
}

impl Runner for WithLines<'_> {
    fn pass(&mut self) -> bool {
        let is_mine = self.baton.is_mine();
        if is_mine {
            // In no order that a prefetcher could guess.
            let order = (0..self.lines.len()).map(|index| (index * index + index) / 2 % self.lines.len());
            order.for_each(|index| _ = self.lines[index].swap(0, Ordering::SeqCst));
            self.baton.pass();
        }
        is_mine
    }
}

/// Nanoseconds in which a thread changes a line that the other has changed last, by an atomic instruction, when that
/// does not want it back.
pub fn take_line(cpus: &[usize], duration: Duration) -> f64 {
    /// A power of two: so each line is changed once.
    const LINES: usize = 64;
    let line = CachePadded::new(AtomicU64::new(0));
    let lines: Vec<_> = (0..LINES).map(|_| CachePadded::new(AtomicU64::new(0))).collect();
    let (line, lines) = (&line, &lines);
    let baton = |parity| ByLine { line, parity };
    let workers = (0..2).map(|parity| move || Relay(WithLines { baton: baton(parity), lines })).collect();
    median_step(workers, cpus, duration) / (2 * LINES) as f64
}

/// Adds to a number that another thread adds to as well, until that has come between.
struct Contending<'a> {
    number: &'a AtomicU64,
    last: u64,
    additions: u64,
    turns: u64,
}

impl Contending<'_> {
    fn add(&mut self) -> bool {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let is_interrupted = number != self.last + 1;
        self.last = number;
        is_interrupted
    }
}

impl Worker for Contending<'_> {
    fn slice(&mut self) {
        // As many turns as a slice has steps, unless the other thread does not run.
        for _ in 0..SLICE {
            let additions = (1..=1000).find(|_| self.add()).unwrap_or(1000);
            self.additions += additions;
            self.turns += 1;
        }
    }

    fn idle(&mut self) {
        self.add();
    }
}

/// Two threads add to one number: the nanoseconds from one's turn to the other's, and the additions in a turn.
pub fn contend(cpus: &[usize], duration: Duration) -> (f64, f64) {
    let number = CachePadded::new(AtomicU64::new(0));
    let number = &number;
    let make = || move || Timed { worker: Contending { number, last: 0, additions: 0, turns: 0 }, runs: Vec::new() };
    let (_, workers) = rate((0..2).map(|_| make()).collect(), cpus, duration);
    let bursts = workers.iter().map(|Timed { worker, .. }| worker.additions as f64 / worker.turns as f64);
    let burst = bursts.fold(f64::INFINITY, f64::min);
    (median(workers.into_iter().flat_map(|worker| worker.runs).collect()) / 2.0, burst)
}

/// How a thread that only works is interrupted: for how many nanoseconds on average, and after how many again.
pub fn interruptions(cpus: &[usize], duration: Duration) -> (f64, f64) {
    /// No step of the loop takes so long.
    const SHORTEST: Duration = Duration::from_micros(2);
    pin_one(cpus, 0);
    let began = Instant::now();
    let (mut last, mut times, mut total) = (began, 0_u32, Duration::ZERO);
    while last - began < duration {
        let now = Instant::now();
        if now - last > SHORTEST {
            times += 1;
            total += now - last;
        }
        last = now;
    }
    let times = f64::from(times.max(1));
    (total.as_nanos().max(1) as f64 / times, (last - began).as_nanos() as f64 / times)
}

/// The baton is a message, as those of the multikernel.
struct ByMessage {
    to: Producer<u64>,
    from: Consumer<u64>,
}

impl Runner for ByMessage {
    fn pass(&mut self) -> bool {
        let message = self.from.pop();
        message.is_ok_and(|number| self.to.push(number + 1).is_ok())
    }
}

/// Nanoseconds in which two threads pass a baton once, by a message.
pub fn pass_by_message(cpus: &[usize], duration: Duration) -> f64 {
    let ((mut to_first, first), (to_second, second)) = (RingBuffer::new(4), RingBuffer::new(4));
    to_first.push(0).expect("an empty channel has room");
    let runners = [ByMessage { to: to_second, from: first }, ByMessage { to: to_first, from: second }];
    let workers = runners.into_iter().map(|runner| move || Relay(runner)).collect();
    median_step(workers, cpus, duration) / 2.0
}

/// Nanoseconds from the moment in which a thread wakes another until that runs. Two threads wake each other in turn, so
/// the call that wakes is part of it.
pub fn wake(cpus: &[usize], times: u32) -> f64 {
    /// Returns the nanoseconds of each round, which is two turns.
    fn take_turns(other: &Thread, turn: &AtomicU64, parity: u64, times: u32) -> Vec<f64> {
        let mut rounds = Vec::new();
        for _ in 0..times {
            let began = Instant::now();
            while turn.load(Ordering::Acquire) % 2 != parity {
                thread::park();
            }
            turn.fetch_add(1, Ordering::Release);
            other.unpark();
            rounds.push(began.elapsed().as_nanos() as f64);
        }
        rounds
    }
    let turn = Arc::new(AtomicU64::new(0));
    let ready = Arc::new(Barrier::new(2));
    let first = thread::current();
    let second = thread::spawn({
        let (turn, ready, cpus) = (Arc::clone(&turn), Arc::clone(&ready), cpus.to_vec());
        move || {
            pin_one(&cpus, 1);
            ready.wait();
            take_turns(&first, &turn, 1, times);
        }
    });
    pin_one(cpus, 0);
    ready.wait();
    let rounds = take_turns(second.thread(), &turn, 0, times);
    second.join().expect("it does not panic");
    median(rounds) / 2.0
}

/// Nanoseconds in which a replica applies an entry of the log, one of many: of a map, `entries` at once.
pub fn apply(entries: u64, cpus: &[usize], duration: Duration) -> f64 {
    pin_one(cpus, 0);
    let map = by_nr(2, Map::filled);
    let (here, there) = (map.register(NodeId(0)), map.register(NodeId(1)));
    let mut random = Random::of_thread(0);
    let (began, mut runs) = (Instant::now(), Vec::new());
    while began.elapsed() < duration || runs.is_empty() {
        for _ in 0..entries {
            black_box(map.execute_mut(Map::any_write(random.number()), &here));
        }
        let begin = Instant::now();
        map.sync(&there);
        runs.push(begin.elapsed().as_nanos() as f64 / entries as f64);
    }
    median(runs)
}
