//! Finds out what the caller of a request is about to do with a file, from /proc.
//!
//! Before the kernel collects data in its cache, it asks for the file's attributes. This request says nothing of the
//! data. But the caller waits for the reply, and /proc shows its system call: see `proc_pid_syscall(5)`.

use std::io;
use std::thread;
use std::time::Duration;

use filesystem::Ino;

use crate::peek;

/// The most bytes that are assumed for a write whose length cannot be seen: the most that a pipe holds, unless root has
/// raised that (`pipe(7)`).
const PIECE_MAX: u64 = 1 << 20;

/// The most bytes that one system call writes (MAX_RW_COUNT).
const WRITE_MAX: u64 = 0x7fff_f000;

/// Bytes in the pipe through which the kernel itself copies between files.
const INNER_PIPE: u64 = 1 << 16;

/// What a thread that waits for our reply is about to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// A write that the kernel will collect: `length` bytes at `offset`; `None` is the end of the file.
    Write { offset: Option<u64>, length: u64 },
    /// A write that the kernel will collect: up to `length` bytes, at a place that cannot be seen.
    WriteSomewhere { length: u64 },
    /// An access to memory: to a page of a mapping.
    Touch,
    /// Nothing whose data the kernel collects.
    Other,
    /// Not to be seen: we may not look at the thread, or do not know the system call.
    Unknown,
}

/// What the thread `pid` is about to do with the file `ino`. Waits a limited time: see [`peek::at`].
pub(crate) fn intent(pid: u32, ino: Ino) -> Intent {
    if pid == 0 {
        return Intent::Unknown; // The thread is in a PID namespace that we do not see.
    }
    peek::at(move || system_call(pid)?.intent(pid, ino)).unwrap_or(Intent::Unknown)
}

/// A system call that a thread is in.
pub(crate) struct SystemCall {
    /// -1 if the thread is in none, and waits for a page.
    pub number: i64,
    pub arguments: [u64; 6],
}

/// The system call of a thread that waits, or is about to. `None` if it cannot be seen.
pub(crate) fn system_call(pid: u32) -> Option<SystemCall> {
    const QUICK: usize = 100;
    const TRIES: usize = 1000;
    const PAUSE: Duration = Duration::from_micros(100);
    for attempt in 0..TRIES {
        let text = peek::text(&format!("/proc/{pid}/syscall"))?;
        if text.trim_end() != "running" {
            return SystemCall::parse(&text);
        }
        // It has not begun to wait yet. Other threads may have its CPU.
        if attempt < QUICK { thread::yield_now() } else { thread::sleep(PAUSE) }
    }
    None
}

impl SystemCall {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut arguments = [0; 6];
        if number >= 0 {
            for argument in &mut arguments {
                *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
            }
        }
        Some(Self { number, arguments })
    }

    fn intent(&self, pid: u32, ino: Ino) -> Option<Intent> {
        let [descriptor, pointer, count, at, length, flags] = self.arguments;
        let here = OpenFile::of(pid, descriptor).filter(|file| file.ino == ino);
        let write = |offset: Option<u64>, length: io::Result<u64>| {
            let file = here.as_ref()?;
            Some(match length {
                Ok(length) => file.write(offset, length),
                Err(_) if file.is_direct() => Intent::Other,
                Err(_) => Intent::WriteSomewhere { length: PIECE_MAX },
            })
        };
        // These system calls write the content of a pipe at a time, and /proc does not show how far they have come.
        let pipe = |descriptor, length: u64, pipe: u64| {
            let into = OpenFile::of(pid, descriptor).filter(|file| file.ino == ino)?;
            Some(if into.is_direct() { Intent::Other } else { Intent::WriteSomewhere { length: length.min(pipe) } })
        };
        let vector = || length_of_vector(pid, pointer, count);
        match self.number {
            -1 => Some(Intent::Touch),
            libc::SYS_write => write(None, Ok(count)),
            libc::SYS_pwrite64 => write(Some(at), Ok(count)),
            libc::SYS_writev => write(None, vector()),
            libc::SYS_pwritev => write(Some(at), vector()),
            libc::SYS_pwritev2 if flags & libc::RWF_APPEND as u64 != 0 => None,
            libc::SYS_pwritev2 => write(Some(at).filter(|&at| at != u64::MAX), vector()),
            libc::SYS_sendfile => pipe(descriptor, at, INNER_PIPE),
            libc::SYS_copy_file_range => pipe(count, length, INNER_PIPE),
            libc::SYS_splice => pipe(count, length, PIECE_MAX),
            libc::SYS_read
            | libc::SYS_pread64
            | libc::SYS_readv
            | libc::SYS_preadv
            | libc::SYS_preadv2
            | libc::SYS_lseek => here.map(|_| Intent::Other),
            _ => None,
        }
    }
}

