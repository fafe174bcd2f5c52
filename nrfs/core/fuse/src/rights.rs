//! What the kernel does not say of a caller: what he has the right to, and what he names a file for.
//!
//! With id-mapped mounts the kernel names the users of no requests but those that make inodes; and it asks for the
//! attributes of a file that is opened as for those of one that is looked at. It always names the thread, which waits for
//! the answer meanwhile, and /proc tells the rest: see proc_pid_status(5) and proc_pid_syscall(5).

use std::fs;
use std::io;

use crate::caller::{SystemCall, system_call};
use crate::peek;

/// A capability, by its number of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// CAP_FSETID: set-user-id and set-group-id stay when he changes a file.
    KeepSetId = 4,
    /// CAP_SYS_ADMIN: he may see extended attributes in `trusted.`.
    Administrate = 21,
}

/// Whether thread `pid` is root's and has a capability. A user namespace makes nobody root, but gives him all
/// capabilities in it: so both are needed. A thread of the kernel's acts for somebody else, of whom it says nothing. Who
/// cannot be seen has nothing.
pub(crate) fn has_capability(pid: u32, capability: Capability) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let is_kernels = field("VmSize").is_none();
    // Real, effective, saved, and for file systems.
    let is_roots = field("Uid").and_then(|ids| ids.split_whitespace().nth(3)) == Some("0");
    let effective = field("CapEff").and_then(|bits| u64::from_str_radix(bits, 16).ok()).unwrap_or(0);
    !is_kernels && is_roots && effective >> capability as u32 & 1 == 1
}

/// What a file is named for in a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be opened, with these flags of open(2).
    Open(u32),
    /// To see whether it may be accessed so, as access(2) has it.
    Access(u32),
    /// To have its times set.
    SetTimes,
    /// Something else, or it cannot be seen: the system call is not known, io_uring's, or not for us to look at.
    Other,
}

/// What the system call is for that thread `pid` is in.
pub(crate) fn purpose(pid: u32) -> Purpose {
    peek::at(move || Some(purpose_of(pid, &system_call(pid)?))).unwrap_or(Purpose::Other)
}

fn purpose_of(pid: u32, call: &SystemCall) -> Purpose {
    let argument = |place: usize| call.arguments[place] as u32;
    match call.number {
        libc::SYS_openat | libc::SYS_open_by_handle_at => Purpose::Open(argument(2)),
        // What cannot be looked at may be anything.
        libc::SYS_openat2 => Purpose::Open(flags_at(pid, call.arguments[2]).unwrap_or(libc::O_RDWR as u32)),
        libc::SYS_faccessat | libc::SYS_faccessat2 => Purpose::Access(argument(2)),
        libc::SYS_utimensat => Purpose::SetTimes,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Purpose::Open(argument(1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => Purpose::Open((libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC) as u32),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_access => Purpose::Access(argument(1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_utime | libc::SYS_utimes | libc::SYS_futimesat => Purpose::SetTimes,
        _ => Purpose::Other,
    }
}

/// The flags at the beginning of openat2(2)'s structure, in a thread's memory.
fn flags_at(pid: u32, pointer: u64) -> io::Result<u32> {
    let flags = peek::memory(pid, pointer, size_of::<u64>())?;
    Ok(flags.try_into().map_or(0, u64::from_ne_bytes) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_seen_and_who_is_the_kernel_has_nothing() {
        const NOBODY: u32 = 0;
        const KTHREADD: u32 = 2;
        for pid in [NOBODY, KTHREADD, u32::MAX] {
            assert!(!has_capability(pid, Capability::KeepSetId));
            assert_eq!(purpose(pid), Purpose::Other);
        }
    }

    #[test]
    fn a_system_call_tells_what_it_is_for() {
        let of = |number| purpose_of(1, &SystemCall { number, arguments: [0xffff_ff9c, 0x7f26, 0x441, 0x1b6, 0, 0] });
        assert_eq!(of(libc::SYS_openat), Purpose::Open(0x441));
        assert_eq!(of(libc::SYS_faccessat), Purpose::Access(0x441));
        assert_eq!(of(libc::SYS_utimensat), Purpose::SetTimes);
        assert_eq!(of(libc::SYS_write), Purpose::Other);
    }

    #[test]
    fn the_flags_of_openat2_lie_in_memory() {
        let how: [u64; 3] = [0x441, 0x1b6, 0];
        assert_eq!(flags_at(std::process::id(), how.as_ptr() as u64).unwrap(), 0x441);
    }
}
