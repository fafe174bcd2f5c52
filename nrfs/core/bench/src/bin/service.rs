//! Measures the file system service, without a mount: what `nrfs bench service` runs.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use bench::program::{self, Figures};
use bench::service::{Operation, Service, Sizes};
use serde::{Deserialize, Serialize};

/// What to measure: every operation with every number of threads, on every number of nodes.
#[derive(Deserialize)]
struct Configuration {
    operations: Vec<Operation>,
    threads: Vec<usize>,
    nodes: Vec<usize>,
    /// Bytes of one read.
    size: usize,
    /// Bytes of a file: whole pages, and no fewer than are read. Whoever asks sees to it.
    file_size: u64,
    /// All take turns, so many times.
    rounds: usize,
    milliseconds: u64,
    /// What threads are pinned to, in turn.
    cpus: Vec<usize>,
}

/// One measurement.
#[derive(Serialize)]
struct Figure {
    operation: Operation,
    threads: usize,
    nodes: usize,
    round: usize,
    operations_per_second: f64,
}

fn measure(configuration: &Configuration, figures: &mut Figures) -> program::Result {
    let Configuration { operations, threads, nodes, size, file_size, rounds, milliseconds, cpus } = configuration;
    let sizes = Sizes { read: *size, file: *file_size };
    let duration = Duration::from_millis(*milliseconds);
    let service = |&nodes: &usize| threads.iter().map(move |&threads| Service::new(nodes, threads, sizes));
    let services: Vec<Service> = nodes.iter().flat_map(service).collect::<Result<_, Box<dyn Error>>>()?;
    // What is compared comes one after the other: the same operation on the same nodes, with more threads.
    let mut turns: Vec<(&Service, Operation)> = services
        .chunks(threads.len())
        .flat_map(|services| {
            operations.iter().flat_map(move |&operation| services.iter().map(move |service| (service, operation)))
        })
        .collect();
    for round in 0..*rounds {
        for &(service, operation) in &turns {
            let operations_per_second = service.rate(operation, cpus, duration)?;
            let (threads, nodes) = (service.threads(), service.nodes());
            figures.put(&Figure { operation, threads, nodes, round, operations_per_second })?;
        }
        for service in &services {
            service.verify()?;
        }
        // Backwards every other time: what drifts falls on all alike.
        turns.reverse();
    }
    Ok(())
}

fn main() -> ExitCode {
    program::run(measure)
}
