//! Records histories of concurrent clients, and checks that they are linearizable.
//!
//! The checker is that of Wing & Gong ("Testing and Verifying Concurrent Objects", 1993), with Lowe's
//! table of configurations already seen ("Testing for Linearizability", 2017): it searches for
//! an order of the operations that respects real time and in which a sequential register would
//! have given the same answers.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use nr::{Configuration, Dispatch, LogId, LogMapper, NodeId, NodeReplicated};

/// What a client may ask of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Read,
    /// Answers with the value before.
    Write(u64),
    /// Answers with the value before.
    Add(u64),
}

/// The sequential register that defines the right answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Register(u64);

impl Register {
    fn apply(&mut self, operation: Operation) -> u64 {
        let before = self.0;
        match operation {
            Operation::Read => {}
            Operation::Write(value) => self.0 = value,
            Operation::Add(value) => self.0 += value,
        }
        before
    }
}

/// A completed operation: it took effect at some moment from `began` to `ended`.
#[derive(Clone, Copy, Debug)]
struct Event {
    began: u64,
    ended: u64,
    operation: Operation,
    answer: u64,
}

/// Whether some order of the events explains them, starting from an empty register.
fn is_linearizable(events: &[Event]) -> bool {
    let mut events = events.to_vec();
    events.sort_by_key(|event| event.began);
    let mut search = Search { taken: vec![0; events.len().div_ceil(64)], seen: HashSet::new(), events };
    let left = search.events.len();
    search.explain(0, left, Register::default())
}

struct Search {
    /// In the order in which they began.
    events: Vec<Event>,
    /// The events that are in the order so far, as a bit set.
    taken: Vec<u64>,
    /// Configurations from which no order is possible.
    seen: HashSet<(Vec<u64>, Register)>,
}

impl Search {
    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] & (1 << (index % 64)) != 0
    }

    fn toggle(&mut self, index: usize) {
        self.taken[index / 64] ^= 1 << (index % 64);
    }

    /// Whether the remaining `left` events, none of them before index `first`, can be put in order.
    fn explain(&mut self, mut first: usize, left: usize, register: Register) -> bool {
        if left == 0 {
            return true;
        }
        if !self.seen.insert((self.taken.clone(), register)) {
            return false;
        }
        while self.is_taken(first) {
            first += 1;
        }
        // An event may come next if it began before any other remaining event ended.
        let mut first_end = u64::MAX;
        for index in first..self.events.len() {
            let event = self.events[index];
            if event.began > first_end {
                break;
            }
            if self.is_taken(index) {
                continue;
            }
            first_end = first_end.min(event.ended);
            let mut next = register;
            if next.apply(event.operation) == event.answer {
                self.toggle(index);
                if self.explain(first, left - 1, next) {
                    return true;
                }
                self.toggle(index);
            }
        }
        false
    }
}

/// A register in each log.
#[derive(Default)]
struct Registers(Register);

impl Dispatch for Registers {
    type WriteOperation = (LogId, Operation);
    type Response = u64;

    fn dispatch_mut(&mut self, (_, operation): &(LogId, Operation)) -> u64 {
        self.0.apply(*operation)
    }
}

struct ByName;

impl LogMapper<(LogId, Operation)> for ByName {
    fn log(&self, (log, _): &(LogId, Operation), _logs: usize) -> LogId {
        *log
    }
}

/// Runs `clients` clients, spread over all nodes; returns the events of each register.
fn record(nodes: usize, logs: usize, log_entries: usize, clients: usize, seed: u64) -> Vec<Vec<Event>> {
    const OPERATIONS: u64 = 100;
    let configuration = Configuration { nodes, logs, log_entries, ..Configuration::default() };
    let instance = NodeReplicated::new(configuration, ByName, |_, _| Registers::default());
    let clock = Arc::new(AtomicU64::new(0));
    let now = || clock.fetch_add(1, Ordering::SeqCst);
    let events: Vec<(LogId, Event)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                let token = instance.register(NodeId(client % nodes));
                let (instance, now) = (&instance, &now);
                scope.spawn(move || {
                    let mut random = seed.wrapping_mul(31) + client as u64 + 1;
                    let mut events = Vec::new();
                    for number in 0..OPERATIONS {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let log = LogId((random >> 60) as usize % logs);
                        let operation = match (random >> 40) % 4 {
                            0 => Operation::Write(client as u64 * OPERATIONS + number),
                            1 => Operation::Add(1),
                            _ => Operation::Read,
                        };
                        let began = now();
                        let answer = match operation {
                            Operation::Read => instance.execute_on(log, |registers| registers.0.0, &token),
                            write => instance.execute_mut((log, write), &token),
                        };
                        events.push((log, Event { began, ended: now(), operation, answer }));
                        if random >> 61 == 0 {
                            thread::yield_now();
                        }
                    }
                    events
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    (0..logs).map(|log| events.iter().filter(|(of, _)| of.0 == log).map(|(_, event)| *event).collect()).collect()
}

#[test]
fn recorded_histories_are_linearizable() {
    for seed in 0..10 {
        for nodes in [1, 2, 4] {
            for logs in [1, 4] {
                for log_entries in [2, 1024] {
                    for clients in [2, 4, 8] {
                        for events in record(nodes, logs, log_entries, clients, seed) {
                            assert!(
                                is_linearizable(&events),
                                "{nodes} nodes, {logs} logs of {log_entries}, {clients} clients: {events:#?}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// An event from one moment to another.
fn event(began: u64, ended: u64, operation: Operation, answer: u64) -> Event {
    Event { began, ended, operation, answer }
}

#[test]
fn the_checker_accepts_what_overlaps_in_either_order() {
    use Operation::{Read, Write};
    for seen in [0, 1] {
        assert!(is_linearizable(&[event(0, 3, Write(1), 0), event(1, 2, Read, seen)]));
    }
    assert!(is_linearizable(&[event(0, 5, Write(1), 2), event(1, 4, Write(2), 0), event(2, 3, Read, 2)]));
}

#[test]
fn the_checker_rejects_a_stale_read() {
    use Operation::{Read, Write};
    assert!(!is_linearizable(&[event(0, 1, Write(1), 0), event(2, 3, Read, 0)]));
}

#[test]
fn the_checker_rejects_a_value_that_is_unread() {
    use Operation::{Read, Write};
    assert!(!is_linearizable(&[event(0, 5, Write(1), 0), event(1, 2, Read, 1), event(3, 4, Read, 0)]));
}

#[test]
fn the_checker_rejects_a_lost_update() {
    use Operation::Add;
    assert!(!is_linearizable(&[event(0, 2, Add(1), 0), event(1, 3, Add(1), 0)]));
}

#[test]
fn the_checker_rejects_a_recorded_history_with_one_answer_changed() {
    let mut events = record(2, 1, 1024, 4, 1).remove(0);
    let changed = events.iter().position(|event| event.operation != Operation::Read).unwrap();
    events[changed].answer += 1_000_000;
    assert!(!is_linearizable(&events));
}
