//! The ring: one queue for each CPU, whose worker runs on that very CPU, so that handing a request over
//! is a plain switch from one thread to another, and reads the replica of its own node.
//!
//! The kernel uses the ring once every possible CPU has a slot. A CPU on which we may not run, or that is
//! not there yet, has its queue served by another's worker. FORGETs, and what comes before the ring is
//! ready, arrive at the device.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use filesystem::{Cpu, Filesystem, Token};
use memory::possible_cpus;

use crate::connection::{Shared, lock};
use crate::device::{pin, pin_again, tokens};
use crate::native::Answer;
use crate::protocol::request::Request;
use crate::protocol::wire::ReplyHeader;
use crate::protocol::{DATA_MAX, reply};
use crate::python::Origin;
use crate::uring::{Event, Ring, SlotId};
use zerocopy::FromBytes;

/// Requests that a CPU can have under way.
const DEPTH: usize = 8;

/// The same for a CPU that has no worker of its own.
const FOREIGN_DEPTH: usize = 2;

/// Replies of pyfuse3's that a worker is to commit.
pub(crate) type Mailbox = Mutex<Vec<Vec<u8>>>;

/// Whether this process can have a ring, whatever FUSE offers.
pub fn probe() -> io::Result<()> {
    Ring::new(&[0], DATA_MAX, None).map(drop)
}

/// A ring for each of `cpus`, which together have a slot for every possible CPU.
pub(crate) fn for_each(cpus: &[Cpu], filesystem: &Filesystem) -> io::Result<Vec<Ring>> {
    let mut queues: Vec<Vec<u16>> = cpus.iter().map(|cpu| vec![cpu.0 as u16; DEPTH]).collect();
    let foreign = (0..possible_cpus()).filter(|&cpu| !cpus.contains(&Cpu(cpu)));
    for (number, cpu) in foreign.enumerate() {
        queues[number % cpus.len()].extend([cpu as u16; FOREIGN_DEPTH]);
    }
    let topology = filesystem.topology();
    let physical = |&cpu| topology.nodes_of(cpu).first().and_then(|&node| topology.nodes()[node].physical);
    cpus.iter().zip(queues).map(|(cpu, queues)| Ring::new(&queues, DATA_MAX, physical(cpu))).collect()
}

/// Serves a ring as worker `number` until the end.
pub(crate) fn work(shared: &Shared, number: usize, mut ring: Ring) -> io::Result<()> {
    let worker = &shared.workers[number];
    pin(worker.cpu);
    worker.yielding.begin();
    while !shared.has_ring() {
        worker.wake.wait();
        worker.wake.clear();
        if shared.is_ending() {
            return Ok(());
        }
    }
    ring.register(shared.devices[0].as_fd(), worker.wake.as_fd())?;
    let tokens = tokens(shared, worker.cpu);
    Server { shared, number, ring, tokens, turn: 0, with_python: HashMap::new() }.serve()
}

/// What a worker works with.
struct Server<'a> {
    shared: &'a Shared,
    number: usize,
    ring: Ring,
    tokens: Vec<Token>,
    turn: usize,
    /// Where requests lie that pyfuse3 is to answer.
    with_python: HashMap<u64, SlotId>,
}

impl Server<'_> {
    fn serve(mut self) -> io::Result<()> {
        let mut events = Vec::new();
        while !self.shared.is_ending() {
            self.ring.wait(&mut events)?;
            pin_again(self.shared.workers[self.number].cpu);
            for event in events.drain(..) {
                match event {
                    Event::Request(slot) => self.answer(slot)?,
                    Event::Woken => {
                        self.empty_mailbox()?;
                        self.shared.follow(&self.tokens);
                    }
                    Event::End => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, slot: SlotId) -> io::Result<()> {
        self.turn = (self.turn + 1) % self.tokens.len();
        let token = &self.tokens[self.turn];
        // One slot must be left for what the kernel writes meanwhile.
        let others = self.with_python.values().filter(|other| self.ring.are_of_one_queue(slot, **other)).count();
        let may_wait = others + 2 <= self.ring.slots_beside(slot);
        let (header, argument, payload) = self.ring.request(slot);
        let extended = self.shared.setxattr_is_extended();
        // The kernel always sends a header.
        let Some(request) = Request::from_parts(header, argument, payload, extended) else { return Ok(()) };
        let unique = request.unique();
        let worker = &self.shared.workers[self.number];
        worker.yielding.serve(&self.shared.watch);
        let answer = self.shared.answer(worker, request, Origin::Ring(self.number), may_wait, token);
        if let Ok(Answer::Silence) = answer {
            self.with_python.insert(unique, slot);
            return Ok(());
        }
        let buffer = self.ring.buffer(slot);
        match answer.and_then(|answer| self.shared.write(answer, buffer, token)) {
            Ok(length) => self.ring.commit(slot, unique, 0, length),
            Err(errno) => self.ring.commit(slot, unique, errno, 0),
        }
    }

    /// Commits the replies of pyfuse3's that have come.
    fn empty_mailbox(&mut self) -> io::Result<()> {
        let worker = &self.shared.workers[self.number];
        worker.wake.clear();
        for message in std::mem::take(&mut *lock(&worker.mailbox)) {
            let Ok((header, data)) = ReplyHeader::read_from_prefix(&message) else { continue };
            let Some(slot) = reply::unique(&message).and_then(|unique| self.with_python.remove(&unique)) else {
                continue;
            };
            match self.ring.buffer(slot).get_mut(..data.len()) {
                Some(room) => room.copy_from_slice(data),
                None => {
                    self.ring.commit(slot, header.unique, libc::EIO, 0)?;
                    continue;
                }
            }
            self.ring.commit(slot, header.unique, -header.error, data.len())?;
        }
        Ok(())
    }
}
