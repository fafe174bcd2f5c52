//! Finds out from /proc what requests do not tell about their caller: its capabilities, and for what purpose its system
//! call names a file.
//!
//! With ALLOW_IDMAP, only requests that make inodes name the user. And a GETATTR does not say whether the file is being
//! opened or only looked at. But each request names the calling thread, which waits for the reply: so /proc shows the
//! rest, see proc_pid_status(5) and proc_pid_syscall(5).

use std::fs;
use std::io;

use crate::caller::{SystemCall, system_call};
use crate::peek;

/// A capability, with its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// CAP_FSETID: set-user-id and set-group-id stay when this caller changes a file.
    KeepSetId = 4,
    /// CAP_SYS_ADMIN: this caller may see extended attributes in `trusted.`.
    Administrate = 21,
}

/// Whether thread `pid` has a capability and the user id 0. Both are needed, as any user can have all capabilities
/// inside a user namespace of its own. False for a thread of the kernel, which acts for an unknown process, and for a
/// thread that cannot be seen.
pub(crate) fn has_capability(pid: u32, capability: Capability) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let is_kernels = field("VmSize").is_none();
    // The ids are real, effective, saved, and that for file systems.
    let is_roots = field("Uid").and_then(|ids| ids.split_whitespace().nth(3)) == Some("0");
    let effective = field("CapEff").and_then(|bits| u64::from_str_radix(bits, 16).ok()).unwrap_or(0);
    !is_kernels && is_roots && effective >> capability as u32 & 1 == 1
}

/// Why a system call names a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To open it, with these flags of open(2).
    Open(u32),
    /// To see whether it may be accessed, with this mode of access(2).
    Access(u32),
    /// To set its times.
    SetTimes,
    /// To give it another owner or group.
    GiveAway,
    /// For fallocate(2).
    Allocate,
    /// For something else, or for an unknown purpose: we do not know the system call, it is made by io_uring, or we may
    /// not look at the thread.
    Other,
}

/// Why the current system call of thread `pid` names a file. Waits a limited time: see [`peek::at`].
pub(crate) fn purpose(pid: u32) -> Purpose {
    peek::at(move || Some(purpose_of(pid, &system_call(pid)?))).unwrap_or(Purpose::Other)
}

fn purpose_of(pid: u32, call: &SystemCall) -> Purpose {
    let argument = |place: usize| call.arguments[place] as u32;
    match call.number {
        libc::SYS_openat | libc::SYS_open_by_handle_at => Purpose::Open(argument(2)),
        // If the flags cannot be read, it may be an open for writing.
        libc::SYS_openat2 => Purpose::Open(flags_at(pid, call.arguments[2]).unwrap_or(libc::O_RDWR as u32)),
        libc::SYS_faccessat | libc::SYS_faccessat2 => Purpose::Access(argument(2)),
        libc::SYS_utimensat => Purpose::SetTimes,
        libc::SYS_fallocate => Purpose::Allocate,
        libc::SYS_fchown | libc::SYS_fchownat => Purpose::GiveAway,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chown | libc::SYS_lchown => Purpose::GiveAway,
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

/// The flags at the beginning of openat2(2)'s structure, which is at `pointer` in a thread's memory.
fn flags_at(pid: u32, pointer: u64) -> io::Result<u32> {
    let flags = peek::memory(pid, pointer, size_of::<u64>())?;
    Ok(flags.try_into().map_or(0, u64::from_ne_bytes) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_the_kernel_and_threads_that_cannot_be_seen_have_no_capability() {
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
