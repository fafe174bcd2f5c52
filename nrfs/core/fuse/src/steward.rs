//! The steward: a thread for what must wait for the kernel itself, as no worker may.
//!
//! The kernel's cache holds data that we have not seen. Two things need it:
//!
//! - **Room.** When space is scarce, nothing is collected for which no space was promised. The kernel asks for a file's
//!   attributes before it collects a write, if those it has are no good: so it is told that they are not, and what it
//!   asks is answered once there is a promise, or with ENOSPC, which is what write(2) returns then. A page of a hole
//!   that is touched in a mapping is read by the kernel: with a promise, or the touch is a bus error. What takes much
//!   space at once, and has not been collected, waits until all that has been is written.
//! - **Holes.** Where there is data in a file is known once the kernel has written what it has of it.
//!
//! A worker promises by itself where there is enough. What it cannot promise it hands to the steward, who first has
//! written what is promised to no purpose, and takes in what the kernel has forgotten.
//!
//! While the steward waits for the kernel to write, the writes must find a way: so never all slots of a ring's queue have
//! requests that wait for him. And he never has a READ, for which the kernel holds pages that it may have to write.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use filesystem::{Attributes, Errno, Filesystem, Ino, Token, Whence};
use zerocopy::IntoBytes;

use crate::caller::{Intent, intent};
use crate::channel::Origin;
use crate::kernel::Kernel;
use crate::lock::lock;
use crate::native::{Answer, COPY_MAX, Native};
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{
    BatchForgetArguments, CopyFileRangeArguments, FallocateArguments, GetattrArguments, GetattrFlags, LseekArguments,
    ReadArguments, ReplyHeader, WriteArguments, WriteFlags,
};
use crate::protocol::{HEADER_ROOM, reply};

/// How long a write that was accepted may take to reach the kernel's cache. What was promised before that, and is not
/// there when the cache has been written, will never be.
const PROMISE: Duration = Duration::from_secs(1);

/// Bytes that are promised to who does not say how many he needs: more than programs write at a time.
const UNKNOWN: u64 = 1 << 20;

/// What the steward has to do, and what he knows.
pub(crate) struct Steward {
    native: Arc<Native>,
    kernel: Arc<Kernel>,
    /// Whether requests are answered natively where that can be.
    is_native: bool,
    jobs: Mutex<VecDeque<Job>>,
    has_job: Condvar,
    /// Inodes of which the kernel was told while space was scarce: of these it may ask before reads, too.
    told: Mutex<HashSet<Ino>>,
    /// Until when pages are held back for writes that the kernel let in before space was scarce. What it had collected by
    /// then has been written.
    grace: Mutex<Option<Instant>>,
}

enum Job {
    /// Space has become scarce.
    Scarce,
    /// A request that waits.
    Request(Held),
    /// Promises that are old are wanted back.
    GiveUp,
    End,
}

/// A request that the steward will answer.
struct Held {
    unique: u64,
    origin: Origin,
    ino: Ino,
    wants: Wants,
}

/// What a request needs, because of what the kernel's cache has, before it is answered as any other.
pub(crate) enum Need {
    /// These attributes, which the kernel uses once: there is room for a write.
    Attributes(Attributes),
    /// That the steward takes his time for it.
    Time(Wants),
}

/// What the steward is to find for a request.
pub(crate) enum Wants {
    /// The attributes, before data is collected.
    Room(Intent),
    /// Much space at once. The whole request is kept.
    Space(Vec<u8>),
    /// Where data or a hole is.
    Seek { offset: u64, whence: u32 },
}

/// For all threads.
impl Steward {
    pub fn new(native: Arc<Native>, kernel: Arc<Kernel>, is_native: bool) -> Self {
        let (jobs, has_job, told, grace) = Default::default();
        Self { native, kernel, is_native, jobs, has_job, told, grace }
    }

    /// Space has become scarce.
    pub fn space_is_scarce(&self) {
        self.push(Job::Scarce);
    }

