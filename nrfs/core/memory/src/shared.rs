//! Memory of all nodes that can be seen at many addresses at once.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::io::Errno;

use crate::mapping::prefer_node;
use crate::{PAGE_SIZE, PhysicalNode};

/// A zeroed file in memory (memfd), with a part on each node. [`Window`](crate::Window)s show it. Each page takes
/// memory when it is first touched.
#[derive(Debug)]
pub struct SharedMemory {
    file: File,
}

impl SharedMemory {
    /// `pages` pages for each of `nodes`, in their order. Those of `None` come from the node that first touches them.
    pub fn new(nodes: impl ExactSizeIterator<Item = Option<PhysicalNode>>, pages: u64) -> io::Result<Self> {
        let file = File::from(memfd_create("nrfs", MemfdFlags::CLOEXEC)?);
        let all = pages.checked_mul((nodes.len() * PAGE_SIZE) as u64);
        file.set_len(all.filter(|&all| i64::try_from(all).is_ok()).ok_or(Errno::FBIG)?)?;
        let bytes = pages * PAGE_SIZE as u64;
        let memory = Self { file };
        for (number, node) in nodes.enumerate() {
            if let Some(node) = node {
                memory.prefer(number as u64 * bytes, bytes as usize, node)?;
            }
        }
        Ok(memory)
    }

    /// Binds a range to a node. The file keeps the binding for all later mappings.
    fn prefer(&self, offset: u64, size: usize, node: PhysicalNode) -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice harms nothing; nobody uses it.
        let base = unsafe { self.map(ptr::null_mut(), size, protection, 0, offset)? };
        prefer_node(base, size, node);
        // SAFETY: the mapping was just made.
        unsafe { libc::munmap(base.cast(), size) };
        Ok(())
    }

    /// # Safety
    ///
    /// With MAP_FIXED in `flags`, the caller must own what is mapped at the address: it is replaced.
    pub(crate) unsafe fn map(
        &self,
        address: *mut u8,
        size: usize,
        protection: i32,
        flags: i32,
        offset: u64,
    ) -> io::Result<*mut u8> {
        // SAFETY: the caller's promise.
        unsafe { self.map_as(address, size, protection, flags | libc::MAP_SHARED, offset) }
    }

    /// Maps memory at an address, copy-on-write: writes there are seen nowhere else.
    ///
    /// # Safety
    ///
    /// The caller must own what is mapped at the address: it is replaced.
    pub(crate) unsafe fn map_private(
        &self,
        address: *mut u8,
        size: usize,
        protection: i32,
        offset: u64,
    ) -> io::Result<*mut u8> {
        // SAFETY: the caller's promise.
        unsafe { self.map_as(address, size, protection, libc::MAP_PRIVATE | libc::MAP_FIXED, offset) }
    }

    /// # Safety
    ///
    /// As for [`map`](Self::map).
    unsafe fn map_as(
        &self,
        address: *mut u8,
        size: usize,
        protection: i32,
        flags: i32,
        offset: u64,
    ) -> io::Result<*mut u8> {
        let flags = flags | libc::MAP_NORESERVE;
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::OVERFLOW)?;
        // SAFETY: the caller's promise.
        let base = unsafe { libc::mmap(address.cast(), size, protection, flags, self.file.as_raw_fd(), offset) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base.cast()) }
    }

    /// Makes a range all zeros, and gives its memory back to the system.
    pub fn wipe(&self, offset: u64, bytes: u64) -> io::Result<()> {
        Ok(fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes)?)
    }
}
