//! Measures FxMark's workloads and NrOS's mix, in directories or on the file system service. `nrfs bench fxmark` runs it.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::fxmark::team::{Processes, Threads, rate};
use bench::fxmark::worker::{Worker, bytes, found, harness};
use bench::fxmark::{Service, Setting, System};
use bench::program::{self, Figures};
use serde::{Deserialize, Serialize};

/// What to measure: every contender in every setting.
#[derive(Deserialize)]
struct Configuration {
    contenders: Vec<Contender>,
    settings: Vec<Setting>,
    /// Of the content of file systems that are made.
    logs: usize,
    /// All take turns, so many times.
    rounds: usize,
    milliseconds: u64,
    /// What cores are pinned to, in turn.
    cpus: Vec<usize>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Contender {
    /// Processes in this directory, which is empty.
    Directory(PathBuf),
    /// Threads that share a file system with so many replicas.
    Service(usize),
    /// Threads each with a file system of its own: they share nothing.
    Apart,
}

/// A measurement that begins: the contender's and the setting's places in the configuration.
#[derive(Serialize)]
struct Begin {
    contender: usize,
    setting: usize,
    round: usize,
}

/// What it has brought.
#[derive(Serialize)]
struct Figure {
    operations_per_second: f64,
    /// What the harness takes of each.
    harness_nanoseconds: f64,
}

fn measure(configuration: &Configuration, figures: &mut Figures) -> program::Result {
    let Configuration { contenders, settings, logs, rounds, milliseconds, cpus } = configuration;
    let duration = Duration::from_millis(*milliseconds);
    let mut turns: Vec<(usize, usize)> = (0..settings.len())
        .flat_map(|setting| (0..contenders.len()).map(move |contender| (setting, contender)))
        .collect();
    for round in 0..*rounds {
        for &(setting, contender) in &turns {
            figures.put(&Begin { contender, setting, round })?;
            let setting = settings[setting];
            let rate = match &contenders[contender] {
                Contender::Directory(directory) => in_directory(setting, directory.join("measured"), cpus, duration),
                Contender::Service(nodes) => on_service(setting, *nodes, *logs, cpus, duration),
                Contender::Apart => apart(setting, *logs, cpus, duration),
            };
            figures.put(&Figure { operations_per_second: rate?, harness_nanoseconds: harness(&setting) })?;
        }
        // Backwards every other time: what drifts falls on all alike.
        turns.reverse();
    }
    Ok(())
}

type Rate = Result<f64, Box<dyn Error>>;

fn in_directory(setting: Setting, directory: PathBuf, cpus: &[usize], duration: Duration) -> Rate {
    fs::create_dir(&directory)?;
    found(&System::new(&directory)?, &setting)?;
    let rate = rate(&mut Processes::start(setting, &directory, cpus)?, duration)?;
    fs::remove_dir_all(&directory)?;
    Ok(rate)
}

fn on_service(setting: Setting, nodes: usize, logs: usize, cpus: &[usize], duration: Duration) -> Rate {
    let filesystem = Service::filesystem(nodes, logs, bytes(&setting))?;
    found(&Service::new(filesystem.clone(), 0), &setting)?;
    let worker = |core| {
        let filesystem = filesystem.clone();
        move || Worker::new(Service::new(filesystem, core), setting, core)
    };
    let rate = rate(&mut Threads::new((0..setting.cores).map(worker).collect(), cpus), duration)?;
    Service::verify(&filesystem)?;
    Ok(rate)
}

fn apart(setting: Setting, logs: usize, cpus: &[usize], duration: Duration) -> Rate {
    let alone = Setting { cores: 1, open_files: 1, ..setting };
    let worker = |_| {
        let calls = Service::new(Service::filesystem(1, logs, bytes(&alone))?, 0);
        found(&calls, &alone)?;
        Ok(move || Worker::new(calls, alone, 0))
    };
    let workers = (0..setting.cores).map(worker).collect::<Result<_, Box<dyn Error>>>()?;
    rate(&mut Threads::new(workers, cpus), duration)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(Processes::ARGUMENT), Some(job)) => match Processes::serve(&job) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => program::run(measure),
    }
}
