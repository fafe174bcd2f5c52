//! Heaps whose memory lies on one node of the hardware, or on all in turn.
//!
//! Each is a number of mimalloc's heaps, one for each *arena*: addresses that are ours, with a policy of where their
//! memory comes from. When no arena has room, there comes one more, twice as large. mimalloc gives the memory of freed
//! objects back to the system; the addresses stay.

use std::alloc::Layout;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libmimalloc_sys::{
    mi_heap_collect, mi_heap_malloc_aligned, mi_heap_new_in_arena, mi_heap_realloc_aligned, mi_heap_t,
    mi_heap_zalloc_aligned, mi_manage_os_memory_ex,
};
use memory::heap::Home;
use memory::{PhysicalNode, Topology, map_for};

/// Bytes of addresses of the first arena.
const FIRST: usize = 64 << 20;

/// What arenas begin at a multiple of.
const ALIGNMENT: usize = 64 << 20;

/// As each is twice as large, there are no addresses for more.
const ARENAS: usize = 32;

/// One home's heap.
pub struct Heap {
    /// By arena; null from the first that is not there yet.
    arenas: [AtomicPtr<mi_heap_t>; ARENAS],
    /// The arena that had room last.
    current: AtomicUsize,
    /// Held by who makes an arena.
    growing: Mutex<()>,
}

static OF_NODES: [Heap; Topology::NODES_MAX] = [const { Heap::new() }; Topology::NODES_MAX];
static INTERLEAVED: Heap = Heap::new();

impl Heap {
    const fn new() -> Self {
        let arenas = [const { AtomicPtr::new(ptr::null_mut()) }; ARENAS];
        Self { arenas, current: AtomicUsize::new(0), growing: Mutex::new(()) }
    }

    /// The heap of a home; none where any memory will do.
    #[inline]
    fn of(home: Home) -> Option<&'static Self> {
        match home {
            Home::Anywhere => None,
            Home::Node(PhysicalNode(node)) => OF_NODES.get(node),
            Home::Interleaved => Some(&INTERLEAVED),
        }
    }

    /// Calls `allocate` with mimalloc's heap of one arena after the other, until one has room. Null where no arena has,
    /// and no more can be had.
    fn try_all(&self, home: Home, size: usize, allocate: impl Fn(*mut mi_heap_t) -> *mut u8) -> *mut u8 {
        let current = self.current.load(Ordering::Relaxed);
        let others = (0..ARENAS).filter(|&other| other != current);
        for number in std::iter::once(current).chain(others) {
            let heap = self.arenas[number].load(Ordering::Acquire);
            let heap = if heap.is_null() { self.grow(home, number, size) } else { heap };
            if heap.is_null() {
                break;
            }
            let allocated = allocate(heap);
            if !allocated.is_null() {
                self.current.store(number, Ordering::Relaxed);
                return allocated;
            }
        }
        ptr::null_mut()
    }

    /// Makes arena `number`, with room for an object of `size` bytes, unless another thread has. Null if that cannot be.
    #[cold]
    fn grow(&self, home: Home, number: usize, size: usize) -> *mut mi_heap_t {
        // It protects nothing that could be half changed.
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let there = self.arenas[number].load(Ordering::Acquire);
        if !there.is_null() {
            return there;
        }
        let least = (2 * size).next_power_of_two().max(FIRST);
        let mut wanted = FIRST.checked_shl(number as u32).unwrap_or(0).max(least);
        while wanted >= least {
            if let Ok(base) = map_for(home, wanted, ALIGNMENT) {
                let node = if let Home::Node(PhysicalNode(node)) = home { node as i32 } else { -1 };
                let mut arena = ptr::null_mut();
                // SAFETY: the addresses are ours, of zeros, and stay mapped; from now on they are mimalloc's.
                let heap = unsafe {
                    if !mi_manage_os_memory_ex(base.cast(), wanted, true, false, true, node, true, &raw mut arena) {
                        return ptr::null_mut();
                    }
                    mi_heap_new_in_arena(arena)
                };
                self.arenas[number].store(heap, Ordering::Release);
                return heap;
            }
            wanted /= 2;
        }
        ptr::null_mut()
    }

    fn collect(&self) {
        for arena in &self.arenas {
            let heap = arena.load(Ordering::Acquire);
            if heap.is_null() {
                return;
            }
            // SAFETY: a heap of mimalloc's, which is never deleted.
            unsafe { mi_heap_collect(heap, true) };
        }
    }
}

/// Allocates where the calling thread is to; null where it may be anywhere, or there is no memory.
#[inline]
pub fn allocate(layout: Layout, zeroed: bool) -> *mut u8 {
    let home = Home::current();
    let Some(heap) = Heap::of(home) else { return ptr::null_mut() };
    let (size, alignment) = (layout.size(), layout.align());
    heap.try_all(home, size, |heap| {
        // SAFETY: a heap of mimalloc's, from any thread.
        let allocated = unsafe {
            match zeroed {
                true => mi_heap_zalloc_aligned(heap, size, alignment),
                false => mi_heap_malloc_aligned(heap, size, alignment),
            }
        };
        allocated.cast()
    })
}

/// Changes the size of an object, which may move to where the calling thread is to allocate; null as for [`allocate`],
/// and the object stays as it was.
///
/// # Safety
/// The object was allocated by mimalloc, with this layout.
#[inline]
pub unsafe fn reallocate(pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
    let home = Home::current();
    let Some(heap) = Heap::of(home) else { return ptr::null_mut() };
    // SAFETY: the caller's promise.
    heap.try_all(home, size, |heap| unsafe {
        mi_heap_realloc_aligned(heap, pointer.cast(), size, layout.align()).cast()
    })
}

/// Gives memory of what was freed back to the system, as far as the calling thread can.
pub fn collect() {
    OF_NODES.iter().chain([&INTERLEAVED]).for_each(Heap::collect);
}
