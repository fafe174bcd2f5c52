//! A copy of the structure for each core, kept equal by messages.
//!
//! This is how a multikernel shares state: "The Multikernel: A new OS architecture for scalable multicore systems"
//! (Baumann et al., SOSP '09). Cores share only channels, one from each core to each other. They agree on a
//! change in two phases. A read uses the core's own copy.
//!
//! # The agreement
//!
//! A core that has a change promises itself to it, and asks every other core to *prepare*. A core that is not
//! promised to a change promises itself to this one, and votes yes; a promised core votes no. There is one exception:
//! a core whose own change is still being voted on gives that up if a core of a lower number asks. If all votes are
//! yes, the change is *committed*: every core applies it, and is free again. If not, it is *aborted*, and tried again
//! later.
//!
//! # Why it is linearizable
//!
//! A core reads its messages before it reads its copy, and a core that is promised to another core's change waits for
//! the outcome. So when the first core shows a change, every other core has voted for it, and shows it or waits for it.
//!
//! A core must process its messages often while others make changes: see [`Core::serve`].

use std::mem;
use std::sync::{Mutex, PoisonError};

use crossbeam_utils::Backoff;
use nr::Dispatch;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::contender::{Contender, Structure};

/// A message from one core to another.
enum Message<Operation> {
    /// The first phase: asks whether the core can make this change.
    Prepare(Operation),
    /// The answer to `Prepare`.
    Vote(bool),
    /// The second phase: the core makes the change that it has prepared.
    Commit,
    /// The core forgets the change that it has prepared.
    Abort,
}

/// Room in a channel. At most three messages are in one: an outcome, the next `Prepare`, and a vote.
const CHANNEL: usize = 4;

/// The change that a core has promised itself to.
enum Promise<Operation> {
    Nobody,
    /// A change of its own.
    Itself,
    /// The change of another core.
    Another(Operation),
}

/// A core: its copy of the structure, and its ends of the channels.
pub struct Core<D: Dispatch> {
    number: usize,
    copy: D,
    promise: Promise<D::WriteOperation>,
    /// The votes on its own change, by core; `None` before a core has voted.
    votes: Vec<Option<bool>>,
    /// By core; `None` for this core itself.
    to: Vec<Option<Producer<Message<D::WriteOperation>>>>,
    from: Vec<Option<Consumer<Message<D::WriteOperation>>>>,
}

/// Makes `count` connected cores. `make` returns the copy of each; all copies must be equal.
pub fn cores<D: Dispatch>(count: usize, mut make: impl FnMut(usize) -> D) -> Vec<Core<D>> {
    let none = || (0..count).map(|_| None).collect();
    let core = |number| Core {
        number,
        copy: make(number),
        promise: Promise::Nobody,
        votes: vec![None; count],
        to: none(),
        from: (0..count).map(|_| None).collect(),
    };
    let mut cores: Vec<Core<D>> = (0..count).map(core).collect();
    for (sender, receiver) in (0..count).flat_map(|sender| (0..count).map(move |receiver| (sender, receiver))) {
        if sender != receiver {
            let (producer, consumer) = RingBuffer::new(CHANNEL);
            cores[sender].to[receiver] = Some(producer);
            cores[receiver].from[sender] = Some(consumer);
        }
    }
    cores
}

impl<D: Dispatch<WriteOperation: Clone>> Core<D> {
    /// Reads this core's copy, after the change that the core is promised to is decided.
    pub fn read<R>(&mut self, read: impl FnOnce(&D) -> R) -> R {
        self.wait_until_free();
        read(&self.copy)
    }

    /// Makes a change on all cores; returns the response of this core's copy.
    pub fn write(&mut self, operation: D::WriteOperation) -> D::Response {
        let backoff = Backoff::new();
        while !self.prepare(&operation) {
            self.serve();
            backoff.snooze();
        }
        self.promise = Promise::Nobody;
        self.tell_others(|_| Some(Message::Commit));
        self.copy.dispatch_mut(&operation)
    }

