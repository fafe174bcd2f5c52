//! Where memory that was asked of a node really lies, as the kernel tells.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::heap::Home;
use crate::{PAGE_SIZE, PhysicalNode};

/// All mappings of this process that were asked of a node, by their first address.
static MAPPINGS: Mutex<BTreeMap<usize, Mapping>> = Mutex::new(BTreeMap::new());

/// Whether the kernel has refused to prefer a node for a mapping.
static WAS_REFUSED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
struct Mapping {
    size: usize,
    node: PhysicalNode,
}

/// Memory that was asked of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Bytes that lie there.
    pub here: u64,
    /// Bytes that lie on other nodes.
    pub elsewhere: u64,
}

/// Notes a mapping.
pub(crate) fn add(base: *const u8, size: usize, node: PhysicalNode) {
    // In no heap that may just be in the making.
    Home::Anywhere.during(|| mappings().insert(base.addr(), Mapping { size, node }));
}

/// Forgets a mapping, before it is unmapped. One that was not noted is left alone.
pub(crate) fn remove(base: *const u8) {
    mappings().remove(&base.addr());
}

/// Notes that the kernel has refused to prefer a node.
pub(crate) fn refused() {
    WAS_REFUSED.store(true, Ordering::Relaxed);
}

/// Whether the kernel has refused, for any mapping of this process, to prefer a node: a container that may not, say.
pub fn was_refused() -> bool {
    WAS_REFUSED.load(Ordering::Relaxed)
}

/// Where all memory of this process lies that was asked of `node`.
pub fn of(node: PhysicalNode) -> Placement {
    const AT_A_TIME: usize = 4096;
    let mut placement = Placement::default();
    // Looked at without the lock: what is unmapped meanwhile has no pages.
    let all: Vec<(usize, usize)> = {
        let mappings = mappings();
        let of_node = mappings.iter().filter(|(_, mapping)| mapping.node == node);
        of_node.map(|(&base, mapping)| (base, mapping.size)).collect()
    };
    let pages = all.into_iter().flat_map(|(base, size)| (base..base + size).step_by(PAGE_SIZE));
    let mut batch: Vec<*const libc::c_void> = Vec::with_capacity(AT_A_TIME);
    for page in pages {
        batch.push(std::ptr::without_provenance(page));
        if batch.len() == AT_A_TIME {
            count(&batch, node, &mut placement);
            batch.clear();
        }
    }
    count(&batch, node, &mut placement);
    placement
}

fn count(pages: &[*const libc::c_void], node: PhysicalNode, placement: &mut Placement) {
    let mut places = vec![-1_i32; pages.len()];
    let (this, nowhere, no_flags) = (0, std::ptr::null::<i32>(), 0);
    // SAFETY: without nodes to move to, the kernel reads the addresses and writes one number for each; both arrays outlive
    // the call. It looks at no memory behind the addresses.
    let told = unsafe {
        libc::syscall(libc::SYS_move_pages, this, pages.len(), pages.as_ptr(), nowhere, places.as_mut_ptr(), no_flags)
    };
    if told < 0 {
        return; // A kernel without nodes.
    }
    for place in places {
        // A page without memory has a negative number, an errno.
        match usize::try_from(place) {
            Ok(place) if place == node.0 => placement.here += PAGE_SIZE as u64,
            Ok(_) => placement.elsewhere += PAGE_SIZE as u64,
            Err(_) => {}
        }
    }
}

fn mappings() -> MutexGuard<'static, BTreeMap<usize, Mapping>> {
    // Each change is one step.
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;

    #[test]
    fn memory_that_was_touched_is_counted_until_it_is_unmapped() {
        const NODE: PhysicalNode = PhysicalNode(0);
        let before = of(NODE);
        let buffer = Buffer::new(16 * PAGE_SIZE, Some(NODE));
        assert_eq!(of(NODE), before);
        // SAFETY: the buffer's memory, which nobody else has.
        unsafe { buffer.base().as_ptr().write_bytes(1, 3 * PAGE_SIZE) };
        let after = of(NODE);
        // Not every kernel tells.
        if after != before {
            assert_eq!((after.here + after.elsewhere) - (before.here + before.elsewhere), 3 * PAGE_SIZE as u64);
        }
        drop(buffer);
        assert_eq!(of(NODE), before);
    }
}
