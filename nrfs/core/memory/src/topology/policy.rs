//! The memory policy that this process was started with: that of `numactl --membind`.

use super::Topology;

/// The nodes that the calling thread's memory is bound to; `None` if it is bound to none. Only the policy MPOL_BIND
/// forbids other nodes: the rest of them prefer or spread (get_mempolicy(2)).
pub(super) fn bound_nodes() -> Option<Vec<usize>> {
    const BITS: usize = u64::BITS as usize;
    /// Flags beside the mode, from linux/mempolicy.h. With the second one the mask counts allowed nodes, not all.
    const MODE_FLAGS: libc::c_int = 0b111 << 13;
    const RELATIVE_NODES: libc::c_int = 1 << 14;
    let mut mode: libc::c_int = 0;
    let mut mask = [0_u64; Topology::NODES_MAX / BITS];
    // SAFETY: the kernel writes to the mode, and to no more of the mask than its bits, of which it counts one more.
    let status = unsafe {
        let bits = mask.len() * BITS + 1;
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, mask.as_mut_ptr(), bits, 0_usize, 0_usize)
    };
    let is_bound = status == 0 && mode & !MODE_FLAGS == libc::MPOL_BIND && mode & RELATIVE_NODES == 0;
    let has = |&node: &usize| mask[node / BITS] >> (node % BITS) & 1 == 1;
    is_bound.then(|| (0..Topology::NODES_MAX).filter(has).collect())
}
