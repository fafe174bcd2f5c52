//! The file system of a directory, by system calls.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags, RawDir};
use rustix::io::{Errno, pread, pwrite};

use super::calls::Calls;

/// Bytes of names that one call reads: as many as the C library's readdir(3).
const NAMES: usize = 32 << 10;

/// A directory, by its descriptor: the names that lead to it are not measured.
pub struct System(OwnedFd);

impl System {
    /// The file system of this directory.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn new(directory: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(directory, flags, Mode::empty()).map(Self)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        fs::openat(&self.0, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o700))
    }
}

impl Calls for System {
    type File = OwnedFd;

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(path, OFlags::RDWR | OFlags::CREATE)
    }

    fn read(&self, file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        pread(file, buffer, offset)
    }

    fn write(&self, file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        pwrite(file, bytes, offset)
    }

    fn truncate(&self, file: &OwnedFd, size: u64) -> Result<(), Errno> {
        fs::ftruncate(file, size)
    }

    fn sync(&self, file: &OwnedFd) -> Result<(), Errno> {
        fs::fsync(file)
    }

    fn create(&self, path: &[u8]) -> Result<(), Errno> {
        self.open(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL).map(drop)
    }

    fn make_directory(&self, path: &[u8]) -> Result<(), Errno> {
        fs::mkdirat(&self.0, path, Mode::from_raw_mode(0o700))
    }

    fn unlink(&self, path: &[u8]) -> Result<(), Errno> {
        fs::unlinkat(&self.0, path, AtFlags::empty())
    }

    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        fs::renameat(&self.0, from, &self.0, to)
    }

    fn stat(&self, path: &[u8]) -> Result<u64, Errno> {
        fs::statat(&self.0, path, AtFlags::empty()).map(|status| status.st_size as u64)
    }

    fn list(&self, path: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Errno> {
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut buffer = Vec::with_capacity(NAMES);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            each(entry?.file_name().to_bytes());
        }
        Ok(())
    }
}
