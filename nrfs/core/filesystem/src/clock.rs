//! The time.

use machines::types::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time of the kernel's last tick: what the kernel stamps its own cached writes with, so that a
/// file's times never run backwards between the two.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Time { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 }
}
