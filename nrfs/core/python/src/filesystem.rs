//! `nrfs.Filesystem`.

use std::sync::Arc;

use filesystem::{
    AllocateMode, Configuration, Cookie, Errno, Ino, Name, NewAttributes, NewInode, NewNode, Owner, Permissions,
    RenameMode, Size, Time, Token, Whence, XattrMode,
};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::convert::{self, Attributes, Capacity, DirectoryEntry, Nodes, os_error, value_error};

/// A node-replicated in-memory file system.
#[pyclass(frozen, module = "nrfs")]
pub struct Filesystem {
    service: Arc<::filesystem::Filesystem>,
}

/// Bytes, or a text such as `"8G"` or `"50%"`.
#[derive(FromPyObject)]
enum Amount {
    Bytes(i64),
    Text(String),
}

impl Filesystem {
    /// What this object stands for.
    pub fn service(&self) -> &Arc<::filesystem::Filesystem> {
        &self.service
    }

    /// Calls the service without the GIL, at the replica nearest to this thread.
    fn call<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&::filesystem::Filesystem, &Token) -> Result<R, Errno> + Send,
    ) -> PyResult<R> {
        py.detach(|| self.service.with_token(|token| call(&self.service, token))).map_err(os_error)
    }

    fn create(&self, py: Python<'_>, parent: u64, name: &[u8], inode: NewInode) -> PyResult<Attributes> {
        self.call(py, |service, token| {
            service.create(Ino(parent), Name::new(name)?, inode, token).map(Attributes::from)
        })
    }
}

