//! A hash map for two nodes: every thread writes its own keys and reads everybody's.

use std::{collections::HashMap, thread};

use nr::{Configuration, Dispatch, LogId, NodeId, NodeReplicated, OneLog};

const THREADS: u64 = 4;
const KEYS: u64 = 10_000;

/// The sequential structure. It does not know that it is replicated.
#[derive(Default)]
struct Map(HashMap<u64, u64>);

/// The operations that change it.
enum Write {
    Put(u64, u64),
    Remove(u64),
}

impl Dispatch for Map {
    type WriteOperation = Write;
    type Response = Option<u64>;

    fn dispatch_mut(&mut self, operation: &Write) -> Option<u64> {
        match *operation {
            Write::Put(key, value) => self.0.insert(key, value),
            Write::Remove(key) => self.0.remove(&key),
        }
    }
}

fn main() {
    let configuration = Configuration { nodes: 2, ..Configuration::default() };
    let map = NodeReplicated::new(configuration, OneLog, |_, _| Map::default());

    thread::scope(|scope| {
        for thread in 0..THREADS {
            let token = map.register(NodeId(thread as usize % map.nodes()));
            let map = &map;
            scope.spawn(move || {
                for key in (thread..KEYS).step_by(THREADS as usize) {
                    map.execute_mut(Write::Put(key, thread), &token);
                    assert_eq!(map.execute(|map| map.0.get(&key).copied(), &token), Some(thread));
                }
                if thread == 0 {
                    map.execute_mut(Write::Remove(0), &token);
                }
            });
        }
    });

    let token = map.register(NodeId(0));
    let sizes = map.observe(LogId(0), |_, _, map| map.0.len(), &token);
    println!("entries on each node: {sizes:?}");
    println!("{:#?}", map.statistics());
}
