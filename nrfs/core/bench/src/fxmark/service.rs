//! The file system service itself, as one thread uses it.

use std::sync::Arc;

use filesystem::{
    Configuration, ContentPlace, Cookie, Errno, Filesystem, Ino, Name, NewAttributes, NewInode, NewNode, NodeId, Owner,
    Permissions, RenameMode, Size, Token, Topology,
};
use rustix::io;

use super::calls::Calls;

const OWNER: Owner = Owner { uid: 0, gid: 0 };

/// How many names one call lists: about as many as a system call with a buffer of 32 KiB.
const NAMES: usize = 1024;

/// A file system, on the replica of one of its nodes.
pub struct Service {
    filesystem: Arc<Filesystem>,
    token: Token,
}

impl Service {
    /// A new file system on `nodes` emulated nodes with `logs` logs for content, far from full with `bytes` in it.
    ///
    /// # Errors
    ///
    /// There can be no such file system.
    pub fn filesystem(nodes: usize, logs: usize, bytes: u64) -> Result<Arc<Filesystem>, Box<dyn std::error::Error>> {
        Ok(Arc::new(Filesystem::new(Configuration {
            topology: Topology::emulated(nodes)?,
            content: ContentPlace::Replicated,
            logs,
            size: Size::Bytes(bytes.saturating_mul(2).saturating_add(64 << 20)),
            inodes: None,
            permissions: Permissions::from_mode(0o755),
            owner: OWNER,
        })?))
    }

    /// Whether all replicas agree. Nobody may use them meanwhile.
    ///
    /// # Errors
    ///
    /// They do not.
    pub fn verify(filesystem: &Filesystem) -> Result<(), String> {
        let verified = filesystem.verify(&filesystem.register(NodeId(0)));
        match verified.into_iter().find(|log| !log.agrees()) {
            Some(differs) => Err(format!("the replicas differ in log {}", differs.log)),
            None => Ok(()),
        }
    }

    /// Core `core` of those that use a file system: they are spread over its nodes in turn.
    pub fn new(filesystem: Arc<Filesystem>, core: usize) -> Self {
        let node = NodeId(core % filesystem.topology().nodes().len());
        let token = filesystem.register(node);
        Self { filesystem, token }
    }

    /// The inode that the path leads to.
    fn find(&self, path: &[u8]) -> Result<Ino, Errno> {
        let mut names = path.split(|&byte| byte == b'/');
        names
            .try_fold(Ino::ROOT, |parent, name| Ok(self.filesystem.lookup(parent, &Name::new(name)?, &self.token)?.ino))
    }

    /// The directory and the name that the path ends with.
    fn place(&self, path: &[u8]) -> Result<(Ino, Name), Errno> {
        match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Ok((self.find(&path[..slash])?, Name::new(&path[slash + 1..])?)),
            None => Ok((Ino::ROOT, Name::new(path)?)),
        }
    }

    fn make(&self, path: &[u8], node: NewNode) -> Result<Ino, Errno> {
        let (parent, name) = self.place(path)?;
        let inode = NewInode::new(node, 0o700, 0, OWNER);
        Ok(self.filesystem.create(parent, name, inode, &self.token)?.ino)
    }
}

impl Calls for Service {
    type File = Ino;

    fn open(&self, path: &[u8]) -> Result<Ino, io::Errno> {
        match self.find(path) {
            Err(Errno::ENOENT) => self.make(path, NewNode::File),
            found => found,
        }
        .map_err(of_the_kernel)
    }

    fn read(&self, &file: &Ino, buffer: &mut [u8], offset: u64) -> Result<usize, io::Errno> {
        self.filesystem.read(file, offset, buffer, &self.token).map_err(of_the_kernel)
    }

    fn write(&self, &file: &Ino, bytes: &[u8], offset: u64) -> Result<usize, io::Errno> {
        self.filesystem.write(file, offset, bytes, &self.token).map_err(of_the_kernel)
    }

    fn truncate(&self, &file: &Ino, size: u64) -> Result<(), io::Errno> {
        let new = NewAttributes::default();
        self.filesystem.set_attributes(file, Some(size), new, &self.token).map(drop).map_err(of_the_kernel)
    }

    /// What is acknowledged is in the log: there is nothing to sync.
    fn sync(&self, _file: &Ino) -> Result<(), io::Errno> {
        Ok(())
    }

    fn create(&self, path: &[u8]) -> Result<(), io::Errno> {
        self.make(path, NewNode::File).map(drop).map_err(of_the_kernel)
    }

    fn make_directory(&self, path: &[u8]) -> Result<(), io::Errno> {
        self.make(path, NewNode::Directory).map(drop).map_err(of_the_kernel)
    }

    fn unlink(&self, path: &[u8]) -> Result<(), io::Errno> {
        let unlinked = self.place(path).and_then(|(parent, name)| self.filesystem.unlink(parent, name, &self.token));
        unlinked.map_err(of_the_kernel)
    }

    fn rename(&self, from: &[u8], to: &[u8]) -> Result<(), io::Errno> {
        let renamed = self
            .place(from)
            .and_then(|from| self.filesystem.rename(from, self.place(to)?, RenameMode::Replace, OWNER, &self.token));
        renamed.map_err(of_the_kernel)
    }

    fn stat(&self, path: &[u8]) -> Result<u64, io::Errno> {
        let found = self.find(path).and_then(|ino| self.filesystem.attributes(ino, &self.token));
        found.map(|attributes| attributes.size).map_err(of_the_kernel)
    }

    fn list(&self, path: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), io::Errno> {
        let directory = self.find(path).map_err(of_the_kernel)?;
        let mut cookie = Cookie::START;
        loop {
            let entries = self.filesystem.list(directory, cookie, NAMES, &self.token).map_err(of_the_kernel)?;
            let Some(last) = entries.last() else { return Ok(()) };
            cookie = last.cookie;
            entries.iter().for_each(|entry| each(&entry.name));
        }
    }
}

fn of_the_kernel(errno: Errno) -> io::Errno {
    io::Errno::from_raw_os_error(errno.code())
}
