//! The channel of io_uring: a ring for each CPU, whose worker runs on that CPU. So a request takes only a switch from
//! the caller's thread to the worker, which uses the replica of its own node.
//!
//! The kernel has a queue for each possible CPU, and uses the rings once each queue has a slot. If we may not run on a
//! CPU, or it is not online, the worker of another CPU serves its queue. FORGETs and INTERRUPTs, and all requests
//! before the rings are ready, arrive at the device.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use filesystem::{Cpu, Errno, Topology};
use memory::{physical_node_of, possible_cpus};
use zerocopy::FromBytes;

use crate::channel::{Channel, Event, Origin, ReplyTo};
use crate::lock::lock;
use crate::protocol::request::Request;
use crate::protocol::wire::ReplyHeader;
use crate::protocol::{DATA_MAX, reply};
use crate::uring::{Completion, SlotId, Uring};
use crate::wake::Wake;

/// Slots in the queue of a CPU that has a worker.
const DEPTH: usize = 8;

/// Slots in the queue of a CPU without a worker of its own.
const FOREIGN_DEPTH: usize = 2;

/// Fails if this process cannot have an io_uring. Does not ask whether FUSE offers the ring.
pub fn probe() -> io::Result<()> {
    Uring::new(&[0], DATA_MAX, None).map(drop)
}

/// Makes a ring for each of `cpus`. Together they have slots for every possible CPU.
pub(crate) fn for_each(cpus: &[Cpu], topology: &Topology) -> io::Result<Vec<Uring>> {
    let mut queues: Vec<Vec<u16>> = cpus.iter().map(|cpu| vec![cpu.0 as u16; DEPTH]).collect();
    let foreign = (0..possible_cpus()).map(Cpu).filter(|cpu| !cpus.contains(cpu));
    for (turn, cpu) in foreign.enumerate() {
        // A worker of the same node of the hardware, if there is one.
        let node = physical_node_of(cpu);
        let is_near = |worker: &Cpu| node.is_some() && physical_node_of(*worker) == node;
        let near: Vec<usize> = (0..cpus.len()).filter(|&worker| is_near(&cpus[worker])).collect();
        let worker = if near.is_empty() { turn % cpus.len() } else { near[turn % near.len()] };
        queues[worker].extend([cpu.0 as u16; FOREIGN_DEPTH]);
    }
    let physical = |&cpu| topology.nodes_of(cpu).first().and_then(|&node| topology.nodes()[node].physical);
    cpus.iter().zip(queues).map(|(cpu, queues)| Uring::new(&queues, DATA_MAX, physical(cpu))).collect()
}

/// One worker's channel.
pub(crate) struct Ring {
    uring: Uring,
    mailbox: Arc<Mailbox>,
    /// The mailbox, as the origin of all requests.
    origin: Origin,
    /// The slots of requests that other threads will reply to, by `unique`.
    left: HashMap<u64, SlotId>,
}

/// Replies of other threads that the worker must commit: only the worker may use its ring.
struct Mailbox {
    replies: Mutex<Vec<Vec<u8>>>,
    wake: Arc<Wake>,
}

impl ReplyTo for Mailbox {
    fn deliver(&self, message: &[u8]) {
        lock(&self.replies).push(message.to_vec());
        self.wake.signal();
    }
}

impl Ring {
    /// Registers the ring's slots with the kernel, for requests of the mount of `device`. From now on only the calling
    /// thread may use the ring. `wake` wakes it.
    pub fn open(mut uring: Uring, device: BorrowedFd, wake: &Arc<Wake>) -> io::Result<Self> {
        uring.register(device, wake.as_fd())?;
        let mailbox = Arc::new(Mailbox { replies: Mutex::default(), wake: Arc::clone(wake) });
        let origin = Arc::clone(&mailbox) as Origin;
        Ok(Self { uring, mailbox, origin, left: HashMap::new() })
    }

    /// Commits the replies of other threads.
    fn empty_mailbox(&mut self) -> io::Result<()> {
        self.mailbox.wake.clear();
        let replies = std::mem::take(&mut *lock(&self.mailbox.replies));
        for message in replies {
            let Ok((header, data)) = ReplyHeader::read_from_prefix(&message) else { continue };
            let Some(slot) = self.left.remove(&header.unique) else { continue };
            match self.uring.buffer(slot).get_mut(..data.len()) {
                Some(room) => {
                    room.copy_from_slice(data);
                    self.uring.commit(slot, &header, data.len())?;
                }
                None => self.uring.commit(slot, &reply::header(header.unique, Err(Errno::EIO)), 0)?,
            }
        }
        Ok(())
    }
}

impl Channel for Ring {
    type Slot = SlotId;

    fn next(&mut self) -> io::Result<Event<SlotId>> {
        Ok(match self.uring.next()? {
            Some(Completion::Request(slot)) => Event::Request(slot),
            Some(Completion::Woken) => {
                self.empty_mailbox()?;
                Event::Woken
            }
            Some(Completion::End) => Event::End,
            None => Event::Nothing,
        })
    }

    fn wait(&mut self) -> io::Result<()> {
        self.uring.wait()
    }

    fn request(&self, slot: SlotId, extended: bool) -> Option<Request<'_>> {
        let (header, argument, payload) = self.uring.request(slot);
        Request::from_parts(header, argument, payload, extended)
    }

    fn reply(
        &mut self,
        slot: SlotId,
        unique: u64,
        pack: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> io::Result<()> {
        let packed = pack(self.uring.buffer(slot));
        self.uring.commit(slot, &reply::header(unique, packed), packed.unwrap_or(0))
    }

    fn leave(&mut self, slot: SlotId, unique: u64) {
        self.left.insert(unique, slot);
    }

    /// At least one slot of the queue must remain for WRITEs.
    fn may_wait(&self, slot: SlotId) -> bool {
        let others = self.left.values().filter(|other| self.uring.are_of_one_queue(slot, **other)).count();
        others == 0 || others + 2 <= self.uring.slots_of_queue(slot)
    }

    fn cpu_of(&self, slot: SlotId) -> Option<Cpu> {
        Some(Cpu(self.uring.queue_of(slot).into()))
    }

    fn origin(&self, _: SlotId) -> &Origin {
        &self.origin
    }
}