/// An open file, as /proc shows it.
struct OpenFile {
    ino: Ino,
    position: u64,
    flags: i32,
}

impl OpenFile {
    fn of(pid: u32, descriptor: u64) -> Option<Self> {
        let text = peek::text(&format!("/proc/{pid}/fdinfo/{descriptor}"))?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some(Self {
            ino: Ino(value("ino:")?.parse().ok()?),
            position: value("pos:")?.parse().ok()?,
            flags: i32::from_str_radix(value("flags:")?, 8).ok()?,
        })
    }

    /// Whether writes are direct, so that the kernel does not collect their data.
    fn is_direct(&self) -> bool {
        self.flags & libc::O_DIRECT != 0
    }

    /// What a write of `length` bytes is; at `offset`, or if that is `None`, at the file position.
    fn write(&self, offset: Option<u64>, length: u64) -> Intent {
        if self.is_direct() {
            return Intent::Other;
        }
        let length = length.min(WRITE_MAX);
        let appends = self.flags & libc::O_APPEND != 0;
        Intent::Write { offset: Some(offset.unwrap_or(self.position)).filter(|_| !appends), length }
    }
}

/// The bytes in all parts of a vector of `count` parts (struct iovec), which is at `pointer` in a thread's memory.
fn length_of_vector(pid: u32, pointer: u64, count: u64) -> io::Result<u64> {
    let parts = count.min(libc::UIO_MAXIOV as u64) as usize;
    let vector = peek::memory(pid, pointer, parts * size_of::<libc::iovec>())?;
    let length = |part: &[u8]| part[8..].try_into().map_or(0, u64::from_ne_bytes);
    Ok(vector.chunks_exact(size_of::<libc::iovec>()).map(length).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells_of_a_system_call_is_understood() {
        let call =
            SystemCall::parse("1 0x3 0x7f26 0x20000 0x7f2628ac2b60 0xffffffff 0x0 0x7ffcfcd33438 0x7f2628bab2ad\n");
        let call = call.unwrap();
        assert_eq!((call.number, &call.arguments[..3]), (libc::SYS_write, &[3, 0x7f26, 0x20000][..]));
        let touch = SystemCall::parse("-1 0x7ffcfcd33438 0x7f2628bab2ad\n").unwrap();
        assert_eq!(touch.intent(1, Ino(5)), Some(Intent::Touch));
        assert!(SystemCall::parse("1 0x3").is_none());
        assert!(SystemCall::parse("").is_none());
    }

    #[test]
    fn the_end_of_a_file_is_where_an_append_goes() {
        let file = |flags| OpenFile { ino: Ino(5), position: 70, flags };
        assert_eq!(file(0).write(None, 9), Intent::Write { offset: Some(70), length: 9 });
        assert_eq!(file(0).write(Some(3), 9), Intent::Write { offset: Some(3), length: 9 });
        assert_eq!(file(libc::O_APPEND).write(Some(3), 9), Intent::Write { offset: None, length: 9 });
        assert_eq!(file(libc::O_DIRECT).write(None, 9), Intent::Other);
    }

    #[test]
    fn a_vector_has_the_length_of_its_parts() {
        let bytes = [0; 50];
        let vector = [io::IoSlice::new(&bytes[..20]), io::IoSlice::new(&bytes[20..])];
        let length = length_of_vector(std::process::id(), vector.as_ptr() as u64, vector.len() as u64);
        assert_eq!(length.unwrap(), 50);
    }
}
