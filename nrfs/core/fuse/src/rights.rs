//! What the kernel does not say of a caller: whether he has a capability.
//!
//! With id-mapped mounts the kernel names the users of no requests but those that make inodes. It names the thread, which
//! waits for the answer meanwhile, and /proc tells the rest: see proc_pid_status(5).

use std::fs;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_seen_and_who_is_the_kernel_has_nothing() {
        const NOBODY: u32 = 0;
        const KTHREADD: u32 = 2;
        for pid in [NOBODY, KTHREADD, u32::MAX] {
            assert!(!has_capability(pid, Capability::KeepSetId));
        }
    }
}
