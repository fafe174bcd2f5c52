//! Many threads, tiny logs, idle nodes: no operation is lost or applied twice, and no thread waits for ever.

use std::{
    env,
    panic::{self, AssertUnwindSafe},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use nr::{Configuration, Dispatch, LogId, LogMapper, LogPosition, NodeId, NodeReplicated, OneLog, Token};

/// Keeps the order in which operations came, per thread and as a whole.
#[derive(Default)]
struct Ledger {
    counts: Vec<u64>,
    digest: u64,
    payload_bytes: usize,
}

/// The next operation of a thread: it must come exactly once, and after the one before.
struct Step {
    log: usize,
    thread: usize,
    number: u64,
    payload: Vec<u8>,
    drops: Arc<AtomicUsize>,
}

impl Drop for Step {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Relaxed);
    }
}

impl Dispatch for Ledger {
    type WriteOperation = Step;
    type Response = u64;

    fn dispatch_mut(&mut self, step: &Step) -> u64 {
        if self.counts.len() <= step.thread {
            self.counts.resize(step.thread + 1, 0);
        }
        assert_eq!(self.counts[step.thread], step.number, "an operation was lost or came twice");
        self.counts[step.thread] += 1;
        self.digest = (self.digest ^ step.thread as u64).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(5);
        self.payload_bytes += step.payload.len();
        step.number
    }

    fn payload_bytes(step: &Step) -> usize {
        step.payload.len()
    }
}

struct ByField;

impl LogMapper<Step> for ByField {
    fn log(&self, step: &Step, _logs: usize) -> LogId {
        LogId(step.log)
    }
}

type Instance = Arc<NodeReplicated<Ledger, ByField>>;

fn instance(configuration: Configuration) -> Instance {
    NodeReplicated::new(configuration, ByField, |_, _| Ledger::default())
}

/// Takes `steps` steps as `thread`, each to the next log, and reads after each.
fn run(instance: &Instance, token: &Token<Ledger, ByField>, thread: usize, steps: u64, drops: &Arc<AtomicUsize>) {
    let logs = instance.logs();
    for step in 0..steps {
        let (log, number) = (step as usize % logs, step / logs as u64);
        let operation = Step { log, thread, number, payload: vec![0; step as usize % 7], drops: Arc::clone(drops) };
        assert_eq!(instance.execute_mut(operation, token), number);
        let count = instance.execute_on(LogId(log), |ledger| ledger.counts[thread], token);
        assert_eq!(count, number + 1);
    }
}

/// Brings all replicas up to date, and checks that they are equal and that the logs hold no payload.
fn assert_converged(instance: &Instance, steps: u64, drops: &AtomicUsize) {
    let token = instance.register(NodeId(0));
    let mut applied = 0;
    for log in (0..instance.logs()).map(LogId) {
        let seen = instance.observe(
            log,
            |node, position, ledger| (node, position, ledger.digest, ledger.counts.clone(), ledger.payload_bytes),
            &token,
        );
        for (node, replica) in seen.iter().enumerate() {
            assert_eq!(replica.0, NodeId(node));
            assert_eq!((replica.1, replica.2, &replica.3, replica.4), (seen[0].1, seen[0].2, &seen[0].3, seen[0].4));
        }
        assert_eq!(seen[0].1, LogPosition(seen[0].3.iter().sum()));
        applied += seen[0].1.0;
    }
    assert_eq!(applied, steps);
    assert_eq!(drops.load(Relaxed) as u64, steps);
    for (index, log) in instance.statistics().logs.iter().enumerate() {
        assert_eq!(log.payload_bytes, 0);
        assert_eq!(log.tail, log.completed_tail);
        for replica in &instance.statistics().replicas {
            assert_eq!(replica.partitions[index].local_tail, log.tail);
        }
    }
}

/// `threads` threads on the first `busy` nodes.
fn stress(configuration: Configuration, busy: usize, threads: usize, steps: u64) {
    let instance = instance(configuration);
    let drops = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..threads {
            let token = instance.register(NodeId(thread % busy));
            let (instance, drops) = (&instance, &drops);
            scope.spawn(move || run(instance, &token, thread, steps, drops));
        }
    });
    assert_converged(&instance, threads as u64 * steps, &drops);
}

