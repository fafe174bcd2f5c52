//! The trait of channels: through a channel, requests reach a worker, and its replies reach the kernel.

use std::io;
use std::sync::Arc;

use filesystem::{Cpu, Errno};

use crate::protocol::request::Request;

/// One worker's channel. A request and its reply may share a buffer. So the worker first takes what it needs from the
/// request, and then packs the reply, which overwrites it.
pub(crate) trait Channel {
    /// Identifies a request that the worker has taken and that has no reply yet.
    type Slot: Copy;

    /// The next event. Does not wait.
    fn next(&mut self) -> io::Result<Event<Self::Slot>>;

    /// Waits until there may be a request, or the worker's wake is signalled.
    fn wait(&mut self) -> io::Result<()>;

    /// The request in a slot, parsed; `None` if it has no complete header, and so can have no reply. `extended` says
    /// whether SETXATTR has its longer form.
    fn request(&self, slot: Self::Slot, extended: bool) -> Option<Request<'_>>;

    /// Replies to the request `unique` in a slot. `pack` writes the data into a buffer and returns their length, or the
    /// errno to reply with.
    fn reply(
        &mut self,
        slot: Self::Slot,
        unique: u64,
        pack: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> io::Result<()>;

    /// Notes that another thread will reply to the request `unique` in a slot, by its origin.
    fn leave(&mut self, slot: Self::Slot, unique: u64);

    /// Whether the request in a slot may be kept while the kernel writes collected data: whether the channel has room
    /// for these WRITEs meanwhile.
    fn may_wait(&self, slot: Self::Slot) -> bool;

    /// The CPU that the caller of the request in a slot was on; `None` if the channel does not tell.
    fn cpu_of(&self, slot: Self::Slot) -> Option<Cpu>;

    /// Where another thread must give the reply to the request in a slot.
    fn origin(&self, slot: Self::Slot) -> &Origin;
}

/// What a worker gets from its channel.
pub(crate) enum Event<Slot> {
    /// A request.
    Request(Slot),
    /// The worker's wake was signalled.
    Woken,
    /// There is nothing now.
    Nothing,
    /// The mount has ended.
    End,
}

/// Where a request came from, and where its reply must go.
pub(crate) type Origin = Arc<dyn ReplyTo>;

/// Takes replies to requests that a worker has left to another thread.
pub(crate) trait ReplyTo: Send + Sync {
    /// Sends a whole reply to the kernel, or has it sent. Does not wait.
    fn deliver(&self, message: &[u8]);
}
