//! A safe interface to FUSE over io_uring: commands, completions, and the buffers that are shared with the kernel.
//!
//! Sources: `include/uapi/linux/fuse.h` and `Documentation/filesystems/fuse/fuse-io-uring.rst`.
//!
//! A ring has slots. Each slot belongs to one of the kernel's queues, of which there is one for every possible CPU. It
//! has buffers for one request: for its header, the structure that its arguments begin with, and the payload. A slot is
//! the kernel's until the kernel has put a request into it, and ours from then until the reply is committed.
#![allow(unsafe_code, reason = "the kernel shares memory with us; each use carries its argument")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::slice;

use io_uring::squeue::Entry128;
use io_uring::{IoUring, cqueue, opcode, types};
use memory::{Buffer, PhysicalNode};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::protocol::wire::ReplyHeader;

/// FUSE_IO_URING_CMD_REGISTER: gives the kernel a new slot.
const REGISTER: u32 = 1;

/// FUSE_IO_URING_CMD_COMMIT_AND_FETCH: replies to the request in a slot, and gives the slot back.
const COMMIT_AND_FETCH: u32 = 2;

/// The user data of the poll of the wake.
const WAKE: u64 = u64::MAX;

/// The first buffer of a slot (`struct fuse_uring_req_header`).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Head {
    /// The header of the request, later of the reply.
    header: [u8; 128],
    argument: [u8; 128],
    flags: u64,
    commit_id: u64,
    payload_size: u32,
    padding: u32,
    reserved: u64,
}

/// The arguments of a command (`struct fuse_uring_cmd_req`).
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Command {
    flags: u64,
    commit_id: u64,
    queue: u16,
    padding: [u8; 6],
}

/// A slot, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotId(usize);

/// What has happened on a ring.
pub(crate) enum Completion {
    /// There is a request in a slot; it is ours until the reply is committed.
    Request(SlotId),
    /// The wake was signalled.
    Woken,
    /// The mount has ended.
    End,
}

struct Slot {
    queue: u16,
    /// The first page has the [`Head`], the others the payload.
    memory: Buffer,
    /// The two buffers in `memory`, as a command names them.
    parts: Box<[libc::iovec; 2]>,
    is_ours: bool,
    /// The last command for this slot.
    command: u32,
}

// SAFETY: the pointers in `parts` point into `memory`, which the slot owns.
unsafe impl Send for Slot {}

/// One worker's ring.
pub(crate) struct Uring {
    uring: IoUring<Entry128, cqueue::Entry>,
    wake: RawFd,
    slots: Vec<Slot>,
    /// Whether slots have been given to the kernel.
    is_registered: bool,
}

const PAGE: usize = 4096;

impl Uring {
    /// Makes a ring with one slot for each element of `queues`, which may repeat queues; each has room for `payload`
    /// bytes. Only the thread that calls [`register`](Self::register) may use the ring.
    pub fn new(queues: &[u16], payload: usize, physical: Option<PhysicalNode>) -> io::Result<Self> {
        const POLLS: usize = 1;
        let entries = (queues.len() + POLLS).next_power_of_two() as u32;
        // Disabled until the thread that uses it calls `register`. Not with the options for a single issuer and
        // deferred work: they made an uncached getattr slower by half.
        let mut builder = IoUring::<Entry128, cqueue::Entry>::builder();
        builder.setup_r_disabled().setup_submit_all();
        let uring = builder.setup_cqsize(2 * entries).build(entries)?;
        let slots = queues.iter().map(|&queue| Slot::new(queue, payload, physical)).collect();
        Ok(Self { uring, wake: -1, slots, is_registered: false })
    }

    /// Gives all slots to the kernel, for requests of the mount of `device`, and begins to poll `wake`.
    pub fn register(&mut self, device: BorrowedFd, wake: BorrowedFd) -> io::Result<()> {
        self.uring.submitter().register_enable_rings()?;
        self.uring.submitter().register_files(&[device.as_raw_fd()])?;
        self.wake = wake.as_raw_fd();
        self.poll_wake()?;
        self.is_registered = true;
        (0..self.slots.len()).try_for_each(|number| self.push(SlotId(number), REGISTER, 0))
    }

