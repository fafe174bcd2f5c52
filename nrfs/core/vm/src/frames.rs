//! Frames of memory, outside replication: a large cache for each node, and a small one of 4 KiB frames for each core.
//!
//! A node keeps its free memory in runs, joined where they touch, so that large frames can be had again after small
//! ones were. A core takes small frames, and gives them back, many at a time. Where a node has no more, the caches of all
//! cores are emptied into their nodes, and then the other nodes are asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use machines::address_space::{PageSize, Run, Runs};

/// Frames that a core takes at once.
const REFILL: u64 = 64;

/// Frames that a core keeps at the most.
const KEPT: usize = 2 * REFILL as usize;

pub(crate) struct Frames {
    nodes: Box<[CachePadded<Mutex<Free>>]>,
    cores: Box<[CachePadded<Mutex<Vec<u64>>>]>,
    frames_per_node: u64,
}

/// The free runs of one node: their lengths by their first frames.
struct Free(BTreeMap<u64, u64>);

impl Free {
    /// The lowest `frames` frames next to each other that begin at a multiple of their number.
    fn take(&mut self, frames: u64) -> Option<u64> {
        let (run, length, start) = self.0.iter().find_map(|(&run, &length)| {
            let start = run.next_multiple_of(frames);
            (start + frames <= run + length).then_some((run, length, start))
        })?;
        self.0.remove(&run);
        if start > run {
            self.0.insert(run, start - run);
        }
        if start + frames < run + length {
            self.0.insert(start + frames, run + length - start - frames);
        }
        Some(start)
    }

    /// The lowest frames next to each other: `most` of them, or as many as they are.
    fn take_some(&mut self, most: u64) -> Option<Run> {
        let (first, length) = self.0.pop_first()?;
        let frames = length.min(most);
        if frames < length {
            self.0.insert(first + frames, length - frames);
        }
        Some(Run { first, frames })
    }

    fn give_back(&mut self, run: Run) {
        let (mut first, mut frames) = (run.first, run.frames);
        if let Some((&before, &length)) = self.0.range(..first).next_back() {
            if before + length == first {
                first = before;
                frames += length;
            }
        }
        if let Some(behind) = self.0.remove(&(run.first + run.frames)) {
            frames += behind;
        }
        self.0.insert(first, frames);
    }
}

impl Frames {
    pub fn new(nodes: usize, cores: usize, frames_per_node: u64) -> Self {
        let free = |node| Free(BTreeMap::from([(node as u64 * frames_per_node, frames_per_node)]));
        Self {
            nodes: (0..nodes).map(|node| CachePadded::new(Mutex::new(free(node)))).collect(),
            cores: (0..cores).map(|_| CachePadded::default()).collect(),
            frames_per_node,
        }
    }

    /// Frames for `pages` pages of a size, from `node` if it has them; `None` if there are not as many left.
    pub fn allocate(&self, core: usize, node: usize, page: PageSize, pages: u64) -> Option<Runs> {
        let mut runs = Runs::new();
        if page == PageSize::Small4K && pages == 1 {
            if let Some(frame) = self.small(core, node) {
                runs.push(Run { first: frame, frames: 1 });
                return Some(runs);
            }
        }
        for _ in 0..pages {
            let Some(first) = self.take(node, page.pages()) else {
                self.free(core, node, &runs);
                return None;
            };
            match runs.last_mut() {
                Some(last) if last.first + last.frames == first => last.frames += page.pages(),
                _ => runs.push(Run { first, frames: page.pages() }),
            }
        }
        Some(runs)
    }

    /// Takes frames back.
    pub fn free(&self, core: usize, node: usize, runs: &[Run]) {
        for &run in runs {
            let home = (run.first / self.frames_per_node) as usize;
            let mut kept = lock(&self.cores[core]);
            if run.frames == 1 && home == node {
                kept.push(run.first);
                if kept.len() > KEPT {
                    let mut surplus = kept.split_off(KEPT / 2);
                    drop(kept);
                    surplus.sort_unstable();
                    let mut free = lock(&self.nodes[home]);
                    for run in surplus.chunk_by(|&one, &next| one + 1 == next) {
                        free.give_back(Run { first: run[0], frames: run.len() as u64 });
                    }
                }
                continue;
            }
            drop(kept);
            // A run may have grown over the border between two nodes.
            let border = (home as u64 + 1) * self.frames_per_node;
            let here = run.frames.min(border - run.first);
            lock(&self.nodes[home]).give_back(Run { frames: here, ..run });
            if here < run.frames {
                self.free(core, node, &[Run { first: border, frames: run.frames - here }]);
            }
        }
    }

    /// Frames that are free, wherever they are.
    pub fn left(&self) -> u64 {
        let nodes: u64 = self.nodes.iter().map(|node| lock(node).0.values().sum::<u64>()).sum();
        nodes + self.cores.iter().map(|core| lock(core).len() as u64).sum::<u64>()
    }

    fn small(&self, core: usize, node: usize) -> Option<u64> {
        let mut kept = lock(&self.cores[core]);
        if kept.is_empty() {
            let refill = lock(&self.nodes[node]).take_some(REFILL);
            kept.extend(refill.into_iter().flat_map(|run| (run.first..run.first + run.frames).rev()));
        }
        kept.pop()
    }

    fn take(&self, node: usize, frames: u64) -> Option<u64> {
        let from = |node: usize| lock(&self.nodes[node]).take(frames);
        from(node).or_else(|| {
            self.empty_cores();
            (0..self.nodes.len()).find_map(|step| from((node + step) % self.nodes.len()))
        })
    }

    fn empty_cores(&self) {
        for core in &self.cores {
            let kept = std::mem::take(&mut *lock(core));
            for first in kept {
                let home = (first / self.frames_per_node) as usize;
                lock(&self.nodes[home]).give_back(Run { first, frames: 1 });
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
