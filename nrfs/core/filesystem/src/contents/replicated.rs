//! Contents of which every node has a copy.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use machines::content::{self, AllocateMode, Change, Content, HEAP_PER_PAGE};
use machines::namespace;
use machines::placed::Placed;
use machines::types::{Errno, Ino};
use memory::shortage::{self, Left};
use memory::{Arena, Nearby, PAGE_SIZE, Payload, Pool, Topology, Vacancy};
use nr::{LogId, NodeId, NodeReplicated, Statistics};

use super::by_inode::ByInode;
use super::ledger::Ledger;
use super::promises::Promises;
use super::{Attributes, Begun, Contents, NewAttributes, Space};
use crate::clock;
use crate::files::{STEP_BYTES, Whence};
use crate::filesystem::{LOG_PAYLOAD, home};
use crate::holds::Holds;
use crate::status::Verification;
use crate::tokens;

/// A thread's place at the replica of one node.
pub(crate) type Token = nr::Token<Placed<Content>, ByInode>;

/// The most pages that may be free in the ledger while replicas without running threads still have them. Besides these,
/// each log may have as much content that they have not applied.
const FREED_MAX: u64 = content::pages_in(8 << 20);

/// A write of so many bytes returns when all replicas have copied them: so they need no copy of their own in the log, and
/// threads of other nodes can copy at the same time. A smaller one returns when its own replica has.
pub const LARGE: usize = 64 << 10;

/// The contents of all files, replicated on every node.
pub struct Replicated {
    topology: Topology,
    content: Arc<NodeReplicated<Placed<Content>, ByInode>>,
    /// By node: chunks of memory that no arena uses.
    pools: Box<[Arc<Pool>]>,
    /// By node and log: free pages in chunks with other pages in use.
    vacancies: Box<[Vec<Vacancy>]>,
    /// Held while pages counted in `vacancies` are taken, when there are no others.
    scarcity: Mutex<()>,
    pub(super) ledger: Ledger,
    pub(super) promises: Promises,
    pub(super) holds: Arc<Holds>,
    tokens: Nearby<Token>,
    /// Pages that were freed since all replicas were brought up to date.
    freed: AtomicU64,
}

impl Replicated {
    /// Contents of at most `pages` pages, without a file. The logs are as `configuration` says.
    pub(crate) fn new(topology: &Topology, configuration: nr::Configuration, pages: u64, holds: Arc<Holds>) -> Self {
        let pools: Box<[Arc<Pool>]> = topology.nodes().iter().map(|node| Arc::new(Pool::new(node.physical))).collect();
        let mut vacancies: Box<[Vec<Vacancy>]> = pools.iter().map(|_| Vec::new()).collect();
        let files = |node: NodeId, _| {
            let home = home(topology, node);
            let arena = home.during(|| Arena::new(Arc::clone(&pools[node.0])));
            vacancies[node.0].push(arena.vacancy());
            Placed::new(home, || Content::new(arena))
        };
        let content = memory::heap::Home::Interleaved.during(|| NodeReplicated::new(configuration, ByInode, files));
        Self {
            topology: topology.clone(),
            content,
            ledger: Ledger::new(pages, pools.len()),
            pools,
            vacancies,
            scarcity: Mutex::default(),
            promises: Promises::new(),
            holds,
            tokens: Nearby::new(topology),
            freed: AtomicU64::new(0),
        }
    }

    /// The memory that content takes which the replicas have not applied. Each partition takes memory in whole chunks.
    pub(crate) fn logged(nodes: usize, logs: usize) -> usize {
        if nodes > 1 { nodes * logs * (LOG_PAYLOAD + Pool::CHUNK) } else { 0 }
    }

    /// Looks at the content of one file.
    pub(super) fn look<R>(&self, ino: Ino, look: impl FnOnce(&Content) -> R, token: &tokens::Token) -> R {
        let log = ByInode::log_of(ino, self.content.logs());
        self.content.execute_on(log, |content| look(content), token.content())
    }

    /// Changes the content of one file.
    fn change(&self, ino: Ino, change: Change, token: &Token) -> content::Response {
        let operation = content::WriteOperation { ino, time: clock::now(), change };
        self.content.execute_mut(operation, token)
    }

