//! Makes mappings and binds them to nodes, for the rest of the crate.

use std::io;
use std::ptr;

use crate::heap::Home;
use crate::topology::{bound_nodes, memory_nodes};
use crate::{PhysicalNode, Topology, placement};

/// Maps zeroed memory, without reserving it, at an address that is `remainder` above a multiple of `alignment`. Both
/// are multiples of the page size.
pub(crate) fn map_aligned(size: usize, alignment: usize, remainder: usize, protection: i32) -> io::Result<*mut u8> {
    // Larger by so much that an aligned part lies in it; the rest is unmapped at once.
    let surplus = alignment - crate::PAGE_SIZE;
    let whole_size = size.checked_add(surplus).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice harms nothing.
    let whole = unsafe {
        libc::mmap(
            ptr::null_mut(),
            whole_size,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if whole == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let whole = whole.cast::<u8>();
    let before = (remainder % alignment).wrapping_sub(whole.addr()) & (alignment - 1);
    let base = whole.wrapping_add(before);
    // SAFETY: both ranges lie in the mapping just made, outside the part that is kept.
    unsafe {
        if before > 0 {
            libc::munmap(whole.cast(), before);
        }
        if before < surplus {
            libc::munmap(base.wrapping_add(size).cast(), surplus - before);
        }
    }
    Ok(base)
}

/// Maps zeroed memory for good, whose pages come from `home`, at a multiple of `alignment`. Both are multiples of the page
/// size.
pub fn map_for(home: Home, size: usize, alignment: usize) -> io::Result<*mut u8> {
    let base = map_aligned(size, alignment, 0, libc::PROT_READ | libc::PROT_WRITE)?;
    match home {
        Home::Anywhere => {}
        Home::Node(node) => prefer_node(base, size, node),
        // The nodes' list is in no heap that may just be in the making.
        Home::Interleaved => Home::Anywhere.during(|| set_policy(base, size, libc::MPOL_INTERLEAVE, &memory_nodes())),
    }
    Ok(base)
}

/// Asks for the memory of a mapping of ours to come from `node`, as long as the node has some. Until the mapping is
/// [unmapped](unmap) its [`placement`] can be seen.
pub(crate) fn prefer_node(base: *mut u8, size: usize, node: PhysicalNode) {
    placement::add(base, size, node);
    match bound_nodes() {
        None => set_policy(base, size, libc::MPOL_PREFERRED, &[node]),
        // It gets all its memory there; a policy of the mapping's own would lift that.
        Some([_]) => {}
        // A mapping that preferred a node would get memory of any other when that is full.
        Some(nodes) => {
            set_policy(base, size, libc::MPOL_BIND, nodes);
            set_home(base, size, node);
        }
    }
}

/// Has memory of a mapping that is bound to several nodes come from `node`, as long as that has some.
fn set_home(base: *mut u8, size: usize, node: PhysicalNode) {
    // SAFETY: the range is our own mapping. A kernel before 5.17 refuses: then memory comes from that of the bound nodes
    // which is nearest to the thread that first touches it.
    if unsafe { libc::syscall(libc::SYS_set_mempolicy_home_node, base, size, node.0, 0) } != 0 {
        placement::refused();
    }
}

/// Unmaps a mapping of ours.
///
/// # Safety
/// Nothing uses its memory any more.
pub(crate) unsafe fn unmap(base: *mut u8, size: usize) {
    placement::remove(base);
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(base.cast(), size) };
}

fn set_policy(base: *mut u8, size: usize, policy: libc::c_int, nodes: &[PhysicalNode]) {
    const BITS: usize = 64;
    // In no heap of a node, as this may be called to make one.
    let mut mask = [0_u64; Topology::NODES_MAX / BITS];
    for node in nodes.iter().filter(|node| node.0 < Topology::NODES_MAX) {
        mask[node.0 / BITS] |= 1 << (node.0 % BITS);
    }
    // SAFETY: the range is our own mapping; the mask outlives the call and has the length given. If the kernel
    // refuses, memory comes from the node that first touches it.
    let refused =
        unsafe { libc::syscall(libc::SYS_mbind, base, size, policy, mask.as_ptr(), mask.len() * BITS + 1, 0) };
    if refused != 0 {
        placement::refused();
    }
}
