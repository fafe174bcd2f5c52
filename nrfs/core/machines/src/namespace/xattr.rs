//! Extended attributes with the prefixes that tmpfs supports (`user.`, `trusted.` and `security.`), and access
//! control lists, which are set and read as attributes. The kernel checks who may use which.

use std::borrow::Cow;

use super::acl::Acl;
use super::space::xattr_space;
use super::{Changed, Namespace, Response, XattrMode};
use crate::types::{Errno, Ino, Kind, Time};

/// The kind of an attribute, by its name.
pub(super) enum Attribute {
    AccessList,
    DefaultList,
    /// An attribute whose value has no meaning here.
    Plain,
}

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";
const TRUSTED: &[u8] = b"trusted.";
const PREFIXES: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];

/// Bytes of the longest name and of the largest value: the kernel's limits.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 1 << 16;

impl Attribute {
    pub fn named(name: &[u8]) -> Result<Self, Errno> {
        match name {
            ACCESS_LIST => Ok(Self::AccessList),
            DEFAULT_LIST => Ok(Self::DefaultList),
            _ => match PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
                None => Err(Errno::EOPNOTSUPP),
                Some(b"") => Err(Errno::EINVAL),
                Some(_) => Ok(Self::Plain),
            },
        }
    }
}

impl Namespace {
    /// The value of an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Cow<'_, [u8]>, Errno> {
        let attribute = Attribute::named(name)?;
        let inode = self.inode(ino)?;
        if inode.node.kind() == Kind::Symlink && !matches!(attribute, Attribute::Plain) {
            return Err(Errno::EOPNOTSUPP);
        }
        let extended = inode.extended().ok_or(Errno::ENODATA)?;
        let value = match attribute {
            Attribute::AccessList => extended.acl.as_ref().map(|acl| acl.bytes().into()),
            Attribute::DefaultList => extended.default_acl.as_ref().map(|acl| acl.bytes().into()),
            Attribute::Plain => extended.xattrs.get(name).map(|value| Cow::from(&**value)),
        };
        value.ok_or(Errno::ENODATA)
    }

    /// The names of an inode's extended attributes: access control lists first, the rest sorted. Those that
    /// begin with `trusted.` only if `is_root`.
    pub fn xattr_names(&self, ino: Ino, is_root: bool) -> Result<impl Iterator<Item = &[u8]>, Errno> {
        Ok(self.inode(ino)?.extended().into_iter().flat_map(move |extended| {
            let access = extended.acl.as_ref().map(|_| ACCESS_LIST);
            let default = extended.default_acl.as_ref().map(|_| DEFAULT_LIST);
            let plain = extended.xattrs.keys().map(Box::as_ref);
            access.into_iter().chain(default).chain(plain.filter(move |name| is_root || !name.starts_with(TRUSTED)))
        }))
    }

    pub(super) fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, time: Time) -> Response {
        self.flags(ino)?.check_change()?;
        match Attribute::named(name)? {
            Attribute::AccessList => self.set_access_list(ino, Acl::parse(value)?, time),
            Attribute::DefaultList => self.set_default_list(ino, Acl::parse(value)?, time),
            Attribute::Plain => self.set_plain(ino, name, value, mode, time),
        }
    }

    /// Removes an attribute. ENODATA if it is not there, except for a list.
    pub(super) fn remove_xattr(&mut self, ino: Ino, name: &[u8], time: Time) -> Response {
        self.flags(ino)?.check_change()?;
        match Attribute::named(name)? {
            Attribute::AccessList => self.set_access_list(ino, None, time),
            Attribute::DefaultList => self.set_default_list(ino, None, time),
            Attribute::Plain => {
                let inode = self.inode_mut(ino)?;
                let removed = inode.change_extended(|extended| extended.xattrs.remove(name)).ok_or(Errno::ENODATA)?;
                inode.changed = time;
                Ok(Changed { freed: xattr_space(name, &removed), ..self.changed(ino, None)? })
            }
        }
    }

    /// Sets the access control list, and the permissions to match. A list that says no more than these is not kept.
    fn set_access_list(&mut self, ino: Ino, acl: Option<Acl>, time: Time) -> Response {
        let inode = self.inode_mut(ino)?;
        if inode.node.kind() == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        inode.permissions = acl.as_ref().map_or(inode.permissions, |acl| acl.shown_in(inode.permissions));
        let acl = acl.filter(|acl| !acl.is_minimal());
        let (taken, freed) = inode.change_extended(|extended| put(&mut extended.acl, acl));
        inode.changed = time;
        Ok(Changed { taken, freed, ..self.changed(ino, None)? })
    }

    /// Sets the default list of a directory.
    fn set_default_list(&mut self, ino: Ino, acl: Option<Acl>, time: Time) -> Response {
        let inode = self.inode_mut(ino)?;
        match (inode.node.kind(), &acl) {
            (Kind::Directory, _) => {}
            (Kind::Symlink, _) => return Err(Errno::EOPNOTSUPP),
            (_, Some(_)) => return Err(Errno::EACCES),
            (_, None) => return self.changed(ino, None),
        }
        let (taken, freed) = inode.change_extended(|extended| put(&mut extended.default_acl, acl));
        inode.changed = time;
        Ok(Changed { taken, freed, ..self.changed(ino, None)? })
    }

    /// Sets an attribute. The new value is taken before the old one is freed: so there must be space for both.
    fn set_plain(&mut self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, time: Time) -> Response {
        if name.len() > NAME_MAX {
            return Err(Errno::ERANGE);
        }
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        let xattrs = self.inode(ino)?.extended().map(|extended| &extended.xattrs);
        let there = xattrs.is_some_and(|xattrs| xattrs.contains_key(name));
        match (mode, there) {
            (XattrMode::Create | XattrMode::CreateAndReplace, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace | XattrMode::CreateAndReplace, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        let inode = self.inode_mut(ino)?;
        let replaced = inode.change_extended(|extended| extended.xattrs.insert(name.into(), value.into()));
        inode.changed = time;
        let freed = replaced.map_or(0, |replaced| xattr_space(name, &replaced));
        Ok(Changed { taken: xattr_space(name, value), freed, ..self.changed(ino, None)? })
    }
}

/// Replaces a list. Returns the space of the new one and of the old one.
fn put(place: &mut Option<Acl>, acl: Option<Acl>) -> (u64, u64) {
    let space = |acl: &Option<Acl>| acl.as_ref().map_or(0, Acl::space);
    let taken = space(&acl);
    (taken, space(&std::mem::replace(place, acl)))
}
