//! The operations on names and on what the tree knows of an inode.

use std::ops::ControlFlow;

use machines::namespace::{Attributes, Change, Cookie, NewAttributes, NewInode, Privileges, RenameMode, XattrMode};
use machines::types::{Errno, Ino, InodeFlags, Kind, Name, Owner};
use machines::{content, namespace};
use memory::shortage::Left;

use crate::filesystem::Filesystem;
use crate::tokens::Token;

/// One name in a directory listing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As the kernel has it: any bytes.
    pub name: Box<[u8]>,
    /// Where the listing goes on behind this entry.
    pub cookie: Cookie,
    /// Of the inode.
    pub attributes: Attributes,
}

impl Filesystem {
    /// What `name` in directory `parent` stands for.
    pub fn lookup(&self, parent: Ino, name: &Name, token: &Token) -> Result<Attributes, Errno> {
        let tree = self.namespace.execute(|tree| tree.lookup(parent, name), &token.namespace)?;
        Ok(self.join(tree, token))
    }

    /// The directory that `..` in directory `ino` stands for.
    pub fn parent(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        let parent = self.namespace.execute(|tree| tree.attributes(tree.parent(ino)?), &token.namespace);
        parent.map(|tree| self.join(tree, token))
    }

    /// Makes an inode under a new name.
    pub fn create(&self, parent: Ino, name: Name, inode: NewInode, token: &Token) -> Result<Attributes, Errno> {
        let changed = self.change_tree(Change::Create { parent, name, inode }, token)?;
        Ok(self.join(changed.attributes, token))
    }

    /// Makes a file without a name, held once: so it stays until it is forgotten, and for good if it is linked before.
    pub fn create_nameless(&self, parent: Ino, inode: NewInode, token: &Token) -> Result<Attributes, Errno> {
        let changed = self.change_tree(Change::CreateNameless { parent, inode }, token)?;
        self.holds.add_nameless(changed.attributes.ino);
        Ok(self.join(changed.attributes, token))
    }

    /// Gives an inode one more name.
    pub fn link(&self, ino: Ino, parent: Ino, name: Name, token: &Token) -> Result<Attributes, Errno> {
        // It may have no name yet: so it must not be dropped until it is noted that it has one.
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

    /// At most `limit` entries of a directory behind `cookie`, `.` and `..` first.
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

    /// Sets what is given, the size of a file among it, and leaves the rest. A file's size and times are its content's,
    /// all else the tree's: where both are set it is two changes, the tree's first.
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
        let is_file = kind == Kind::File;
        let about_content = is_file && (size.is_some() || modified.is_some());
        // Of a file that never had content nothing is known there yet.
        let is_known = || self.read_content(ino, |content| content.attributes(ino), token).is_some();
        if about_content && self.memory_left(0) == Left::Nothing && !is_known() {
            return Err(Errno::ENOSPC);
        }
        let about_tree = permissions.is_some() || uid.is_some() || gid.is_some() || accessed.is_some();
        if about_tree || !about_content {
            let attributes = NewAttributes { modified: modified.filter(|_| !is_file), ..new };
            self.change_tree(Change::SetAttributes { ino, attributes }, token)?;
        }
        if about_content {
            if let Some(size) = size {
                self.cut_promises(ino, size);
            }
            let done = self.change_content(ino, content::Change::SetAttributes { size, modified, changed }, token)?;
            self.free_pages(done.freed);
            self.check_change(ino, token)?;
        }
        self.attributes(ino, token)
    }

    /// What chattr(1) has set on an inode. What it forbids is refused where names and extended attributes change. Whether
    /// a file may be opened for writing, and attributes be set, is to be asked here before.
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

    /// Takes away what lets a file run with more rights than its caller's, if it has any.
    pub fn kill_privileges(&self, ino: Ino, privileges: Privileges, token: &Token) -> Result<(), Errno> {
        if !self.has_privileges(ino, privileges, token) {
            return Ok(());
        }
        self.change_tree(Change::KillPrivileges { ino, privileges }, token)?;
        if let Some(holder) = self.holder() {
            holder.forget_attributes(ino);
        }
        Ok(())
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8], token: &Token) -> Result<Box<[u8]>, Errno> {
        self.namespace.execute(|tree| Ok(tree.xattr(ino, name)?.into()), &token.namespace)
    }

    /// The names of an inode's extended attributes that root, or another, may see.
    pub fn xattr_names(&self, ino: Ino, is_root: bool, token: &Token) -> Result<Vec<Box<[u8]>>, Errno> {
        let names = |tree: &namespace::Namespace| Ok(tree.xattr_names(ino, is_root)?.map(Into::into).collect());
        self.namespace.execute(|tree| names(tree), &token.namespace)
    }

    /// Sets an extended attribute, for which there must be room beside the one whose place it takes.
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
