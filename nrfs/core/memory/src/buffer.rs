//! A buffer that is shared with the kernel.

use std::io;
use std::ptr::NonNull;

use crate::mapping::{map_aligned, prefer_node};
use crate::{PAGE_SIZE, PhysicalNode};

/// Zeroed memory that begins at a page, on one node, at an address that never changes. Its pages take
/// memory once they are touched.
pub struct Buffer {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: a buffer owns its mapping; nothing about it belongs to a thread.
unsafe impl Send for Buffer {}
// SAFETY: through `&Buffer` only its address can be had.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `size` bytes, on `physical` or wherever they are first touched.
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

    /// `size` bytes, wherever they are first touched.
    pub(crate) fn try_new(size: usize) -> io::Result<Self> {
        let base = map_aligned(size, PAGE_SIZE, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Self { base: NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?, size })
    }

    /// Where it begins. It can be read and written as long as the buffer lives.
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
        // SAFETY: the mapping is ours, and who uses its address must not outlive the buffer.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
    }
}
