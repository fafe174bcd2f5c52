//! The device: requests are read from descriptors of /dev/fuse, one for each worker, and replies are
//! written where the request came from.
//!
//! A worker that has just served a request looks for the next one a little longer before it sleeps,
//! since waking up costs more than a short wait. One worker at a time does so, it lets others run
//! meanwhile, and it gives up after [`PATIENCE`]: a mount that nobody uses costs nothing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use filesystem::{Cpu, NodeId, Token};
use memory::current_cpu;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::connection::Shared;
use crate::native::Answer;
use crate::protocol::request::Request;
use crate::protocol::{DATA_MAX, HEADER_ROOM};
use crate::python::Origin;
use crate::wake::retry;

/// Bytes of the largest message.
pub(crate) const BUFFER_SIZE: usize = DATA_MAX + HEADER_ROOM;

/// How long a worker looks for the next request before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);

/// How long FORGETs gather where nothing else is to be expected at the device.
const GATHERING: Duration = Duration::from_millis(1);

/// What was found at a descriptor.
#[derive(Clone, Copy)]
pub(crate) enum Read<'a> {
    /// A request.
    Message(&'a [u8]),
    /// A FORGET, which has been acted on.
    Forgotten,
    /// Nothing, now.
    Nothing,
    /// The mount is no more.
    End,
}

/// Opens one more descriptor of the connection that `device` belongs to.
pub(crate) fn clone(device: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let fresh = File::options().read(true).write(true).open("/dev/fuse")?;
    clone_ioctl::clone_into(&fresh, device.as_raw_fd() as u32)?;
    Ok(fresh.into())
}

/// Reads a request that is there now.
pub(crate) fn read<'a>(device: &OwnedFd, buffer: &'a mut [u8]) -> Read<'a> {
    loop {
        match rustix::io::read(device, &mut *buffer) {
            Ok(length) => return Read::Message(&buffer[..length]),
            Err(Errno::AGAIN) => return Read::Nothing,
            // A request that was given up before it was read.
            Err(Errno::NOENT | Errno::INTR) => {}
            Err(_) => return Read::End,
        }
    }
}

/// Serves the descriptor of worker `number` until the end.
pub(crate) fn work(shared: &Shared, number: usize) -> io::Result<()> {
    let worker = &shared.workers[number];
    pin(worker.cpu);
    worker.yielding.begin();
    let tokens = tokens(shared, worker.cpu);
    let mut turn = 0;
    let waiting = Waiting::new(shared, number)?;
    let (mut message, mut reply) = (vec![0; BUFFER_SIZE], vec![0; DATA_MAX]);
    let mut patience = Patience::new(&shared.is_somebody_looking);
    let mut has_forgotten = false;
    while !shared.is_ending() {
        turn = (turn + 1) % tokens.len();
        let token = &tokens[turn];
        if let Some(message) = shared.take_from_inbox() {
            serve(shared, number, 0, &message, &mut reply, token);
            continue;
        }
        match shared.take(number, &mut message, token) {
            Read::Message(message) => {
                if worker.cpu.is_some() {
                    worker.yielding.serve(&shared.watch);
                }
                serve(shared, number, number, message, &mut reply, token);
                patience.renew();
            }
            Read::Forgotten => has_forgotten = true,
            // Nobody waits for a FORGET. Others are let come together, without waking us for each.
            Read::Nothing if has_forgotten && shared.has_ring() => {
                has_forgotten = false;
                thread::sleep(GATHERING);
            }
            Read::Nothing if patience.lasts() => thread::yield_now(),
            Read::Nothing => {
                patience.end();
                waiting.wait();
                pin_again(worker.cpu);
                if worker.wake.clear() {
                    shared.follow(&tokens);
                }
            }
            Read::End => break,
        }
    }
    Ok(())
}

/// Answers a message that was read at descriptor `device`.
fn serve(shared: &Shared, number: usize, device: usize, message: &[u8], reply: &mut [u8], token: &Token) {
    // What has not even a header cannot be answered.
    let Some(request) = Request::from_message(message, shared.setxattr_is_extended()) else { return };
    let answer = shared.answer(&shared.workers[number], request, Origin::Device(device), true, token);
    if let Ok(Answer::Silence) = answer {
        return;
    }
    match answer.and_then(|answer| shared.write(answer, reply, token)) {
        Ok(length) => shared.reply(device, request.unique(), 0, &reply[..length]),
        Err(errno) => shared.reply(device, request.unique(), errno, &[]),
    }
}

/// Keeps the calling thread on a CPU, as far as that is allowed.
pub(crate) fn pin(cpu: Option<Cpu>) {
    if let Some(Cpu(cpu)) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        // It was allowed at the start; since then the CPU may have gone, and any other will do.
        let _ = sched_setaffinity(None, &set);
    }
}

/// Pins the calling thread again if the kernel has let it go: its CPU had gone, and may have come back.
pub(crate) fn pin_again(cpu: Option<Cpu>) {
    let Some(here) = cpu.filter(|cpu| *cpu != current_cpu()) else { return };
    // Where it may run nowhere else, or not at its CPU, somebody has said so.
    if sched_getaffinity(None).is_ok_and(|set| set.count() > 1 && set.is_set(here.0)) {
        pin(cpu);
    }
}

/// Places at the replicas of all nodes of a CPU; of all there are, for a worker that runs anywhere.
pub(crate) fn tokens(shared: &Shared, cpu: Option<Cpu>) -> Vec<Token> {
    let topology = shared.filesystem.topology();
    let nodes = match cpu {
        Some(cpu) => topology.nodes_of(cpu).to_vec(),
        None => (0..topology.nodes().len()).collect(),
    };
    nodes.into_iter().map(|node| shared.filesystem.register(NodeId(node))).collect()
}

/// What a worker sleeps at: its descriptor and its wake. Of those who sleep at the device, the kernel
/// wakes as few as it can.
struct Waiting(OwnedFd);

impl Waiting {
    fn new(shared: &Shared, number: usize) -> Result<Self, Errno> {
        let (device, wake) = (&shared.devices[number], shared.workers[number].wake.as_fd());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let nothing = epoll::EventData::new_u64(0);
        epoll::add(&epoll, device, nothing, epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE)?;
        epoll::add(&epoll, wake, nothing, epoll::EventFlags::IN)?;
        Ok(Self(epoll))
    }

    fn wait(&self) {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        // A failure shows at the device again.
        let _ = retry(|| epoll::wait(&self.0, &mut events, None));
    }
}

/// Whether a worker may go on looking for requests.
struct Patience<'a> {
    is_somebody_looking: &'a AtomicBool,
    until: Option<Instant>,
}

impl<'a> Patience<'a> {
    fn new(is_somebody_looking: &'a AtomicBool) -> Self {
        Self { is_somebody_looking, until: None }
    }

    /// A request came: there may be more, unless another worker is looking already.
    fn renew(&mut self) {
        if self.until.is_some() || !self.is_somebody_looking.swap(true, Ordering::Relaxed) {
            self.until = Some(Instant::now() + PATIENCE);
        }
    }

    fn lasts(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    fn end(&mut self) {
        if self.until.take().is_some() {
            self.is_somebody_looking.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        self.end();
    }
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
