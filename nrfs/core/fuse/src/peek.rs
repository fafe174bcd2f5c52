//! Reads what /proc shows of a caller, and the caller's memory, for a limited time.
//!
//! Such a read may never end: the caller's pointer may lead to a mapping of a file system that does not answer, or of
//! this one, so that we would wait for ourselves; and /proc may wait for locks that the caller holds. So a separate
//! thread reads, and the caller of [`at`] waits for it only [`PATIENCE`]. Memory is read only if it is private and
//! belongs to no file.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::yielding;

/// How long [`at`] waits for its thread.
const PATIENCE: Duration = Duration::from_millis(200);

/// The most threads at a time. If all of them are stuck, nothing is read any more.
const THREADS: usize = 4;

/// The number of these threads.
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// Runs `look` in a thread of its own, and returns its result; `None` if that is not there in time.
pub(crate) fn at<T: Send + 'static>(look: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let place = Place::take()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let looking = thread::Builder::new().name("nrfs-peek".into()).spawn(move || {
        // The thread inherits SCHED_IDLE from a worker that yields, which waits for it.
        yielding::be_ordinary();
        let seen = look();
        drop(place);
        // It fails if the time is over.
        let _ = sender.send(seen);
    });
    looking.ok()?;
    receiver.recv_timeout(PATIENCE).ok().flatten()
}

/// The right to run one more of these threads. It is given up when this is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let is_free = |looking: usize| (looking < THREADS).then_some(looking + 1);
        LOOKING.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_free).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The first few KiB of a file of /proc, as text.
pub(crate) fn text(path: &str) -> Option<String> {
    const ENOUGH: u64 = 4096;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(ENOUGH).read_to_string(&mut text).ok()?;
    Some(text)
}

/// `length` bytes at `pointer` in the memory of process `pid`. May never return: call it in [`at`]. Unsupported unless
/// the memory is private and belongs to no file.
pub(crate) fn memory(pid: u32, pointer: u64, length: usize) -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    if !maps.lines().any(|line| is_own_memory(line, pointer, length as u64).unwrap_or(false)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut bytes = vec![0; length];
    fs::File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, pointer)?;
    Ok(bytes)
}

/// Whether a line of /proc/PID/maps is of private memory that belongs to no file, and contains `length` bytes at
/// `pointer`. `None` if the line cannot be parsed.
fn is_own_memory(line: &str, pointer: u64, length: u64) -> Option<bool> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let is_private = words.next()?.ends_with('p');
    let is_no_files = words.nth(2)? == "0";
    let is_here = number(start)? <= pointer && pointer.checked_add(length)? <= number(end)?;
    Some(is_private && is_no_files && is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_read() {
        let bytes = Box::new([7_u8; 100]);
        assert_eq!(memory(std::process::id(), bytes.as_ptr() as u64, bytes.len()).unwrap(), *bytes);
        assert!(memory(std::process::id(), 8, 8).is_err());
    }

    #[test]
    fn a_look_that_does_not_end_is_not_waited_for() {
        assert_eq!(at(|| Some(5)), Some(5));
        let (_sender, never) = mpsc::channel::<()>();
        assert_eq!(at(move || never.recv().ok()), None);
    }

    #[test]
    fn memory_of_a_file_is_not_read() {
        let own = "7f00-7f80 rw-p 00000000 00:00 0 [heap]";
        assert_eq!(is_own_memory(own, 0x7f10, 0x70), Some(true));
        assert_eq!(is_own_memory(own, 0x7f10, 0x71), Some(false));
        assert_eq!(is_own_memory("7f00-7f80 rw-s 00000000 00:05 0 /dev/zero", 0x7f10, 8), Some(false));
        assert_eq!(is_own_memory("7f00-7f80 rw-p 00000000 00:2a 17 /mnt/file", 0x7f10, 8), Some(false));
        assert_eq!(is_own_memory("", 0, 0), None);
    }
}
