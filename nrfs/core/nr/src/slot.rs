//! The slot by which a thread hands operations to a combiner, one at a time, and gets the answers.

use crate::sync::{AtomicBool, Ordering, UnsafeCell};

/// A slot belongs to its thread, except between [`post`](Slot::post) and [`answer`](Slot::answer): then it
/// belongs to the combiner.
pub(crate) struct Slot<Request, Answer> {
    posted: AtomicBool,
    request: UnsafeCell<Option<Request>>,
    answer: UnsafeCell<Option<Answer>>,
}

// SAFETY: requests and answers move between two threads, and `posted` says which of the two may
// touch them.
unsafe impl<Request: Send, Answer: Send> Sync for Slot<Request, Answer> {}

impl<Request, Answer> Slot<Request, Answer> {
    pub(crate) fn new() -> Self {
        Self { posted: AtomicBool::new(false), request: UnsafeCell::new(None), answer: UnsafeCell::new(None) }
    }

    /// Hands a request to the next combiner.
    ///
    /// # Safety
    ///
    /// Only the thread that owns the slot calls this, and not again before it has taken the answer.
    pub(crate) unsafe fn post(&self, request: Request) {
        // SAFETY: nothing is posted, so the slot is the caller's.
        self.request.with_mut(|cell| unsafe { *cell = Some(request) });
        self.posted.store(true, Ordering::Release);
    }

    /// Whether a request waits for its answer.
    pub(crate) fn is_posted(&self) -> bool {
        self.posted.load(Ordering::Acquire)
    }

    /// Takes the answer, which is there once the request is no longer posted.
    ///
    /// # Safety
    ///
    /// Only the thread that owns the slot calls this, when nothing [`is_posted`](Self::is_posted).
    pub(crate) unsafe fn take_answer(&self) -> Option<Answer> {
        // SAFETY: nothing is posted, so the slot is the caller's.
        self.answer.with_mut(|cell| unsafe { (*cell).take() })
    }

    /// Lends the request to `f`, which may take it.
    ///
    /// # Safety
    ///
    /// Only the combiner calls this, when something [`is_posted`](Self::is_posted).
    pub(crate) unsafe fn with_request<R>(&self, f: impl FnOnce(&mut Option<Request>) -> R) -> R {
        // SAFETY: it is posted, so the slot is the combiner's.
        self.request.with_mut(|cell| f(unsafe { &mut *cell }))
    }

    /// Answers the request and gives the slot back.
    ///
    /// # Safety
    ///
    /// Only the combiner calls this, once for each request.
    pub(crate) unsafe fn answer(&self, answer: Answer) {
        // SAFETY: it is still posted, so the slot is the combiner's.
        self.answer.with_mut(|cell| unsafe { *cell = Some(answer) });
        self.posted.store(false, Ordering::Release);
    }
}
