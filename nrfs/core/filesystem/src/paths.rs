//! Finds the paths of inodes, for those who look at what the kernel asks: it names most inodes by their numbers.
//!
//! An inode does not know its names, and only a directory knows where it is. So the names of other inodes are looked for
//! in the whole tree, a few entries at a time, and for a limited time. Those that were found, or that somebody has
//! learned otherwise, are kept, and are checked before they are used again.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use machines::namespace::{Attributes, Cookie};
use machines::types::{Errno, Ino, Kind, Name};

use crate::filesystem::Filesystem;
use crate::tokens::Token;

/// How many entries of a directory are read at a time: few, so that changes do not wait for long.
const STEP: usize = 1024;

/// How long names are looked for at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// The most names that are kept.
const KEPT: usize = 1 << 16;

/// The most bytes of a path: PATH_MAX. So the walk to the root ends, also if names that were kept are out of date.
const LONGEST: usize = 4096;

/// Where an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The names that lead to it from the root, with slashes between them; empty for the root. `None` if they are not
    /// known, or are too long.
    pub names: Option<Vec<u8>>,
    /// Whether it has been deleted. Then `names` lead to where it was.
    pub is_deleted: bool,
}

/// Names of inodes that are known: of each the last one that was seen.
#[derive(Default)]
pub struct Paths(HashMap<Ino, (Ino, Box<[u8]>)>);

impl Paths {
    /// Notes that a name in a directory leads to an inode.
    pub fn learn(&mut self, ino: Ino, directory: Ino, name: &[u8]) {
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert(ino, (directory, name.into()));
    }

    /// Looks for names of these inodes, unless names that are known still hold, or nothing leads there any more.
    pub fn look_for(&mut self, inodes: impl Iterator<Item = Ino>, filesystem: &Filesystem, token: &Token) {
        let is_wanted = |&ino: &Ino| {
            let there = filesystem.look(ino, token);
            let has_name = there.is_ok_and(|there| there.links > 0 && there.kind != Kind::Directory);
            has_name && !self.0.get(&ino).is_some_and(|known| filesystem.leads_to(known, ino, token))
        };
        let mut wanted: HashSet<Ino> = inodes.filter(is_wanted).collect();
        wanted.iter().for_each(|ino| drop(self.0.remove(ino)));
        let until = Instant::now() + PATIENCE;
        let mut directories = vec![Ino::ROOT];
        while let (false, Some(directory)) = (wanted.is_empty(), directories.pop()) {
            // It fails if the directory has been dropped meanwhile.
            let _ = filesystem.visit(directory, token, |name, entry| {
                if wanted.remove(&entry.ino) {
                    self.learn(entry.ino, directory, name);
                } else if entry.kind == Kind::Directory {
                    directories.push(entry.ino);
                }
                if wanted.is_empty() || Instant::now() > until {
                    directories.clear();
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
        }
    }

    /// The path of an inode.
    pub fn of(&mut self, ino: Ino, filesystem: &Filesystem, token: &Token) -> Path {
        let (mut names, mut length, mut at, mut is_deleted) = (Vec::new(), 0, ino, false);
        while at != Ino::ROOT {
            let there = filesystem.look(at, token).ok().filter(|there| there.links > 0);
            is_deleted |= there.is_none();
            let Some((directory, name)) = self.name(at, there, filesystem, token) else {
                return Path { names: None, is_deleted };
            };
            length += name.len() + 1;
            if length > LONGEST {
                return Path { names: None, is_deleted };
            }
            names.push(name);
            at = directory;
        }
        names.reverse();
        Path { names: Some(names.join(&b'/')), is_deleted }
    }

    /// The path of an entry of a directory, whether it exists or not.
    pub fn of_entry(&mut self, directory: Ino, name: &[u8], filesystem: &Filesystem, token: &Token) -> Path {
        let Path { names, is_deleted } = self.of(directory, filesystem, token);
        let join = |names: Vec<u8>| if names.is_empty() { name.into() } else { [&names, name].join(&b'/') };
        Path { names: names.map(join), is_deleted }
    }

    /// A directory, and a name there, that leads to an inode; or did when it was last seen.
    fn name(
        &mut self,
        ino: Ino,
        there: Option<Attributes>,
        filesystem: &Filesystem,
        token: &Token,
    ) -> Option<(Ino, Box<[u8]>)> {
        let is_right = |known| filesystem.leads_to(known, ino, token);
        let is_directory = there.is_some_and(|there| there.kind == Kind::Directory);
        if is_directory && !self.0.get(&ino).is_some_and(is_right) {
            let parent = filesystem.namespace.execute(|tree| tree.parent(ino), &token.namespace).ok()?;
            // It fails if the directory has been dropped meanwhile.
            let _ = filesystem.visit(parent, token, |name, entry| {
                if entry.ino != ino {
                    return ControlFlow::Continue(());
                }
                self.learn(ino, parent, name);
                ControlFlow::Break(())
            });
        }
        self.0.get(&ino).cloned()
    }
}

impl Filesystem {
    /// The attributes that the tree has of an inode.
    fn look(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        self.namespace.execute(|tree| tree.attributes(ino), &token.namespace)
    }

    fn leads_to(&self, (directory, name): &(Ino, Box<[u8]>), ino: Ino, token: &Token) -> bool {
        let found = |name| self.namespace.execute(|tree| tree.lookup(*directory, &name), &token.namespace);
        Name::new(name).and_then(found).is_ok_and(|found| found.ino == ino)
    }

    /// Calls `visit` with each name in a directory but `.` and `..`, and the inode there, until it breaks.
    fn visit(
        &self,
        directory: Ino,
        token: &Token,
        mut visit: impl FnMut(&[u8], Attributes) -> ControlFlow<()>,
    ) -> Result<(), Errno> {
        let mut cookie = Cookie::START;
        loop {
            let (from, mut step) = (cookie, Vec::<(Box<[u8]>, Attributes)>::new());
            let collect = |behind, name: &[u8], attributes| {
                cookie = behind;
                step.push((name.into(), attributes));
                if step.len() < STEP { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            self.namespace.execute(|tree| tree.list(directory, from, collect), &token.namespace)?;
            for (name, attributes) in step.iter().filter(|(name, _)| !matches!(&**name, b"." | b"..")) {
                if visit(name, *attributes).is_break() {
                    return Ok(());
                }
            }
            if step.len() < STEP {
                return Ok(());
            }
        }
    }
}