    /// Notes that the kernel has forgotten inodes.
    pub fn untell(&self, request: Request) {
        let mut told = lock(&self.told);
        if request.opcode() == Some(Opcode::Forget) {
            told.remove(&request.ino());
        } else if let Ok(BatchForgetArguments { count, .. }) = request.argument() {
            for one in request.forgotten(count) {
                told.remove(&Ino(one.node));
            }
        }
    }

    /// Takes a request that he will reply to.
    pub fn take(&self, request: Request, origin: Origin, wants: Wants) {
        self.push(Job::Request(Held { unique: request.unique(), origin, ino: request.ino(), wants }));
    }

    /// Ends the steward's work. Requests that he still holds stay without an answer.
    pub fn end(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.clear();
        jobs.push_back(Job::End);
        self.has_job.notify_one();
    }

    fn push(&self, job: Job) {
        lock(&self.jobs).push_back(job);
        self.has_job.notify_one();
    }

    /// The next job; `None` where there was none within `patience`.
    fn next(&self, patience: Duration) -> Option<Job> {
        let jobs = lock(&self.jobs);
        let waited = self.has_job.wait_timeout_while(jobs, patience, |jobs| jobs.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }

    fn filesystem(&self) -> &Filesystem {
        self.native.filesystem()
    }
}

/// For workers, before a request is answered.
impl Steward {
    /// Sees to it that nothing is collected without room, and that nobody looks for holes where the kernel has data. What
    /// a request needs for that; it is given to the steward only if it is one that `may_wait`.
    pub fn need(&self, request: Request, may_wait: bool, token: &Token) -> Result<Option<Need>, Errno> {
        let (fs, ino) = (self.filesystem(), request.ino());
        let wants = match request.opcode() {
            // From then on the kernel answers by itself: all is data.
            Some(Opcode::Lseek) if !may_wait => return Err(Errno::ENOSYS),
            Some(Opcode::Lseek) => {
                let LseekArguments { offset, whence, .. } = request.argument()?;
                Wants::Seek { offset, whence }
            }
            Some(Opcode::Fallocate | Opcode::CopyFileRange | Opcode::CopyFileRange64) => {
                let may_take = !self.is_native || !may_wait || fs.may_take(space_wanted(request)?);
                if may_take {
                    return Ok(None);
                }
                Wants::Space(request.to_message())
            }
            Some(Opcode::Forget | Opcode::BatchForget) => {
                self.untell(request);
                return Ok(None);
            }
            Some(Opcode::Write) if fs.is_scarce() || fs.has_promises() => {
                let WriteArguments { offset, size, write_flags, .. } = request.argument()?;
                if !write_flags.contains(WriteFlags::CACHE) {
                    return Ok(None);
                }
                if fs.is_promised(ino) {
                    fs.place_promise(ino, &(offset..offset.saturating_add(size.into())), token);
                } else if fs.is_scarce() {
                    // It was collected before the kernel knew that it must ask.
                    self.kernel.forget_attributes(ino);
                }
                return Ok(None);
            }
            _ if !fs.is_scarce() => return Ok(None),
            Some(Opcode::Getattr) if self.asks_for_room(request)? => {
                let intent = intent(request.header().pid, ino);
                if promise(fs, ino, intent, token) {
                    return self.attributes_for_once(ino, token).map(|attributes| Some(Need::Attributes(attributes)));
                }
                Wants::Room(intent)
            }
            Some(Opcode::Getattr | Opcode::Statx) => {
                lock(&self.told).insert(ino);
                return Ok(None);
            }
            Some(Opcode::Read) => {
                let ReadArguments { offset, size, flags, .. } = request.argument()?;
                let range = offset..offset.saturating_add(size.into());
                let may_be_mapped = flags as i32 & libc::O_ACCMODE == libc::O_RDWR;
                if may_be_mapped && fs.has_holes(ino, &range, token) {
                    self.promise_mapped(request, &range, token)?;
                }
                return Ok(None);
            }
            _ => return Ok(None),
        };
        if may_wait { Ok(Some(Need::Time(wants))) } else { Err(Errno::ENOSPC) }
    }