    /// Processes the messages of other cores.
    pub fn serve(&mut self) {
        for core in 0..self.from.len() {
            while let Some(message) = self.from[core].as_mut().and_then(|channel| channel.pop().ok()) {
                self.hear(core, message);
            }
        }
    }

    /// Asks all cores to promise themselves to a change. Returns whether they have; if not, none is promised to it any
    /// more.
    fn prepare(&mut self, operation: &D::WriteOperation) -> bool {
        self.wait_until_free();
        self.promise = Promise::Itself;
        self.votes.fill(None);
        self.votes[self.number] = Some(true);
        self.tell_others(|_| Some(Message::Prepare(operation.clone())));
        let backoff = Backoff::new();
        while self.votes.iter().any(Option::is_none) {
            self.serve();
            backoff.snooze();
        }
        let own = matches!(self.promise, Promise::Itself);
        let agreed = own && self.votes.iter().all(|vote| *vote == Some(true));
        if !agreed {
            let votes = mem::take(&mut self.votes);
            self.tell_others(|core| (votes[core] == Some(true)).then_some(Message::Abort));
            self.votes = votes;
            if own {
                self.promise = Promise::Nobody;
            }
        }
        agreed
    }

    fn wait_until_free(&mut self) {
        let backoff = Backoff::new();
        self.serve();
        while matches!(self.promise, Promise::Another(_)) {
            backoff.snooze();
            self.serve();
        }
    }

    fn hear(&mut self, from: usize, message: Message<D::WriteOperation>) {
        match message {
            Message::Prepare(operation) => {
                let free = match self.promise {
                    Promise::Nobody => true,
                    Promise::Itself => from < self.number,
                    Promise::Another(_) => false,
                };
                if free {
                    self.promise = Promise::Another(operation);
                }
                self.tell(from, Message::Vote(free));
            }
            Message::Vote(yes) => self.votes[from] = Some(yes),
            Message::Commit => {
                if let Promise::Another(operation) = mem::replace(&mut self.promise, Promise::Nobody) {
                    self.copy.dispatch_mut(&operation);
                }
            }
            Message::Abort => self.promise = Promise::Nobody,
        }
    }

    /// Sends each other core what `message` returns for it.
    fn tell_others(&mut self, message: impl Fn(usize) -> Option<Message<D::WriteOperation>>) {
        for core in 0..self.to.len() {
            if let Some(message) = (core != self.number).then(|| message(core)).flatten() {
                self.tell(core, message);
            }
        }
    }

    fn tell(&mut self, core: usize, message: Message<D::WriteOperation>) {
        let channel = self.to[core].as_mut().expect("there is a channel to every other core");
        assert!(channel.push(message).is_ok(), "a channel has room for all that can be on its way");
    }
}

/// The cores that no thread uses yet.
pub struct Multikernel<S: Structure>(Mutex<Vec<Option<Core<S>>>>);

impl<S: Structure> Multikernel<S> {
    /// A multikernel for exactly `count` threads.
    pub fn new(count: usize, make: impl FnMut(usize) -> S) -> Self {
        Self(Mutex::new(cores(count, make).into_iter().map(Some).collect()))
    }
}

impl<S: Structure> Contender<S> for Multikernel<S> {
    type Handle = Core<S>;

    fn handle(&self, thread: usize) -> Core<S> {
        let mut cores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cores[thread].take().expect("one thread to a core, once")
    }

    fn read(&self, core: &mut Core<S>, operation: &S::ReadOperation) -> S::Response {
        core.read(|copy| copy.dispatch(operation))
    }

    fn write(&self, core: &mut Core<S>, operation: S::WriteOperation) -> S::Response {
        core.write(operation)
    }

    fn idle(&self, core: &mut Core<S>) {
        core.serve();
    }
}
