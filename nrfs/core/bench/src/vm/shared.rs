//! The same machine, shared in other ways: behind a lock, or as a multikernel. These have no TLBs, so they do less work
//! than ours.

use machines::address_space::{AddressSpace, Area, Change, Error, Mapping, PageSize, Response, Rights, WriteOperation};
use nr::Dispatch;

use super::Space;
use crate::contender::{Contender, Structure};

const PART: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// The machine, with reads as data.
#[derive(Default)]
pub struct Machine(AddressSpace);

/// The answer to a change or a read.
#[derive(Clone)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Answer {
    Changed(Response),
    Resolved(Result<Mapping, Error>),
}

impl Dispatch for Machine {
    type WriteOperation = WriteOperation;
    type Response = Answer;

    fn dispatch_mut(&mut self, operation: &WriteOperation) -> Answer {
        Answer::Changed(self.0.dispatch_mut(operation))
    }
}

impl Structure for Machine {
    type ReadOperation = u64;

    fn dispatch(&self, &address: &u64) -> Answer {
        Answer::Resolved(self.0.resolve(address))
    }
}

/// The machine, as a contender shares it.
pub struct Shared<C>(pub C);

/// A thread, with the frames that it may use.
pub struct Thread<H> {
    handle: H,
    thread: usize,
    free: Vec<u64>,
}

fn address(thread: usize, page: u64) -> u64 {
    thread as u64 * PART + page * PAGE
}

impl<C: Contender<Machine>> Shared<C> {
    fn change(&self, thread: &mut Thread<C::Handle>, page: u64, change: Change) {
        let area = Area::new(address(thread.thread, page), PAGE).expect("it is aligned");
        if let Answer::Changed(done) = self.0.write(&mut thread.handle, WriteOperation { area, change }) {
            thread.free.extend(done.expect("it can be done").freed.iter().map(|run| run.first));
        }
    }
}

impl<C: Contender<Machine>> Space for Shared<C> {
    type Handle = Thread<C::Handle>;

    fn handle(&self, thread: usize) -> Self::Handle {
        let first = thread as u64 * super::PAGES;
        let free = (first..first + super::PAGES).rev().collect();
        Thread { handle: self.0.handle(thread), thread, free }
    }

    fn map(&self, thread: &mut Self::Handle, page: u64) {
        let first = thread.free.pop().expect("there is memory");
        let rights = Rights::READ.or(Rights::WRITE);
        let change = Change::Map { page: PageSize::Small4K, rights, first, owned: true, replace: false };
        self.change(thread, page, change);
    }

    fn protect(&self, thread: &mut Self::Handle, page: u64) {
        self.change(thread, page, Change::Protect { rights: Rights::READ });
    }

    fn resolve(&self, thread: &mut Self::Handle, page: u64) -> u64 {
        match self.0.read(&mut thread.handle, &address(thread.thread, page)) {
            Answer::Resolved(Ok(mapping)) => mapping.frame,
            Answer::Resolved(Err(_)) | Answer::Changed(_) => unreachable!("it is mapped"),
        }
    }

    fn unmap(&self, thread: &mut Self::Handle, page: u64) {
        self.change(thread, page, Change::Unmap);
    }

    fn touch(&self, thread: &mut Self::Handle, owner: usize, page: u64) {
        self.0.read(&mut thread.handle, &address(owner, page));
    }

    fn idle(&self, thread: &mut Self::Handle) {
        self.0.idle(&mut thread.handle);
    }
}
