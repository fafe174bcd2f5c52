//! How long requests take: a histogram for each kind, as HdrHistogram has them (each power of two is divided evenly).
//!
//! Each worker has histograms of its own, so that counting writes no memory that another worker uses. The first requests
//! of a kind are timed, and then one of [`EVERY`]: to read the clock twice takes as long as a hundredth of a GETATTR.

use std::array;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::protocol::opcode::Opcode;

/// After the first requests of a kind, each one of so many is timed.
const EVERY: u64 = 8;

/// How many requests of a kind, from the first on, are all timed.
const ALL_OF: u64 = 64;

/// The buckets between a number of nanoseconds and its double, as a power of two: a latency is known to an eighth.
const FINENESS: u32 = 3;

/// The last bucket also has all longer latencies. This is 18 minutes.
const LONGEST: u64 = (1 << 40) - 1;

const BUCKETS: usize = bucket_of(LONGEST) + 1;

/// How many requests took how long.
struct Histogram([AtomicU64; BUCKETS]);

/// Histograms of all kinds.
pub(crate) struct Latencies(Box<[OnceLock<Box<Histogram>>]>);

/// A bucket: its upper bound in nanoseconds, and the number of timed requests that took so long at most, and longer
/// than the bound of the bucket before.
pub type Bucket = (u64, u64);

impl Latencies {
    pub fn new() -> Self {
        Self(Opcode::ALL.iter().map(|_| OnceLock::new()).collect())
    }

    /// Whether to time a request, before which there were so many of its kind.
    pub fn times(before: u64) -> bool {
        before < ALL_OF || before % EVERY == 0
    }

    pub fn record(&self, opcode: Opcode, latency: Duration) {
        let empty = || Box::new(Histogram(array::from_fn(|_| AtomicU64::new(0))));
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).min(LONGEST);
        self.0[opcode as usize].get_or_init(empty).0[bucket_of(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// The buckets of a kind that are not empty, in ascending order.
    pub fn buckets(&self, opcode: Opcode) -> Vec<Bucket> {
        let Some(Histogram(counts)) = self.0[opcode as usize].get().map(Box::as_ref) else { return Vec::new() };
        let counted =
            counts.iter().enumerate().map(|(bucket, count)| (limit_of(bucket), count.load(Ordering::Relaxed)));
        counted.filter(|&(_, count)| count > 0).collect()
    }
}

/// The sums of several histograms, by name of the request. Both forms of a request have the same name.
pub(crate) fn together<'a>(every: impl Iterator<Item = &'a Latencies>) -> BTreeMap<&'static str, Vec<Bucket>> {
    let mut sum = BTreeMap::<_, BTreeMap<u64, u64>>::new();
    for latencies in every {
        for &opcode in Opcode::ALL {
            for (limit, count) in latencies.buckets(opcode) {
                *sum.entry(opcode.name()).or_default().entry(limit).or_default() += count;
            }
        }
    }
    sum.into_iter().map(|(name, buckets)| (name, buckets.into_iter().collect())).collect()
}

/// The bucket of a latency.
const fn bucket_of(nanoseconds: u64) -> usize {
    let magnitude = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(FINENESS + 1);
    ((magnitude as usize) << FINENESS) + (nanoseconds >> magnitude) as usize
}

/// The longest latency of a bucket.
fn limit_of(bucket: usize) -> u64 {
    let magnitude = (bucket >> FINENESS).saturating_sub(1);
    let first = (bucket - (magnitude << FINENESS)) as u64;
    ((first + 1) << magnitude) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_within_its_bucket_and_known_to_an_eighth() {
        let mut before = 0;
        for bucket in 0..BUCKETS {
            let limit = limit_of(bucket);
            assert_eq!((bucket_of(before), bucket_of(limit)), (bucket, bucket));
            assert!(limit - before <= before / 8, "{before} to {limit}");
            before = limit + 1;
        }
        assert_eq!(before, LONGEST + 1);
    }

    #[test]
    fn what_is_recorded_is_counted_by_kind() {
        let latencies = Latencies::new();
        assert_eq!(latencies.buckets(Opcode::Read), []);
        [5, 5, 1000, u64::MAX].into_iter().for_each(|took| latencies.record(Opcode::Read, Duration::from_nanos(took)));
        assert_eq!(latencies.buckets(Opcode::Read), [(5, 2), (1023, 1), (LONGEST, 1)]);
        assert_eq!(latencies.buckets(Opcode::Write), []);
    }

    #[test]
    fn the_first_requests_are_all_timed_and_then_some() {
        assert_eq!((0..64 + 8000).filter(|&before| Latencies::times(before)).count(), 64 + 1000);
    }
}
