//! The device: requests are read from descriptors of /dev/fuse, one for each worker, and replies are
//! written where the request came from.
//!
//! FORGETs come here whatever the channel. Who must know that all FORGETs have been acted on that the kernel has sent
//! [drains](Intake::drain) the intake.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use filesystem::Errno as Refusal;
use rustix::event::epoll;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::channel::{Channel, Event, Origin, ReplyTo};
use crate::lock::lock;
use crate::protocol::request::Request;
use crate::protocol::{DATA_MAX, HEADER_ROOM, reply};
use crate::wake::{Wake, retry};

/// Bytes of the largest message.
const BUFFER_SIZE: usize = DATA_MAX + HEADER_ROOM;

/// The descriptors of a mount, and what their workers share.
pub(crate) struct Intake {
    /// The mount's own, and behind it its clones.
    descriptors: Vec<Arc<Descriptor>>,
    /// Held for reading while a worker takes a request and, if it is a FORGET, acts on it. Whoever has
    /// it for writing knows that no FORGET is under way.
    gate: RwLock<()>,
    /// Requests that somebody read who looked for FORGETs, all from the mount's own descriptor.
    inbox: Mutex<VecDeque<Vec<u8>>>,
    inbox_is_empty: AtomicBool,
    /// Of the worker that takes what is in the inbox.
    wake: Arc<Wake>,
}

/// A descriptor of /dev/fuse. The kernel takes a reply only where it gave the request.
struct Descriptor(OwnedFd);

impl ReplyTo for Descriptor {
    fn deliver(&self, message: &[u8]) {
        // An error means that nobody waits for the reply any more.
        let _ = retry(|| rustix::io::write(&self.0, message));
    }
}

impl Intake {
    /// For so many workers; `wake` is the first one's. The descriptors do not wait any more.
    pub fn new(device: OwnedFd, workers: usize, wake: Arc<Wake>) -> io::Result<Self> {
        let mut descriptors = vec![device];
        for _ in 1..workers {
            descriptors.push(clone(&descriptors[0])?);
        }
        for descriptor in &descriptors {
            rustix::io::ioctl_fionbio(descriptor, true)?;
        }
        Ok(Self {
            descriptors: descriptors.into_iter().map(|descriptor| Arc::new(Descriptor(descriptor))).collect(),
            gate: RwLock::new(()),
            inbox: Mutex::default(),
            inbox_is_empty: AtomicBool::new(true),
            wake,
        })
    }

    /// The mount's own descriptor.
    pub fn device(&self) -> &OwnedFd {
        &self.descriptors[0].0
    }

    /// The numbers of the workers.
    pub fn workers(&self) -> std::ops::Range<usize> {
        0..self.descriptors.len()
    }

    /// Reads what the kernel has sent until now. All FORGETs have been acted on when this returns, those read here by
    /// `forget`; other requests are left for the first worker. Whoever acts on a FORGET must not call this.
    pub fn drain(&self, mut forget: impl FnMut(Request)) {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; BUFFER_SIZE];
        while let Read::Message(length) = read(self.device(), &mut buffer) {
            let message = &buffer[..length];
            match Request::from_message(message, false) {
                Some(request) if request.is_forget() => forget(request),
                _ => {
                    let mut inbox = lock(&self.inbox);
                    inbox.push_back(message.to_vec());
                    self.inbox_is_empty.store(false, Ordering::SeqCst);
                    self.wake.signal();
                }
            }
        }
    }

    fn take_from_inbox(&self) -> Option<Vec<u8>> {
        if self.inbox_is_empty.load(Ordering::SeqCst) {
            return None;
        }
        let mut inbox = lock(&self.inbox);
        let message = inbox.pop_front();
        self.inbox_is_empty.store(inbox.is_empty(), Ordering::SeqCst);
        message
    }
}

/// What was found at a descriptor.
enum Read {
    /// A message of so many bytes.
    Message(usize),
    /// Nothing, now.
    Nothing,
    /// The mount is no more.
    End,
}

/// Reads a request that is there now.
fn read(device: &OwnedFd, buffer: &mut [u8]) -> Read {
    loop {
        match rustix::io::read(device, &mut *buffer) {
            Ok(length) => return Read::Message(length),
            Err(Errno::AGAIN) => return Read::Nothing,
            // A request that was given up before it was read.
            Err(Errno::NOENT | Errno::INTR) => {}
            Err(_) => return Read::End,
        }
    }
}

/// One worker's descriptor. It has one request at a time.
pub(crate) struct Device<'a> {
    intake: &'a Intake,
    number: usize,
    wake: &'a Wake,
    /// The worker sleeps at this: its descriptor and its wake. Of those who sleep at the device, the kernel wakes as few
    /// as it can.
    epoll: OwnedFd,
    is_woken: bool,
    origins: Vec<Origin>,
    message: Vec<u8>,
    length: usize,
    reply: Vec<u8>,
    /// From before a request is read until it is known that it is no FORGET, or it has been acted on.
    gate: Cell<Option<RwLockReadGuard<'a, ()>>>,
}

