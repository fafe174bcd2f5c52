//! Answers requests natively: unpacks them, calls the service, and packs the replies.
//!
//! An answer is found in two steps, because request and reply may lie in one buffer, as on the ring:
//! [`Native::answer`] takes all it needs out of the request and makes the change or finds what is to be
//! told; [`Native::pack`] puts that into the buffer. What is not answered here is pyfuse3's.
//!
//! Inodes that a reply tells the kernel of are held until it forgets them. Open files need no hold: the
//! kernel does not forget an inode that is open.

use std::sync::{Arc, OnceLock};

use filesystem::{
    AllocateMode, Attributes, Capacity, Cookie, Errno, Filesystem, Ino, Name, NewAttributes, NewInode, NewNode, Owner,
    Permissions, Privileges, RenameMode, Time, Token, XattrMode,
};

use crate::protocol::handshake::{Agreement, InitFlags};
use crate::protocol::opcode::Opcode;
use crate::protocol::reply::{self, Validity, Writer};
use crate::protocol::request::Request;
use crate::protocol::wire::{
    BatchForgetArguments, CopyFileRangeArguments, CountReply, CreateArguments, FallocateArguments, ForgetArguments,
    GetxattrArguments, LinkArguments, MkdirArguments, MknodArguments, OffsetReply, OpenArguments, OpenedFlags,
    ReadArguments, Rename2Arguments, RenameArguments, SetattrArguments, SetattrValid, SetxattrArguments,
    WriteArguments, WriteFlags,
};
use crate::rights::{self, Capability};

/// Bytes that one request copies at the most. The kernel passes on any length.
pub(crate) const COPY_MAX: u64 = 1 << 24;

/// Answers the requests of one mount.
pub(crate) struct Native {
    filesystem: Arc<Filesystem>,
    /// Whether the kernel may keep what it is told.
    caching: bool,
    agreement: OnceLock<Agreement>,
}

/// What is to be told.
pub(crate) enum Answer {
    /// The request wants no reply.
    NoReply,
    /// It is pyfuse3's to answer.
    Python,
    Done,
    /// A name; `None` if it stands for nothing.
    Entry(Option<Attributes>),
    Attributes(Attributes),
    Statx(Attributes),
    Opened(OpenedFlags),
    Created(Attributes, OpenedFlags),
    /// Bytes of a value.
    Size(u32),
    /// Bytes that were written.
    Written(u32),
    /// Bytes that were copied, for who asks with 64 bits.
    Copied(u64),
    Offset(u64),
    Bytes(Box<[u8]>),
    Content {
        ino: Ino,
        offset: u64,
        size: usize,
    },
    Listing {
        ino: Ino,
        cookie: Cookie,
        size: usize,
        plus: bool,
    },
    Capacity(Capacity),
}

type Result<T> = std::result::Result<T, Errno>;

impl Answer {
    /// Bytes that were written to a file.
    pub fn written(&self) -> u64 {
        match *self {
            Self::Written(bytes) => bytes.into(),
            Self::Copied(bytes) => bytes,
            _ => 0,
        }
    }
}

impl Native {
    /// Before the handshake nothing is agreed on.
    pub fn new(filesystem: Arc<Filesystem>, caching: bool) -> Self {
        Self { filesystem, caching, agreement: OnceLock::new() }
    }

    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// Whether the kernel may keep what it is told.
    pub fn is_caching(&self) -> bool {
        self.caching
    }

    /// What was agreed on in the handshake. The kernel shakes hands once: only the first counts.
    pub fn agree(&self, agreement: Agreement) {
        let _ = self.agreement.set(agreement);
    }

    /// Whether all of this was agreed on.
    pub fn has(&self, flags: InitFlags) -> bool {
        self.agreement.get().is_some_and(|agreement| agreement.has(flags))
    }

