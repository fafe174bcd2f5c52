//! The steward: the thread that answers requests which must wait until the kernel has written collected data. Workers
//! must not wait for that, as they answer the WRITEs.
//!
//! Two kinds of requests depend on data that the kernel has collected:
//!
//! - **Room.** While space is scarce, the kernel must collect only data that space was promised for. Before it collects
//!   a write, it asks for the file's attributes if it has no valid ones. So it is told that they are not valid, and its
//!   GETATTR is answered after a promise was made, or with ENOSPC, which write(2) then returns. When a page of a hole
//!   is touched in a mapping, the kernel sends a READ: without a promise it fails, and the touch is a bus error. An
//!   operation that takes much space at once, and whose data is not collected, waits until all collected data is
//!   written.
//! - **Holes.** Where a file has holes is only known after the kernel has written its collected data.
//!
//! A worker makes promises itself if there is enough space. Otherwise it leaves the request to the steward, which looks
//! for space: it makes the kernel write files with old promises, gives up the promises that remain, and processes
//! FORGETs.
//!
//! While the steward waits for the kernel to write, workers must be able to take the WRITEs. So requests that the
//! steward has never fill all slots of a ring's queue. And it never has a READ, as the kernel locks pages for a READ
//! that it may have to write.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use filesystem::{Attributes, Errno, Filesystem, Ino, Replicated, Token, Whence};
use zerocopy::IntoBytes;

use crate::caller::{Intent, intent};
use crate::channel::Origin;
use crate::kernel::Kernel;
use crate::lock::lock;
use crate::native::{Answer, COPY_MAX, Native};
use crate::protocol::opcode::Opcode;
use crate::protocol::request::Request;
use crate::protocol::wire::{
    CopyFileRangeArguments, FallocateArguments, GetattrArguments, GetattrFlags, LseekArguments, ReadArguments,
    ReplyHeader, WriteArguments, WriteFlags,
};
use crate::protocol::{HEADER_ROOM, reply};
use crate::trace::{Trace, Traced};

/// The age at which promises are given up: the time that a write may take from its GETATTR to the kernel's cache. If a
/// promise is older, and still there after the cache has been written, no write will take it.
const PROMISE: Duration = Duration::from_secs(1);

/// How long the steward sleeps if there is nothing to do.
const IDLE: Duration = Duration::from_secs(60);

/// Bytes that are promised if the length of a write is unknown: more than programs usually write at a time.
const UNKNOWN: u64 = 1 << 20;

/// The steward's queue, and its state.
pub(crate) struct Steward {
    native: Arc<Native>,
    kernel: Arc<Kernel>,
    trace: Arc<Trace>,
    /// Whether requests are answered natively if possible.
    is_native: bool,
    jobs: Mutex<VecDeque<Job>>,
    has_job: Condvar,
    /// Inodes whose attributes the kernel got while space was scarce. As they are not valid, it may ask for them again
    /// before reads, too, not only before writes.
    told: Mutex<HashSet<Ino>>,
    /// Until when pages are held back for writes that had passed the kernel's check before space was scarce, and may
    /// not have reached its cache yet. Set when all data collected before has been written.
    grace: Mutex<Option<Instant>>,
}

enum Job {
    /// Make the kernel write all that it has collected, as space has become scarce.
    Scarce,
    /// Answer a request.
    Request(Held),
    /// Give up old promises.
    GiveUp,
    /// End the thread.
    End,
}

/// A request that the steward will answer.
struct Held {
    unique: u64,
    origin: Origin,
    ino: Ino,
    wants: Wants,
    traced: Option<Box<Traced>>,
}

/// What a request needs instead of its usual answer.
pub(crate) enum Need {
    /// A reply with these attributes, which the kernel must not cache: space for a write has been promised.
    Attributes(Attributes),
    /// To be left to the steward.
    Time(Wants),
}

/// What the steward must do for a request.
pub(crate) enum Wants {
    /// Promise space for what the caller is about to write, and reply with the attributes.
    Room(Intent),
    /// Answer a request that takes much space at once. This is the whole request.
    Space(Vec<u8>),
    /// Find data or a hole.
    Seek { offset: u64, whence: u32 },
}

/// Called by all threads.
impl Steward {
    pub fn new(native: Arc<Native>, kernel: Arc<Kernel>, trace: Arc<Trace>, is_native: bool) -> Self {
        let (jobs, has_job, told, grace) = Default::default();
        Self { native, kernel, trace, is_native, jobs, has_job, told, grace }
    }

    /// Called when space has become scarce. Does not wait.
    pub fn space_is_scarce(&self) {
        self.push(Job::Scarce);
    }

    /// Notes that the kernel has forgotten the inodes that a FORGET or BATCH_FORGET names.
    pub fn untell(&self, request: Request) {
        let mut told = lock(&self.told);
        // A malformed one names none.
        for (ino, _) in request.forgotten().into_iter().flatten() {
            told.remove(&ino);
        }
    }

