//! Where one thread hands operations to a combiner, one at a time, and finds the answers.

use std::mem;

use crate::sync::{AtomicBool, Ordering, UnsafeCell};

/// A slot is its thread's, except from [`post`](Slot::post) until [`answer`](Slot::answer), when it is
/// the combiner's.
pub(crate) struct Slot<Request, Answer> {
    posted: AtomicBool,
    content: UnsafeCell<Content<Request, Answer>>,
}

enum Content<Request, Answer> {
    Empty,
    Request(Request),
    Answer(Answer),
}

// SAFETY: requests and answers move between two threads, and `posted` says which of the two may
// touch the content.
unsafe impl<Request: Send, Answer: Send> Sync for Slot<Request, Answer> {}

impl<Request, Answer> Slot<Request, Answer> {
    pub(crate) fn new() -> Self {
        Self { posted: AtomicBool::new(false), content: UnsafeCell::new(Content::Empty) }
    }

    /// Hands a request to whoever combines next.
    ///
    /// # Safety
    ///
    /// Only the thread that owns the slot calls this, and not again before it has taken the answer.
    pub(crate) unsafe fn post(&self, request: Request) {
        // SAFETY: nothing is posted, so the content is the caller's.
        self.content.with_mut(|content| unsafe { *content = Content::Request(request) });
        self.posted.store(true, Ordering::Release);
    }

    /// Whether a combiner has answered what was posted last.
    pub(crate) fn is_answered(&self) -> bool {
        !self.posted.load(Ordering::Acquire)
    }

    /// Takes the answer.
    ///
    /// # Safety
    ///
    /// Only the thread that owns the slot calls this, after it has seen
    /// [`is_answered`](Self::is_answered).
    pub(crate) unsafe fn take_answer(&self) -> Answer {
        // SAFETY: nothing is posted, so the content is the caller's.
        match unsafe { self.take_content() } {
            Content::Answer(answer) => answer,
            _ => unreachable!("a slot that was posted and is no longer holds an answer"),
        }
    }

    /// Takes what is posted, unless nothing is or it was taken before. The slot then waits for its
    /// answer.
    ///
    /// # Safety
    ///
    /// Only the combiner calls this.
    pub(crate) unsafe fn take_request(&self) -> Option<Request> {
        if !self.posted.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: it is posted, so the content is the combiner's.
        match unsafe { self.take_content() } {
            Content::Request(request) => Some(request),
            Content::Empty => None,
            Content::Answer(_) => unreachable!("answering gives a slot back to its thread"),
        }
    }

    /// Answers the request and gives the slot back.
    ///
    /// # Safety
    ///
    /// Only the combiner that has taken the request calls this, once.
    pub(crate) unsafe fn answer(&self, answer: Answer) {
        // SAFETY: it is still posted, so the content is the combiner's.
        self.content.with_mut(|content| unsafe { *content = Content::Answer(answer) });
        self.posted.store(false, Ordering::Release);
    }

    /// # Safety
    ///
    /// The content is the caller's.
    unsafe fn take_content(&self) -> Content<Request, Answer> {
        // SAFETY: as above.
        self.content.with_mut(|content| unsafe { mem::replace(&mut *content, Content::Empty) })
    }
}
