//! The tree: names, types, permissions, owners, links, extended attributes, symlink targets, times.
//!
//! It knows nothing of the content of files. From the bottom up:
//!
//! - `directory`: the entries of one directory, and cookies that stay valid while it changes;
//! - `acl`: access control lists;
//! - `inode`: one inode and its attributes;
//! - `operation`: the operations that change the tree;
//! - `space`: the inode space that inodes and changes take;
//! - this file: reading the tree; making, linking and removing;
//! - `rename`: moving;
//! - `xattr`: extended attributes, by which access control lists are set too.
//!
//! Permissions are not checked here: the kernel checks them before it sends a request. But it knows nothing of
//! immutable and append-only inodes of a FUSE file system, so what these flags forbid is refused here.

mod acl;
mod directory;
mod inode;
mod operation;
mod rename;
mod space;
mod xattr;

pub use directory::Cookie;
pub use inode::Attributes;
pub use operation::{
    Change, Changed, NewAttributes, NewInode, NewNode, Privileges, RenameMode, Response, WriteOperation, XattrMode,
};

pub use space::{HEAP_PER_SPACE, INODE_SPACE};

use std::ops::ControlFlow;

use foldhash::fast::FixedState;
use nr::Dispatch;

use crate::digest::{Digest, Digester};
use crate::table::Table;
use crate::types::{Errno, Ino, InodeFlags, Kind, Name, Owner, Permissions, Time};
use directory::Directory;
use inode::{Inode, Node};

/// The longest target of a symlink: PATH_MAX, less the NUL.
const TARGET_MAX: usize = 4095;

/// The tree of one file system.
pub struct Namespace {
    inodes: Table<Inode>,
    /// The number of the next inode to be made.
    next: Ino,
    /// Hashes names for the directories' indexes. No response depends on it.
    hasher: FixedState,
}

impl Dispatch for Namespace {
    type WriteOperation = WriteOperation;
    type Response = Response;

    fn dispatch_mut(&mut self, operation: &WriteOperation) -> Response {
        let time = operation.time;
        match &operation.change {
            Change::Create { parent, name, inode } => self.create(*parent, name, inode, time),
            Change::CreateNameless { parent, inode } => self.create_nameless(*parent, inode, time),
            Change::Link { ino, parent, name } => self.link(*ino, *parent, name, time),
            Change::Unlink { parent, name } => self.unlink(*parent, name, time),
            Change::RemoveDirectory { parent, name } => self.remove_directory(*parent, name, time),
            Change::Rename { parent, name, new_parent, new_name, mode, owner } => {
                self.rename((*parent, name), (*new_parent, new_name), *mode, *owner, time)
            }
            Change::SetAttributes { ino, attributes } => self.set_attributes(*ino, attributes, time),
            Change::SetFlags { ino, flags } => self.set_flags(*ino, *flags, time),
            Change::KillPrivileges { ino, privileges } => self.kill_privileges(*ino, *privileges, time),
            Change::SetXattr { ino, name, value, mode } => self.set_xattr(*ino, name, value, *mode, time),
            Change::RemoveXattr { ino, name } => self.remove_xattr(*ino, name, time),
            Change::Drop { ino } => self.drop_inode(*ino),
        }
    }

    fn payload_bytes(operation: &WriteOperation) -> usize {
        match &operation.change {
            Change::Create { name, inode: NewInode { node: NewNode::Symlink(target), .. }, .. } => {
                name.as_bytes().len() + target.len()
            }
            Change::Create { name, .. }
            | Change::Link { name, .. }
            | Change::Unlink { name, .. }
            | Change::RemoveDirectory { name, .. } => name.as_bytes().len(),
            Change::Rename { name, new_name, .. } => name.as_bytes().len() + new_name.as_bytes().len(),
            Change::SetXattr { name, value, .. } => name.len() + value.len(),
            Change::RemoveXattr { name, .. } => name.len(),
            Change::CreateNameless { .. }
            | Change::SetAttributes { .. }
            | Change::SetFlags { .. }
            | Change::KillPrivileges { .. }
            | Change::Drop { .. } => 0,
        }
    }
}