#[test]
fn many_more_threads_than_cpus() {
    stress(Configuration { nodes: 2, logs: 2, ..Configuration::default() }, 2, 64, 1_000);
}

#[test]
fn one_replica() {
    stress(Configuration { log_entries: 8, ..Configuration::default() }, 1, 8, 10_000);
}

#[test]
fn tiny_logs() {
    for log_entries in [1, 2, 4] {
        for nodes in [1, 2, 4] {
            stress(Configuration { nodes, logs: 3, log_entries, log_payload_bytes: 4 }, nodes, 8, 2_000);
        }
    }
}

#[test]
fn idle_replicas_are_helped() {
    stress(Configuration { nodes: 4, logs: 2, log_entries: 4, log_payload_bytes: 16 }, 1, 4, 5_000);
}

#[test]
fn each_operation_knows_how_many_its_batch_had() {
    const STEPS: u64 = 2000;
    for nodes in [1, 2] {
        let instance = instance(Configuration { nodes, ..Configuration::default() });
        let drops = Arc::new(AtomicUsize::new(0));
        let step = |thread, number| Step { log: 0, thread, number, payload: Vec::new(), drops: Arc::clone(&drops) };
        // In a batch of n operations each has the n-th part.
        let parts = |thread, token: Token<Ledger, ByField>| -> f64 {
            let part = |number| {
                instance.execute_mut(step(thread, number), &token);
                let batches = token.take_batches();
                instance.execute_on(LogId(0), |_| {}, &token);
                assert_eq!(token.take_batches(), []);
                let [(LogId(0), operations)] = batches[..] else { panic!("one batch, not {batches:?}") };
                1.0 / operations as f64
            };
            (0..STEPS).map(part).sum()
        };
        let parts: f64 = thread::scope(|scope| {
            let begin = |thread| {
                let token = instance.register(NodeId(thread % nodes));
                let parts = &parts;
                scope.spawn(move || parts(thread, token))
            };
            let threads: Vec<_> = (0..8).map(begin).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let statistics = instance.statistics();
        let batches: u64 = statistics.replicas.iter().map(|replica| replica.partitions[0].batches).sum();
        assert!((parts - batches as f64).abs() < 1e-3, "{parts} is not {batches}");
    }
}

#[test]
fn threads_come_and_go() {
    let instance = instance(Configuration { nodes: 2, logs: 2, log_entries: 2, log_payload_bytes: 8 });
    let drops = Arc::new(AtomicUsize::new(0));
    let threads = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let thread = threads.fetch_add(1, Relaxed);
                    let token = instance.register(NodeId(thread % 2));
                    run(&instance, &token, thread, 20, &drops);
                }
            });
        }
    });
    assert!(instance.statistics().replicas.iter().all(|replica| replica.threads == 0));
    assert_converged(&instance, 800 * 20, &drops);
}

#[test]
fn payload_in_flight_is_bounded_and_larger_ones_go_alone() {
    const BOUND: usize = 1000;
    let instance = instance(Configuration { nodes: 2, logs: 1, log_entries: 64, log_payload_bytes: BOUND });
    let drops = Arc::new(AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                over.fetch_or(instance.statistics().logs[0].payload_bytes > 5 * BOUND, Relaxed);
                thread::yield_now();
            }
        });
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                let token = instance.register(NodeId(thread % 2));
                let (instance, drops) = (&instance, &drops);
                scope.spawn(move || {
                    for number in 0..500 {
                        let bytes = if thread == 3 { 5 * BOUND } else { BOUND / 3 };
                        let payload = vec![0; bytes];
                        let step = Step { log: 0, thread, number, payload, drops: Arc::clone(drops) };
                        instance.execute_mut(step, &token);
                        let in_flight = instance.statistics().logs[0].payload_bytes;
                        assert!(in_flight <= BOUND || in_flight == 5 * BOUND, "{in_flight} bytes in flight");
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Relaxed);
    });
    assert!(!over.into_inner());
    assert_converged(&instance, 2000, &drops);
}

