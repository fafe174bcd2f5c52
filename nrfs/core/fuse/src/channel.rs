//! What a channel is: the way on which requests reach a worker, and its replies the kernel.

use std::io;
use std::sync::Arc;

use filesystem::Errno;

use crate::protocol::request::Request;

/// One worker's end of the way to the kernel. Request and reply may share a buffer: so a request is looked at first, and
/// then replied to by writing into the buffer.
pub(crate) trait Channel {
    /// Names a request that was taken and has no reply yet.
    type Slot: Copy;

    /// What has come. Does not wait.
    fn next(&mut self) -> io::Result<Event<Self::Slot>>;

    /// Waits until something may have come, or the worker's wake is signalled.
    fn wait(&mut self) -> io::Result<()>;

    /// The request in a slot, taken apart; `None` if it has not even a header, and so can have no reply. `extended` says
    /// whether SETXATTR has its longer form.
    fn request(&self, slot: Self::Slot, extended: bool) -> Option<Request<'_>>;

    /// Replies to the request `unique` in a slot: `pack` writes the data into a buffer and returns their length, or there is
    /// an errno to tell.
    fn reply(
        &mut self,
        slot: Self::Slot,
        unique: u64,
        pack: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> io::Result<()>;

    /// Somebody else will reply to the request `unique` in a slot, by its origin.
    fn leave(&mut self, slot: Self::Slot, unique: u64);

    /// Whether the request in a slot may wait for the kernel itself, which needs the channel for what it does meanwhile.
    fn may_wait(&self, slot: Self::Slot) -> bool;

    /// Where another thread puts the reply to the request in a slot.
    fn origin(&self, slot: Self::Slot) -> &Origin;
}

/// What has come.
pub(crate) enum Event<Slot> {
    /// A request.
    Request(Slot),
    /// The worker's wake was signalled.
    Woken,
    /// Nothing.
    Nothing,
    /// The mount is no more.
    End,
}

/// Where a request came from, and its reply must go.
pub(crate) type Origin = Arc<dyn ReplyTo>;

/// Takes replies to requests that no worker has any more.
pub(crate) trait ReplyTo: Send + Sync {
    /// Sees to it that the kernel gets this message. Does not wait.
    fn deliver(&self, message: &[u8]);
}