    /// Leaves a request to the steward, which will reply to it.
    pub fn take(&self, request: Request, origin: Origin, wants: Wants, traced: Option<Box<Traced>>) {
        self.push(Job::Request(Held { unique: request.unique(), origin, ino: request.ino(), wants, traced }));
    }

    /// Makes the steward's thread end. Requests that are still in the queue get no reply.
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

    /// Waits for the next job; `None` if there is none within `patience`.
    fn next(&self, patience: Duration) -> Option<Job> {
        let jobs = lock(&self.jobs);
        let waited = self.has_job.wait_timeout_while(jobs, patience, |jobs| jobs.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.pop_front()
    }

    fn filesystem(&self) -> &Filesystem {
        self.native.filesystem()
    }

    fn content(&self) -> &Replicated {
        self.filesystem().collecting().expect("there is a steward only where the kernel collects data")
    }
}

/// Called by workers.
impl Steward {
    /// What a request needs instead of its usual answer, because of data that the kernel has collected or is about to
    /// collect; `None` to answer it as usual. Makes promises if there is enough space. Without `may_wait` nothing is
    /// left to the steward: LSEEK gets ENOSYS, all else ENOSPC.
    pub fn need(&self, request: Request, may_wait: bool, token: &Token) -> Result<Option<Need>, Errno> {
        let (fs, ino) = (self.content(), request.ino());
        let wants = match request.opcode() {
            // After ENOSYS the kernel itself answers: as if the file had no holes.
            Some(Opcode::Lseek) if !may_wait => return Err(Errno::ENOSYS),
            Some(Opcode::Lseek) => {
                let LseekArguments { offset, whence, .. } = request.argument()?;
                Wants::Seek { offset, whence }
            }
            Some(Opcode::Fallocate | Opcode::CopyFileRange | Opcode::CopyFileRange64) => {
                if !self.is_native || fs.may_take(space_wanted(request)?) {
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
                let is_promised = fs.place_promise(ino, &(offset..offset.saturating_add(size.into())), token);
                if !is_promised && fs.is_scarce() {
                    // It was collected without a promise: the kernel must ask before it collects more.
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

    /// Promises pages of a hole that a request reads, if it may be for a mapping. ENOSPC only if a page of a mapping is
    /// being touched: then the touch must fail without a promise.
    fn promise_mapped(&self, request: Request, range: &Range<u64>, token: &Token) -> Result<(), Errno> {
        let (fs, ino) = (self.content(), request.ino());
        let intent = intent(request.header().pid, ino);
        if intent == Intent::Other || fs.promise_mapped(ino, range, false, token).is_ok() || intent != Intent::Touch {
            return Ok(());
        }
        self.push(Job::GiveUp);
        self.filesystem().take_in_forgets();
        // A touch cannot wait for the end of the grace period, as the kernel has locked the page: so it may use pages
        // that are held back.
        fs.promise_mapped(ino, range, lock(&self.grace).is_some(), token)
    }

    /// Whether a GETATTR is sent because a write may be about to be collected. Then it names an open file; a GETATTR
    /// for stat(2) does not.
    fn asks_for_room(&self, request: Request) -> Result<bool, Errno> {
        let GetattrArguments { flags, .. } = request.argument()?;
        Ok(self.native.is_caching() && flags.contains(GetattrFlags::BY_FILE))
    }

    /// The attributes for a reply that the kernel does not cache: so it asks again before the next write.
    fn attributes_for_once(&self, ino: Ino, token: &Token) -> Result<Attributes, Errno> {
        self.kernel.forget_attributes(ino);
        self.filesystem().attributes(ino, token)
    }

    /// Notes the inode whose attributes an answer gives to the kernel while space is scarce.
    pub fn note_told(&self, request: Request, answer: &Answer) {
        if !self.content().is_scarce() {
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

/// Bytes that a FALLOCATE or a copy may take at once.
fn space_wanted(request: Request) -> Result<u64, Errno> {
    if request.opcode() != Some(Opcode::Fallocate) {
        return request.argument().map(|CopyFileRangeArguments { length, .. }| length.min(COPY_MAX));
    }
    let FallocateArguments { length, mode, .. } = request.argument()?;
    Ok(if mode & libc::FALLOC_FL_PUNCH_HOLE as u32 != 0 { 0 } else { length })
}

/// Promises the space for an intent. False if there is not enough, or if it is unknown how much is needed.
fn promise(fs: &Replicated, ino: Ino, intent: Intent, token: &Token) -> bool {
    match intent {
        Intent::Write { offset, length } => fs.promise(ino, offset, length, token).is_ok(),
        Intent::WriteSomewhere { length } => fs.promise_anywhere(ino, length).is_ok(),
        Intent::Other => true,
        Intent::Touch | Intent::Unknown => false,
    }
}

/// Called by the steward's own thread.
impl Steward {
    /// Does all jobs, until [`end`](Self::end) is called.
    pub fn work(&self) {
        loop {
            // If nothing is promised, no promise can become old. One that is just being made can wait.
            let is_idle = !self.content().is_scarce() && !self.content().has_promises();
            self.end_grace(false);
            match self.next(if is_idle { IDLE } else { PROMISE }) {
                Some(Job::End) => return,
                Some(Job::Request(held)) => self.filesystem().with_token(|token| self.reply(held, token)),
                Some(Job::Scarce) => self.begin_grace(),
                Some(Job::GiveUp) | None => self.give_up_promises(),
            }
        }
    }

    fn reply(&self, Held { unique, origin, ino, wants, traced }: Held, token: &Token) {
        const HEADER: usize = size_of::<ReplyHeader>();
        token.take_batches();
        let answer = match wants {
            Wants::Room(intent) => self.make_room(ino, intent, token).map(Answer::Attributes),
            Wants::Space(message) => self.take_much(&message, token),
            Wants::Seek { offset, whence } => self.seek(ino, offset, whence, token).map(Answer::Offset),
        };
        let mut message = vec![0; HEADER + HEADER_ROOM];
        let packed = answer.and_then(|answer| self.native.pack(answer, &mut message[HEADER..], token));
        message[..HEADER].copy_from_slice(reply::header(unique, packed).as_bytes());
        origin.deliver(&message[..HEADER + packed.unwrap_or(0)]);
        if let Some(traced) = traced {
            self.trace.end_by(token, traced, packed.err());
        }
    }

    fn make_room(&self, ino: Ino, intent: Intent, token: &Token) -> Result<Attributes, Errno> {
        match self.try_to_make_room(ino, intent, token) {
            // The pages that are held back may be enough: try again once they are not needed any more.
            Err(Errno::ENOSPC) if self.end_grace(true) => self.try_to_make_room(ino, intent, token),
            made => made,
        }
    }

    fn try_to_make_room(&self, ino: Ino, intent: Intent, token: &Token) -> Result<Attributes, Errno> {
        let fs = self.content();
        if !matches!(intent, Intent::Write { .. }) {
            // After data with promises of an unknown place has been written, these promises are not needed any more.
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

    /// Whether a GETATTR that names an open file can only be for a write. If the kernel has attributes of the file that
    /// are not valid, it also sends one before a read up to the end of the file, unless the file is empty.
    fn must_be_a_write(&self, ino: Ino, token: &Token) -> bool {
        let may_be_read = || self.filesystem().attributes(ino, token).is_ok_and(|attributes| attributes.size > 0);
        let was_told = !self.is_native || lock(&self.told).contains(&ino);
        !was_told || !may_be_read()
    }

    /// Answers a request that takes much space at once, after all collected data has been written or has promises.
    fn take_much(&self, message: &[u8], token: &Token) -> Result<Answer, Errno> {
        self.content().declare_scarce();
        self.begin_grace();
        let request = Request::from_message(message, false).ok_or(Errno::EIO)?;
        if !self.content().may_take(space_wanted(request)?) {
            self.end_grace(true);
        }
        self.native.answer(request, token)
    }

    /// Makes the kernel write all that it has collected, and drop attributes, so that it asks before it collects more.
    /// A write that passed this check before may still be on its way to the cache, as its thread may have lost its CPU.
    /// So this begins a grace period, after which the cache must be written once more. Does nothing during one, or if no
    /// pages are held back.
    fn begin_grace(&self) {
        if self.content().holds_back() && lock(&self.grace).is_none() {
            self.write_all_back();
            *lock(&self.grace) = Some(Instant::now() + PROMISE);
        }
    }

    /// Ends the grace period if it is over; with `wait`, waits for that. Then makes the kernel write what was collected
    /// without a promise, and holds no pages back any more. Returns whether a grace period was ended.
    fn end_grace(&self, wait: bool) -> bool {
        if wait {
            self.begin_grace();
        }
        let until = *lock(&self.grace);
        let Some(left) = until.map(|until| until.saturating_duration_since(Instant::now())) else { return false };
        if !wait && !left.is_zero() {
            return false;
        }
        thread::sleep(left);
        self.write_all_back();
        self.content().nothing_is_held_back();
        *lock(&self.grace) = None;
        true
    }

    fn write_all_back(&self) {
        self.filesystem().held().for_each(|ino| self.kernel.write_back(ino, 0));
    }

    fn seek(&self, ino: Ino, offset: u64, whence: u32, token: &Token) -> Result<u64, Errno> {
        let whence = Whence::from_number(whence)?;
        self.kernel.write_back(ino, offset);
        self.filesystem().seek(ino, offset, whence, token)
    }

    /// Looks for space: gives up old promises, and processes FORGETs.
    fn find_space(&self) {
        self.give_up_promises();
        self.filesystem().take_in_forgets();
    }

    /// Makes the kernel write the files with old promises, and gives up those that remain.
    fn give_up_promises(&self) {
        let Some(then) = Instant::now().checked_sub(PROMISE) else { return };
        for ino in self.content().promised_before(then) {
            self.kernel.write_back(ino, 0);
            self.content().give_up_promises(ino, then);
        }
    }
}
