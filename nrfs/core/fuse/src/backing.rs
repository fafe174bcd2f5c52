//! The system calls about backing files: files that the kernel reads and writes in place of a file of the mount (FUSE
//! passthrough), and leases on them.
//!
//! Source: `FUSE_DEV_IOC_BACKING_OPEN` in `include/uapi/linux/fuse.h`; F_SETLEASE in fcntl(2).

#![allow(unsafe_code, reason = "system calls that rustix lacks; each use carries its argument")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// The number that the kernel has given a backing file. With it, the kernel keeps the file open: we need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackingId(pub i32);

/// `struct fuse_backing_map`.
#[repr(C)]
struct Map {
    descriptor: i32,
    flags: u32,
    padding: u64,
}

/// FUSE_DEV_IOC_BACKING_OPEN.
const OPEN: Opcode = opcode::write::<Map>(229, 1);

/// FUSE_DEV_IOC_BACKING_CLOSE.
const CLOSE: Opcode = opcode::write::<u32>(229, 2);

/// Makes `file` known to the kernel of the mount that `device` belongs to. EPERM without CAP_SYS_ADMIN in the first
/// user namespace.
pub(crate) fn open(device: impl AsFd, file: BorrowedFd) -> io::Result<BackingId> {
    let map = Map { descriptor: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: the kernel reads a `Map` at the pointer, and returns the number, or fails.
    let id = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), OPEN.into(), &raw const map) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(BackingId(id)) }
}

/// Gives a number back. The kernel keeps the file until no open file uses it.
pub(crate) fn close(device: impl AsFd, BackingId(id): BackingId) {
    // It fails if the mount has ended. SAFETY: the kernel reads a u32 at the pointer.
    let _ = unsafe { ioctl(device, Setter::<CLOSE, u32>::new(id as u32)) };
}

/// Whether nobody has a file open for writing, or mapped so that it can be stored to. `file` must be open for reading
/// alone, and should be closed at once: a lease on the file tells, which lasts as long as this descriptor.
pub(crate) fn has_no_writers(file: BorrowedFd) -> bool {
    // SAFETY: it only takes a descriptor, which is borrowed, and a number.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0 }
}

/// Makes the process ignore SIGIO, by which the kernel says that somebody waits for the end of a lease.
pub(crate) fn ignore_lease_breaks() -> io::Result<()> {
    // SAFETY: no handler runs for an ignored signal.
    match unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
