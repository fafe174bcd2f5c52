//! The first touches of a window's pieces, to be answered by a thread: userfaultfd(2).

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

/// Of /dev/userfaultfd: a new descriptor.
const USERFAULTFD_IOC_NEW: u64 = 0xaa00;

/// Of `struct uffd_msg`: its size, and where in it the address of a page fault is.
const MESSAGE: usize = 32;
const MESSAGE_ADDRESS: usize = 16;

/// Where the touches of all windows that are watched come in.
#[derive(Debug)]
pub struct Faults {
    userfault: OwnedFd,
    stop: OwnedFd,
    process: Process,
}

impl Faults {
    /// An error where this process may not have them. It must be allowed those of system calls, too (by CAP_SYS_PTRACE,
    /// vm.unprivileged_userfaultfd or /dev/userfaultfd): one that is given an address not touched yet would
    /// fail otherwise.
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

    /// From now on whoever touches a piece of the window that is not shown waits until it is, and then is
    /// [woken](Self::wake).
    pub fn watch(&self, window: &Window) -> io::Result<()> {
        let range = range(window, 0, window.size());
        let mut register = uffdio_register { range, mode: UFFDIO_REGISTER_MODE_MISSING.into(), ioctls: 0 };
        // SAFETY: the request takes a `uffdio_register`, and the range is a window's.
        unsafe { control(&self.userfault, UFFDIO_REGISTER, &mut register) }
    }

    /// Waits for the next touch, and returns its address; `None` once they are stopped.
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
                // Whoever touched it has been woken already, or was killed.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets go on who touched `size` bytes from `at` above the window's base on.
    pub fn wake(&self, window: &Window, at: usize, size: usize) -> io::Result<()> {
        // SAFETY: the request takes a `uffdio_range`.
        unsafe { control(&self.userfault, UFFDIO_WAKE, &mut range(window, at, size)) }
    }

    /// Ends the waiting in [`next`](Self::next), for good. In a process that was forked nobody waits.
    pub fn stop(&self) {
        if self.process.is_this() {
            // It cannot fail: an eventfd has room for a number this small.
            let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        }
    }
}

fn range(window: &Window, at: usize, size: usize) -> uffdio_range {
    uffdio_range { start: (window.base().addr().get() + at) as u64, len: size as u64 }
}

/// # Safety
///
/// The request takes an argument of that type.
unsafe fn control<T>(userfault: &OwnedFd, request: u32, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller's; and the argument outlives the call.
    let done = unsafe { libc::ioctl(userfault.as_raw_fd(), request.into(), std::ptr::from_mut(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
