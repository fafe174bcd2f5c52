//! The system calls about backing files: files that the kernel reads and writes in place of a file of the mount (FUSE
//! passthrough), and leases on them.
//!
//! Source: `FUSE_DEV_IOC_BACKING_OPEN` in `include/uapi/linux/fuse.h`; F_SETLEASE in fcntl(2).

#![allow(unsafe_code, reason = "system calls that rustix lacks; each use carries its argument")]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// A backing file by the number that the kernel has given it. It needs no descriptor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackingId(pub i32);

/// Of `linux/fuse.h`.
#[repr(C)]
struct Map {
    descriptor: i32,
    flags: u32,
    padding: u64,
}

const MAGIC: u8 = 229;

struct Open(Map);

// SAFETY: the kernel reads a `Map` at the pointer, and returns the number, or fails.
unsafe impl Ioctl for Open {
    type Output = BackingId;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<Map>(MAGIC, 1)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> Result<BackingId> {
        Ok(BackingId(result))
    }
}

struct Close(u32);

// SAFETY: the kernel reads a u32 at the pointer.
unsafe impl Ioctl for Close {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<u32>(MAGIC, 2)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// Makes `file` known to the kernel of the mount that `device` belongs to. EPERM without CAP_SYS_ADMIN in the first user
/// namespace.
pub(crate) fn open(device: impl AsFd, file: BorrowedFd) -> Result<BackingId> {
    let map = Map { descriptor: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: see `Open`. The descriptor is borrowed during the call.
    unsafe { ioctl(device, Open(map)) }
}

/// Gives a number back. The kernel keeps the file until no open file uses it.
pub(crate) fn close(device: impl AsFd, BackingId(id): BackingId) {
    // It fails if the mount has ended. SAFETY: see `Close`.
    let _ = unsafe { ioctl(device, Close(id as u32)) };
}

/// Whether nobody has the file of this descriptor, which is for reading, open or mapped for writing. This takes a lease,
/// which ends with the descriptor, so `file` should be closed at once.
pub(crate) fn has_no_writers(file: BorrowedFd) -> bool {
    // SAFETY: it only takes a descriptor, which is borrowed, and a number.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) == 0 }
}

/// Makes the process ignore the signal by which the kernel says that a lease is in somebody's way.
pub(crate) fn ignore_lease_breaks() -> Result<()> {
    // SAFETY: no handler runs for an ignored signal.
    if unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) } == libc::SIG_ERR { Err(Errno::INVAL) } else { Ok(()) }
}
