//! Measures structures that threads share, with each contender in turn. `nrfs bench nr` and `nrfs bench sched` run it.

use std::process::ExitCode;
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use bench::calibrate::Alone;
use bench::contender::Contender;
use bench::multikernel::Multikernel;
use bench::program::{self, Figures};
use bench::replicated::{ByNodeReplication, by_nr};
use bench::structures::{Map, Queue, Sharded, Stack, Workload};
use bench::throughput::throughput;
use machines::scheduler::Scheduler;
use serde::{Deserialize, Serialize};

/// What to measure: every contender with every number of threads and every ratio of writes.
#[derive(Deserialize)]
struct Configuration {
    structure: Structure,
    /// Percentages of writes.
    write_ratios: Vec<u64>,
    threads: Vec<usize>,
    /// Numbers of nodes, for contenders that replicate on nodes.
    nodes: Vec<usize>,
    against: Vec<Against>,
    /// How many times the contenders take turns.
    rounds: usize,
    milliseconds: u64,
    /// The CPUs that threads are pinned to, in turn.
    cpus: Vec<usize>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Structure {
    Hashmap,
    Stack,
    Queue,
    Scheduler,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Against {
    /// No contender, but what the others are compared with: each thread has a structure of its own.
    Alone,
    Mutex,
    Rwlock,
    /// Only for the hash map; the caller makes sure of that.
    Sharded,
    Multikernel,
    NodeReplication,
}

/// One measurement.
#[derive(Serialize)]
struct Figure<'a> {
    contender: &'a str,
    threads: usize,
    write_ratio: u64,
    round: usize,
    operations_per_second: f64,
}

/// Runs a contender with a percentage of writes; returns operations per second.
type Run = Box<dyn Fn(u64) -> f64>;

fn ready<S: Workload, C: Contender<S> + 'static>(
    configuration: &Configuration,
    threads: usize,
    contender: impl Fn() -> C + 'static,
) -> Run {
    let (cpus, duration) = (configuration.cpus.clone(), Duration::from_millis(configuration.milliseconds));
    Box::new(move |writes| throughput::<S, C>(&contender(), threads, &cpus, writes, duration))
}

fn contenders<S: Workload>(configuration: &Configuration, threads: usize) -> Vec<(String, Run)> {
    let mut all: Vec<(String, Run)> = Vec::new();
    for &nodes in &configuration.nodes {
        let run = ready::<S, _>(configuration, threads, move || by_nr(nodes, S::filled));
        all.push((format!("nr {nodes}"), run));
    }
    for against in &configuration.against {
        match against {
            Against::Alone => {
                let run = ready::<S, _>(configuration, threads, || Alone);
                all.push(("alone".into(), run));
            }
            Against::Mutex => {
                let run = ready::<S, _>(configuration, threads, || Mutex::new(S::filled()));
                all.push(("mutex".into(), run));
            }
            Against::Rwlock => {
                let run = ready::<S, _>(configuration, threads, || RwLock::new(S::filled()));
                all.push(("rwlock".into(), run));
            }
            Against::Sharded => {
                let run = ready::<Map, _>(configuration, threads, Sharded::filled);
                all.push(("sharded".into(), run));
            }
            Against::Multikernel => {
                let run = ready::<S, _>(configuration, threads, move || Multikernel::new(threads, |_| S::filled()));
                all.push(("multikernel".into(), run));
            }
            Against::NodeReplication => {
                for &nodes in &configuration.nodes {
                    let make = move || ByNodeReplication::new(nodes, threads, S::filled);
                    let run = ready::<S, _>(configuration, threads, make);
                    all.push((format!("node-replication {nodes}"), run));
                }
            }
        }
    }
    all
}

fn measure<S: Workload>(configuration: &Configuration, figures: &mut Figures) -> program::Result {
    for round in 0..configuration.rounds {
        for &threads in &configuration.threads {
            let contenders = contenders::<S>(configuration, threads);
            for &write_ratio in &configuration.write_ratios {
                // The order is reversed every other time, so that a drift affects all contenders alike.
                let place = |turn| if round % 2 == 0 { turn } else { contenders.len() - 1 - turn };
                for (contender, run) in (0..contenders.len()).map(|turn| &contenders[place(turn)]) {
                    let operations_per_second = run(write_ratio);
                    figures.put(&Figure { contender, threads, write_ratio, round, operations_per_second })?;
                }
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    program::run(|configuration: &Configuration, figures| match configuration.structure {
        Structure::Hashmap => measure::<Map>(configuration, figures),
        Structure::Stack => measure::<Stack>(configuration, figures),
        Structure::Queue => measure::<Queue>(configuration, figures),
        Structure::Scheduler => measure::<Scheduler>(configuration, figures),
    })
}
