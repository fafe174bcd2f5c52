//! All cores of a measurement together. They take orders: each does the same at the same time, and answers when it has.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use super::calls::Calls;
use super::worker::{Lap, Worker};
use super::{Failure, Setting, System};
use crate::throughput::{pin, pin_one};

/// What all cores do next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Order {
    /// [`Worker::prepare`]
    Prepare,
    /// [`Worker::work`], so long at most.
    Work(Duration),
    /// [`Worker::check`]
    Check,
}

/// Cores that take orders.
pub trait Team {
    /// All cores do it. Returns how much each has done, when all have: nothing unless the order was to work.
    ///
    /// # Errors
    ///
    /// A core failed.
    fn tell(&mut self, order: Order) -> Result<Vec<Lap>, Box<dyn Error>>;
}

/// Operations per second of all cores together, while they work for `duration`: phase by phase, until one has.
///
/// # Errors
///
/// A core failed, or something is not there that was made.
pub fn rate(team: &mut impl Team, duration: Duration) -> Result<f64, Box<dyn Error>> {
    let mut all: Vec<Lap> = Vec::new();
    loop {
        let worked = all.iter().map(|lap| lap.nanoseconds).max().map_or(Duration::ZERO, Duration::from_nanos);
        if worked >= duration {
            return Ok(all.iter().map(|lap| lap.operations as f64 / (lap.nanoseconds as f64 / 1e9)).sum());
        }
        team.tell(Order::Prepare)?;
        let laps = team.tell(Order::Work(duration - worked))?;
        team.tell(Order::Check)?;
        all.resize(laps.len(), Lap::default());
        for (all, lap) in all.iter_mut().zip(laps) {
            *all = Lap { operations: all.operations + lap.operations, nanoseconds: all.nanoseconds + lap.nanoseconds };
        }
    }
}

impl<C: Calls> Worker<C> {
    /// Obeys an order; it begins to work when `start` returns.
    fn obey(&mut self, order: Order, start: impl FnOnce()) -> Result<Lap, Failure> {
        match order {
            Order::Prepare => self.prepare()?,
            Order::Work(time) => {
                start();
                return self.work(time);
            }
            Order::Check => self.check()?,
        }
        Ok(Lap::default())
    }
}

/// Threads of this process.
pub struct Threads<'a, C: Calls> {
    workers: Vec<Worker<C>>,
    cpus: &'a [usize],
}

impl<'a, C: Calls<File: Send> + Send> Threads<'a, C> {
    /// Each thread makes its worker, and is pinned to one of `cpus`, in turn; not at all if there are none.
    pub fn new(workers: Vec<impl FnOnce() -> Worker<C> + Send>, cpus: &'a [usize]) -> Self {
        let workers = together(workers.into_iter(), cpus, |make| make());
        Self { workers, cpus }
    }
}

impl<C: Calls<File: Send> + Send> Team for Threads<'_, C> {
    fn tell(&mut self, order: Order) -> Result<Vec<Lap>, Box<dyn Error>> {
        let start = Barrier::new(self.workers.len());
        let laps = together(self.workers.iter_mut(), self.cpus, |worker| {
            worker.obey(order, || {
                start.wait();
            })
        });
        laps.into_iter().map(|lap| lap.map_err(Into::into)).collect()
    }
}

/// What each of `them` becomes, in a thread of its own.
fn together<T: Send, R: Send>(them: impl Iterator<Item = T>, cpus: &[usize], work: impl Fn(T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = them
            .enumerate()
            .map(|(number, it)| {
                scope.spawn(move || {
                    pin_one(cpus, number);
                    work(it)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker does not panic")).collect()
    })
}

/// What a process of a [`Processes`] is told when it is made.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    setting: Setting,
    core: usize,
    directory: PathBuf,
    cpu: Option<usize>,
}

/// Processes that use a directory. They run this program with [`Processes::ARGUMENT`] and a [`Job`].
pub struct Processes(Vec<Process>);

struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

type Answer = Result<Lap, String>;

impl Processes {
    /// The first argument of such a process.
    pub const ARGUMENT: &'static str = "--core";

    /// Starts one for each core.
    ///
    /// # Errors
    ///
    /// A process cannot be started.
    pub fn start(setting: Setting, directory: &Path, cpus: &[usize]) -> Result<Self, Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let start = |core: usize| {
            let cpu = (!cpus.is_empty()).then(|| cpus[core % cpus.len()]);
            let job = serde_json::to_string(&Job { setting, core, directory: directory.to_owned(), cpu })?;
            let mut command = Command::new(&program);
            command.args([Self::ARGUMENT, &job]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn()?;
            let (orders, answers) = child.stdin.take().zip(child.stdout.take()).ok_or("a process without pipes")?;
            Ok(Process { child, orders, answers: BufReader::new(answers) })
        };
        (0..setting.cores).map(start).collect::<Result<_, Box<dyn Error>>>().map(Self)
    }

    /// What such a process does.
    ///
    /// # Errors
    ///
    /// Its job or an order cannot be understood. What fails of the work is an answer.
    pub fn serve(job: &str) -> Result<(), Box<dyn Error>> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let Job { setting, core, directory, cpu } = serde_json::from_str(job)?;
        if let Some(cpu) = cpu {
            pin(cpu);
        }
        let opened = System::new(&directory).map_err(|errno| Failure::Refused("open", errno));
        let mut worker = opened.map(|calls| Worker::new(calls, setting, core));
        for line in std::io::stdin().lines() {
            let order = serde_json::from_str(&line?)?;
            let answer: Answer = match &mut worker {
                Ok(worker) => worker.obey(order, || ()).map_err(|failure| failure.to_string()),
                Err(failure) => Err(failure.to_string()),
            };
            println!("{}", serde_json::to_string(&answer)?);
        }
        Ok(())
    }
}

impl Team for Processes {
    fn tell(&mut self, order: Order) -> Result<Vec<Lap>, Box<dyn Error>> {
        let order = serde_json::to_string(&order)? + "\n";
        for process in &mut self.0 {
            process.orders.write_all(order.as_bytes()).map_err(|_| DIED)?;
        }
        let hear = |process: &mut Process| {
            let mut line = String::new();
            if process.answers.read_line(&mut line)? == 0 {
                return Err(DIED.into());
            }
            let answer: Answer = serde_json::from_str(&line)?;
            answer.map_err(Into::into)
        };
        self.0.iter_mut().map(hear).collect()
    }
}

const DIED: &str = "a process that measured was killed";

impl Drop for Processes {
    fn drop(&mut self) {
        for Process { child, .. } in &mut self.0 {
            // It has nothing to keep, and one that failed may leave others at work.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
