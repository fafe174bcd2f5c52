//! Models for loom. It runs each with every interleaving, and every value that a weakly ordered load may
//! return, and checks every access to a cell.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p nrfs-nr --lib`

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use loom::{
    model::Builder,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    Configuration, Dispatch, LogId, LogPosition, NodeId, NodeReplicated, Token,
    log::{Entry, Log},
    rwlock::RwLock,
};

/// Explores a model with at most `preemptions` forced switches of threads per run. Nearly every known bug needs
/// at most two; without a bound the larger models take days.
fn model(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(f);
}

/// Counts its drops.
struct Counted(u64, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Relaxed);
    }
}

impl Entry for Counted {
    fn owns_something(&self) -> bool {
        true
    }

    fn payload_bytes(&self) -> usize {
        1
    }
}

/// The history of all operations, which are numbers. The response is the history before the operation.
#[derive(Default)]
struct History(Vec<u64>);

impl Dispatch for History {
    type WriteOperation = u64;
    type Response = Vec<u64>;

    fn dispatch_mut(&mut self, operation: &u64) -> Vec<u64> {
        let before = self.0.clone();
        self.0.push(*operation);
        before
    }
}

/// A history of operations that own something, which the last replica drops. The log has room for one payload.
#[derive(Default)]
struct OwnedHistory(History);

impl Dispatch for OwnedHistory {
    type WriteOperation = Box<u64>;
    type Response = Vec<u64>;

    fn dispatch_mut(&mut self, operation: &Box<u64>) -> Vec<u64> {
        self.0.dispatch_mut(operation)
    }

    fn payload_bytes(_: &Box<u64>) -> usize {
        1
    }
}

impl AsRef<[u64]> for History {
    fn as_ref(&self) -> &[u64] {
        &self.0
    }
}

impl AsRef<[u64]> for OwnedHistory {
    fn as_ref(&self) -> &[u64] {
        self.0.as_ref()
    }
}

fn histories<D: Dispatch + Default>(nodes: usize, log_entries: usize) -> Arc<NodeReplicated<D>> {
    let configuration = Configuration { nodes, log_entries, log_payload_bytes: 1, ..Configuration::default() };
    NodeReplicated::new(configuration, crate::OneLog, |_, _| D::default())
}

/// Runs `f` on a thread with a token for `node`; the token comes back when joined.
fn client<D: Dispatch + 'static>(
    instance: &Arc<NodeReplicated<D>>,
    node: usize,
    f: impl FnOnce(&NodeReplicated<D>, &Token<D>) + 'static,
) -> thread::JoinHandle<Token<D>> {
    let token = instance.register(NodeId(node));
    thread::spawn(move || {
        f(token.instance(), &token);
        token
    })
}

/// One replica appends `entries` to a log of `places`, and both apply them in order; the last one drops each.
fn follow_a_log(entries: u64, places: usize, preemptions: usize) {
    model(preemptions, move || {
        let drops = Arc::new(AtomicUsize::new(0));
        let log = Arc::new(Log::new(2, places, 0));
        let follow = |log: &Log<Counted>, replica: usize, from: &mut LogPosition| {
            while *from < log.tail() {
                // SAFETY: before the tail; `from` counts the positions one by one.
                unsafe { log.apply(*from, |entry| assert_eq!(entry.0, from.0)) };
                *from += 1;
            }
            log.complete(NodeId(replica), *from);
        };
        let other = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let mut applied = LogPosition(0);
                while applied.0 < entries {
                    follow(&log, 1, &mut applied);
                    thread::yield_now();
                }
            })
        };
        let mut waiting = (0..entries).map(|number| Counted(number, Arc::clone(&drops)));
        let mut entry = waiting.next();
        let mut applied = LogPosition(0);
        while applied.0 < entries {
            let mut appender = log.appender(NodeId(0)).unwrap();
            while entry.is_some() && appender.append(&mut entry) {
                entry = waiting.next();
            }
            drop(appender);
            follow(&log, 0, &mut applied);
            thread::yield_now();
        }
        other.join().unwrap();
        assert_eq!(drops.load(Relaxed) as u64, entries);
        assert_eq!(log.statistics().payload_bytes, 0);
    });
}

// With three preemptions, three entries take minutes.
#[test]
fn replicas_apply_a_log_of_one_place_in_order_and_the_last_one_drops_each_entry() {
    follow_a_log(2, 1, 3);
}

#[test]
fn replicas_apply_batches_in_order_and_the_last_one_drops_each_entry() {
    follow_a_log(3, 2, 2);
}

#[test]
fn readers_never_meet_a_writer() {
    model(4, || {
        let lock = Arc::new(RwLock::new((), (0, 0)));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let mut reader = lock.update().register();
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    // SAFETY: registered with this lock.
                    let (left, right) = unsafe { lock.read(&mut reader, |pair| *pair) };
                    assert_eq!(left, right);
                })
            })
            .collect();
        lock.update().write(|(), pair| {
            pair.0 += 1;
            pair.1 += 1;
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_reader_gets_its_turn_between_two_writers() {
    model(3, || {
        let lock = Arc::new(RwLock::new((), 0));
        let mut reader = lock.update().register();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || lock.update().write(|(), count| *count += 1))
            })
            .collect();
        for _ in 0..2 {
            // SAFETY: registered with this lock.
            assert!(unsafe { lock.read(&mut reader, |count| *count) } <= 2);
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        // SAFETY: registered with this lock.
        assert_eq!(unsafe { lock.read(&mut reader, |count| *count) }, 2);
    });
}

