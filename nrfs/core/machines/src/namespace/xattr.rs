//! Extended attributes, as tmpfs has them: `user.`, `trusted.` and `security.`. Who may use which is
//! the kernel's to decide, before it asks.

use super::{Namespace, Response, XattrMode};
use crate::types::{Errno, Ino, Time};

const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// Bytes of names and values that an inode can have: room for one value of the largest size that the
/// kernel lets through, and as much again.
const BYTES_MAX: usize = 1 << 17;

impl Namespace {
    /// The value of an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<&[u8], Errno> {
        check(name)?;
        let xattrs = self.inode(ino)?.xattrs.as_ref();
        xattrs.and_then(|xattrs| xattrs.get(name)).map(Box::as_ref).ok_or(Errno::ENODATA)
    }

    /// Whether an inode has `security.capability`.
    pub fn has_capability(&self, ino: Ino) -> bool {
        self.inode(ino).is_ok_and(|inode| inode.has_capability())
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
        let others =
            self.inode(ino)?.xattrs.iter().flat_map(|xattrs| xattrs.iter()).filter(|(other, _)| ***other != *name);
        let others: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if others + name.len() + value.len() > BYTES_MAX {
            return Err(Errno::ENOSPC);
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