    /// Submits the commits to the kernel, and waits for a completion, or a signal.
    pub fn wait(&mut self) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.map(drop),
        }
    }

    /// The next completion; `None` if there is none now.
    pub fn next(&mut self) -> io::Result<Option<Completion>> {
        loop {
            let Some(entry) = self.uring.completion().next() else { return Ok(None) };
            if entry.user_data() == WAKE {
                self.poll_wake()?;
                return Ok(Some(Completion::Woken));
            }
            let slot = SlotId(entry.user_data() as usize);
            match -entry.result() {
                0 => {
                    self.slots[slot.0].is_ours = true;
                    return Ok(Some(Completion::Request(slot)));
                }
                // The kernel was not ready for the command, or a signal interrupted it: submits it again.
                libc::EAGAIN | libc::EINTR => {
                    let (command, commit_id) = (self.slots[slot.0].command, self.head(slot).commit_id);
                    self.push(slot, command, commit_id)?;
                }
                libc::ENOTCONN | libc::ECANCELED => {
                    self.slots[slot.0].is_ours = true;
                    return Ok(Some(Completion::End));
                }
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// The request in a slot: its header, its arguments and its payload. The slot must be ours.
    pub fn request(&self, slot: SlotId) -> (&[u8], &[u8], &[u8]) {
        assert!(self.slots[slot.0].is_ours, "the kernel may write into a slot of its own");
        let head = self.head(slot);
        let size = (head.payload_size as usize).min(self.slots[slot.0].payload_size());
        (&head.header, &head.argument, &self.payload(slot)[..size])
    }

    /// Whether two slots belong to the same queue.
    pub fn are_of_one_queue(&self, one: SlotId, other: SlotId) -> bool {
        self.slots[one.0].queue == self.slots[other.0].queue
    }

    /// The number of slots, on this ring, of the queue that a slot belongs to.
    pub fn slots_of_queue(&self, slot: SlotId) -> usize {
        (0..self.slots.len()).filter(|&other| self.are_of_one_queue(slot, SlotId(other))).count()
    }

    /// The queue of a slot: the number of a CPU.
    pub fn queue_of(&self, slot: SlotId) -> u16 {
        self.slots[slot.0].queue
    }

    /// The payload's buffer of a slot, for the data of the reply. The slot must be ours.
    pub fn buffer(&mut self, slot: SlotId) -> &mut [u8] {
        let slot = &mut self.slots[slot.0];
        assert!(slot.is_ours, "the kernel writes into a slot of its own");
        // SAFETY: the payload is in the slot's memory, behind the first page. The kernel only uses slots of its own,
        // and this one is ours; `&mut self` makes this the only reference.
        unsafe { slice::from_raw_parts_mut(slot.memory.base().add(PAGE).as_ptr(), slot.payload_size()) }
    }

    /// Replies to the request in a slot with this header and the first `length` bytes of the payload's buffer, and
    /// gives the slot back. The kernel gets it at the next [`wait`](Self::wait). The slot must be ours.
    pub fn commit(&mut self, slot: SlotId, header: &ReplyHeader, length: usize) -> io::Result<()> {
        let ours = &mut self.slots[slot.0];
        assert!(ours.is_ours, "a slot is given back once");
        // SAFETY: the head is at the beginning of the slot's memory, which is aligned to a page; any bytes are a valid
        // `Head`; the slot is ours, and `&mut self` makes this the only reference.
        let head = unsafe { ours.memory.base().cast::<Head>().as_mut() };
        head.header[..size_of_val(header)].copy_from_slice(header.as_bytes());
        head.payload_size = length as u32;
        let commit_id = head.commit_id;
        ours.is_ours = false;
        self.push(slot, COMMIT_AND_FETCH, commit_id)
    }

    fn head(&self, slot: SlotId) -> &Head {
        let slot = &self.slots[slot.0];
        // SAFETY: as in `commit`, but shared. Callers pass only slots whose command the kernel has completed, and these
        // the kernel does not use.
        unsafe { slot.memory.base().cast::<Head>().as_ref() }
    }

    fn payload(&self, slot: SlotId) -> &[u8] {
        let slot = &self.slots[slot.0];
        // SAFETY: as in `buffer` and `head`.
        unsafe { slice::from_raw_parts(slot.memory.base().add(PAGE).as_ptr(), slot.payload_size()) }
    }

    fn poll_wake(&mut self) -> io::Result<()> {
        let poll = opcode::PollAdd::new(types::Fd(self.wake), libc::POLLIN as u32).build().user_data(WAKE);
        // SAFETY: the poll names no memory.
        unsafe { self.submit(poll.into()) }
    }

    fn push(&mut self, id: SlotId, command: u32, commit_id: u64) -> io::Result<()> {
        let slot = &mut self.slots[id.0];
        slot.command = command;
        let arguments = Command { flags: 0, commit_id, queue: slot.queue, padding: [0; 6] };
        let mut area = [0; 80];
        area[..size_of_val(&arguments)].copy_from_slice(arguments.as_bytes());
        let entry = opcode::UringCmd80::new(types::Fixed(0), command)
            .cmd(area)
            .addr(Some(slot.parts.as_ptr() as u64))
            .build()
            .user_data(id.0 as u64);
        let entry = with_length(entry, slot.parts.len() as u32);
        // SAFETY: the command names the slot's parts and its memory. While the kernel has the command, the slot is not
        // ours, and the memory of such slots is never freed: see `drop`.
        unsafe { self.submit(entry) }
    }

    /// # Safety
    /// All memory that the entry names must live until the kernel has completed it.
    unsafe fn submit(&mut self, entry: Entry128) -> io::Result<()> {
        // SAFETY: the caller's promise.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // When a ring is closed, the kernel cancels its commands, but closing does not wait for that: until this thread
        // has ended, the kernel may still write a request into a slot of its own. So the memory of these slots is
        // leaked.
        if self.is_registered {
            self.slots.drain(..).filter(|slot| !slot.is_ours).for_each(mem::forget);
        }
    }
}

impl Slot {
    fn new(queue: u16, payload: usize, physical: Option<PhysicalNode>) -> Self {
        let memory = Buffer::new(PAGE + payload, physical);
        let base = memory.base().as_ptr();
        let parts = Box::new([
            libc::iovec { iov_base: base.cast(), iov_len: size_of::<Head>() },
            libc::iovec { iov_base: base.wrapping_add(PAGE).cast(), iov_len: payload },
        ]);
        Self { queue, memory, parts, is_ours: false, command: REGISTER }
    }

    fn payload_size(&self) -> usize {
        self.memory.size() - PAGE
    }
}

/// Sets the field `len` of a submission, for which the library has no setter.
fn with_length(mut entry: Entry128, length: u32) -> Entry128 {
    const LEN: usize = 24;
    const _: () = assert!(size_of::<Entry128>() == 128 && mem::align_of::<Entry128>() >= 4);
    // SAFETY: an entry is the kernel's `struct io_uring_sqe`, in which `len` is the u32 at offset 24.
    unsafe { (&raw mut entry).cast::<u8>().add(LEN).cast::<u32>().write(length) };
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_knows() {
        assert_eq!(size_of::<Head>(), 288);
        assert_eq!(mem::offset_of!(Head, payload_size), 272);
        assert_eq!(size_of::<Command>(), 24);
    }
}