#[pymethods]
impl Filesystem {
    #[new]
    #[pyo3(
        signature = (*, nodes = Nodes::Named("auto".into()), logs = 4, size = Amount::Text("50%".into()),
                     inodes = None, mode = 0o755, uid = None, gid = None),
        text_signature = "(*, nodes='auto', logs=4, size='50%', inodes=None, mode=0o755, uid=None, gid=None)"
    )]
    fn new(
        nodes: Nodes,
        logs: usize,
        size: Amount,
        inodes: Option<u64>,
        mode: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Self> {
        let size = match size {
            Amount::Bytes(bytes) => Ok(Size::Bytes(u64::try_from(bytes).unwrap_or(0))),
            Amount::Text(text) => text.parse(),
        };
        let configuration = Configuration {
            topology: nodes.topology()?,
            logs,
            size: size.map_err(value_error)?,
            inodes,
            permissions: Permissions::from_mode(mode),
            owner: owner(uid, gid),
        };
        let service = ::filesystem::Filesystem::new(configuration).map_err(value_error)?;
        Ok(Self { service: Arc::new(service) })
    }

    fn lookup(&self, py: Python<'_>, parent: u64, name: &[u8]) -> PyResult<Attributes> {
        self.call(py, |service, token| service.lookup(Ino(parent), &Name::new(name)?, token).map(Attributes::from))
    }

    #[pyo3(signature = (parent, name, mode, *, rdev = 0, umask = 0, uid = None, gid = None))]
    #[allow(clippy::too_many_arguments, reason = "as many as mknod(2) and its caller have")]
    fn mknod(
        &self,
        py: Python<'_>,
        parent: u64,
        name: &[u8],
        mode: u32,
        rdev: u32,
        umask: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Attributes> {
        let node = NewNode::from_mode(mode, rdev).map_err(os_error)?;
        self.create(py, parent, name, NewInode::new(node, mode, umask, owner(uid, gid)))
    }

    #[pyo3(signature = (parent, mode, *, umask = 0, uid = None, gid = None))]
    fn mknod_nameless(
        &self,
        py: Python<'_>,
        parent: u64,
        mode: u32,
        umask: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Attributes> {
        let inode = NewInode::new(NewNode::File, mode, umask, owner(uid, gid));
        self.call(py, |service, token| service.create_nameless(Ino(parent), inode, token).map(Attributes::from))
    }

    #[pyo3(signature = (parent, name, mode, *, umask = 0, uid = None, gid = None))]
    #[allow(clippy::too_many_arguments, reason = "as many as mkdir(2) and its caller have")]
    fn mkdir(
        &self,
        py: Python<'_>,
        parent: u64,
        name: &[u8],
        mode: u32,
        umask: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Attributes> {
        self.create(py, parent, name, NewInode::new(NewNode::Directory, mode, umask, owner(uid, gid)))
    }

    #[pyo3(signature = (parent, name, target, *, uid = None, gid = None))]
    fn symlink(
        &self,
        py: Python<'_>,
        parent: u64,
        name: &[u8],
        target: &[u8],
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<Attributes> {
        self.create(py, parent, name, NewInode::new(NewNode::Symlink(target.into()), 0o777, 0, owner(uid, gid)))
    }

    fn link(&self, py: Python<'_>, ino: u64, parent: u64, name: &[u8]) -> PyResult<Attributes> {
        self.call(py, |service, token| {
            service.link(Ino(ino), Ino(parent), Name::new(name)?, token).map(Attributes::from)
        })
    }

    fn unlink(&self, py: Python<'_>, parent: u64, name: &[u8]) -> PyResult<()> {
        self.call(py, |service, token| service.unlink(Ino(parent), Name::new(name)?, token))
    }

    fn rmdir(&self, py: Python<'_>, parent: u64, name: &[u8]) -> PyResult<()> {
        self.call(py, |service, token| service.remove_directory(Ino(parent), Name::new(name)?, token))
    }

    #[pyo3(signature = (parent, name, new_parent, new_name, flags = 0, *, uid = None, gid = None))]
    #[allow(clippy::too_many_arguments, reason = "as many as renameat2(2) and its caller have")]
    fn rename(
        &self,
        py: Python<'_>,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> PyResult<()> {
        let owner = owner(uid, gid);
        let mode = RenameMode::from_flags(flags).map_err(os_error)?;
        self.call(py, |service, token| {
            let (from, to) = ((Ino(parent), Name::new(name)?), (Ino(new_parent), Name::new(new_name)?));
            service.rename(from, to, mode, owner, token)
        })
    }

    fn readlink<'py>(&self, py: Python<'py>, ino: u64) -> PyResult<Bound<'py, PyBytes>> {
        let target = self.call(py, |service, token| service.target(Ino(ino), token))?;
        Ok(PyBytes::new(py, &target))
    }

    #[pyo3(signature = (ino, cookie = 0, limit = 1024))]
    fn readdir(&self, py: Python<'_>, ino: u64, cookie: u64, limit: usize) -> PyResult<Vec<DirectoryEntry>> {
        let entries = self.call(py, |service, token| service.list(Ino(ino), Cookie(cookie), limit, token))?;
        entries.into_iter().map(|entry| DirectoryEntry::new(py, entry)).collect()
    }

    fn attributes(&self, py: Python<'_>, ino: u64) -> PyResult<Attributes> {
        self.call(py, |service, token| service.attributes(Ino(ino), token).map(Attributes::from))
    }

    #[pyo3(signature = (ino, *, mode = None, uid = None, gid = None, size = None,
                        atime_ns = None, mtime_ns = None, ctime_ns = None))]
    #[allow(clippy::too_many_arguments, reason = "as many as there are attributes to set")]
    fn set_attributes(
        &self,
        py: Python<'_>,
        ino: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime_ns: Option<i128>,
        mtime_ns: Option<i128>,
        ctime_ns: Option<i128>,
    ) -> PyResult<Attributes> {
        let new = NewAttributes {
            permissions: mode.map(Permissions::from_mode),
            uid,
            gid,
            size,
            accessed: atime_ns.map(Time::from_nanoseconds),
            modified: mtime_ns.map(Time::from_nanoseconds),
            changed: ctime_ns.map(Time::from_nanoseconds),
        };
        self.call(py, |service, token| service.set_attributes(Ino(ino), new, token).map(Attributes::from))
    }

    fn getxattr<'py>(&self, py: Python<'py>, ino: u64, name: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let value = self.call(py, |service, token| service.xattr(Ino(ino), name, token))?;
        Ok(PyBytes::new(py, &value))
    }

    #[pyo3(signature = (ino, name, value, flags = 0))]
    fn setxattr(&self, py: Python<'_>, ino: u64, name: &[u8], value: &[u8], flags: u32) -> PyResult<()> {
        let mode = XattrMode::from_flags(flags).map_err(os_error)?;
        self.call(py, |service, token| service.set_xattr(Ino(ino), name.into(), value.into(), mode, token))
    }

    #[pyo3(signature = (ino, *, uid = 0))]
    fn listxattr<'py>(&self, py: Python<'py>, ino: u64, uid: u32) -> PyResult<Bound<'py, PyList>> {
        let names = self.call(py, |service, token| service.xattr_names(Ino(ino), uid == 0, token))?;
        PyList::new(py, names.iter().map(|name| PyBytes::new(py, name)))
    }

    fn removexattr(&self, py: Python<'_>, ino: u64, name: &[u8]) -> PyResult<()> {
        self.call(py, |service, token| service.remove_xattr(Ino(ino), name.into(), token))
    }

    fn read<'py>(&self, py: Python<'py>, ino: u64, offset: u64, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let end = self.call(py, |service, token| service.attributes(Ino(ino), token))?.size;
        let size = size.min(usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut copied = 0;
        let bytes = PyBytes::new_with(py, size, |buffer| {
            copied = self.call(py, |service, token| service.read(Ino(ino), offset, buffer, token))?;
            Ok(())
        })?;
        // The file may have been cut short in between.
        if copied < size { Ok(PyBytes::new(py, &bytes.as_bytes()[..copied])) } else { Ok(bytes) }
    }

    fn write(&self, py: Python<'_>, ino: u64, offset: u64, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(data) = data.cast::<PyBytes>() {
            let data = data.as_bytes();
            return self.call(py, |service, token| service.write(Ino(ino), offset, data, token));
        }
        // Somebody may change a buffer while the GIL is free: a copy is safe.
        let data = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        self.call(py, |service, token| service.write(Ino(ino), offset, &data, token))
    }

    #[pyo3(signature = (ino, offset, length, mode = 0))]
    fn fallocate(&self, py: Python<'_>, ino: u64, offset: u64, length: u64, mode: u32) -> PyResult<()> {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE as u32 != 0;
        let mode = AllocateMode::from_flags(mode).map_err(os_error)?;
        self.call(py, |service, token| service.allocate(Ino(ino), offset, length, mode, keep_size, token))
    }

    fn seek(&self, py: Python<'_>, ino: u64, offset: u64, whence: u32) -> PyResult<u64> {
        let whence = Whence::from_number(whence).map_err(os_error)?;
        self.call(py, |service, token| service.seek(Ino(ino), offset, whence, token))
    }

    #[pyo3(signature = (ino, count = 1))]
    fn hold(&self, py: Python<'_>, ino: u64, count: u64) -> PyResult<()> {
        self.call(py, |service, token| service.hold(Ino(ino), count, token))
    }

    #[pyo3(signature = (ino, count = 1))]
    fn forget(&self, py: Python<'_>, ino: u64, count: u64) -> PyResult<()> {
        self.call(py, |service, token| {
            service.forget(Ino(ino), count, token);
            Ok(())
        })
    }

    #[getter]
    fn is_scarce(&self) -> bool {
        self.service.is_scarce()
    }

    fn capacity(&self) -> Capacity {
        self.service.capacity().into()
    }

    #[pyo3(signature = (*, surplus = false))]
    fn release_memory(&self, py: Python<'_>, surplus: bool) {
        py.detach(|| {
            self.service.with_token(|token| self.service.give_back_memory(surplus, token));
            if !surplus {
                // SAFETY: it takes a flag, and may be called by any thread at any time.
                unsafe { libmimalloc_sys::mi_collect(true) };
            }
        });
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        convert::status(py, &self.service.status())
    }

    fn verify<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all = self.call(py, |service, token| Ok(service.verify(token)))?;
        let all = all.iter().map(|one| convert::verification(py, &one.log, one.position, &one.digests));
        PyList::new(py, all.collect::<PyResult<Vec<_>>>()?)
    }
}

/// The given ids, or the caller's own.
fn owner(uid: Option<u32>, gid: Option<u32>) -> Owner {
    Owner {
        uid: uid.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        gid: gid.unwrap_or_else(|| rustix::process::getegid().as_raw()),
    }
}
