//! A hash map shared by threads: node-replicated, and behind the locks of `std`.
//!
//! `cargo bench -p nr` prints one table per question. Every figure is the median of interleaved
//! rounds; what is compared was measured in the same rounds.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use nr::{Configuration, Dispatch, NodeId, NodeReplicated, OneLog, Token};

const KEYS: u64 = 10_000;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(150);
const WRITES_PERCENT: [u64; 4] = [0, 10, 60, 100];

struct Map(HashMap<u64, u64>);

#[derive(Clone, Copy)]
struct Put(u64, u64);

impl Map {
    fn full() -> Self {
        Self((0..KEYS).map(|key| (key, key)).collect())
    }

    fn get(&self, key: u64) -> Option<u64> {
        self.0.get(&key).copied()
    }
}

impl Dispatch for Map {
    type WriteOperation = Put;
    type Response = Option<u64>;

    fn dispatch_mut(&mut self, &Put(key, value): &Put) -> Option<u64> {
        self.0.insert(key, value)
    }
}

/// A map that threads share.
trait Shared: Sync {
    /// What a thread holds to use it.
    type Handle: Send;

    fn handle(&self, thread: usize) -> Self::Handle;
    fn get(&self, handle: &Self::Handle, key: u64) -> Option<u64>;
    fn put(&self, handle: &Self::Handle, key: u64, value: u64) -> Option<u64>;
}

struct Replicated(Arc<NodeReplicated<Map>>);

impl Replicated {
    fn on(nodes: usize, log_entries: usize) -> Self {
        let configuration = Configuration { nodes, log_entries, ..Configuration::default() };
        Self(NodeReplicated::new(configuration, OneLog, |_, _| Map::full()))
    }
}

impl Shared for Replicated {
    type Handle = Token<Map>;

    fn handle(&self, thread: usize) -> Token<Map> {
        self.0.register(NodeId(thread % self.0.nodes()))
    }

    fn get(&self, token: &Token<Map>, key: u64) -> Option<u64> {
        self.0.execute(|map| map.get(key), token)
    }

    fn put(&self, token: &Token<Map>, key: u64, value: u64) -> Option<u64> {
        self.0.execute_mut(Put(key, value), token)
    }
}

impl Shared for Mutex<Map> {
    type Handle = ();

    fn handle(&self, _thread: usize) {}

    fn get(&self, (): &(), key: u64) -> Option<u64> {
        self.lock().unwrap().get(key)
    }

    fn put(&self, (): &(), key: u64, value: u64) -> Option<u64> {
        self.lock().unwrap().dispatch_mut(&Put(key, value))
    }
}

impl Shared for RwLock<Map> {
    type Handle = ();

    fn handle(&self, _thread: usize) {}

    fn get(&self, (): &(), key: u64) -> Option<u64> {
        self.read().unwrap().get(key)
    }

    fn put(&self, (): &(), key: u64, value: u64) -> Option<u64> {
        self.write().unwrap().dispatch_mut(&Put(key, value))
    }
}

/// Millions of operations per second that `threads` threads do together.
fn throughput<S: Shared>(map: &S, threads: usize, writes_percent: u64) -> f64 {
    let stop = AtomicBool::new(false);
    let start = Barrier::new(threads + 1);
    let (operations, elapsed) = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let handle = map.handle(thread);
                let (stop, start) = (&stop, &start);
                scope.spawn(move || {
                    let mut random = 0x9E37_79B9_7F4A_7C15_u64 ^ (thread as u64 + 1);
                    let mut operations = 0_u64;
                    start.wait();
                    while !stop.load(Relaxed) {
                        for _ in 0..64 {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            let key = random % KEYS;
                            if (random >> 32) % 100 < writes_percent {
                                black_box(map.put(&handle, key, random));
                            } else {
                                black_box(map.get(&handle, key));
                            }
                        }
                        operations += 64;
                    }
                    operations
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        thread::sleep(ROUND);
        stop.store(true, Relaxed);
        let operations: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        (operations, began.elapsed())
    });
    operations as f64 / elapsed.as_secs_f64() / 1e6
}

/// Runs every contender once per round, and returns the median of each.
fn medians(contenders: &[&dyn Fn() -> f64]) -> Vec<f64> {
    let mut results = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for (result, contender) in results.iter_mut().zip(contenders) {
            result.push(contender());
        }
    }
    results
        .iter_mut()
        .map(|rounds| {
            rounds.sort_by(f64::total_cmp);
            rounds[ROUNDS / 2]
        })
        .collect()
}

fn main() {
    let log_entries = Configuration::default().log_entries;
    let (one, two) = (Replicated::on(1, log_entries), Replicated::on(2, log_entries));
    let (mutex, rwlock) = (Mutex::new(Map::full()), RwLock::new(Map::full()));

    println!("One thread, nanoseconds per operation");
    println!("{:>8} {:>10} {:>10} {:>10} {:>10}", "writes", "nr 1", "nr 2", "Mutex", "RwLock");
    for writes in [0, 100] {
        let row = medians(&[
            &|| throughput(&one, 1, writes),
            &|| throughput(&two, 1, writes),
            &|| throughput(&mutex, 1, writes),
            &|| throughput(&rwlock, 1, writes),
        ]);
        print!("{writes:>7}%");
        row.iter().for_each(|rate| print!(" {:>10.1}", 1e3 / rate));
        println!();
    }

    println!("\nReads only, 2 replicas, million operations per second");
    let row = medians(&[&|| throughput(&two, 1, 0), &|| throughput(&two, 2, 0)]);
    println!("1 thread {:.2}, 2 threads {:.2}: {:.2} times", row[0], row[1], row[1] / row[0]);

    println!("\nTwo threads, million operations per second (and nr 1, nr 2 as multiples of the better lock)");
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "writes", "nr 1", "nr 2", "Mutex", "RwLock", "nr 1", "nr 2"
    );
    for writes in WRITES_PERCENT {
        let row = medians(&[
            &|| throughput(&one, 2, writes),
            &|| throughput(&two, 2, writes),
            &|| throughput(&mutex, 2, writes),
            &|| throughput(&rwlock, 2, writes),
        ]);
        print!("{writes:>7}%");
        row.iter().for_each(|rate| print!(" {rate:>10.2}"));
        let lock = row[2].max(row[3]);
        println!(" {:>8.2} {:>8.2}", row[0] / lock, row[1] / lock);
    }

    println!("\nEntries in the log, 2 replicas, 2 threads, million operations per second");
    println!("{:>8} {:>10} {:>10}", "entries", "10%", "100%");
    for entries in [64, 256, 1024, 4096, 16384] {
        let map = Replicated::on(2, entries);
        let row = medians(&[&|| throughput(&map, 2, 10), &|| throughput(&map, 2, 100)]);
        println!("{entries:>8} {:>10.2} {:>10.2}", row[0], row[1]);
    }
}
