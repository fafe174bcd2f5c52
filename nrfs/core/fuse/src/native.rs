//! Answers requests natively: unpacks them, calls the service, and packs the replies.
//!
//! This takes two steps, because request and reply may share a buffer, as on the ring. [`Native::answer`] takes all
//! that it needs from the request, makes the change, and returns an [`Answer`]; [`Native::pack`] writes the answer into
//! the buffer. Requests that are not answered here are pyfuse3's.
//!
//! Each reply that the kernel counts as a lookup takes a hold on the inode, until a FORGET. Open files need no hold, as
//! the kernel does not forget an inode that is open.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use filesystem::{
    AllocateMode, Attributes, Capacity, Cookie, Errno, Filesystem, Ino, Made, Name, NewAttributes, NewInode, NewNode,
    Owner, Permissions, Privileges, RenameMode, Time, Token, Whence, XattrMode,
};

use crate::backing::BackingId;
use crate::inode_flags;
use crate::passthrough::{Opened, Passthrough};
use crate::protocol::handshake::{Agreement, InitFlags};
use crate::protocol::opcode::Opcode;
use crate::protocol::reply::{self, Validity, Writer};
use crate::protocol::request::Request;
use crate::protocol::wire::{
    CopyFileRangeArguments, CountReply, CreateArguments, FallocateArguments, GetxattrArguments, LinkArguments,
    LseekArguments, MkdirArguments, MknodArguments, OffsetReply, OpenArguments, OpenReply, OpenedFlags, ReadArguments,
    ReleaseArguments, Rename2Arguments, RenameArguments, SetattrArguments, SetattrValid, SetxattrArguments,
    WriteArguments, WriteFlags,
};
use crate::rights::{self, Capability, Purpose};

/// The most bytes that one request copies. The kernel passes on any length.
pub(crate) const COPY_MAX: u64 = 1 << 24;

/// Answers the requests of one mount.
pub(crate) struct Native {
    filesystem: Arc<Filesystem>,
    /// Whether the kernel may cache replies.
    caching: bool,
    /// How files are opened whose bytes the kernel reads and writes itself.
    pub passthrough: Option<Passthrough>,
    agreement: OnceLock<Agreement>,
}

/// The reply to a request, before it is packed.
pub(crate) enum Answer {
    /// The request gets no reply.
    NoReply,
    /// pyfuse3 must answer the request.
    Python,
    /// A reply without data.
    Done,
    /// The inode that a name leads to; `None` if there is no such name.
    Entry(Option<Attributes>),
    Attributes(Attributes),
    Statx(Attributes),
    Opened(Opened),
    Created(Attributes, Opened),
    /// The size of a value, in bytes.
    Size(u32),
    /// Bytes that were written.
    Written(u32),
    /// Bytes that were copied, as the reply to COPY_FILE_RANGE_64.
    Copied(u64),
    Offset(u64),
    Bytes(Box<[u8]>),
    /// Bytes of a file, which are read when the reply is packed.
    Content {
        ino: Ino,
        offset: u64,
        size: usize,
    },
    /// Entries of a directory, which are read when the reply is packed.
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
    /// The inode that the reply names.
    pub fn found(&self) -> Option<Ino> {
        match self {
            Self::Entry(Some(attributes)) | Self::Created(attributes, _) => Some(attributes.ino),
            _ => None,
        }
    }

    /// How many bytes the request has written to a file.
    pub fn written(&self) -> u64 {
        match *self {
            Self::Written(bytes) => bytes.into(),
            Self::Copied(bytes) => bytes,
            _ => 0,
        }
    }
}

impl Native {
    /// Nothing is agreed on yet.
    pub fn new(filesystem: Arc<Filesystem>, caching: bool, passthrough: Option<Passthrough>) -> Self {
        Self { filesystem, caching, passthrough, agreement: OnceLock::new() }
    }

    pub fn filesystem(&self) -> &Arc<Filesystem> {
        &self.filesystem
    }

    /// Whether the kernel may cache replies.
    pub fn is_caching(&self) -> bool {
        self.caching
    }

