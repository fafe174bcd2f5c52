//! Memory of a process that waits for us, read without waiting for it.
//!
//! Whoever calls can have laid what he points to where reading it never ends: on a file system that does not answer, or on
//! this one, so that we would wait for ourselves. So only memory of its own is looked at, by a thread of its own, and not
//! for long.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long anybody waits for such memory.
const PATIENCE: Duration = Duration::from_millis(20);

/// Threads that look at the same time. With as many stuck, nobody looks.
const THREADS: usize = 4;

static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// `length` bytes at `pointer` in the memory of process `pid`.
pub(crate) fn read(pid: u32, pointer: u64, length: usize) -> io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    if !maps.lines().any(|line| is_own_memory(line, pointer, length as u64).unwrap_or(false)) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if LOOKING.fetch_add(1, Ordering::SeqCst) >= THREADS {
        LOOKING.fetch_sub(1, Ordering::SeqCst);
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let looking = thread::Builder::new().name("nrfs-peek".into()).spawn(move || {
        let mut bytes = vec![0; length];
        let memory = fs::File::open(format!("/proc/{pid}/mem"));
        let read = memory.and_then(|memory| memory.read_exact_at(&mut bytes, pointer));
        LOOKING.fetch_sub(1, Ordering::SeqCst);
        // Nobody may be waiting any more.
        let _ = sender.send(read.map(|()| bytes));
    });
    if let Err(error) = looking {
        LOOKING.fetch_sub(1, Ordering::SeqCst);
        return Err(error);
    }
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether a line of /proc/PID/maps is of private memory that belongs to no file, and has `length` bytes at `pointer`.
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
    fn memory_of_ones_own_is_read() {
        let bytes = Box::new([7_u8; 100]);
        assert_eq!(read(std::process::id(), bytes.as_ptr() as u64, bytes.len()).unwrap(), *bytes);
        assert!(read(std::process::id(), 8, 8).is_err());
    }

    #[test]
    fn memory_of_a_file_is_not() {
        let own = "7f00-7f80 rw-p 00000000 00:00 0 [heap]";
        assert_eq!(is_own_memory(own, 0x7f10, 0x70), Some(true));
        assert_eq!(is_own_memory(own, 0x7f10, 0x71), Some(false));
        assert_eq!(is_own_memory("7f00-7f80 rw-s 00000000 00:05 0 /dev/zero", 0x7f10, 8), Some(false));
        assert_eq!(is_own_memory("7f00-7f80 rw-p 00000000 00:2a 17 /mnt/file", 0x7f10, 8), Some(false));
        assert_eq!(is_own_memory("", 0, 0), None);
    }
}
