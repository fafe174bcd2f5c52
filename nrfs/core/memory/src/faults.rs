//! Reports the first touches of a window's pieces, for a thread to answer, by userfaultfd(2).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use linux_raw_sys::general::{
    UFFD_API, UFFD_EVENT_PAGEFAULT, UFFDIO_REGISTER_MODE_MISSING, uffdio_api, uffdio_range, uffdio_register,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER, UFFDIO_WAKE};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use crate::{Process, Window};

/// The ioctl(2) of /dev/userfaultfd that makes a descriptor.
const USERFAULTFD_IOC_NEW: u64 = 0xaa00;

/// Bytes of a `struct uffd_msg`, and the offset of a page fault's address in it.
const MESSAGE: usize = 32;
const MESSAGE_ADDRESS: usize = 16;

/// Receives the first touches of all watched windows.
#[derive(Debug)]
pub struct Faults {
    userfault: OwnedFd,
    stop: OwnedFd,
    process: Process,
}

impl Faults {
    /// Fails if this process may not use userfaultfd(2) for touches by system calls, too (that takes CAP_SYS_PTRACE,
    /// vm.unprivileged_userfaultfd or /dev/userfaultfd): otherwise a system call would fail when it is given an
    /// address that nobody has touched yet.
    pub fn new() -> io::Result<Self> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: the descriptor is used on windows only, which belong to this crate.
        let userfault = match unsafe { userfaultfd(flags) } {
            Ok(userfault) => userfault,
            Err(_) => Self::open_device(flags)?,
        };
        let mut api = uffdio_api { api: UFFD_API.into(), features: 0, ioctls: 0 };
        // SAFETY: the request takes a `uffdio_api`.
        unsafe { control(&userfault, UFFDIO_API, &mut api)? };
        Ok(Self { userfault, stop: eventfd(0, EventfdFlags::CLOEXEC)?, process: Process::this() })
    }

    fn open_device(flags: UserfaultfdFlags) -> io::Result<OwnedFd> {
        let device = File::open("/dev/userfaultfd")?;
        // SAFETY: the request takes flags and gives a descriptor.
        let descriptor = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags.bits()) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// From now on a thread that touches a piece which is not shown waits until it is [woken](Self::wake).
    pub fn watch(&self, window: &Window) -> io::Result<()> {
        let range = range(window, 0, window.size());
        let mut register = uffdio_register { range, mode: UFFDIO_REGISTER_MODE_MISSING.into(), ioctls: 0 };
        // SAFETY: the request takes a `uffdio_register`, and the range is a window's.
        unsafe { control(&self.userfault, UFFDIO_REGISTER, &mut register) }
    }

    /// Waits for the next touch; returns its address, or `None` after [`stop`](Self::stop).
    pub fn next(&self) -> io::Result<Option<usize>> {
        loop {
            let mut descriptors = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.userfault, PollFlags::IN)];
            match poll(&mut descriptors, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            if !descriptors[0].revents().is_empty() {
                return Ok(None);
            }
            let mut message = [0; MESSAGE];
            match rustix::io::read(&self.userfault, &mut message) {
                Ok(MESSAGE) if u32::from(message[0]) == UFFD_EVENT_PAGEFAULT => {
                    let address = message[MESSAGE_ADDRESS..].first_chunk().copied().unwrap_or_default();
                    return Ok(Some(usize::from_ne_bytes(address)));
                }
                // The thread that touched the page has been woken already, or was killed.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Wakes the threads that wait for a page within `size` bytes, beginning `at` bytes above the window's base.
    pub fn wake(&self, window: &Window, at: usize, size: usize) -> io::Result<()> {
        // SAFETY: the request takes a `uffdio_range`.
        unsafe { control(&self.userfault, UFFDIO_WAKE, &mut range(window, at, size)) }
    }

    /// Makes all calls of [`next`](Self::next) return `None`. Does nothing in a forked process, where nobody waits.
    pub fn stop(&self) {
        if self.process.is_this() {
            // This cannot fail: the counter of an eventfd has room for 1.
            let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        }
    }
}

fn range(window: &Window, at: usize, size: usize) -> uffdio_range {
    uffdio_range { start: (window.base().addr().get() + at) as u64, len: size as u64 }
}

/// # Safety
///
/// `T` is the type of the request's argument.
unsafe fn control<T>(userfault: &OwnedFd, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller says that the type is right, and the argument outlives the call.
    let done = unsafe { libc::ioctl(userfault.as_raw_fd(), request.into(), std::ptr::from_mut(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