    /// Sets what INIT agreed on. Only the first call counts, as the kernel sends INIT once.
    pub fn agree(&self, agreement: Agreement) {
        let _ = self.agreement.set(agreement);
    }

    /// Whether all of these features were agreed on.
    pub fn has(&self, flags: InitFlags) -> bool {
        self.agreement.get().is_some_and(|agreement| agreement.has(flags))
    }

    /// How long the kernel may cache the attributes of an inode.
    fn validity(&self, attributes: &Attributes) -> Validity {
        let may_cache = || match &self.passthrough {
            Some(passthrough) => passthrough.may_cache(&self.filesystem, attributes.ino),
            None => !self.filesystem.is_scarce(),
        };
        let is_cached = self.caching && !inode_flags::must_ask(attributes) && may_cache();
        if is_cached { Validity::FOREVER } else { Validity::NONE }
    }

    /// Does what a request asks. The answer needs nothing more of the request.
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
                Answer::Entry(Some(made.attributes))
            }
            Opcode::Mkdir => {
                let MkdirArguments { mode, umask } = request.argument()?;
                let made = self.create(request, request.name()?, NewNode::Directory, (mode, umask), token)?;
                Answer::Entry(Some(made.attributes))
            }
            Opcode::Symlink => {
                let (name, target) = request.names()?;
                let made = self.create(request, name, NewNode::Symlink(target.into()), (0o777, 0), token)?;
                Answer::Entry(Some(made.attributes))
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
                    // open(2) stamps a file also if it is empty.
                    let stamped = NewAttributes { modified: Some(filesystem::now()), ..NewAttributes::default() };
                    fs.set_attributes(ino, Some(0), stamped, token)?;
                }
                Answer::Opened(self.open(ino, flags, None, token)?)
            }
            Opcode::Tmpfile => {
                let CreateArguments { flags, mode, umask, .. } = request.argument()?;
                let inode = NewInode::new(NewNode::File, mode, umask, owner(request));
                // The hold that it is made with counts as the kernel's lookup.
                let made = fs.create_nameless(ino, inode, token)?;
                self.open_new(made, flags, token)?
            }
            // After ENOSYS the kernel makes files by MKNOD, and sends neither OPEN nor RELEASE.
            Opcode::Create if self.opens_are_free(InitFlags::NO_OPEN_SUPPORT) => return Err(Errno::ENOSYS),
            Opcode::Create => {
                let CreateArguments { flags, mode, umask, .. } = request.argument()?;
                let made = self.create(request, request.name()?, NewNode::File, (mode, umask), token)?;
                self.open_new(made, flags, token).inspect_err(|_| {
                    // Nobody else has changed the name since, as the kernel has locked the directory.
                    let _ = request.entry_name().and_then(|name| fs.unlink(ino, name, token));
                })?
            }
            Opcode::Opendir if self.opens_are_free(InitFlags::NO_OPENDIR_SUPPORT) => return Err(Errno::ENOSYS),
            Opcode::Opendir => {
                let cached = OpenedFlags::KEEP_CACHE | OpenedFlags::CACHE_DIR;
                let flags = if self.caching { cached } else { OpenedFlags::empty() };
                Answer::Opened(Opened { flags, backing: None })
            }
            Opcode::Release => {
                if let Some(passthrough) = &self.passthrough {
                    let ReleaseArguments { flags, .. } = request.argument()?;
                    passthrough.release(ino, flags);
                }
                Answer::Done
            }
            Opcode::Releasedir | Opcode::Syncfs => Answer::Done,
            // There is nothing to do. After ENOSYS the kernel does not ask again.
            Opcode::Flush | Opcode::Fsync | Opcode::Fsyncdir | Opcode::Access => return Err(Errno::ENOSYS),
            Opcode::Read => {
                let ReadArguments { offset, size, .. } = request.argument()?;
                Answer::Content { ino, offset, size: size as usize }
            }
            Opcode::Write => {
                let WriteArguments { offset, size, write_flags, .. } = request.argument()?;
                let written = fs.write(ino, offset, request.data(size)?, token)?;
                if written < size as usize && write_flags.contains(WriteFlags::CACHE) {
                    // For collected data the kernel ignores how much was written, but not an error.
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
            // After ENOSYS the kernel copies itself.
            Opcode::CopyFileRange | Opcode::CopyFileRange64 if self.passthrough.is_some() => return Err(Errno::ENOSYS),
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
            Opcode::Ioctl => Answer::Bytes(inode_flags::ioctl(fs, request, token)?),
            Opcode::Interrupt => Answer::NoReply,
            Opcode::Lseek => {
                let LseekArguments { offset, whence, .. } = request.argument()?;
                Answer::Offset(fs.seek(ino, offset, Whence::from_number(whence)?, token)?)
            }
            Opcode::Init
            | Opcode::Getlk
            | Opcode::Setlk
            | Opcode::Setlkw
            | Opcode::Bmap
            | Opcode::Destroy
            | Opcode::Poll => Answer::Python,
        })
    }

    /// Writes an answer into `buffer`; returns its length. EIO if there is not enough room.
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
            Answer::Opened(opened) => writer.put(&open_reply(opened)),
            Answer::Created(attributes, opened) => {
                writer.put(&reply::entry(&attributes, names, self.validity(&attributes)))
                    && writer.put(&open_reply(opened))
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

    /// Gives up the holds on the inodes that a FORGET or BATCH_FORGET names. EIO if the request is malformed.
    pub fn forget(&self, request: Request, token: &Token) -> Result<()> {
        for (ino, lookups) in request.forgotten()? {
            self.filesystem.forget(ino, lookups, token);
            if let Some(passthrough) = &self.passthrough {
                passthrough.forget(&self.filesystem, ino);
            }
        }
        Ok(())
    }

    fn lookup(&self, request: Request, token: &Token) -> Result<Answer> {
        let (fs, parent) = (&self.filesystem, request.ino());
        let found = match request.name()? {
            // The kernel looks these up to find a directory from a file handle (exportfs).
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
    ) -> Result<Made> {
        let inode = NewInode::new(node, mode, umask, owner(request));
        let made = self.filesystem.make(request.ino(), Name::new(name)?, inode, token)?;
        self.hold(made.attributes, token)?;
        Ok(made)
    }

    fn rename(&self, request: Request, new_parent: Ino, flags: u32, token: &Token) -> Result<()> {
        let (name, new_name) = request.names()?;
        let (from, to) = ((request.ino(), Name::new(name)?), (new_parent, Name::new(new_name)?));
        self.filesystem.rename(from, to, RenameMode::from_flags(flags)?, owner(request), token)
    }

    fn set_attributes(&self, request: Request, token: &Token) -> Result<Attributes> {
        let new: SetattrArguments = request.argument()?;
        if !new.valid.intersects(SetattrValid::SET) {
            self.kill_before_write(request, token);
        }
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

    /// Before the kernel itself writes for a caller who may not keep set-user-id and set-group-id, it sends a SETATTR that
    /// sets nothing: this takes them away. Anybody can have one sent by chown(2) with -1 for both ids, too, of any file;
    /// and after fallocate(2)'s comes a FALLOCATE, which takes them away unless it fails.
    fn kill_before_write(&self, request: Request, token: &Token) {
        let (ino, pid) = (request.ino(), request.header().pid);
        let is_written = self.passthrough.as_ref().is_some_and(|passthrough| passthrough.has_writers(ino));
        let may_lose = is_written && self.filesystem.has_privileges(ino, Privileges::All, token);
        if may_lose && !matches!(rights::purpose(pid), Purpose::GiveAway | Purpose::Allocate) {
            // It fails if the inode has been dropped: then so does the request.
            let _ = self.filesystem.kill_privileges(ino, Privileges::All, token);
        }
    }

    /// Copies at most [`COPY_MAX`] bytes, so that other requests do not wait long. Callers ask again for the rest.
    fn copy(&self, request: Request, token: &Token) -> Result<u64> {
        let CopyFileRangeArguments { offset_in, node_out, offset_out, length, .. } = request.argument()?;
        let (from, to) = ((request.ino(), offset_in), (Ino(node_out), offset_out));
        let copied = self.filesystem.copy(from, to, length.min(COPY_MAX), token);
        // Also after ENOSPC, as the caller was allowed to write.
        if matches!(copied, Ok(1..) | Err(Errno::ENOSPC)) {
            self.kill_privileges(to.0, request, token);
        }
        copied
    }

    /// Takes privileges away after FALLOCATE or a copy has changed a file. The kernel does not mark these requests, so
    /// the caller's capability decides whether set-user-id and set-group-id stay.
    fn kill_privileges(&self, ino: Ino, request: Request, token: &Token) {
        let has_any = self.filesystem.has_privileges(ino, Privileges::All, token);
        let may_stay = has_any && rights::has_capability(request.header().pid, Capability::KeepSetId);
        let privileges = if may_stay { Privileges::Capability } else { Privileges::All };
        // It fails if the inode has been dropped since: the request has succeeded all the same.
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

    /// A value, or only its size if `size` is 0. ERANGE if the value is longer than `size`.
    fn sized(value: Box<[u8]>, size: u32) -> Result<Answer> {
        match size as usize {
            0 => Ok(Answer::Size(value.len() as u32)),
            size if size < value.len() => Err(Errno::ERANGE),
            _ => Ok(Answer::Bytes(value)),
        }
    }

    /// Writes entries of a directory from behind `cookie` on, until the room or the entries end. `plus` adds the
    /// inodes' attributes (READDIRPLUS), and is how long their names are valid.
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
                // The kernel counts no lookup of these two.
                let is_itself = matches!(&*entry.name, b"." | b"..");
                // While space is scarce, the kernel gets no attributes that no process has asked for.
                let is_held = plus.is_some() && !is_itself && !is_scarce;
                let about = plus.map(|names| match is_held {
                    true => reply::entry(&entry.attributes, names, self.validity(&entry.attributes)),
                    false => reply::missing(Validity::NONE),
                });
                if is_held && self.filesystem.hold(entry.attributes.ino, 1, token).is_err() {
                    continue; // It has been dropped since it was listed.
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

    /// Takes a hold on an inode that the reply names.
    fn hold(&self, attributes: Attributes, token: &Token) -> Result<Attributes> {
        self.filesystem.hold(attributes.ino, 1, token).map(|()| attributes)
    }

    /// Whether the kernel opens files, or directories, without a request after ENOSYS.
    fn opens_are_free(&self, support: InitFlags) -> bool {
        self.caching && self.has(support)
    }

    /// Opens a file with these flags of open(2). `made` is its backing file, if it was just made.
    fn open(&self, ino: Ino, how: u32, made: Option<OwnedFd>, token: &Token) -> Result<Opened> {
        let flags = match (&self.passthrough, self.caching) {
            (Some(passthrough), _) => return passthrough.open(&self.filesystem, ino, how, made, token),
            (None, true) => OpenedFlags::KEEP_CACHE,
            (None, false) => OpenedFlags::DIRECT_IO | OpenedFlags::PARALLEL_DIRECT_WRITES,
        };
        Ok(Opened { flags, backing: None })
    }

    /// Opens a file that was just made, and is held for the reply. If that fails, the kernel never hears of the hold.
    fn open_new(&self, Made { attributes, backing }: Made, how: u32, token: &Token) -> Result<Answer> {
        let opened = self.open(attributes.ino, how, backing, token);
        let opened = opened.inspect_err(|_| self.filesystem.forget(attributes.ino, 1, token))?;
        Ok(Answer::Created(attributes, opened))
    }
}

/// An open file. It has no handle, as each request names its inode.
fn open_reply(Opened { flags, backing }: Opened) -> OpenReply {
    OpenReply { open_flags: flags, backing_id: backing.map_or(0, |BackingId(id)| id), ..OpenReply::default() }
}

fn done(result: Result<()>) -> Result<Answer> {
    result.map(|()| Answer::Done)
}

/// The user and the group of the caller.
fn owner(request: Request) -> Owner {
    Owner { uid: request.header().uid, gid: request.header().gid }
}
