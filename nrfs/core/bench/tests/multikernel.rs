//! Cores that agree on changes by messages.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bench::multikernel::cores;
use nr::Dispatch;

/// The order of all operations; the response is how many came before.
#[derive(Default)]
struct History(Vec<usize>);

impl Dispatch for History {
    type WriteOperation = usize;
    type Response = usize;

    fn dispatch_mut(&mut self, operation: &usize) -> usize {
        self.0.push(*operation);
        self.0.len() - 1
    }
}

#[test]
fn cores_agree_on_one_order_and_see_what_is_completed() {
    const CHANGES: usize = 200;
    for count in 1..=4 {
        let (completed, finished, start) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(count));
        let histories: Vec<Vec<usize>> = thread::scope(|scope| {
            let workers: Vec<_> = cores(count, |_| History::default())
                .into_iter()
                .enumerate()
                .map(|(number, mut core)| {
                    let (completed, finished, start) = (&completed, &finished, &start);
                    scope.spawn(move || {
                        start.wait();
                        for change in 0..CHANGES {
                            let before = core.write(number * CHANGES + change);
                            completed.fetch_max(before + 1, Ordering::SeqCst);
                            let expected = completed.load(Ordering::SeqCst);
                            assert!(core.read(|history| history.0.len()) >= expected, "a completed change is unseen");
                        }
                        finished.fetch_add(1, Ordering::SeqCst);
                        while finished.load(Ordering::SeqCst) < count {
                            core.serve();
                            thread::yield_now();
                        }
                        core.read(|history| history.0.clone())
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert!(histories.iter().all(|history| *history == histories[0]));
        let mut all = histories[0].clone();
        all.sort_unstable();
        assert_eq!(all, (0..count * CHANGES).collect::<Vec<_>>());
    }
}
