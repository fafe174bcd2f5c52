//! A buffer at a fixed address, to be shared with the kernel.

use std::io;
use std::ptr::NonNull;

use crate::mapping::{map_aligned, prefer_node, unmap};
use crate::{PAGE_SIZE, PhysicalNode};

/// Zeroed memory on one node, at an address that is a multiple of the page size and never changes. Each page takes
/// memory when it is first touched.
pub struct Buffer {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: a buffer owns its mapping; nothing about it belongs to a thread.
unsafe impl Send for Buffer {}
// SAFETY: through `&Buffer` only its address can be had.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `size` bytes on `physical`, or, if that is `None`, on the node that first touches them.
    ///
    /// # Panics
    /// When the system grants no more mappings, as any allocation in Rust does.
    pub fn new(size: usize, physical: Option<PhysicalNode>) -> Self {
        let buffer = Self::try_new(size).expect("there is memory for a buffer");
        if let Some(node) = physical {
            prefer_node(buffer.base.as_ptr(), size, node);
        }
        buffer
    }

    /// `size` bytes, on the node that first touches them.
    pub(crate) fn try_new(size: usize) -> io::Result<Self> {
        let base = map_aligned(size, PAGE_SIZE, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Self { base: NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?, size })
    }

    /// The first address. The buffer can be read and written there as long as it lives.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and users of its address must not outlive the buffer.
        unsafe { unmap(self.base.as_ptr(), self.size) };
    }
}
