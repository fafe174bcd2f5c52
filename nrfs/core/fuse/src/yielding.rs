//! Makes workers yield: run with the policy SCHED_IDLE, so that the processes that they serve run at once on the same
//! CPU.
//!
//! A process that waits for a reply is woken while the worker that replied still runs. So the scheduler sees a busy
//! CPU, and moves the process to an idle one, which must be woken first: that can take longer than the request. But a
//! CPU that only runs threads with the policy SCHED_IDLE counts as idle: there the process stays, and runs at once.
//!
//! A thread with that policy gets almost no time on a CPU that other threads want. So a worker has it only while
//! requests come fast. The *watch*, a thread with the ordinary policy, looks at yielding workers regularly. If a worker
//! has neither served many requests nor run long since the last look, the watch takes the policy back; if the worker
//! repeatedly could not run, it does not yield again for a while.

use std::fs;
use std::io;
use std::mem;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

use crate::lock::lock;
use crate::wake::Wake;
use scheduling::{ORDINARY, YIELDING, policy, run_time, set_policy};

/// So many requests within [`WINDOW`] make a burst: then the worker asks to yield.
const BURST: u64 = 32;

const WINDOW: Duration = Duration::from_millis(4);

/// Time between two looks of the watch: the longest that a worker which needs its CPU waits for it.
const LOOK: Duration = Duration::from_millis(4);

/// With so many requests between two looks, requests still come fast.
const MANY: u64 = BURST / 4;

/// If a worker was waiting for its CPU so often when its policy was taken back, within [`AGAIN`], it could not run.
/// Once may be chance: the watch itself may have run on that CPU, or have moved another thread there.
const WAITS: u32 = 3;

const AGAIN: Duration = Duration::from_millis(100);

/// No thread. (To the kernel, the calling one.)
const NOBODY: i32 = 0;

/// How long a worker that could not run does not yield again.
const RESPITE: Duration = Duration::from_secs(1);

/// The state of one worker. A worker that yields may lose its CPU at any time, and the watch must not wait for it then:
/// so the worker takes no lock here. It asks, and the watch does the rest.
#[derive(Default)]
pub(crate) struct Yielding {
    /// The kernel's number of the thread. Stored by the worker.
    thread: AtomicI32,
    /// How many requests were served. Stored by the worker.
    served: AtomicU64,
    /// When the window began, and how many requests had been served then. Used by the worker.
    window: AtomicU64,
    served_before: AtomicU64,
    /// Set when the worker asks to yield; cleared by the watch when it does not yield any more.
    has_asked: AtomicBool,
    /// When the worker may ask again. Stored by the watch.
    not_before: AtomicU64,
    /// Used by the watch alone.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_yielding: bool,
    /// How many requests were served, and how long the worker had run, at the last look.
    seen: (u64, Duration),
    /// How often the worker was waiting for its CPU when its policy was taken back, and since when these are counted.
    waits: u32,
    waits_since: u64,
}

impl State {
    fn wait(&mut self) {
        let now = now();
        if now - self.waits_since > AGAIN.as_nanos() as u64 {
            (self.waits, self.waits_since) = (0, now);
        }
        self.waits += 1;
    }
}

impl Yielding {
    /// Makes the calling thread the worker.
    pub fn begin(&self) {
        self.thread.store(gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    }

    /// Called by the worker at its end: from then on its number may be another thread's.
    pub fn end(&self) {
        self.thread.store(NOBODY, Ordering::Relaxed);
    }

    /// Called by the worker for each request. After a burst, asks the watch to let it yield.
    pub fn serve(&self, watch: &Watch) {
        let served = self.served.load(Ordering::Relaxed) + 1;
        self.served.store(served, Ordering::Relaxed);
        let now = now();
        if now - self.window.load(Ordering::Relaxed) > WINDOW.as_nanos() as u64 {
            self.window.store(now, Ordering::Relaxed);
            self.served_before.store(served, Ordering::Relaxed);
        } else if served == self.served_before.load(Ordering::Relaxed) + BURST {
            let may = watch.is_on.load(Ordering::Relaxed) && now >= self.not_before.load(Ordering::Relaxed);
            if may && !self.has_asked.swap(true, Ordering::Relaxed) {
                watch.wake.signal();
            }
        }
    }

    /// Called by the watch: makes the worker yield if it asks, or takes the policy back when it must. Returns whether
    /// the worker yields.
    fn look(&self) -> bool {
        if !self.has_asked.load(Ordering::Relaxed) {
            return false;
        }
        let thread = self.thread.load(Ordering::Relaxed);
        let mut state = lock(&self.state);
        if thread == NOBODY {
            state.is_yielding = false;
            return false;
        }
        let seen = (self.served.load(Ordering::Relaxed), run_time(thread));
        let (served, ran) = mem::replace(&mut state.seen, seen);
        let was_yielding = state.is_yielding;
        if was_yielding {
            if state.seen.0 >= served + MANY || state.seen.1 > ran + LOOK / 4 {
                return true;
            }
            if is_runnable(thread) {
                state.wait();
            }
        } else if policy(thread) == Ok(ORDINARY) && set_policy(thread, YIELDING).is_ok() {
            state.is_yielding = true;
            return true;
        }
        // Either the worker has another policy, which it keeps, or it could not run repeatedly.
        if !was_yielding || state.waits == WAITS {
            state.waits = 0;
            self.not_before.store(now() + RESPITE.as_nanos() as u64, Ordering::Relaxed);
        }
        self.take_back(&mut state);
        false
    }

    fn take_back(&self, state: &mut State) {
        if mem::take(&mut state.is_yielding) {
            let thread = self.thread.load(Ordering::Relaxed);
            if thread != NOBODY {
                // It fails if the thread has ended.
                let _ = set_policy(thread, ORDINARY);
            }
        }
        self.has_asked.store(false, Ordering::Relaxed);
    }
}

/// The watch: makes workers yield, and stop yielding.
pub(crate) struct Watch {
    wake: Wake,
    /// Whether a thread may leave SCHED_IDLE again. If not, workers never yield. An ordinary user's threads may only if
    /// RLIMIT_NICE allows it.
    is_on: AtomicBool,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        Ok(Self { wake: Wake::new()?, is_on: AtomicBool::new(false) })
    }

