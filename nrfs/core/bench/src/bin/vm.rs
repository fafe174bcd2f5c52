//! Measures address spaces that threads share, with each contender in turn. `nrfs bench vm` runs it.

use std::process::ExitCode;
use std::sync::{Mutex, RwLock};

use bench::multikernel::Multikernel;
use bench::program::{self, Figures};
use bench::vm::{Latency, Linux, Machine, Rates, Replicated, Shared, Space, latencies, rates};
use serde::{Deserialize, Serialize};

/// What to measure.
#[derive(Deserialize)]
struct Configuration {
    threads: Vec<usize>,
    /// Numbers of nodes of the replicated address space.
    nodes: Vec<usize>,
    logs: usize,
    against: Vec<Against>,
    /// How many times the contenders take turns.
    rounds: usize,
    /// The CPUs that threads are pinned to, in turn.
    cpus: Vec<usize>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Against {
    Linux,
    Mutex,
    Rwlock,
    Multikernel,
}

/// One round of one contender: rates in operations per second, latencies in nanoseconds.
#[derive(Serialize)]
struct Figure<'a> {
    contender: &'a str,
    threads: usize,
    round: usize,
    map: f64,
    protect: f64,
    resolve: Option<f64>,
    unmap: f64,
    mix: f64,
    map_latency: [u64; 3],
    unmap_latency: [u64; 3],
    /// The part of the unmap latency that was spent waiting for other cores: average and longest.
    unmap_wait: Option<[u64; 2]>,
}

type Run = Box<dyn Fn() -> (Rates, (Latency, Latency, Option<[u64; 2]>))>;

fn ready<S: Space>(threads: usize, cpus: &[usize], space: impl Fn() -> S + 'static) -> Run {
    let cpus = cpus.to_vec();
    Box::new(move || {
        let rates = rates(&space(), threads, &cpus);
        (rates, latencies(&space(), threads, &cpus))
    })
}

fn contenders(configuration: &Configuration, threads: usize) -> Vec<(String, Run)> {
    let (cpus, logs) = (&configuration.cpus[..], configuration.logs);
    let ours = configuration
        .nodes
        .iter()
        .map(|&nodes| (format!("nrfs {nodes}"), ready(threads, cpus, move || Replicated::new(nodes, logs, threads))));
    let others = configuration.against.iter().map(|against| match against {
        Against::Linux => ("linux", ready(threads, cpus, || Linux)),
        Against::Mutex => ("mutex", ready(threads, cpus, || Shared(Mutex::new(Machine::default())))),
        Against::Rwlock => ("rwlock", ready(threads, cpus, || Shared(RwLock::new(Machine::default())))),
        Against::Multikernel => {
            ("multikernel", ready(threads, cpus, move || Shared(Multikernel::new(threads, |_| Machine::default()))))
        }
    });
    ours.chain(others.map(|(name, run)| (name.to_owned(), run))).collect()
}

fn measure(configuration: &Configuration, figures: &mut Figures) -> program::Result {
    for round in 0..configuration.rounds {
        for &threads in &configuration.threads {
            let contenders = contenders(configuration, threads);
            for (contender, run) in &contenders {
                let (Rates { map, protect, resolve, unmap, mix }, (of_map, of_unmap, unmap_wait)) = run();
                let percentiles = |latency: Latency| [latency.p50, latency.p99, latency.max];
                let (map_latency, unmap_latency) = (percentiles(of_map), percentiles(of_unmap));
                figures.put(&Figure {
                    contender,
                    threads,
                    round,
                    map,
                    protect,
                    resolve,
                    unmap,
                    mix,
                    map_latency,
                    unmap_latency,
                    unmap_wait,
                })?;
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    program::run(measure)
}