/// The number of the descriptor that a request was read from.
#[derive(Clone, Copy)]
pub(crate) struct DescriptorId(usize);

impl<'a> Device<'a> {
    /// The descriptor of worker `number`, who is woken by `wake`.
    pub fn new(intake: &'a Intake, number: usize, wake: &'a Wake) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let device = &intake.descriptors[number].0;
        epoll::add(&epoll, device, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE)?;
        epoll::add(&epoll, wake.as_fd(), WOKEN, epoll::EventFlags::IN)?;
        Ok(Self {
            intake,
            number,
            wake,
            epoll,
            is_woken: false,
            origins: intake.descriptors.iter().map(|descriptor| Arc::clone(descriptor) as Origin).collect(),
            message: vec![0; BUFFER_SIZE],
            length: 0,
            reply: vec![0; DATA_MAX],
            gate: Cell::new(None),
        })
    }
}

/// What the kernel says of the wake.
const WOKEN: epoll::EventData = epoll::EventData::new_u64(1);

impl Channel for Device<'_> {
    type Slot = DescriptorId;

    fn next(&mut self) -> io::Result<Event<DescriptorId>> {
        self.gate.set(None);
        if std::mem::take(&mut self.is_woken) && self.wake.clear() {
            return Ok(Event::Woken);
        }
        if let Some(message) = (self.number == 0).then(|| self.intake.take_from_inbox()).flatten() {
            self.length = message.len();
            self.message[..self.length].copy_from_slice(&message);
            return Ok(Event::Request(DescriptorId(0)));
        }
        let gate = self.intake.gate.read().unwrap_or_else(PoisonError::into_inner);
        Ok(match read(&self.intake.descriptors[self.number].0, &mut self.message) {
            Read::Message(length) => {
                self.length = length;
                self.gate.set(Some(gate));
                Event::Request(DescriptorId(self.number))
            }
            Read::Nothing => Event::Nothing,
            Read::End => Event::End,
        })
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        // A failure shows at the device again.
        let ready = retry(|| epoll::wait(&self.epoll, &mut events, None)).unwrap_or(0);
        self.is_woken = events[..ready].iter().any(|event| event.data.u64() == WOKEN.u64());
        Ok(())
    }

    fn request(&self, _: DescriptorId, extended: bool) -> Option<Request<'_>> {
        let request = Request::from_message(&self.message[..self.length], extended);
        if !request.is_some_and(Request::is_forget) {
            self.gate.set(None);
        }
        request
    }

    fn reply(
        &mut self,
        DescriptorId(number): DescriptorId,
        unique: u64,
        pack: impl FnOnce(&mut [u8]) -> Result<usize, Refusal>,
    ) -> io::Result<()> {
        let packed = pack(&mut self.reply);
        let header = reply::header(unique, packed);
        let data = &self.reply[..packed.unwrap_or(0)];
        let parts = [io::IoSlice::new(header.as_bytes()), io::IoSlice::new(data)];
        // An error means that nobody waits for the reply any more.
        let _ = retry(|| rustix::io::writev(&self.intake.descriptors[number].0, &parts));
        Ok(())
    }

    fn leave(&mut self, _: DescriptorId, _: u64) {}

    fn may_wait(&self, _: DescriptorId) -> bool {
        true
    }

    fn origin(&self, DescriptorId(number): DescriptorId) -> &Origin {
        &self.origins[number]
    }
}

/// Opens one more descriptor of the connection that `device` belongs to.
fn clone(device: &OwnedFd) -> io::Result<OwnedFd> {
    let fresh = File::options().read(true).write(true).open("/dev/fuse")?;
    clone_ioctl::clone_into(&fresh, device.as_raw_fd() as u32)?;
    Ok(fresh.into())
}

/// The call that rustix has no name for.
mod clone_ioctl {
    use std::os::fd::AsFd;

    use rustix::ioctl::{Setter, ioctl, opcode};

    /// FUSE_DEV_IOC_CLONE.
    const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

    /// Makes `fresh`, an unused descriptor of /dev/fuse, one of the connection of descriptor `device`.
    #[allow(unsafe_code, reason = "an ioctl of the kernel's that no library knows")]
    pub fn clone_into(fresh: impl AsFd, device: u32) -> rustix::io::Result<()> {
        // SAFETY: the kernel reads one u32 behind the pointer that `Setter` gives it, and writes nothing.
        unsafe { ioctl(fresh, Setter::<CLONE, u32>::new(device)) }
    }
}
