//! The free frames, which are not replicated: those of each node, and a cache of 4 KiB frames for each core.
//!
//! A node keeps its free frames in runs, and joins adjacent ones, so that large frames can be allocated again after
//! small ones were freed. A core takes frames of 4 KiB from its node, and gives them back, many at a time. If a node
//! has no frames left, the caches of all cores are emptied first; then frames come from other nodes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use machines::address_space::{PageSize, Run, Runs};

/// How many frames a core takes from its node at once.
const REFILL: u64 = 64;

/// The most frames that a core keeps.
const KEPT: usize = 2 * REFILL as usize;

pub(crate) struct Frames {
    nodes: Box<[CachePadded<Mutex<Free>>]>,
    cores: Box<[CachePadded<Mutex<Vec<u64>>>]>,
    frames_per_node: u64,
}

/// The free runs of one node: the length of each by its first frame.
struct Free(BTreeMap<u64, u64>);

impl Free {
    /// Takes the lowest run of `frames` frames that begins at a multiple of `frames`; returns its first frame.
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

    /// Takes the first `most` frames of the lowest run, or all of it if it has fewer.
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

    /// Takes frames for `pages` pages of size `page`, preferably of `node`; takes none and returns `None` if there are
    /// not enough.
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

    /// Frees frames. Single frames of `node` go to the cache of `core`.
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
            // A run may extend over the border between two nodes, as adjacent runs are joined.
            let border = (home as u64 + 1) * self.frames_per_node;
            let here = run.frames.min(border - run.first);
            lock(&self.nodes[home]).give_back(Run { frames: here, ..run });
            if here < run.frames {
                self.free(core, node, &[Run { first: border, frames: run.frames - here }]);
            }
        }
    }

    /// How many frames are free, on all nodes and in all caches.
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