    /// Copies `data` into a file, as far as the grant suffices.
    fn copy_into(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        (grant, fills): (u64, bool),
        token: &Token,
    ) -> content::Response {
        let write = |data| self.change(ino, Change::Write { offset, data, grant, fills }, token);
        let is_alone = self.content.nodes() == 1;
        if !is_alone && data.len() < LARGE {
            return write(data.into());
        }
        Payload::lend(data, |data| {
            let response = write(data);
            if !is_alone {
                // The last replica drops the operation.
                self.content.sync_all_on(ByInode::log_of(ino, self.content.logs()));
            }
            response
        })
    }

    /// Whether each replica has `pages` free pages for the file `ino`, in chunks with other pages in use. The caller
    /// holds `scarcity`.
    fn has_vacancies(&self, ino: Ino, pages: u64) -> bool {
        // Grants are counted first: those closed before are in the log, which all replicas apply next.
        let granted = self.ledger.granted();
        self.content.sync_all();
        let log = ByInode::log_of(ino, self.content.logs());
        self.vacancies.iter().all(|node| node[log.0].pages() as u64 >= granted + pages)
    }

    /// Bytes of memory that so many pages take, on all replicas.
    pub(super) fn memory_of(&self, pages: u64) -> u64 {
        pages.saturating_mul(PAGE_SIZE as u64 + HEAP_PER_PAGE).saturating_mul(self.pools.len() as u64)
    }

    /// The pages that there was memory for when it was last measured.
    pub(super) fn pages_in_memory(&self) -> u64 {
        shortage::content_left() / self.memory_of(1)
    }

    /// Counts pages as free again that an operation freed. After each [`FREED_MAX`] pages it first brings all replicas
    /// up to date: a replica that no thread uses may apply what takes the pages again, from another log, before it has
    /// freed them, and so would have more and more memory.
    fn free_pages(&self, pages: u64) {
        if pages > 0 && self.freed.fetch_add(pages, Ordering::AcqRel) + pages > FREED_MAX {
            // Operations whose pages are counted here were logged before: `sync_all` applies them, too.
            self.freed.swap(0, Ordering::AcqRel);
            self.content.sync_all();
        }
        self.ledger.free_pages(pages);
        self.note_space();
    }

    fn give_back(&self, surplus: bool, token: &Token) {
        for ino in ByInode::one_of_each(self.content.logs()) {
            // This change cannot fail.
            let _ = self.change(ino, Change::GiveBackMemory { surplus }, token);
        }
        self.content.sync_all();
        self.pools.iter().for_each(|pool| if surplus { pool.give_back_surplus() } else { pool.give_back() });
    }
}

impl Contents for Replicated {
    fn register(&self, node: NodeId) -> Option<Token> {
        Some(self.content.register(node))
    }

    fn begin(&self, _: Ino) -> Result<Option<Begun>, Errno> {
        Ok(None)
    }

    fn end(&self, ino: Ino, token: &tokens::Token) {
        self.cut_promises(ino, 0);
        if let Ok(changed) = self.change(ino, Change::Drop, token.content()) {
            self.free_pages(changed.freed);
        }
    }

    fn attributes(&self, ino: Ino, token: &tokens::Token) -> Option<Attributes> {
        let content::Attributes { size, pages, modified, changed } =
            self.look(ino, |content| content.attributes(ino), token)?;
        let blocks = pages * namespace::Attributes::BLOCKS_PER_PAGE;
        Some(Attributes { size, blocks, accessed: None, modified, changed })
    }

    fn has_access_times(&self) -> bool {
        false
    }

    fn check_memory(&self, ino: Ino, token: &tokens::Token) -> Result<(), Errno> {
        // The first change to a file takes memory.
        let is_known = || self.look(ino, |content| content.attributes(ino), token).is_some();
        if self.memory_left(0) == Left::Nothing && !is_known() { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    fn set_attributes(&self, ino: Ino, new: NewAttributes, token: &tokens::Token) -> Result<(), Errno> {
        let NewAttributes { size, modified, changed, .. } = new;
        if let Some(size) = size {
            self.cut_promises(ino, size);
        }
        let done = self.change(ino, Change::SetAttributes { size, modified, changed }, token.content())?;
        self.free_pages(done.freed);
        Ok(())
    }

    fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8], token: &tokens::Token) -> Result<usize, Errno> {
        Ok(self.look(ino, |content| content.read(ino, offset, buffer), token))
    }