    /// Does what is asked, with all that must be read of the request.
    pub fn answer(&self, request: Request, token: &Token) -> Result<Answer> {
        let (fs, ino) = (&self.filesystem, request.ino());
        let Some(opcode) = request.opcode() else { return Ok(Answer::Python) };
        Ok(match opcode {
            Opcode::Lookup => self.lookup(request, token)?,
            Opcode::Forget | Opcode::BatchForget => {
                self.forget(request, token)?;
                Answer::NoReply
            }
            Opcode::Getattr => Answer::Attributes(fs.attributes(ino, token)?),
            Opcode::Statx => Answer::Statx(fs.attributes(ino, token)?),
            Opcode::Setattr => Answer::Attributes(self.set_attributes(request, token)?),
            Opcode::Readlink => Answer::Bytes(fs.target(ino, token)?),
            Opcode::Mknod => {
                let MknodArguments { mode, device, umask, .. } = request.argument()?;
                let node = NewNode::from_mode(mode, device)?;
                let made = self.create(request, request.name()?, node, (mode, umask), token)?;
                Answer::Entry(Some(made))
            }
            Opcode::Mkdir => {
                let MkdirArguments { mode, umask } = request.argument()?;
                Answer::Entry(Some(self.create(request, request.name()?, NewNode::Directory, (mode, umask), token)?))
            }
            Opcode::Symlink => {
                let (name, target) = request.names()?;
                Answer::Entry(Some(self.create(request, name, NewNode::Symlink(target.into()), (0o777, 0), token)?))
            }
            Opcode::Link => {
                let LinkArguments { old_node } = request.argument()?;
                let linked = fs.link(Ino(old_node), ino, request.entry_name()?, token)?;
                Answer::Entry(Some(self.hold(linked, token)?))
            }
            Opcode::Unlink => done(fs.unlink(ino, request.entry_name()?, token))?,
            Opcode::Rmdir => done(fs.remove_directory(ino, request.entry_name()?, token))?,
            Opcode::Rename => {
                let RenameArguments { new_parent } = request.argument()?;
                done(self.rename(request, Ino(new_parent), 0, token))?
            }
            Opcode::Rename2 => {
                let Rename2Arguments { new_parent, flags, .. } = request.argument()?;
                done(self.rename(request, Ino(new_parent), flags, token))?
            }
            Opcode::Open if self.opens_are_free(InitFlags::NO_OPEN_SUPPORT) => return Err(Errno::ENOSYS),
            Opcode::Open => {
                let OpenArguments { flags, .. } = request.argument()?;
                if flags & libc::O_TRUNC as u32 != 0 {
                    fs.set_attributes(ino, Some(0), NewAttributes::default(), token)?;
                }
                Answer::Opened(self.open_flags())
            }
            Opcode::Tmpfile => {
                let CreateArguments { mode, umask, .. } = request.argument()?;
                let inode = NewInode::new(NewNode::File, mode, umask, owner(request));
                // The hold that it is made with is the kernel's.
                Answer::Created(fs.create_nameless(ino, inode, token)?, self.open_flags())
            }
            // The kernel makes the file by MKNOD instead, and asks for neither its opening nor its release.
            Opcode::Create if self.opens_are_free(InitFlags::NO_OPEN_SUPPORT) => return Err(Errno::ENOSYS),
            Opcode::Create => {
                let CreateArguments { mode, umask, .. } = request.argument()?;
                let made = self.create(request, request.name()?, NewNode::File, (mode, umask), token)?;
                Answer::Created(made, self.open_flags())
            }
            Opcode::Opendir if self.opens_are_free(InitFlags::NO_OPENDIR_SUPPORT) => return Err(Errno::ENOSYS),
            Opcode::Opendir => {
                let cached = OpenedFlags::KEEP_CACHE | OpenedFlags::CACHE_DIR;
                Answer::Opened(if self.caching { cached } else { OpenedFlags::empty() })
            }
            Opcode::Release | Opcode::Releasedir | Opcode::Syncfs => Answer::Done,
            // There is nothing to do, and the kernel need not ask again.
            Opcode::Flush | Opcode::Fsync | Opcode::Fsyncdir | Opcode::Access => return Err(Errno::ENOSYS),
            Opcode::Read => {
                let ReadArguments { offset, size, .. } = request.argument()?;
                Answer::Content { ino, offset, size: size as usize }
            }
            Opcode::Write => {
                let WriteArguments { offset, size, write_flags, .. } = request.argument()?;
                let written = fs.write(ino, offset, request.data(size)?, token)?;
                if written < size as usize && write_flags.contains(WriteFlags::CACHE) {
                    // Nobody looks at how much of a cached page was written, only at an error.
                    return Err(Errno::ENOSPC);
                }
                Answer::Written(written as u32)
            }
            Opcode::Readdir | Opcode::Readdirplus => {
                let ReadArguments { offset, size, .. } = request.argument()?;
                let plus = opcode == Opcode::Readdirplus;
                Answer::Listing { ino, cookie: Cookie(offset), size: size as usize, plus }
            }
            Opcode::Statfs => Answer::Capacity(fs.capacity()),
            Opcode::Fallocate => {
                let FallocateArguments { offset, length, mode, .. } = request.argument()?;
                let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE as u32 != 0;
                fs.allocate(ino, offset, length, AllocateMode::from_flags(mode)?, keep_size, token)?;
                self.kill_privileges(ino, request, token);
                Answer::Done
            }
            Opcode::CopyFileRange => Answer::Written(self.copy(request, token)? as u32),
            Opcode::CopyFileRange64 => Answer::Copied(self.copy(request, token)?),
            Opcode::Getxattr => {
                let GetxattrArguments { size, .. } = request.argument()?;
                Self::sized(fs.xattr(ino, request.name()?, token)?, size)?
            }
            Opcode::Listxattr => {
                let GetxattrArguments { size, .. } = request.argument()?;
                let names = self.xattr_names(request, token)?;
                Self::sized(names.iter().flat_map(|name| name.iter().chain(&[0])).copied().collect(), size)?
            }
            Opcode::Setxattr => {
                let SetxattrArguments { size, flags } = request.argument()?;
                let (name, value) = request.name_and_rest()?;
                let value = value.get(..size as usize).ok_or(Errno::EIO)?;
                done(fs.set_xattr(ino, name.into(), value.into(), XattrMode::from_flags(flags)?, token))?
            }
            Opcode::Removexattr => done(fs.remove_xattr(ino, request.name()?.into(), token))?,
            Opcode::Ioctl => self.ioctl(request, token)?,
            Opcode::Interrupt => Answer::NoReply,
            // Holes are where the kernel has not collected data: the steward answers.
            Opcode::Lseek => return Err(Errno::ENOSYS),
            Opcode::Init
            | Opcode::Getlk
            | Opcode::Setlk
            | Opcode::Setlkw
            | Opcode::Bmap
            | Opcode::Destroy
            | Opcode::Poll => Answer::Python,
        })
    }

