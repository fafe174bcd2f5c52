//! Moving a name, as renameat2(2): every check comes before the first change.

use super::inode::Node;
use super::{Attributes, Changed, Namespace, RenameMode, Response};
use crate::namespace::{NewInode, NewNode};
use crate::types::{Errno, Ino, Kind, Name, Owner, Permissions, Time};

/// A directory and a name in it.
type Place<'a> = (Ino, &'a Name);

impl Namespace {
    pub(super) fn rename(&mut self, from: Place, to: Place, mode: RenameMode, owner: Owner, time: Time) -> Response {
        let moved = self.lookup(from.0, from.1)?;
        self.live_directory(to.0)?;
        let target = match self.lookup(to.0, to.1) {
            Err(Errno::ENOENT) => None,
            found => Some(found?),
        };
        if moved.kind == Kind::Directory && self.lies_below(to.0, moved.ino)? {
            return Err(Errno::EINVAL);
        }
        match (mode, target) {
            (RenameMode::Exchange, None) => Err(Errno::ENOENT),
            (RenameMode::Exchange, Some(target)) => {
                if target.kind == Kind::Directory && self.lies_below(from.0, target.ino)? {
                    return Err(Errno::EINVAL);
                }
                self.check_removal(from.0, &moved)?;
                self.check_removal(to.0, &target)?;
                self.exchange(from, (moved.ino, moved.kind), to, (target.ino, target.kind), time)
            }
            (RenameMode::NoReplace | RenameMode::NoReplaceWhiteout, Some(_)) => Err(Errno::EEXIST),
            // Two names of one inode: POSIX requires that both stay.
            (_, Some(target)) if target.ino == moved.ino => self.changed(moved.ino, None),
            (_, Some(target)) => {
                self.check_removal(from.0, &moved)?;
                self.check_removal(to.0, &target)?;
                match (moved.kind == Kind::Directory, target.kind == Kind::Directory) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.directory(target.ino)?.is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
                self.remove_entry(to.0, to.1, target.kind, time);
                let (orphan, freed) = self.take_name(target.ino, time);
                let taken = self.move_entry(from, to, &moved, mode, owner, time);
                Ok(Changed { taken, freed, ..self.changed(moved.ino, orphan)? })
            }
            (_, None) => {
                self.check_removal(from.0, &moved)?;
                self.flags(to.0)?.check_addition()?;
                let taken = self.move_entry(from, to, &moved, mode, owner, time);
                Ok(Changed { taken, ..self.changed(moved.ino, None)? })
            }
        }
    }

    /// Moves an entry to a place that is free; returns the space of the whiteout that it leaves, or 0.
    fn move_entry(
        &mut self,
        from: Place,
        to: Place,
        moved: &Attributes,
        mode: RenameMode,
        owner: Owner,
        time: Time,
    ) -> u64 {
        let Attributes { ino, kind, .. } = *moved;
        self.remove_entry(from.0, from.1, kind, time);
        self.add_entry(to.0, to.1, ino, kind, time);
        self.arrived(ino, to.0, time);
        if !matches!(mode, RenameMode::Whiteout | RenameMode::NoReplaceWhiteout) {
            return 0;
        }
        let [permissions, umask] = [Permissions::from_mode(0); 2];
        let whiteout = NewInode { node: NewNode::CharacterDevice(0), permissions, umask, owner };
        // This cannot fail: the directory exists, and the name was just removed from it.
        let made = self.create(from.0, from.1, &whiteout, time);
        debug_assert!(made.is_ok());
        made.map_or(0, |made| made.taken)
    }

    fn exchange(&mut self, from: Place, moved: (Ino, Kind), to: Place, target: (Ino, Kind), time: Time) -> Response {
        let is_directory = |kind| u32::from(kind == Kind::Directory);
        self.change_directory(from.0, time, |directory, links| {
            directory.replace(from.1, target.0);
            *links = *links + is_directory(target.1) - is_directory(moved.1);
        });
        self.change_directory(to.0, time, |directory, links| {
            directory.replace(to.1, moved.0);
            *links = *links + is_directory(moved.1) - is_directory(target.1);
        });
        self.arrived(moved.0, to.0, time);
        self.arrived(target.0, from.0, time);
        self.changed(moved.0, None)
    }

    /// Sets the time of change of an inode that was moved to `parent`, and a directory's `..`.
    fn arrived(&mut self, ino: Ino, parent: Ino, time: Time) {
        if let Some(inode) = self.inodes.get_mut(ino) {
            inode.changed = time;
            if let Node::Directory(directory) = &mut inode.node {
                directory.parent = parent;
            }
        }
    }

    /// Whether directory `ino` is `ancestor` or lies below it.
    fn lies_below(&self, mut ino: Ino, ancestor: Ino) -> Result<bool, Errno> {
        while ino != ancestor {
            if ino == Ino::ROOT {
                return Ok(false);
            }
            ino = self.directory(ino)?.parent;
        }
        Ok(true)
    }
}