/// Every operation of `threads` threads on one node is applied once, and answered once applied.
fn combine(threads: u64, preemptions: usize) {
    model(preemptions, move || {
        let instance = histories::<History>(1, 2);
        let clients: Vec<_> = (1..threads)
            .map(|number| {
                client(&instance, 0, move |instance, token| {
                    let before = instance.execute_mut(number, token);
                    let after = instance.execute(|history| history.0.clone(), token);
                    assert!(after.starts_with(&before) && after[before.len()] == number);
                })
            })
            .collect();
        let token = instance.register(NodeId(0));
        instance.execute_mut(0, &token);
        let _tokens: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let mut all = instance.execute(|history| history.0.clone(), &token);
        all.sort_unstable();
        assert_eq!(all, (0..threads).collect::<Vec<_>>());
    });
}

#[test]
fn two_threads_combine() {
    combine(2, 6);
}

#[test]
fn two_threads_combine_again_and_again() {
    model(3, || {
        let instance = histories::<History>(2, 2);
        let twice = |first| {
            move |instance: &NodeReplicated<History>, token: &Token<History>| {
                let before = [first, first + 1].map(|number| instance.execute_mut(number, token));
                assert!(!before[0].contains(&first));
                assert!(before[1].starts_with(&before[0]) && before[1][before[0].len()] == first);
            }
        };
        let other = client(&instance, 0, twice(2));
        let token = instance.register(NodeId(0));
        twice(0)(&instance, &token);
        let _token = other.join().unwrap();
        let mut all = instance.execute(|history| history.0.clone(), &token);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    });
}

#[test]
fn three_threads_combine() {
    combine(3, 3);
}

/// Each of `writers` threads completes a write on node 0, as the combiner or served by it. Each of `readers`
/// threads on node 1 sees the write from then on.
fn completed_write_is_seen(writers: u64, readers: usize, preemptions: usize) {
    model(preemptions, move || {
        let instance = histories::<History>(2, 2);
        let completed: Arc<[_]> = (0..writers).map(|_| AtomicBool::new(false)).collect();
        let read = {
            let completed = Arc::clone(&completed);
            move |instance: &NodeReplicated<History>, token: &Token<History>| {
                let expected: Vec<_> = completed.iter().map(|write| write.load(Ordering::Acquire)).collect();
                let seen = instance.execute(|history| history.0.clone(), token);
                assert!((0..writers).all(|write| seen.contains(&write) || !expected[write as usize]));
            }
        };
        let mut clients: Vec<_> = (1..readers).map(|_| client(&instance, 1, read.clone())).collect();
        clients.extend((0..writers).map(|write| {
            let completed = Arc::clone(&completed);
            client(&instance, 0, move |instance, token| {
                let expected: Vec<_> = completed.iter().map(|write| write.load(Ordering::Acquire)).collect();
                let before = instance.execute_mut(write, token);
                completed[write as usize].store(true, Ordering::Release);
                assert!(!before.contains(&write));
                assert!((0..writers).all(|other| before.contains(&other) || !expected[other as usize]));
            })
        }));
        let token = instance.register(NodeId(1));
        read(&instance, &token);
        let _tokens: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    });
}

#[test]
fn a_read_on_another_node_sees_a_completed_write() {
    completed_write_is_seen(1, 1, 6);
}

#[test]
fn a_read_sees_a_write_that_another_thread_combined() {
    completed_write_is_seen(2, 1, 4);
}

#[test]
fn a_read_beside_one_that_catches_up_sees_a_completed_write() {
    completed_write_is_seen(1, 2, 4);
}

#[test]
fn what_was_read_on_one_node_is_not_unread_on_another() {
    model(6, || {
        let instance = histories::<History>(2, 2);
        let writer = client(&instance, 0, |instance, token| {
            instance.execute_mut(1, token);
        });
        let tokens = [instance.register(NodeId(0)), instance.register(NodeId(1))];
        let [first, second] = tokens.each_ref().map(|token| instance.execute(|history| history.0.len(), token));
        assert!(first <= second);
        writer.join().unwrap();
    });
}

#[test]
fn a_full_log_is_emptied_for_an_idle_node() {
    model(5, || {
        let instance = histories::<History>(2, 1);
        let other = client(&instance, 0, |instance, token| {
            instance.execute_mut(1, token);
        });
        let token = instance.register(NodeId(0));
        instance.execute_mut(2, &token);
        let _token = other.join().unwrap();
        let seen = instance.observe(LogId(0), |_, _, history| history.0.clone(), &token);
        assert_eq!(seen[0].len(), 2);
        assert_eq!(seen[0], seen[1]);
    });
}

/// Operations that two nodes append at the same time have the same order on both.
fn two_nodes_append<D>(log_entries: usize)
where
    D: Dispatch<WriteOperation: From<u64>> + Default + AsRef<[u64]> + 'static,
{
    model(5, move || {
        let instance = histories::<D>(2, log_entries);
        let other = client(&instance, 1, |instance, token| {
            instance.execute_mut(1.into(), token);
        });
        let token = instance.register(NodeId(0));
        instance.execute_mut(2.into(), &token);
        let _token = other.join().unwrap();
        let seen = instance.observe(LogId(0), |_, _, history| history.as_ref().to_vec(), &token);
        assert_eq!(seen[0].len(), 2);
        assert_eq!(seen[0], seen[1]);
        assert_eq!(instance.statistics().logs[0].payload_bytes, 0);
    });
}

#[test]
fn two_nodes_append_beside_each_other() {
    two_nodes_append::<History>(4);
}

#[test]
fn two_nodes_fill_a_log_of_one_entry() {
    two_nodes_append::<History>(1);
}

#[test]
fn two_nodes_append_what_the_last_of_them_drops() {
    two_nodes_append::<OwnedHistory>(4);
}
