//! Extended attributes, as tmpfs has them: `user.`, `trusted.` and `security.`. Who may use which is
//! the kernel's to decide, before it asks.

use super::{Namespace, Response, XattrMode};
use crate::types::{Errno, Ino, Time};

const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

impl Namespace {
    /// The value of an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<&[u8], Errno> {
        check(name)?;
        let xattrs = self.inode(ino)?.xattrs.as_ref();
        xattrs.and_then(|xattrs| xattrs.get(name)).map(Box::as_ref).ok_or(Errno::ENODATA)
    }

    /// The names of an inode's extended attributes, sorted.
    pub fn xattr_names(&self, ino: Ino) -> Result<impl Iterator<Item = &[u8]>, Errno> {
        Ok(self.inode(ino)?.xattrs.iter().flat_map(|xattrs| xattrs.keys()).map(Box::as_ref))
    }

    pub(super) fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, time: Time) -> Response {
        check(name)?;
        let there = self.inode(ino)?.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(name));
        match (mode, there) {
            (XattrMode::Create, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        let inode = self.inode_mut(ino)?;
        inode.xattrs.get_or_insert_default().insert(name.into(), value.into());
        inode.changed = time;
        self.changed(ino, None)
    }

    pub(super) fn remove_xattr(&mut self, ino: Ino, name: &[u8], time: Time) -> Response {
        check(name)?;
        let inode = self.inode_mut(ino)?;
        let xattrs = inode.xattrs.as_mut().ok_or(Errno::ENODATA)?;
        xattrs.remove(name).ok_or(Errno::ENODATA)?;
        if xattrs.is_empty() {
            inode.xattrs = None;
        }
        inode.changed = time;
        self.changed(ino, None)
    }
}

/// Whether there can be an attribute of that name.
fn check(name: &[u8]) -> Result<(), Errno> {
    match PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
        None => Err(Errno::EOPNOTSUPP),
        Some(b"") => Err(Errno::EINVAL),
        Some(_) => Ok(()),
    }
}
