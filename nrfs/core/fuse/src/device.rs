//! The channel of /dev/fuse: a worker reads requests from its descriptor, and writes replies to the descriptor that
//! the request was read from.
//!
//! FORGETs arrive here with every channel. [`Intake::drain`] processes all that the kernel has sent.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use filesystem::{Cpu, Errno as Refusal};
use rustix::event::epoll;
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::channel::{Channel, Event, Origin, ReplyTo};
use crate::lock::lock;
use crate::protocol::request::Request;
use crate::protocol::{DATA_MAX, HEADER_ROOM, reply};
use crate::wake::{Wake, retry};

/// Bytes in the largest message.
const BUFFER_SIZE: usize = DATA_MAX + HEADER_ROOM;

/// The descriptors of a mount, and the state that their workers share.
pub(crate) struct Intake {
    /// The mount's own descriptor, and then its clones. Each worker has one.
    descriptors: Vec<Arc<Descriptor>>,
    /// Held for reading while a worker takes a request and, if it is a FORGET, processes it. While it is held for
    /// writing, no FORGET is half processed.
    gate: RwLock<()>,
    /// Requests that `drain` has read beside FORGETs, from the mount's own descriptor.
    inbox: Mutex<VecDeque<Vec<u8>>>,
    inbox_is_empty: AtomicBool,
    /// Wakes the first worker, which takes requests from the inbox.
    wake: Arc<Wake>,
}

/// A descriptor of /dev/fuse. The kernel takes a reply only from the descriptor that the request was read from.
struct Descriptor(OwnedFd);

impl ReplyTo for Descriptor {
    fn deliver(&self, message: &[u8]) {
        // An error means that the kernel does not wait for the reply any more.
        let _ = retry(|| rustix::io::write(&self.0, message));
    }
}

impl Intake {
    /// Makes descriptors for `workers` workers, and makes all of them non-blocking. `wake` wakes the first worker.
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

    /// The numbers of the workers that read descriptors.
    pub fn workers(&self) -> std::ops::Range<usize> {
        0..self.descriptors.len()
    }

    /// Reads all requests that the kernel has sent, and calls `forget` with each FORGET; other requests go to the first
    /// worker. When this returns, all FORGETs have been processed, also those that workers have read. The caller must
    /// not be processing a FORGET itself: this would wait for it.
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

/// The result of reading a descriptor.
enum Read {
    /// A message was read; its length in bytes.
    Message(usize),
    /// There is nothing now.
    Nothing,
    /// The mount has ended.
    End,
}

/// Reads the next request into `buffer`. Does not wait.
fn read(device: &OwnedFd, buffer: &mut [u8]) -> Read {
    loop {
        match rustix::io::read(device, &mut *buffer) {
            Ok(length) => return Read::Message(length),
            Err(Errno::AGAIN) => return Read::Nothing,
            // NOENT: the request was aborted before it was read.
            Err(Errno::NOENT | Errno::INTR) => {}
            Err(_) => return Read::End,
        }
    }
}

/// One worker's channel. It has one request at a time.
pub(crate) struct Device<'a> {
    intake: &'a Intake,
    number: usize,
    wake: &'a Wake,
    /// Waits for the worker's descriptor and its wake. The descriptor is added as EXCLUSIVE: for a request, the kernel
    /// wakes as few of the waiting workers as it can.
    epoll: OwnedFd,
    is_woken: bool,
    origins: Vec<Origin>,
    message: Vec<u8>,
    length: usize,
    reply: Vec<u8>,
    /// The gate, held from before a request is read until it is known not to be a FORGET, or has been processed.
    gate: Cell<Option<RwLockReadGuard<'a, ()>>>,
}

/// The number of the descriptor that a request was read from.
#[derive(Clone, Copy)]
pub(crate) struct DescriptorId(usize);

impl<'a> Device<'a> {
    /// The channel of worker `number`, which `wake` wakes.
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

/// Marks events of the wake.
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
        // If this fails, so does reading the device.
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
        // An error means that the kernel does not wait for the reply any more.
        let _ = retry(|| rustix::io::writev(&self.intake.descriptors[number].0, &parts));
        Ok(())
    }

    fn leave(&mut self, _: DescriptorId, _: u64) {}

    fn may_wait(&self, _: DescriptorId) -> bool {
        true
    }

    fn cpu_of(&self, _: DescriptorId) -> Option<Cpu> {
        None
    }

    fn origin(&self, DescriptorId(number): DescriptorId) -> &Origin {
        &self.origins[number]
    }
}

/// Opens another descriptor of the connection that `device` belongs to.
fn clone(device: &OwnedFd) -> io::Result<OwnedFd> {
    let fresh = File::options().read(true).write(true).open("/dev/fuse")?;
    clone_ioctl::clone_into(&fresh, device.as_raw_fd() as u32)?;
    Ok(fresh.into())
}

/// The ioctl that rustix lacks.
mod clone_ioctl {
    use std::os::fd::AsFd;

    use rustix::ioctl::{Setter, ioctl, opcode};

    /// FUSE_DEV_IOC_CLONE.
    const CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

    /// Makes `fresh`, a newly opened descriptor of /dev/fuse, a descriptor of the same connection as `device`.
    #[allow(unsafe_code, reason = "an ioctl of the kernel's that no library knows")]
    pub fn clone_into(fresh: impl AsFd, device: u32) -> rustix::io::Result<()> {
        // SAFETY: the kernel reads one u32 at the pointer that `Setter` passes, and writes nothing.
        unsafe { ioctl(fresh, Setter::<CLONE, u32>::new(device)) }
    }
}