/// Reading the tree.
impl Namespace {
    /// A tree that is only a root. `seed` makes hashes of names unpredictable, so that nobody can choose names
    /// that collide in an index. It is the same for all replicas.
    pub fn new(root: Permissions, owner: Owner, time: Time, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        let mut inodes = Table::new();
        let directory = Node::Directory(Box::new(Directory::new(Ino::ROOT, hasher.clone())));
        inodes.insert(Ino::ROOT, Inode::new(directory, root, owner, time));
        Self { inodes, next: Ino(Ino::ROOT.0 + 1), hasher }
    }

    /// The attributes of the inode that `name` in directory `parent` leads to.
    pub fn lookup(&self, parent: Ino, name: &Name) -> Result<Attributes, Errno> {
        let ino = self.directory(parent)?.get(name).ok_or(Errno::ENOENT)?;
        self.attributes(ino)
    }

    /// The attributes of an inode.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes, Errno> {
        Ok(self.inode(ino)?.attributes(ino))
    }

    /// Whether an inode has any of these privileges.
    pub fn has_privileges(&self, ino: Ino, privileges: Privileges) -> bool {
        self.inode(ino).is_ok_and(|inode| inode.has_privileges(privileges))
    }

    /// The flags of an inode.
    pub fn flags(&self, ino: Ino) -> Result<InodeFlags, Errno> {
        Ok(self.inode(ino)?.flags)
    }

    /// The directory that a directory is in. The root is its own parent.
    pub fn parent(&self, ino: Ino) -> Result<Ino, Errno> {
        self.directory(ino).map(|directory| directory.parent)
    }

    /// The target of a symlink; EINVAL for other inodes.
    pub fn target(&self, ino: Ino) -> Result<&[u8], Errno> {
        match &self.inode(ino)?.node {
            Node::Symlink(target) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Calls `visit` for each entry of a directory behind `cookie`, `.` and `..` first, with the cookie from
    /// which a listing continues behind that entry, until `visit` breaks or there are no more.
    pub fn list(
        &self,
        ino: Ino,
        cookie: Cookie,
        mut visit: impl FnMut(Cookie, &[u8], Attributes) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        let directory = self.directory(ino)?;
        let itself = [(Cookie::BEHIND_SELF, &b"."[..], ino), (Cookie::BEHIND_PARENT, b"..", directory.parent)];
        let itself = itself.into_iter().filter(|&(behind, ..)| behind > cookie);
        let entries = directory.entries_behind(cookie);
        let entries = entries.map(|(behind, entry)| (behind, entry.name.as_bytes(), entry.ino));
        for (behind, name, ino) in itself.chain(entries) {
            if visit(behind, name, self.attributes(ino)?).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The digest of the whole tree.
    pub fn digest(&self) -> Digest {
        let mut digester = Digester::default();
        digester.ino(self.next);
        for (ino, inode) in self.inodes.sorted() {
            inode.feed(ino, &mut digester);
        }
        digester.finish()
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(ino).ok_or(Errno::ENOENT)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(ino).ok_or(Errno::ENOENT)
    }

    fn directory(&self, ino: Ino) -> Result<&Directory, Errno> {
        match &self.inode(ino)?.node {
            Node::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// A directory that entries can be added to: one that has not been removed.
    fn live_directory(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.directory(ino)?;
        let inode = self.inode(ino)?;
        if inode.links == 0 { Err(Errno::ENOENT) } else { Ok(inode) }
    }

    /// The answer of a change to `ino`.
    fn changed(&self, ino: Ino, orphan: Option<Ino>) -> Response {
        Ok(Changed { attributes: self.attributes(ino)?, orphan, taken: 0, freed: 0 })
    }
}

/// Making, linking, removing. Every check comes before the first change.
impl Namespace {
    fn create(&mut self, parent: Ino, name: &Name, new: &NewInode, time: Time) -> Response {
        self.live_directory(parent)?;
        if self.directory(parent)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.flags(parent)?.check_addition()?;
        if let NewNode::Symlink(target) = &new.node {
            match target.len() {
                0 => return Err(Errno::ENOENT),
                length if length > TARGET_MAX => return Err(Errno::ENAMETOOLONG),
                _ => {}
            }
        }
        let (ino, kind) = self.make(parent, new, time)?;
        self.add_entry(parent, name, ino, kind, time);
        Ok(Changed { taken: self.inode(ino)?.space(), ..self.changed(ino, None)? })
    }

    fn create_nameless(&mut self, parent: Ino, new: &NewInode, time: Time) -> Response {
        // A directory that has been removed is allowed, too, as nothing is added to it.
        self.directory(parent)?;
        self.flags(parent)?.check_addition()?;
        if !matches!(new.node, NewNode::File) {
            return Err(Errno::EINVAL);
        }
        let (ino, _) = self.make(parent, new, time)?;
        self.inode_mut(ino)?.make_nameless();
        Ok(Changed { taken: self.inode(ino)?.space(), ..self.changed(ino, None)? })
    }

    /// Makes an inode. The caller adds the entry that leads to it.
    fn make(&mut self, parent: Ino, new: &NewInode, time: Time) -> Result<(Ino, Kind), Errno> {
        let ino = self.next;
        self.next = Ino(ino.0 + 1);
        let node = match &new.node {
            NewNode::File => Node::File,
            NewNode::Directory => Node::Directory(Box::new(Directory::new(parent, self.hasher.clone()))),
            NewNode::Symlink(target) => Node::Symlink(target.clone()),
            NewNode::Fifo => Node::Fifo,
            NewNode::Socket => Node::Socket,
            NewNode::CharacterDevice(device) => Node::CharacterDevice(*device),
            NewNode::BlockDevice(device) => Node::BlockDevice(*device),
        };
        let kind = node.kind();
        let mut inode = Inode::new(node, new.permissions, new.owner, time);
        inode.inherit(self.inode(parent)?, new.umask);
        self.inodes.insert(ino, inode);
        Ok((ino, kind))
    }

    fn link(&mut self, ino: Ino, parent: Ino, name: &Name, time: Time) -> Response {
        self.live_directory(parent)?;
        let inode = self.inode(ino)?;
        match (inode.node.kind(), inode.links) {
            (Kind::Directory, _) => return Err(Errno::EPERM),
            (_, 0) if !inode.is_linkable => return Err(Errno::ENOENT),
            (_, u32::MAX) => return Err(Errno::EMLINK),
            _ => {}
        }
        let kind = inode.node.kind();
        if self.directory(parent)?.get(name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.flags(parent)?.check_addition()?;
        inode.flags.check_change()?;
        let inode = self.inode_mut(ino)?;
        let taken = if inode.links == 0 { 0 } else { INODE_SPACE };
        inode.links += 1;
        inode.is_linkable = false;
        inode.changed = time;
        self.add_entry(parent, name, ino, kind, time);
        Ok(Changed { taken, ..self.changed(ino, None)? })
    }

    fn unlink(&mut self, parent: Ino, name: &Name, time: Time) -> Response {
        let attributes = self.lookup(parent, name)?;
        self.check_removal(parent, &attributes)?;
        if attributes.kind == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        self.remove_entry(parent, name, attributes.kind, time);
        let (orphan, freed) = self.take_name(attributes.ino, time);
        Ok(Changed { freed, ..self.changed(attributes.ino, orphan)? })
    }

    fn remove_directory(&mut self, parent: Ino, name: &Name, time: Time) -> Response {
        let attributes = self.lookup(parent, name)?;
        let ino = attributes.ino;
        self.check_removal(parent, &attributes)?;
        if !self.directory(ino)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.remove_entry(parent, name, Kind::Directory, time);
        let (orphan, freed) = self.take_name(ino, time);
        Ok(Changed { freed, ..self.changed(ino, orphan)? })
    }

    /// EPERM if the flags of directory `parent`, or of the inode, forbid to remove an entry that leads to it.
    fn check_removal(&self, parent: Ino, removed: &Attributes) -> Result<(), Errno> {
        self.flags(parent)?.check_change()?;
        removed.flags.check_change()
    }

    fn set_attributes(&mut self, ino: Ino, new: &NewAttributes, time: Time) -> Response {
        let inode = self.inode_mut(ino)?;
        let mut freed = 0;
        if new.uid.is_some() || new.gid.is_some() {
            (_, freed) = inode.kill_privileges(Privileges::All);
        }
        inode.set_permissions(new.permissions.unwrap_or(inode.permissions));
        inode.owner.uid = new.uid.unwrap_or(inode.owner.uid);
        inode.owner.gid = new.gid.unwrap_or(inode.owner.gid);
        inode.accessed = new.accessed.unwrap_or(inode.accessed);
        inode.modified = new.modified.unwrap_or(inode.modified);
        inode.changed = new.changed.unwrap_or(time);
        Ok(Changed { freed, ..self.changed(ino, None)? })
    }

    fn set_flags(&mut self, ino: Ino, flags: InodeFlags, time: Time) -> Response {
        let inode = self.inode_mut(ino)?;
        inode.flags = flags;
        inode.changed = time;
        self.changed(ino, None)
    }

    fn kill_privileges(&mut self, ino: Ino, privileges: Privileges, time: Time) -> Response {
        let inode = self.inode_mut(ino)?;
        let (loses, freed) = inode.kill_privileges(privileges);
        if loses {
            inode.changed = time;
        }
        Ok(Changed { freed, ..self.changed(ino, None)? })
    }

    fn drop_inode(&mut self, ino: Ino) -> Response {
        let attributes = self.attributes(ino)?;
        if !attributes.is_orphan() {
            return Err(Errno::EBUSY);
        }
        let freed = self.inodes.remove(ino).map_or(0, |inode| inode.space());
        Ok(Changed { attributes, orphan: None, taken: 0, freed })
    }

    /// Adds an entry to a directory that does not have that name.
    fn add_entry(&mut self, parent: Ino, name: &Name, ino: Ino, kind: Kind, time: Time) {
        self.change_directory(parent, time, |directory, links| {
            directory.insert(name.clone(), ino);
            *links += u32::from(kind == Kind::Directory);
        });
    }

    /// Removes an entry of a directory.
    fn remove_entry(&mut self, parent: Ino, name: &Name, kind: Kind, time: Time) {
        self.change_directory(parent, time, |directory, links| {
            directory.remove(name);
            *links -= u32::from(kind == Kind::Directory);
        });
    }

    /// Changes a directory's entries and link count, and sets its times to `time`.
    fn change_directory(&mut self, ino: Ino, time: Time, change: impl FnOnce(&mut Directory, &mut u32)) {
        if let Some(Inode { node: Node::Directory(directory), links, modified, changed, .. }) = self.inodes.get_mut(ino)
        {
            change(directory, links);
            *modified = time;
            *changed = time;
        }
    }

    /// Takes one name away from an inode, or the only one from a directory. If it was the last, returns the inode; if
    /// not, the space of the name. The space of the last name is freed with the inode.
    fn take_name(&mut self, ino: Ino, time: Time) -> (Option<Ino>, u64) {
        let Some(inode) = self.inodes.get_mut(ino) else { return (None, 0) };
        inode.links = if inode.node.kind() == Kind::Directory { 0 } else { inode.links - 1 };
        inode.changed = time;
        if inode.links == 0 { (Some(ino), 0) } else { (None, INODE_SPACE) }
    }
}
