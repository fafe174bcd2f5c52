//! Where the memory of small things comes from.

use std::alloc::{GlobalAlloc, Layout};

use memory::shortage;
use mimalloc::MiMalloc;

/// mimalloc: a tree of a million files that is deleted leaves nothing behind in it. Where the system has no more memory
/// for it, reserves are given up: so what is under way comes to its end.
pub struct Allocator;

/// Twice more, if there was no memory: there are two reserves.
#[inline]
fn again(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let mut allocated = allocate();
    for _ in 0..2 {
        if !allocated.is_null() || !shortage::give_up_heap() {
            break;
        }
        allocated = allocate();
    }
    allocated
}

// SAFETY: mimalloc does all; what it is asked again it did not do before. To give up a reserve allocates nothing.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        again(|| unsafe { MiMalloc.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        again(|| unsafe { MiMalloc.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's; where it failed the old memory is as it was.
        again(|| unsafe { MiMalloc.realloc(pointer, layout, size) })
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}
