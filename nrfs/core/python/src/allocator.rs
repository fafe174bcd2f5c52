//! The allocator of the heap.

use std::alloc::{GlobalAlloc, Layout};

use memory::shortage;
use mimalloc::MiMalloc;

use crate::heaps;

/// mimalloc, with [`heaps`] for replicas: each thread allocates where its [`Home`](memory::heap::Home) is. It gives all
/// memory back to the system after a tree of a million files was deleted. If the system refuses memory, reserves are
/// given up, so that operations under way can complete.
pub struct Allocator;

/// Allocates; tries up to twice more if it fails, once for each of the two reserves.
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

// SAFETY: mimalloc does the work, and is called again only after a call that failed. Giving up a reserve allocates
// nothing.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let placed = heaps::allocate(layout, false);
        if !placed.is_null() {
            return placed;
        }
        // SAFETY: the caller's promise.
        again(|| unsafe { MiMalloc.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let placed = heaps::allocate(layout, true);
        if !placed.is_null() {
            return placed;
        }
        // SAFETY: the caller's promise.
        again(|| unsafe { MiMalloc.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; all objects are mimalloc's.
        let placed = unsafe { heaps::reallocate(pointer, layout, size) };
        if !placed.is_null() {
            return placed;
        }
        // SAFETY: the caller's promise; a call that fails leaves the old memory as it was.
        again(|| unsafe { MiMalloc.realloc(pointer, layout, size) })
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}
