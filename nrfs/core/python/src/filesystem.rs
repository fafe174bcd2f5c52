//! `nrfs.Filesystem`.

use std::sync::Arc;

use filesystem::{
    AllocateMode, Configuration, ConfigurationError, ContentPlace, Cookie, Errno, Ino, Name, NewAttributes, NewInode,
    NewNode, Owner, Permissions, RenameMode, Time, Token, Whence, XattrMode,
};
use pyo3::exceptions::{PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::convert::{
    self, Amount, Attributes, Capacity, DirectoryEntry, Nodes, Number, bytes, copied, os_error, value_error,
};
use crate::heaps;
use crate::here::Here;

/// How many entries of a directory one read lists: few, so that changes do not wait for long.
const READDIR_STEP: usize = 1024;

/// The bits that chmod(2) sets.
const MODE_MAX: u32 = 0o7777;

/// A node-replicated in-memory file system.
#[pyclass(frozen, module = "nrfs")]
pub struct Filesystem {
    service: Here<Arc<::filesystem::Filesystem>>,
}

impl Filesystem {
    /// The service that this object wraps.
    pub fn service(&self) -> PyResult<&Arc<::filesystem::Filesystem>> {
        self.service.get()
    }

    /// Calls the service without the GIL, at the replica nearest to this thread.
    fn call<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&::filesystem::Filesystem, &Token) -> Result<R, Errno> + Send,
    ) -> PyResult<R> {
        let service = self.service()?;
        py.detach(|| service.with_token(|token| call(service, token))).map_err(os_error)
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
        signature = (*, nodes = Nodes::Named("auto".into()), content = "replicated", logs = Number(4),
                     size = Amount::Text("50%".into()), inodes = None, mode = Number(0o755), uid = None, gid = None,
                     huge = None, mpol = None, noswap = false),
        text_signature = "(*, nodes='auto', content='replicated', logs=4, size='50%', inodes=None, mode=0o755, \
                          uid=None, gid=None, huge=None, mpol=None, noswap=False)"
    )]
    #[allow(clippy::too_many_arguments, reason = "as many as there are settings")]
    fn new(
        nodes: Nodes,
        content: &str,
        logs: Number<usize>,
        size: Amount,
        inodes: Option<Number<u64>>,
        mode: Number<u32>,
        uid: Option<Number<u32>>,
        gid: Option<Number<u32>>,
        huge: Option<String>,
        mpol: Option<String>,
        noswap: bool,
    ) -> PyResult<Self> {
        let content = match (content, huge, mpol) {
            ("shared", huge, policy) => ContentPlace::Shared { huge, policy, noswap },
            ("replicated", None, None) if !noswap => ContentPlace::Replicated,
            ("replicated", ..) => {
                return Err(PyValueError::new_err("huge, mpol and noswap are for shared content alone"));
            }
            _ => return Err(PyValueError::new_err("content is 'replicated' or 'shared'")),
        };
        if mode.0 > MODE_MAX {
            return Err(PyValueError::new_err(format!("a mode from 0 to {MODE_MAX:#o} is needed")));
        }
        let configuration = Configuration {
            topology: nodes.topology()?,
            content,
            logs: logs.0,
            size: size.size()?,
            inodes: inodes.map(|Number(inodes)| inodes),
            permissions: Permissions::from_mode(mode.0),
            owner: owner(uid.map(|Number(uid)| uid), gid.map(|Number(gid)| gid)),
        };
        match ::filesystem::Filesystem::new(configuration) {
            Ok(service) => Ok(Self { service: Here::new(Arc::new(service)) }),
            Err(error @ ConfigurationError::Memory) => Err(PyMemoryError::new_err(error.to_string())),
            Err(error @ ConfigurationError::Tmpfs(None, errno)) => {
                Err(PyOSError::new_err((errno.raw_os_error(), error.to_string())))
            }
            Err(error) => Err(value_error(error)),
        }
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
        self.call(py, |service, token| {
            service.create_nameless(Ino(parent), inode, token).map(|made| made.attributes.into())
        })
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
        bytes(py, &target)
    }

    #[pyo3(signature = (ino, cookie = 0, limit = 1024))]
    fn readdir<'py>(&self, py: Python<'py>, ino: u64, cookie: u64, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let (all, mut cookie) = (PyList::empty(py), Cookie(cookie));
        while all.len() < limit {
            let step = (limit - all.len()).min(READDIR_STEP);
            let entries = self.call(py, |service, token| service.list(Ino(ino), cookie, step, token))?;
            let Some(last) = entries.last() else { break };
            cookie = last.cookie;
            for entry in entries {
                all.append(DirectoryEntry::new(py, entry)?)?;
            }
        }
        Ok(all)
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
            accessed: atime_ns.map(Time::from_nanoseconds),
            modified: mtime_ns.map(Time::from_nanoseconds),
            changed: ctime_ns.map(Time::from_nanoseconds),
        };
        self.call(py, |service, token| service.set_attributes(Ino(ino), size, new, token).map(Attributes::from))
    }

    fn getxattr<'py>(&self, py: Python<'py>, ino: u64, name: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let value = self.call(py, |service, token| service.xattr(Ino(ino), name, token))?;
        bytes(py, &value)
    }

    #[pyo3(signature = (ino, name, value, flags = 0))]
    fn setxattr(&self, py: Python<'_>, ino: u64, name: &[u8], value: &[u8], flags: u32) -> PyResult<()> {
        let mode = XattrMode::from_flags(flags).map_err(os_error)?;
        self.call(py, |service, token| service.set_xattr(Ino(ino), name.into(), value.into(), mode, token))
    }

    #[pyo3(signature = (ino, *, uid = 0))]
    fn listxattr<'py>(&self, py: Python<'py>, ino: u64, uid: u32) -> PyResult<Bound<'py, PyList>> {
        let names = self.call(py, |service, token| service.xattr_names(Ino(ino), uid == 0, token))?;
        PyList::new(py, names.iter().map(|name| bytes(py, name)).collect::<PyResult<Vec<_>>>()?)
    }

    fn removexattr(&self, py: Python<'_>, ino: u64, name: &[u8]) -> PyResult<()> {
        self.call(py, |service, token| service.remove_xattr(Ino(ino), name.into(), token))
    }

    fn read<'py>(&self, py: Python<'py>, ino: u64, offset: u64, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let end = self.call(py, |service, token| service.attributes(Ino(ino), token))?.size;
        let size = size.min(usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut copied = 0;
        let read = PyBytes::new_with(py, size, |buffer| {
            copied = self.call(py, |service, token| service.read(Ino(ino), offset, buffer, token))?;
            Ok(())
        })?;
        // The file may have been truncated meanwhile.
        if copied < size { bytes(py, &read.as_bytes()[..copied]) } else { Ok(read) }
    }

    fn write(&self, py: Python<'_>, ino: u64, offset: u64, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(data) = data.cast::<PyBytes>() {
            let data = data.as_bytes();
            return self.call(py, |service, token| service.write(Ino(ino), offset, data, token));
        }
        let data: Vec<u8> = copied(py, data)?;
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
    fn is_scarce(&self) -> PyResult<bool> {
        Ok(self.service()?.is_scarce())
    }

    fn capacity(&self) -> PyResult<Capacity> {
        Ok(self.service()?.capacity().into())
    }

    #[pyo3(signature = (*, size = None, inodes = None))]
    fn resize(&self, py: Python<'_>, size: Option<Amount>, inodes: Option<Number<u64>>) -> PyResult<()> {
        let size = size.map(Amount::size).transpose()?;
        let service = self.service()?;
        py.detach(|| service.resize(size, inodes.map(|Number(inodes)| inodes)))
            .map_err(|refused| PyOSError::new_err((libc::EINVAL, refused.to_string())))
    }

    #[pyo3(signature = (*, surplus = false))]
    fn release_memory(&self, py: Python<'_>, surplus: bool) -> PyResult<()> {
        let service = self.service()?;
        py.detach(|| {
            service.with_token(|token| service.give_back_memory(surplus, token));
            if !surplus {
                // SAFETY: any thread may call it at any time.
                unsafe { libmimalloc_sys::mi_collect(true) };
                heaps::collect();
            }
        });
        Ok(())
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        convert::status(py, &self.service()?.status())
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
