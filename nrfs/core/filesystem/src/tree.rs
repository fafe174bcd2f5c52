//! The operations on names, attributes, flags and extended attributes.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use machines::namespace::{Attributes, Change, Cookie, NewAttributes, NewInode, Privileges, RenameMode, XattrMode};
use machines::types::{Errno, Ino, InodeFlags, Kind, Name, Owner};
use machines::{content, namespace};

use crate::contents::{self, Begun};
use crate::filesystem::Filesystem;
use crate::tokens::Token;

/// One name in a directory listing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Any bytes, as the kernel allows them.
    pub name: Box<[u8]>,
    /// Where a listing continues behind this entry.
    pub cookie: Cookie,
    /// The attributes of the inode.
    pub attributes: Attributes,
}

/// An inode that was just made.
#[derive(Debug)]
pub struct Made {
    /// Its attributes.
    pub attributes: Attributes,
    /// What [`Filesystem::backing`] would open. `None` also if it cannot be opened.
    pub backing: Option<OwnedFd>,
}

impl Filesystem {
    /// The attributes of the inode that `name` in directory `parent` leads to.
    pub fn lookup(&self, parent: Ino, name: &Name, token: &Token) -> Result<Attributes, Errno> {
        let tree = self.namespace.execute(|tree| tree.lookup(parent, name), &token.namespace)?;
        Ok(self.join(tree, token))
    }

    /// The attributes of the directory that `..` in directory `ino` leads to.
    pub fn parent(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        let parent = self.namespace.execute(|tree| tree.attributes(tree.parent(ino)?), &token.namespace);
        parent.map(|tree| self.join(tree, token))
    }

    /// Makes an inode under a new name.
    pub fn create(&self, parent: Ino, name: Name, inode: NewInode, token: &Token) -> Result<Attributes, Errno> {
        self.make(parent, name, inode, token).map(|made| made.attributes)
    }

    /// The same, for a file that is to be opened.
    pub fn make(&self, parent: Ino, name: Name, inode: NewInode, token: &Token) -> Result<Made, Errno> {
        let made = self.change_tree(Change::Create { parent, name, inode }, token)?.attributes;
        self.begin(made, token)
    }

    /// Makes a file without a name, and takes a hold on it. When the hold is given up, the file is dropped, unless it
    /// has been linked.
    pub fn create_nameless(&self, parent: Ino, inode: NewInode, token: &Token) -> Result<Made, Errno> {
        let made = self.change_tree(Change::CreateNameless { parent, inode }, token)?.attributes;
        self.holds.add_nameless(made.ino);
        self.begin(made, token)
    }

    /// ENOENT if somebody has dropped the inode since it was made.
    fn begin(&self, tree: Attributes, token: &Token) -> Result<Made, Errno> {
        let begun = if tree.kind == Kind::File { self.contents.begin(tree.ino) } else { Ok(None) };
        // If it failed, it is tried again when the file is opened.
        let Ok(Some(Begun { attributes, backing })) = begun else {
            return Ok(Made { attributes: self.join(tree, token), backing: None });
        };
        self.check_change(tree.ino, token)?;
        Ok(Made { attributes: Self::joined(tree, attributes), backing: Some(backing) })
    }

    /// Gives an inode one more name.
    pub fn link(&self, ino: Ino, parent: Ino, name: Name, token: &Token) -> Result<Attributes, Errno> {
        // The inode may have no name. The hold keeps it until its new name is noted.
        self.holds.add(ino, 1)?;
        let changed = self.change_tree(Change::Link { ino, parent, name }, token);
        if changed.is_ok_and(|changed| changed.attributes.links == 1) {
            self.holds.adopt(ino);
        }
        self.forget(ino, 1, token);
        changed.map(|changed| self.join(changed.attributes, token))
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: Ino, name: Name, token: &Token) -> Result<(), Errno> {
        self.change_tree(Change::Unlink { parent, name }, token).map(drop)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, parent: Ino, name: Name, token: &Token) -> Result<(), Errno> {
        self.change_tree(Change::RemoveDirectory { parent, name }, token).map(drop)
    }

    /// Moves a name.
    pub fn rename(
        &self,
        from: (Ino, Name),
        to: (Ino, Name),
        mode: RenameMode,
        owner: Owner,
        token: &Token,
    ) -> Result<(), Errno> {
        let change = Change::Rename { parent: from.0, name: from.1, new_parent: to.0, new_name: to.1, mode, owner };
        self.change_tree(change, token).map(drop)
    }

    /// Where a symlink leads.
    pub fn target(&self, ino: Ino, token: &Token) -> Result<Box<[u8]>, Errno> {
        self.namespace.execute(|tree| tree.target(ino).map(Into::into), &token.namespace)
    }