    /// Puts an answer into `buffer`; returns its length.
    pub fn pack(&self, answer: Answer, buffer: &mut [u8], token: &Token) -> Result<usize> {
        let room = buffer.len();
        let mut writer = Writer::new(buffer);
        let names = if self.caching { Validity::FOREVER } else { Validity::NONE };
        let fits = match answer {
            Answer::NoReply | Answer::Python | Answer::Done => true,
            Answer::Entry(Some(attributes)) => {
                writer.put(&reply::entry(&attributes, names, self.validity(&attributes)))
            }
            Answer::Entry(None) => writer.put(&reply::missing(names)),
            Answer::Attributes(attributes) => writer.put(&reply::attributes(&attributes, self.validity(&attributes))),
            Answer::Statx(attributes) => writer.put(&reply::statx(&attributes, self.validity(&attributes))),
            Answer::Opened(open_flags) => writer.put(&reply::opened(open_flags)),
            Answer::Created(attributes, open_flags) => {
                writer.put(&reply::entry(&attributes, names, self.validity(&attributes)))
                    && writer.put(&reply::opened(open_flags))
            }
            Answer::Size(size) | Answer::Written(size) => writer.put(&CountReply { size, padding: 0 }),
            Answer::Offset(offset) | Answer::Copied(offset) => writer.put(&OffsetReply { offset }),
            Answer::Bytes(bytes) => writer.put_bytes(&bytes),
            Answer::Capacity(capacity) => writer.put(&reply::statfs(&capacity)),
            Answer::Content { ino, offset, size } => {
                return self.filesystem.read(ino, offset, &mut buffer[..size.min(room)], token);
            }
            Answer::Listing { ino, cookie, size, plus } => {
                let mut writer = Writer::new(&mut buffer[..size.min(room)]);
                self.list(&mut writer, ino, cookie, plus.then_some(names), token)?;
                return Ok(writer.length());
            }
        };
        if fits { Ok(writer.length()) } else { Err(Errno::EIO) }
    }

