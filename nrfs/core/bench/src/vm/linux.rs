//! The kernel's own: mmap(2), mprotect(2), munmap(2) of this process, with the page of memory there (MAP_POPULATE), as
//! ours is.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::Space;

/// Far from what the process maps itself.
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
        // SAFETY: nothing is replaced, and nobody has a reference to where nothing was.
        unsafe { mmap_anonymous(address(thread, page), PAGE, rights, flags) }.expect("there is memory");
    }

    fn protect(&self, &mut thread: &mut usize, page: u64) {
        // SAFETY: `map` has made it, and there are no references to it.
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
        // SAFETY: the owner maps it before this is called, and unmaps it only after that has returned.
        unsafe { address(thread, page).cast::<u8>().read_volatile() };
    }
}
