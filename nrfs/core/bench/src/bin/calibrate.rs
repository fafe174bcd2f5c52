//! Measures what the parts of an operation cost: `nrfs bench calibrate` runs it.

use std::hint::spin_loop;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use bench::calibrate::{
    Alone, apply, contend, interruptions, operation, pass_by_line, pass_by_message, repeated, take_line, wake,
};
use bench::contender::Contender;
use bench::multikernel::Multikernel;
use bench::program::{self, Figures};
use bench::replicated::by_nr;
use bench::structures::{Map, Sharded, Workload};
use rustix::thread::futex;
use serde::{Deserialize, Serialize};

/// How often each cost is measured, and how long.
#[derive(Deserialize)]
struct Configuration {
    /// All costs take turns, so many times.
    rounds: usize,
    milliseconds: u64,
    /// The CPUs that threads are pinned to, in turn: two, if there are two.
    cpus: Vec<usize>,
}

/// One measurement.
#[derive(Serialize)]
struct Figure<'a> {
    name: &'a str,
    round: usize,
    nanoseconds: f64,
}

/// Measures a cost once; returns nanoseconds.
type Cost<'a> = Box<dyn Fn() -> Vec<f64> + 'a>;

/// Entries that a replica applies at once: many, and the log has room for them.
const APPLIED: u64 = 4096;

/// How often two threads wake each other in one measurement.
const WAKES: u32 = 100;

/// The costs, by name. `workloads/simulation/costs.py` says what each is.
struct Costs<'a> {
    cpus: &'a [usize],
    duration: Duration,
    /// Costs that are measured together, with their names.
    all: Vec<(Vec<String>, Cost<'a>)>,
}

impl<'a> Costs<'a> {
    fn new(configuration: &'a Configuration) -> Self {
        let duration = Duration::from_millis(configuration.milliseconds);
        Self { cpus: &configuration.cpus, duration, all: Vec::new() }
    }

    fn add(&mut self, name: &str, cost: impl Fn(&'a [usize], Duration) -> f64 + 'a) {
        let (cpus, duration) = (self.cpus, self.duration);
        self.all.push((vec![name.into()], Box::new(move || vec![cost(cpus, duration)])));
    }

    /// Two costs of one measurement.
    fn add_pair(&mut self, names: [&str; 2], costs: impl Fn(&'a [usize], Duration) -> (f64, f64) + 'a) {
        let (cpus, duration) = (self.cpus, self.duration);
        let names = names.map(Into::into).to_vec();
        self.all.push((names, Box::new(move || <[f64; 2]>::from(costs(cpus, duration)).to_vec())));
    }

    /// What one thread takes for a step, while `threads` do the same.
    fn add_step(&mut self, name: &str, threads: usize, step: impl Fn() + Sync + 'a) {
        self.add(name, move |cpus, duration| repeated(&step, threads, cpus, duration));
    }

    /// What one thread takes for an operation on a map, while `threads` do the same.
    fn add_operation<C: Contender<Map>>(
        &mut self,
        name: &str,
        threads: usize,
        writes: u64,
        contender: impl Fn() -> C + 'a,
    ) {
        self.add(name, move |cpus, duration| operation(&contender(), threads, cpus, writes, duration));
    }

    /// A read and a write by one thread, in one way to share the map.
    fn add_way<C: Contender<Map>>(&mut self, way: &str, contender: impl Fn() -> C + Copy + 'a) {
        self.add_operation(&format!("{way}-read"), 1, 0, contender);
        self.add_operation(&format!("{way}-write"), 1, 100, contender);
    }

    fn add_all(&mut self) {
        self.add("line-take", take_line);
        self.add_pair(["line-turn", "line-burst"], contend);
        self.add("line-pass", pass_by_line);
        self.add("message-pass", pass_by_message);
        self.add("wake", |cpus, _| wake(cpus, WAKES));
        let number = AtomicU64::new(0);
        self.add_step("atomic", 1, move || {
            number.swap(1, Ordering::SeqCst);
        });
        self.add_step("pause", 1, spin_loop);
        self.add_step("yield", 1, thread::yield_now);
        let nobody = Condvar::new();
        self.add_step("wake-nobody", 1, move || nobody.notify_one());
        let word = AtomicU32::new(0);
        self.add_step("wait-refused", 1, move || _ = futex::wait(&word, futex::Flags::PRIVATE, 1, None));
        self.add_pair(["interruption", "interruption-every"], interruptions);
        self.add_operation("read", 1, 0, || Alone);
        self.add_operation("write", 1, 100, || Alone);
        self.add_operation("read-beside", 2, 0, || Alone);
        self.add_operation("write-beside", 2, 100, || Alone);
        self.add("apply", |cpus, duration| apply(APPLIED, cpus, duration));
        self.add_way("nr-1", || by_nr(1, Map::filled));
        self.add_way("nr-2", || by_nr(2, Map::filled));
        self.add_way("mutex", || Mutex::new(Map::filled()));
        self.add_way("rwlock", || RwLock::new(Map::filled()));
        self.add_way("sharded", Sharded::filled);
        self.add_way("multikernel", || Multikernel::new(1, |_| Map::filled()));
        for threads in [1, 2] {
            let (mutex, rwlock) = (Mutex::new(0_u64), RwLock::new(0_u64));
            self.add_step(&format!("mutex-lock-{threads}"), threads, move || {
                *mutex.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            });
            self.add_step(&format!("rwlock-lock-{threads}"), threads, move || {
                *rwlock.write().unwrap_or_else(PoisonError::into_inner) += 1;
            });
        }
    }
}

fn main() -> ExitCode {
    program::run(|configuration: &Configuration, figures: &mut Figures| {
        let mut costs = Costs::new(configuration);
        costs.add_all();
        for round in 0..configuration.rounds {
            for (names, measure) in &costs.all {
                for (name, nanoseconds) in names.iter().zip(measure()) {
                    figures.put(&Figure { name, round, nanoseconds })?;
                }
            }
        }
        Ok(())
    })
}