    /// Promises pages of a hole that are read, if that may be for a mapping. Whoever touches them must have the promise.
    fn promise_mapped(&self, request: Request, range: &Range<u64>, token: &Token) -> Result<(), Errno> {
        let (fs, ino) = (self.filesystem(), request.ino());
        let intent = intent(request.header().pid, ino);
        if intent == Intent::Other || fs.promise_mapped(ino, range, false, token).is_ok() || intent != Intent::Touch {
            return Ok(());
        }
        self.push(Job::GiveUp);
        fs.take_in_forgets();
        // A touch cannot wait for the end of the grace, as the kernel has locked the page for it.
        fs.promise_mapped(ino, range, lock(&self.grace).is_some(), token)
    }

    /// Whether these attributes are asked for because a write is to be collected. Who only wants to know them asks by
    /// the inode, not by an open file.
    fn asks_for_room(&self, request: Request) -> Result<bool, Errno> {
        let GetattrArguments { flags, .. } = request.argument()?;
        Ok(self.native.is_caching() && flags.contains(GetattrFlags::BY_FILE))
    }

    /// Attributes that the kernel does not keep: so it asks again before the next write, and for nothing else.
    fn attributes_for_once(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        self.kernel.forget_attributes(ino);
        self.filesystem().attributes(ino, token)
    }

    /// Notes of which inode an answer tells while the kernel must ask for attributes.
    pub fn note_told(&self, request: Request, answer: &Answer) {
        if !self.filesystem().is_scarce() {
            return;
        }
        match (request.opcode(), answer) {
            (_, Answer::Entry(Some(attributes)) | Answer::Created(attributes, _))
            | (Some(Opcode::Setattr), Answer::Attributes(attributes)) => {
                lock(&self.told).insert(attributes.ino);
            }
            _ => {}
        }
    }
}

/// Bytes that a request may take at once.
fn space_wanted(request: Request) -> Result<u64, Errno> {
    if request.opcode() != Some(Opcode::Fallocate) {
        return request.argument().map(|CopyFileRangeArguments { length, .. }| length.min(COPY_MAX));
    }
    let FallocateArguments { length, mode, .. } = request.argument()?;
    Ok(if mode & libc::FALLOC_FL_PUNCH_HOLE as u32 != 0 { 0 } else { length })
}

/// Promises what a write needs. False where there is not enough, or where nobody knows what it needs.
fn promise(fs: &Filesystem, ino: Ino, intent: Intent, token: &Token) -> bool {
    match intent {
        Intent::Write { offset, length } => fs.promise(ino, offset, length, token).is_ok(),
        Intent::WriteSomewhere { length } => fs.promise_anywhere(ino, length).is_ok(),
        Intent::Other => true,
        Intent::Touch | Intent::Unknown => false,
    }
}

/// For the steward's own thread.
impl Steward {
    /// Does what there is to do, until the end.
    pub fn work(&self) {
        loop {
            // Nothing becomes old where nothing is promised.
            let is_idle = !self.filesystem().is_scarce() && !self.filesystem().has_promises();
            self.end_grace(false);
            match self.next(if is_idle { Duration::MAX } else { PROMISE }) {
                Some(Job::End) => return,
                Some(Job::Request(held)) => self.filesystem().with_token(|token| self.reply(held, token)),
                Some(Job::Scarce) => self.write_all_back(),
                Some(Job::GiveUp) | None => self.give_up_promises(),
            }
        }
    }

    fn reply(&self, Held { unique, origin, ino, wants }: Held, token: &Token) {
        const HEADER: usize = size_of::<ReplyHeader>();
        let answer = match wants {
            Wants::Room(intent) => self.make_room(ino, intent, token).map(Answer::Attributes),
            Wants::Space(message) => self.take_much(&message, token),
            Wants::Seek { offset, whence } => self.seek(ino, offset, whence, token).map(Answer::Offset),
        };
        let mut message = vec![0; HEADER + HEADER_ROOM];
        let packed = answer.and_then(|answer| self.native.pack(answer, &mut message[HEADER..], token));
        message[..HEADER].copy_from_slice(reply::header(unique, packed).as_bytes());
        origin.deliver(&message[..HEADER + packed.unwrap_or(0)]);
    }

