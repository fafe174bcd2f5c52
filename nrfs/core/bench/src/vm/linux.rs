//! The kernel's address space of this process, by mmap(2), mprotect(2) and munmap(2). Pages are mapped with their
//! memory (MAP_POPULATE), as ours are.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::Space;

/// The first address used, far from the process's other mappings.
const BASE: usize = 1 << 40;
const PART: usize = 1 << 30;
const PAGE: usize = 4096;

/// The address space of this process.
pub struct Linux;

fn address(thread: usize, page: u64) -> *mut c_void {
    ptr::without_provenance_mut(BASE + thread * PART + page as usize * PAGE)
}

impl Space for Linux {
    type Handle = usize;

    const RESOLVES: bool = false;

    fn handle(&self, thread: usize) -> usize {
        thread
    }

    fn map(&self, &mut thread: &mut usize, page: u64) {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::POPULATE;
        // SAFETY: nothing is replaced, so there is no reference to what was there.
        unsafe { mmap_anonymous(address(thread, page), PAGE, rights, flags) }.expect("there is memory");
    }

    fn protect(&self, &mut thread: &mut usize, page: u64) {
        // SAFETY: `map` has made the mapping, and there are no references to it.
        unsafe { mprotect(address(thread, page), PAGE, MprotectFlags::READ) }.expect("it is mapped");
    }

    fn resolve(&self, _thread: &mut usize, _page: u64) -> u64 {
        0
    }

    fn unmap(&self, &mut thread: &mut usize, page: u64) {
        // SAFETY: as for `protect`.
        unsafe { munmap(address(thread, page), PAGE) }.expect("it is mapped");
    }

    fn touch(&self, _handle: &mut usize, thread: usize, page: u64) {
        // SAFETY: the owner maps the page before this is called, and unmaps it only after this has returned.
        unsafe { address(thread, page).cast::<u8>().read_volatile() };
    }
}
