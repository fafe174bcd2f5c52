//! The clock that stamps operations.

use machines::types::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time of the kernel's last tick. The kernel stamps the writes that it caches with the same clock, so a file's
/// times never run backwards.
pub fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 }
}