    /// At most `limit` entries of a directory, from behind `cookie` on. `.` and `..` come first.
    pub fn list(&self, ino: Ino, cookie: Cookie, limit: usize, token: &Token) -> Result<Vec<Entry>, Errno> {
        let mut found: Vec<(Cookie, Box<[u8]>, Attributes)> = Vec::new();
        let collect = |cookie, name: &[u8], attributes| {
            if found.len() == limit {
                return ControlFlow::Break(());
            }
            found.push((cookie, name.into(), attributes));
            ControlFlow::Continue(())
        };
        self.namespace.execute(|tree| tree.list(ino, cookie, collect), &token.namespace)?;
        let join = |(cookie, name, tree)| Entry { name, cookie, attributes: self.join(tree, token) };
        Ok(found.into_iter().map(join).collect())
    }

    /// Sets the attributes that are given, and the size of a file; returns all attributes. The content has a file's
    /// size, and its times but that of the last access; the tree has the rest. To set some of both takes two changes,
    /// the tree's first.
    pub fn set_attributes(
        &self,
        ino: Ino,
        size: Option<u64>,
        new: NewAttributes,
        token: &Token,
    ) -> Result<Attributes, Errno> {
        let kind = self.namespace.execute(|tree| tree.attributes(ino), &token.namespace)?.kind;
        let NewAttributes { permissions, uid, gid, accessed, modified, changed } = new;
        match (size, kind) {
            (Some(_), Kind::Directory) => return Err(Errno::EISDIR),
            (Some(size), Kind::File) if size > content::SIZE_MAX => return Err(Errno::EFBIG),
            (None, _) | (_, Kind::File) => {}
            (Some(_), _) => return Err(Errno::EINVAL),
        }
        // Attributes of a file that the contents have, and not the tree.
        let is_file = kind == Kind::File;
        let accessed_there = accessed.filter(|_| is_file && self.contents.has_access_times());
        let there = contents::NewAttributes { size, accessed: accessed_there, modified, changed };
        let about_contents = is_file && (size.is_some() || modified.is_some() || accessed_there.is_some());
        if about_contents {
            self.contents.check_memory(ino, token)?;
        }
        let accessed = accessed.filter(|_| accessed_there.is_none());
        if permissions.is_some() || uid.is_some() || gid.is_some() || accessed.is_some() || !about_contents {
            let attributes = NewAttributes { accessed, modified: modified.filter(|_| !is_file), ..new };
            self.change_tree(Change::SetAttributes { ino, attributes }, token)?;
        }
        if about_contents {
            let set = self.contents.set_attributes(ino, there, token);
            self.check_change(ino, token)?;
            set?;
        }
        self.attributes(ino, token)
    }

    /// The flags of an inode that chattr(1) sets. Changes of names and extended attributes are refused if flags forbid
    /// them. Callers check the flags themselves before they open a file for writing, and before they set attributes.
    pub fn flags(&self, ino: Ino, token: &Token) -> Result<InodeFlags, Errno> {
        self.namespace.execute(|tree| tree.flags(ino), &token.namespace)
    }

    /// Sets the flags of an inode.
    pub fn set_flags(&self, ino: Ino, flags: InodeFlags, token: &Token) -> Result<(), Errno> {
        self.change_tree(Change::SetFlags { ino, flags }, token).map(drop)
    }

    /// Whether an inode has any of these privileges.
    pub fn has_privileges(&self, ino: Ino, privileges: Privileges, token: &Token) -> bool {
        self.namespace.execute(|tree| tree.has_privileges(ino, privileges), &token.namespace)
    }

    /// Takes privileges of an inode away, if it has any, and tells the holder.
    pub fn kill_privileges(&self, ino: Ino, privileges: Privileges, token: &Token) -> Result<(), Errno> {
        if !self.has_privileges(ino, privileges, token) {
            return Ok(());
        }
        self.change_tree(Change::KillPrivileges { ino, privileges }, token)?;
        if let Some(holder) = self.holds.holder() {
            holder.forget_attributes(ino);
        }
        Ok(())
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8], token: &Token) -> Result<Box<[u8]>, Errno> {
        self.namespace.execute(|tree| Ok(tree.xattr(ino, name)?.into()), &token.namespace)
    }

    /// The names of an inode's extended attributes; those that begin with `trusted.` only with `is_root`.
    pub fn xattr_names(&self, ino: Ino, is_root: bool, token: &Token) -> Result<Vec<Box<[u8]>>, Errno> {
        let names = |tree: &namespace::Namespace| Ok(tree.xattr_names(ino, is_root)?.map(Into::into).collect());
        self.namespace.execute(|tree| names(tree), &token.namespace)
    }

    /// Sets an extended attribute. ENOSPC unless there is inode space for it besides the one that it replaces.
    pub fn set_xattr(
        &self,
        ino: Ino,
        name: Box<[u8]>,
        value: Box<[u8]>,
        mode: XattrMode,
        token: &Token,
    ) -> Result<(), Errno> {
        self.flags(ino, token)?.check_change()?;
        self.change_tree(Change::SetXattr { ino, name, value, mode }, token).map(drop)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, ino: Ino, name: Box<[u8]>, token: &Token) -> Result<(), Errno> {
        self.change_tree(Change::RemoveXattr { ino, name }, token).map(drop)
    }
}