    /// Gives up the holds on what the kernel has forgotten.
    pub fn forget(&self, request: Request, token: &Token) -> Result<()> {
        if request.opcode() == Some(Opcode::Forget) {
            let ForgetArguments { lookups } = request.argument()?;
            self.filesystem.forget(request.ino(), lookups, token);
            return Ok(());
        }
        let BatchForgetArguments { count, .. } = request.argument()?;
        for one in request.forgotten(count) {
            self.filesystem.forget(Ino(one.node), one.lookups, token);
        }
        Ok(())
    }

    fn lookup(&self, request: Request, token: &Token) -> Result<Answer> {
        let (fs, parent) = (&self.filesystem, request.ino());
        let found = match request.name()? {
            // By these the kernel finds a directory again from a file handle (exportfs).
            b"." => fs.attributes(parent, token),
            b".." => fs.parent(parent, token),
            name => fs.lookup(parent, &Name::new(name)?, token),
        };
        match found {
            Err(Errno::ENOENT) if self.caching => Ok(Answer::Entry(None)),
            found => Ok(Answer::Entry(Some(self.hold(found?, token)?))),
        }
    }

    fn create(
        &self,
        request: Request,
        name: &[u8],
        node: NewNode,
        (mode, umask): (u32, u32),
        token: &Token,
    ) -> Result<Attributes> {
        let inode = NewInode::new(node, mode, umask, owner(request));
        let made = self.filesystem.create(request.ino(), Name::new(name)?, inode, token)?;
        self.hold(made, token)
    }

    fn rename(&self, request: Request, new_parent: Ino, flags: u32, token: &Token) -> Result<()> {
        let (name, new_name) = request.names()?;
        let (from, to) = ((request.ino(), Name::new(name)?), (new_parent, Name::new(new_name)?));
        self.filesystem.rename(from, to, RenameMode::from_flags(flags)?, owner(request), token)
    }

    fn set_attributes(&self, request: Request, token: &Token) -> Result<Attributes> {
        let new: SetattrArguments = request.argument()?;
        let given = |flag| new.valid.contains(flag);
        let time =
            |flag, seconds: u64, nanoseconds| given(flag).then_some(Time { seconds: seconds as i64, nanoseconds });
        let size = given(SetattrValid::SIZE).then_some(new.size);
        let new = NewAttributes {
            permissions: given(SetattrValid::MODE).then(|| Permissions::from_mode(new.mode)),
            uid: given(SetattrValid::UID).then_some(new.uid),
            gid: given(SetattrValid::GID).then_some(new.gid),
            accessed: time(SetattrValid::ACCESSED, new.accessed, new.accessed_nanoseconds),
            modified: time(SetattrValid::MODIFIED, new.modified, new.modified_nanoseconds),
            changed: time(SetattrValid::CHANGED, new.changed, new.changed_nanoseconds),
        };
        self.filesystem.set_attributes(request.ino(), size, new, token)
    }

    /// Copies no more than others can wait for: whoever wants more asks again.
    fn copy(&self, request: Request, token: &Token) -> Result<u64> {
        let CopyFileRangeArguments { offset_in, node_out, offset_out, length, .. } = request.argument()?;
        let (from, to) = ((request.ino(), offset_in), (Ino(node_out), offset_out));
        let copied = self.filesystem.copy(from, to, length.min(COPY_MAX), token);
        // For want of space nothing was written, but it was about to be.
        if matches!(copied, Ok(1..) | Err(Errno::ENOSPC)) {
            self.kill_privileges(to.0, request, token);
        }
        copied
    }