    /// Does the watch's work for `workers` until the end. Then no worker yields any more.
    pub fn work<'a>(&self, workers: impl Fn() -> Vec<&'a Yielding>, is_ending: impl Fn() -> bool) {
        self.is_on.store(may_come_back(), Ordering::Relaxed);
        while !is_ending() {
            self.wake.wait();
            self.wake.clear();
            while workers().into_iter().map(Yielding::look).fold(false, |any, one| any | one) && !is_ending() {
                thread::sleep(LOOK);
            }
        }
        workers().into_iter().for_each(|worker| worker.take_back(&mut lock(&worker.state)));
    }

    /// Makes the watch look at the workers, and whether it must end.
    pub fn wake(&self) {
        self.wake.signal();
    }
}

/// Whether a thread may leave SCHED_IDLE again. Tried with a separate thread, which then keeps the policy if it may
/// not.
fn may_come_back() -> bool {
    let trial = || set_policy(0, YIELDING).and_then(|()| set_policy(0, ORDINARY));
    thread::scope(|scope| scope.spawn(trial).join().is_ok_and(|result| result.is_ok()))
}

/// The time in nanoseconds, on the coarse clock, which costs little to read.
fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether a thread of this process runs, or waits for a CPU.
fn is_runnable(thread: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    // The state is behind the name, which may contain anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
}

/// Gives the calling thread the ordinary policy, if it has inherited SCHED_IDLE from a worker that yields.
pub(crate) fn be_ordinary() {
    if policy(0) == Ok(YIELDING) {
        // If that is not allowed, the thread only runs later.
        let _ = set_policy(0, ORDINARY);
    }
}

/// The system calls that rustix lacks.
mod scheduling {
    use std::time::Duration;

    use rustix::io::Errno;

    pub const ORDINARY: i32 = libc::SCHED_OTHER;
    pub const YIELDING: i32 = libc::SCHED_IDLE;

    /// The scheduling policy of a thread; 0 is the calling thread.
    #[allow(unsafe_code, reason = "a system call that rustix lacks")]
    pub fn policy(thread: i32) -> Result<i32, Errno> {
        // SAFETY: the call takes a number, and uses no memory.
        match unsafe { libc::sched_getscheduler(thread) } {
            -1 => Err(last_error()),
            policy => Ok(policy),
        }
    }

    /// Sets the scheduling policy of a thread; 0 is the calling thread.
    #[allow(unsafe_code, reason = "a system call that rustix lacks")]
    pub fn set_policy(thread: i32, policy: i32) -> Result<(), Errno> {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the kernel reads the structure, which outlives the call.
        match unsafe { libc::sched_setscheduler(thread, policy, &raw const parameters) } {
            -1 => Err(last_error()),
            _ => Ok(()),
        }
    }

