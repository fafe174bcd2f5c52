//! What a workload asks of a file system.

use std::hint::black_box;

use rustix::io::Errno;

/// A file system, as one core uses it. Paths are relative to the directory of the measurement, and have no `.`, no `..`
/// and no empty name.
#[allow(missing_docs, reason = "each is what the system call does")]
pub trait Calls {
    /// An open file. It is closed when it is dropped.
    type File;

    /// Opens a file, and makes it if there is none.
    fn open(&self, path: &[u8]) -> Result<Self::File, Errno>;
    fn read(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> Result<usize, Errno>;
    fn write(&self, file: &Self::File, bytes: &[u8], offset: u64) -> Result<usize, Errno>;
    fn truncate(&self, file: &Self::File, size: u64) -> Result<(), Errno>;
    fn sync(&self, file: &Self::File) -> Result<(), Errno>;
    /// Makes an empty file where there is none.
    fn create(&self, path: &[u8]) -> Result<(), Errno>;
    fn make_directory(&self, path: &[u8]) -> Result<(), Errno>;
    fn unlink(&self, path: &[u8]) -> Result<(), Errno>;
    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), Errno>;
    /// The size of a file.
    fn stat(&self, path: &[u8]) -> Result<u64, Errno>;
    /// Calls `each` with every name of a directory, `.` and `..` among them.
    fn list(&self, path: &[u8], each: impl FnMut(&[u8])) -> Result<(), Errno>;
}

/// No file system: each call returns at once what the workload expects. So a workload on it takes as long as the harness
/// takes of every other measurement, and a call on top.
pub struct Nothing {
    /// What [`list`](Calls::list) calls with.
    pub names: u64,
    /// What [`stat`](Calls::stat) answers.
    pub size: u64,
}

impl Calls for Nothing {
    type File = ();

    #[inline]
    fn open(&self, path: &[u8]) -> Result<(), Errno> {
        black_box(path);
        Ok(())
    }

    #[inline]
    fn read(&self, (): &(), buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let buffer = black_box(buffer);
        if let Some(mark) = buffer.first_chunk_mut() {
            *mark = offset.to_le_bytes();
        }
        Ok(buffer.len())
    }

    #[inline]
    fn write(&self, (): &(), bytes: &[u8], _offset: u64) -> Result<usize, Errno> {
        Ok(black_box(bytes).len())
    }

    #[inline]
    fn truncate(&self, (): &(), size: u64) -> Result<(), Errno> {
        black_box(size);
        Ok(())
    }

    #[inline]
    fn sync(&self, (): &()) -> Result<(), Errno> {
        Ok(())
    }

    #[inline]
    fn create(&self, path: &[u8]) -> Result<(), Errno> {
        black_box(path);
        Ok(())
    }

    fn make_directory(&self, _path: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    #[inline]
    fn unlink(&self, path: &[u8]) -> Result<(), Errno> {
        black_box(path);
        Ok(())
    }

    #[inline]
    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        black_box((from, to));
        Ok(())
    }

    #[inline]
    fn stat(&self, path: &[u8]) -> Result<u64, Errno> {
        black_box(path);
        Ok(self.size)
    }

    #[inline]
    fn list(&self, path: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        (0..self.names).for_each(|_| each(black_box(path)));
        Ok(())
    }
}