    fn write(&self, ino: Ino, offset: u64, data: &[u8], token: &tokens::Token) -> Result<usize, Errno> {
        let (mut written, mut has_waited) = (0, false);
        while written < data.len() {
            let offset = offset + written as u64;
            let rest = &data[written..data.len().min(written + STEP_BYTES)];
            let range = offset..offset + rest.len() as u64;
            let wanted = content::pages_touched(&range);
            let (fills, _alone) = match self.memory_left(0) {
                Left::Enough => (true, None),
                Left::Nothing => (false, None),
                Left::Vacancies => {
                    let alone = self.scarcity.lock().unwrap_or_else(PoisonError::into_inner);
                    (self.has_vacancies(ino, wanted), Some(alone))
                }
            };
            let grant = match fills {
                true => self.ledger.grant_with(token.node(), self.take_promised(ino, &range), wanted),
                false => self.ledger.grant(token.node(), 0),
            };
            let done = self.copy_into(ino, offset, rest, (grant.pages(), fills), token.content())?;
            let more = done.written == rest.len() || grant.might_grow();
            grant.close(done.taken);
            if done.taken > 0 {
                // Also for pages that were free before: their memory may have been given back to the system.
                shortage::taken(self.memory_of(done.taken));
            }
            self.note_space();
            written += done.written;
            if !more && (has_waited || !self.holds.take_in_forgets()) {
                break;
            }
            has_waited |= !more;
            if written < data.len() {
                thread::yield_now();
            }
        }
        Ok(written)
    }

    fn allocate(
        &self,
        ino: Ino,
        range: &Range<u64>,
        mode: AllocateMode,
        keep_size: bool,
        token: &tokens::Token,
    ) -> Result<(), Errno> {
        let mut has_waited = false;
        loop {
            let wanted = match mode {
                AllocateMode::PunchHole => 0,
                AllocateMode::Reserve | AllocateMode::ZeroRange => {
                    self.look(ino, |content| content.missing(ino, range), token)
                }
            };
            // Later writes to the reserved pages must find memory.
            if wanted > 0 && self.memory_left(self.memory_of(wanted)) != Left::Enough {
                return Err(Errno::ENOSPC);
            }
            let grant = self.ledger.grant(token.node(), wanted);
            let change = Change::Allocate { range: range.clone(), mode, keep_size, grant: grant.pages() };
            match self.change(ino, change, token.content()) {
                Ok(done) => {
                    grant.close(done.taken);
                    self.free_pages(done.freed);
                    self.note_space();
                    return Ok(());
                }
                // Another operation has made holes since the pages were counted, or may give back enough.
                Err(Errno::ENOSPC) if grant.pages() == wanted || grant.might_grow() => thread::yield_now(),
                Err(Errno::ENOSPC) if !has_waited && self.holds.take_in_forgets() => has_waited = true,
                Err(errno) => return Err(errno),
            }
        }
    }

    fn seek(&self, ino: Ino, offset: u64, whence: Whence, token: &tokens::Token) -> Result<u64, Errno> {
        let find = |content: &Content| match whence {
            Whence::Data => content.next_data(ino, offset),
            Whence::Hole => content.next_hole(ino, offset),
        };
        self.look(ino, find, token)
    }

    fn space(&self) -> Space {
        Space { pages: self.ledger.limit(), free: self.ledger.left() }
    }

    fn resize(&self, pages: u64) -> Result<(), Errno> {
        let resized = self.preparing_for(pages, || self.ledger.resize(pages));
        self.note_space();
        if resized { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn is_nearly_full(&self) -> bool {
        false
    }

    fn memory_left(&self, bytes: u64) -> Left {
        shortage::left(bytes, |left| match left {
            // The arenas keep their free pages: the operation may need them.
            Left::Enough | Left::Vacancies => self.pools.iter().for_each(|pool| pool.give_back()),
            Left::Nothing => {
                let register = |node| self.content.register(NodeId(node));
                self.tokens.with(&self.topology, register, |token| self.give_back(false, token));
            }
        })
    }

    fn give_back_memory(&self, surplus: bool, token: &tokens::Token) {
        self.give_back(surplus, token.content());
    }

    fn follow(&self, token: &tokens::Token) {
        self.content.sync(token.content());
    }

    fn status(&self) -> Option<Statistics> {
        Some(self.content.statistics())
    }

    fn verify(&self, token: &tokens::Token) -> Vec<Verification> {
        let of = |log| {
            let digest = |_, position, content: &Placed<Content>| (position, content.digest());
            Verification::new(format!("content {log}"), self.content.observe(LogId(log), digest, token.content()))
        };
        (0..self.content.logs()).map(of).collect()
    }

    fn collecting(&self) -> Option<&Replicated> {
        Some(self)
    }

    fn backing(&self, _: Ino) -> Result<Option<OwnedFd>, Errno> {
        Ok(None)
    }
}