    /// Takes privileges away from a file that was changed by a request of which the kernel does not say whether they
    /// may stay.
    fn kill_privileges(&self, ino: Ino, request: Request, token: &Token) {
        let has_any = self.filesystem.has_privileges(ino, Privileges::All, token);
        let may_stay = has_any && rights::has_capability(request.header().pid, Capability::KeepSetId);
        let privileges = if may_stay { Privileges::Capability } else { Privileges::All };
        // The change stands, also if the inode is gone since.
        let _ = self.filesystem.kill_privileges(ino, privileges, token);
    }

    /// The names that the caller may see.
    fn xattr_names(&self, request: Request, token: &Token) -> Result<Vec<Box<[u8]>>> {
        let names = |all| self.filesystem.xattr_names(request.ino(), all, token);
        let all = names(true)?;
        let sees_all = all.iter().all(|name| !name.starts_with(b"trusted."))
            || rights::has_capability(request.header().pid, Capability::Administrate);
        if sees_all { Ok(all) } else { names(false) }
    }

    /// A value, or only its size where `size` is 0.
    fn sized(value: Box<[u8]>, size: u32) -> Result<Answer> {
        match size as usize {
            0 => Ok(Answer::Size(value.len() as u32)),
            size if size < value.len() => Err(Errno::ERANGE),
            _ => Ok(Answer::Bytes(value)),
        }
    }

    /// Lists a directory until the room or the entries end; with the inodes' attributes where they are asked for, and the
    /// names valid for `plus`.
    fn list(
        &self,
        writer: &mut Writer,
        ino: Ino,
        mut cookie: Cookie,
        plus: Option<Validity>,
        token: &Token,
    ) -> Result<()> {
        const ENTRIES_AT_A_TIME: usize = 64;
        let is_scarce = self.filesystem.is_scarce();
        loop {
            let entries = self.filesystem.list(ino, cookie, ENTRIES_AT_A_TIME, token)?;
            for entry in &entries {
                // Of these two the kernel counts no lookup.
                let is_itself = matches!(&*entry.name, b"." | b"..");
                // While it must ask for attributes, the kernel is not told of inodes that nobody asked for.
                let is_held = plus.is_some() && !is_itself && !is_scarce;
                let about = plus.map(|names| match is_held {
                    true => reply::entry(&entry.attributes, names, self.validity(&entry.attributes)),
                    false => reply::missing(Validity::NONE),
                });
                if is_held && self.filesystem.hold(entry.attributes.ino, 1, token).is_err() {
                    continue; // It went since the service listed it.
                }
                let inode = (entry.attributes.ino, entry.attributes.mode());
                if !writer.put_directory_entry(about.as_ref(), inode, entry.cookie.0, &entry.name) {
                    if is_held {
                        self.filesystem.forget(entry.attributes.ino, 1, token);
                    }
                    return Ok(());
                }
            }
            match entries.last() {
                Some(last) if entries.len() == ENTRIES_AT_A_TIME => cookie = last.cookie,
                _ => return Ok(()),
            }
        }
    }

    /// Holds an inode that the kernel is to hear of.
    fn hold(&self, attributes: Attributes, token: &Token) -> Result<Attributes> {
        self.filesystem.hold(attributes.ino, 1, token).map(|()| attributes)
    }

    /// Whether the kernel opens without asking.
    fn opens_are_free(&self, support: InitFlags) -> bool {
        self.caching && self.has(support)
    }

    fn open_flags(&self) -> OpenedFlags {
        match self.caching {
            true => OpenedFlags::KEEP_CACHE,
            false => OpenedFlags::DIRECT_IO | OpenedFlags::PARALLEL_DIRECT_WRITES,
        }
    }
}

fn done(result: Result<()>) -> Result<Answer> {
    result.map(|()| Answer::Done)
}

/// Who asks.
fn owner(request: Request) -> Owner {
    Owner { uid: request.header().uid, gid: request.header().gid }
}