    /// The CPU time of a thread of this process; 0 if there is no such thread.
    #[allow(unsafe_code, reason = "a system call that rustix lacks")]
    pub fn run_time(thread: i32) -> Duration {
        // The clock's number is computed as pthread_getcpuclockid(3) does.
        const OF_A_THREAD: i32 = 6;
        let clock = !thread << 3 | OF_A_THREAD;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes the structure, which outlives the call; an error leaves it as it is.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn last_error() -> Errno {
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::PERM)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Runs a watch, a worker that repeats `work` while it returns true, and then `test`.
    fn with_worker(work: impl Fn(&Yielding, &Watch) -> bool + Send + Sync, test: impl FnOnce(&Yielding)) {
        let (yielding, watch, end) = (Yielding::default(), Watch::new().unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| watch.work(|| vec![&yielding], || end.load(Ordering::Relaxed)));
            scope.spawn(|| {
                yielding.begin();
                while work(&yielding, &watch) && !end.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            test(&yielding);
            end.store(true, Ordering::Relaxed);
            watch.wake();
        });
    }

    fn wait_until(what: impl Fn() -> bool) {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it did not come to that");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn policy_of(yielding: &Yielding) -> Result<i32, rustix::io::Errno> {
        policy(yielding.thread.load(Ordering::Relaxed))
    }

    #[test]
    fn a_worker_yields_while_requests_come_fast_and_no_longer() {
        let is_busy = AtomicBool::new(true);
        let work = |yielding: &Yielding, watch: &Watch| {
            if is_busy.load(Ordering::Relaxed) {
                yielding.serve(watch);
            } else {
                thread::sleep(Duration::from_millis(1));
            }
            true
        };
        with_worker(work, |yielding| {
            if !may_come_back() {
                return; // Then workers never yield.
            }
            wait_until(|| policy_of(yielding) == Ok(YIELDING));
            is_busy.store(false, Ordering::Relaxed);
            wait_until(|| policy_of(yielding) == Ok(ORDINARY));
            is_busy.store(true, Ordering::Relaxed);
            wait_until(|| policy_of(yielding) == Ok(YIELDING));
        });
    }

    /// The state of a worker, which is the calling thread and yields as far as the watch knows.
    fn yielding_here() -> Yielding {
        let yielding = Yielding { has_asked: AtomicBool::new(true), ..Yielding::default() };
        yielding.begin();
        lock(&yielding.state).is_yielding = true;
        lock(&yielding.state).seen.1 = run_time(gettid().as_raw_nonzero().get());
        yielding
    }

    #[test]
    fn a_worker_only_asks_and_the_watch_makes_it_yield() {
        let (yielding, watch) = (Yielding::default(), Watch::new().unwrap());
        yielding.begin();
        watch.is_on.store(may_come_back(), Ordering::Relaxed);
        if !watch.is_on.load(Ordering::Relaxed) {
            return; // Then workers never yield.
        }
        while !yielding.has_asked.load(Ordering::Relaxed) {
            yielding.serve(&watch);
        }
        assert_eq!(policy_of(&yielding), Ok(ORDINARY));
        assert!(watch.wake.clear() && yielding.look());
        assert_eq!(policy_of(&yielding), Ok(YIELDING));
        yielding.take_back(&mut lock(&yielding.state));
        assert_eq!(policy_of(&yielding), Ok(ORDINARY));
    }

    #[test]
    fn no_worker_yields_when_the_watch_has_ended() {
        let (yielding, watch) = (Yielding::default(), Watch::new().unwrap());
        let [watch_ends, worker_ends] = [(); 2].map(|()| AtomicBool::new(false));
        thread::scope(|scope| {
            let watching = scope.spawn(|| watch.work(|| vec![&yielding], || watch_ends.load(Ordering::Relaxed)));
            scope.spawn(|| {
                yielding.begin();
                while !worker_ends.load(Ordering::Relaxed) {
                    yielding.serve(&watch);
                }
            });
            if may_come_back() {
                wait_until(|| policy_of(&yielding) == Ok(YIELDING));
            }
            watch_ends.store(true, Ordering::Relaxed);
            watch.wake();
            watching.join().unwrap();
            let policy = policy_of(&yielding);
            worker_ends.store(true, Ordering::Relaxed);
            assert_eq!(policy, Ok(ORDINARY));
        });
    }

    #[test]
    fn a_worker_that_could_not_run_does_not_yield_again_soon() {
        let yielding = yielding_here();
        let serve = |requests| yielding.served.fetch_add(requests, Ordering::Relaxed);
        let mut time = 0;
        while yielding.not_before.load(Ordering::Relaxed) == 0 {
            // As if another thread wanted the CPU, too: the worker serves many requests in the rest of its time slice,
            // and then does not run.
            serve(MANY);
            assert!(yielding.look());
            // This thread is runnable, and has hardly run since; the few requests are not enough.
            serve(MANY - 1);
            assert!(!yielding.look());
            assert!(!yielding.has_asked.swap(true, Ordering::Relaxed));
            assert!(!mem::replace(&mut lock(&yielding.state).is_yielding, true));
            time += 1;
        }
        assert!(time >= WAITS && yielding.not_before.load(Ordering::Relaxed) > now());
    }

    #[test]
    fn a_worker_that_serves_one_long_request_still_yields() {
        let yielding = yielding_here();
        let begin = lock(&yielding.state).seen.1;
        while run_time(gettid().as_raw_nonzero().get()) < begin + LOOK {}
        assert!(yielding.look());
    }
}