#[test]
fn operations_left_in_the_log_are_dropped_with_it() {
    let drops = Arc::new(AtomicUsize::new(0));
    let instance = instance(Configuration { nodes: 2, ..Configuration::default() });
    let token = instance.register(NodeId(0));
    run(&instance, &token, 0, 10, &drops);
    assert_eq!(drops.load(Relaxed), 0, "the other node has yet to apply them");
    drop(instance);
    drop(token);
    assert_eq!(drops.load(Relaxed), 10);
}

#[test]
fn a_panic_in_a_read_leaves_everything_usable() {
    let instance = instance(Configuration { nodes: 2, ..Configuration::default() });
    let drops = Arc::new(AtomicUsize::new(0));
    let token = instance.register(NodeId(1));
    let read = || instance.execute_on(LogId(0), |_| panic!("a read that fails"), &token);
    assert!(panic::catch_unwind(AssertUnwindSafe(read)).is_err());
    run(&instance, &token, 0, 100, &drops);
    assert_converged(&instance, 100, &drops);
}

#[test]
fn a_token_of_another_instance_is_refused() {
    let (one, other) = (instance(Configuration::default()), instance(Configuration::default()));
    let token = other.register(NodeId(0));
    let read = || one.execute_on(LogId(0), |_| (), &token);
    assert!(panic::catch_unwind(AssertUnwindSafe(read)).is_err());
}

#[test]
fn a_call_inside_a_call_is_refused() {
    let instance = instance(Configuration::default());
    let token = instance.register(NodeId(0));
    let nested = || instance.execute_on(LogId(0), |_| instance.execute_on(LogId(0), |_| (), &token), &token);
    assert!(panic::catch_unwind(AssertUnwindSafe(nested)).is_err());
    instance.execute_on(LogId(0), |_| (), &token);
}

#[test]
fn sync_brings_a_replica_up_to_the_tails() {
    let instance = instance(Configuration { nodes: 2, logs: 2, ..Configuration::default() });
    let drops = Arc::new(AtomicUsize::new(0));
    run(&instance, &instance.register(NodeId(0)), 0, 10, &drops);
    instance.sync(&instance.register(NodeId(1)));
    let statistics = instance.statistics();
    assert!(statistics.replicas[1].partitions.iter().all(|partition| partition.local_tail == LogPosition(5)));
    assert_eq!(drops.load(Relaxed), 10);
}

#[test]
fn a_token_is_handed_to_another_thread_between_calls() {
    fn assert_send<T: Send>(value: T) -> T {
        value
    }
    let instance = NodeReplicated::new(Configuration::default(), OneLog, |_, _| Ledger::default());
    let token = assert_send(instance.register(NodeId(0)));
    let step = Step { log: 0, thread: 0, number: 0, payload: Vec::new(), drops: Arc::default() };
    thread::spawn(move || token.instance().execute_mut(step, &token)).join().unwrap();
    let token = instance.register(NodeId(0));
    assert_eq!(instance.execute(|ledger| ledger.counts[0], &token), 1);
}

#[test]
fn a_panic_in_an_operation_ends_the_process_with_a_message() {
    const CHILD: &str = "NR_TEST_PANIC_IN_AN_OPERATION";
    if env::var_os(CHILD).is_some() {
        let instance = instance(Configuration::default());
        let out_of_order = Step { log: 0, thread: 0, number: 1, payload: Vec::new(), drops: Arc::default() };
        let token = instance.register(NodeId(0));
        let _ = panic::catch_unwind(AssertUnwindSafe(|| instance.execute_mut(out_of_order, &token)));
        process::exit(0);
    }
    let child = process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_panic_in_an_operation_ends_the_process_with_a_message", "--nocapture"])
        .env(CHILD, "")
        .output()
        .unwrap();
    assert!(!child.status.success());
    assert!(String::from_utf8_lossy(&child.stderr).contains("the process ends here"));
}