    fn make_room(&self, ino: Ino, intent: Intent, token: &Token) -> Result<Attributes, Errno> {
        match self.try_to_make_room(ino, intent, token) {
            // Not before the pages that are held back have proved to be needed.
            Err(Errno::ENOSPC) if self.end_grace(true) => self.try_to_make_room(ino, intent, token),
            made => made,
        }
    }

    fn try_to_make_room(&self, ino: Ino, intent: Intent, token: &Token) -> Result<Attributes, Errno> {
        let fs = self.filesystem();
        if !matches!(intent, Intent::Write { .. }) {
            // What was written before, of which nobody could say where, takes no more than it needs once it is written.
            self.kernel.write_back(ino, 0);
            fs.give_up_anywhere(ino);
        }
        if matches!(intent, Intent::Touch | Intent::Unknown) {
            self.find_space();
            if fs.promise_anywhere(ino, UNKNOWN).is_err() && self.must_be_a_write(ino, token) {
                return Err(Errno::ENOSPC);
            }
        } else if !promise(fs, ino, intent, token) {
            self.find_space();
            if !promise(fs, ino, intent, token) {
                return Err(Errno::ENOSPC);
            }
        }
        self.attributes_for_once(ino, token)
    }

    /// Whether the kernel has no reason to ask about an open file but a write. Of files that it was told of lately it
    /// also asks when somebody reads up to the end; of what is empty there is nothing to read.
    fn must_be_a_write(&self, ino: Ino, token: &Token) -> bool {
        let may_be_read = || self.filesystem().attributes(ino, token).is_ok_and(|attributes| attributes.size > 0);
        let was_told = !self.is_native || lock(&self.told).contains(&ino);
        !was_told || !may_be_read()
    }

    /// Answers a request that takes much space at once, when all that has been collected has space of its own.
    fn take_much(&self, message: &[u8], token: &Token) -> Result<Answer, Errno> {
        if !self.filesystem().is_scarce() {
            self.filesystem().declare_scarce();
            self.write_all_back();
        }
        let request = Request::from_message(message, false).ok_or(Errno::EIO)?;
        if !self.filesystem().may_take(space_wanted(request)?) {
            self.end_grace(true);
        }
        self.native.answer(request, token)
    }

    /// Has the kernel write all that it has collected, and ask from now on before it collects more. A thread that it let
    /// in before may still be on its way to the cache, and lose its CPU there: for these there is a grace.
    fn write_all_back(&self) {
        self.filesystem().held().for_each(|ino| self.kernel.write_back(ino, 0));
        *lock(&self.grace) = Some(Instant::now() + PROMISE);
    }

    /// Ends the grace once it is over, for which it may `wait`: then all is written that was collected without a promise,
    /// and nothing need be held back for it. Whether it was ended.
    fn end_grace(&self, wait: bool) -> bool {
        let until = *lock(&self.grace);
        let Some(left) = until.map(|until| until.saturating_duration_since(Instant::now())) else { return false };
        if !wait && !left.is_zero() {
            return false;
        }
        thread::sleep(left);
        *lock(&self.grace) = None;
        self.filesystem().held().for_each(|ino| self.kernel.write_back(ino, 0));
        self.filesystem().nothing_is_held_back();
        true
    }

    fn seek(&self, ino: Ino, offset: u64, whence: u32, token: &Token) -> Result<u64, Errno> {
        let whence = Whence::from_number(whence)?;
        self.kernel.write_back(ino, offset);
        self.filesystem().seek(ino, offset, whence, token)
    }

    /// Space that was promised to no purpose, or that the kernel has given up, and we have not heard of it.
    fn find_space(&self) {
        self.give_up_promises();
        self.filesystem().take_in_forgets();
    }

    fn give_up_promises(&self) {
        let Some(then) = Instant::now().checked_sub(PROMISE) else { return };
        for ino in self.filesystem().promised_before(then) {
            self.kernel.write_back(ino, 0);
            self.filesystem().give_up_promises(ino, then);
        }
    }
}
