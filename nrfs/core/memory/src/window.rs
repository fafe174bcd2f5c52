//! Addresses of this process that show shared memory, piece by piece.
//!
//! A piece that is not shown yet reads as zeros, unless [`Faults`](crate::Faults) answers its first touch.
//!
//! The kernel bounds the number of mappings in a process (vm.max_map_count), and every piece may be one. So a window
//! says at first how many it will have at the most, and all windows together get half of what there can be: then
//! showing a piece does not fail, which nobody could be told who merely touches it.
//!
//! A process that is forked has no window, as nobody there would show anything, and what is shown there would be shown
//! for ever. At the same addresses it has what the window [was to show](Window::will_show): to be read as it is, and to
//! be changed for itself alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::mapping::map_aligned;
use crate::{Process, SharedMemory};

/// Windows begin so that a large page of theirs can be one of the hardware's.
const ALIGNMENT: usize = 2 << 20;

/// Mappings that all windows of this process may be made of, together.
static MAPPINGS_MAX: LazyLock<usize> = LazyLock::new(|| {
    let bound = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    bound.and_then(|bound| bound.trim().parse::<usize>().ok()).unwrap_or(65530) / 2
});

/// Mappings that they have been promised.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// What processes that are forked get, by the first addresses of the windows in whose place it is.
static LEGACIES: Mutex<BTreeMap<usize, Legacy>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Kept by who forks, so that no window comes or goes meanwhile.
    static KEPT: RefCell<Option<MutexGuard<'static, BTreeMap<usize, Legacy>>>> = const { RefCell::new(None) };
}

/// What takes the place of a window in a process that was forked.
struct Legacy {
    size: usize,
    protection: i32,
    memory: Arc<SharedMemory>,
    pieces: Box<[Piece]>,
}

/// A part of a window, and of the memory that it shows.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Above the window's base.
    pub at: usize,
    /// In the memory.
    pub offset: u64,
    /// Bytes.
    pub size: usize,
}

/// A range of addresses, for as long as it lives. A process that is forked has no part in it.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    size: usize,
    writable: bool,
    _mappings: Mappings,
    process: Process,
}

/// A promise of so many mappings.
#[derive(Debug)]
struct Mappings(usize);

// SAFETY: a window owns its mapping; nothing about it belongs to a thread.
unsafe impl Send for Window {}
// SAFETY: through `&Window` only its address can be had, and what is shown there be changed: by the kernel, which does
// so in one step for all threads.
unsafe impl Sync for Window {}

impl Window {
    /// `size` addresses, a multiple of the page size, of which the first is as far above a multiple of 2 MiB as
    /// `alike` is. They can be read, and written if `writable`. At the most `mappings` pieces will be shown or not
    /// shown between others.
    pub fn new(size: usize, alike: u64, writable: bool, mappings: usize) -> io::Result<Self> {
        let _mappings = Mappings::promise(mappings)?;
        let base = map_aligned(size, ALIGNMENT, (alike % ALIGNMENT as u64) as usize, protection(writable))?;
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        let window = Self { base, size, writable, _mappings, process: Process::this() };
        window.advise(0, size, libc::MADV_DONTFORK);
        Ok(window)
    }

    /// The first address.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many addresses there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether they can be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether this process has them: not so one that was forked.
    pub fn is_here(&self) -> bool {
        self.process.is_this()
    }

    fn has(&self, piece: Piece) -> bool {
        piece.at <= self.size && piece.size <= self.size - piece.at
    }

    /// Says all that will be shown while the window lives: processes that are forked have it. What is in no piece they
    /// have as zeros.
    ///
    /// # Panics
    /// If a piece is not in the window.
    pub fn will_show(&self, memory: &Arc<SharedMemory>, pieces: impl Iterator<Item = Piece>) {
        let (memory, pieces) = (Arc::clone(memory), pieces.collect::<Box<[_]>>());
        assert!(pieces.iter().all(|&piece| self.has(piece)), "a piece lies in its window");
        let legacy = Legacy { size: self.size, protection: protection(self.writable), memory, pieces };
        legacies().insert(self.base.addr().get(), legacy);
    }

    /// Shows a piece. What it has are multiples of the page size.
    ///
    /// # Panics
    /// If that is not in the window.
    pub fn show(&self, memory: &SharedMemory, piece: Piece) -> io::Result<()> {
        let Piece { at, offset, size } = piece;
        assert!(self.has(piece), "a piece lies in its window");
        let address = self.base.as_ptr().wrapping_add(at);
        // SAFETY: what is replaced lies in our own mapping, and nobody has a reference into that: who uses the
        // address of a window sees another's memory change anyway.
        unsafe { memory.map(address, size, protection(self.writable), libc::MAP_FIXED, offset)? };
        self.advise(at, size, libc::MADV_DONTFORK);
        let aligned = |start: u64| start % ALIGNMENT as u64 == 0;
        if aligned(address.addr() as u64) && aligned(offset) && aligned(size as u64) {
            self.advise(at, size, libc::MADV_HUGEPAGE);
        }
        Ok(())
    }

    fn advise(&self, at: usize, size: usize, advice: i32) {
        // SAFETY: the range lies in our own mapping, and none of the advice given changes what is there. It may be
        // refused (a kernel without huge pages).
        unsafe { libc::madvise(self.base.as_ptr().wrapping_add(at).cast(), size, advice) };
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if self.is_here() {
            legacies().remove(&self.base.addr().get());
            // SAFETY: the mapping is ours, and who uses its address must not outlive the window.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
        }
    }
}

fn legacies() -> MutexGuard<'static, BTreeMap<usize, Legacy>> {
    // It is changed in one step.
    LEGACIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Before a fork: no window comes or goes until [`let_go`] or [`bequeath`].
pub(crate) fn keep_as_they_are() {
    KEPT.set(Some(legacies()));
}

/// After a fork, in the process that has forked.
pub(crate) fn let_go() {
    KEPT.take();
}

/// After a fork, in the new process: puts in the place of each window what is left of it.
pub(crate) fn bequeath() {
    let Some(mut kept) = KEPT.take() else { return };
    kept.iter().for_each(|(base, legacy)| legacy.leave(*base));
    // To free it might wait for a thread that is not here.
    mem::forget(mem::take(&mut *kept));
}

impl Legacy {
    fn leave(&self, base: usize) {
        let address = std::ptr::without_provenance_mut::<u8>(base);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the window's own mapping was not copied to this process (MADV_DONTFORK), or was if it was made just
        // now; nothing else has come to be there, as this is the first thing that it does.
        unsafe { libc::mmap(address.cast(), self.size, self.protection, flags, -1, 0) };
        for piece in &self.pieces {
            let address = address.wrapping_add(piece.at);
            // SAFETY: it lies in what was mapped above. Without room for the mapping zeros stay.
            let _ = unsafe { self.memory.map_private(address, piece.size, self.protection, piece.offset) };
        }
    }
}

impl Mappings {
    fn promise(mappings: usize) -> io::Result<Self> {
        let more = |promised: usize| promised.checked_add(mappings).filter(|all| *all <= *MAPPINGS_MAX);
        match MAPPINGS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self(mappings)),
            Err(_) => Err(Errno::NOMEM.into()),
        }
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(self.0, Ordering::Relaxed);
    }
}

fn protection(writable: bool) -> i32 {
    if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;
    use crate::{Faults, PAGE_SIZE, PhysicalNode};

    fn memory() -> SharedMemory {
        SharedMemory::new([None, None].into_iter(), 4).unwrap()
    }

    fn shown(memory: &SharedMemory, offset: usize, size: usize) -> Window {
        let window = Window::new(size, 0, true, 1).unwrap();
        window.show(memory, Piece { at: 0, offset: offset as u64, size }).unwrap();
        window
    }

    fn read(window: &Window, at: usize) -> u8 {
        assert!(at < window.size());
        // SAFETY: the address lies in the window, and bytes of it are always initialised.
        unsafe { window.base().as_ptr().add(at).read_volatile() }
    }

    fn write(window: &Window, at: usize, byte: u8) {
        assert!(at < window.size() && window.is_writable());
        // SAFETY: as above, and the window can be written.
        unsafe { window.base().as_ptr().add(at).write_volatile(byte) };
    }

    #[test]
    fn two_windows_on_one_memory_see_each_others_writes_until_it_is_wiped() {
        let memory = memory();
        let (all, part) = (shown(&memory, 0, 8 * PAGE_SIZE), shown(&memory, 3 * PAGE_SIZE, 2 * PAGE_SIZE));
        write(&part, PAGE_SIZE, 7);
        write(&all, 3 * PAGE_SIZE, 8);
        assert_eq!((read(&all, 4 * PAGE_SIZE), read(&part, 0)), (7, 8));
        memory.wipe(4 * PAGE_SIZE as u64, PAGE_SIZE as u64).unwrap();
        assert_eq!((read(&all, 4 * PAGE_SIZE), read(&part, PAGE_SIZE), read(&part, 0)), (0, 0, 8));
    }

    /// What a process that is forked from this one finds by `look`, which must do nothing but read and write memory.
    fn in_a_forked_process(look: impl FnOnce() -> u8) -> Option<u8> {
        // SAFETY: the child calls what it may after a fork from a process with threads, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let found = look();
            // SAFETY: it ends the process at once.
            unsafe { libc::_exit(found.into()) };
        }
        let mut status = 0;
        // SAFETY: the status outlives the call.
        unsafe { libc::waitpid(child, &mut status, 0) };
        libc::WIFEXITED(status).then_some(libc::WEXITSTATUS(status) as u8)
    }

    #[test]
    fn a_forked_process_sees_what_a_window_was_to_show_and_changes_it_for_itself_alone() {
        let memory = Arc::new(memory());
        let all = shown(&memory, 0, 8 * PAGE_SIZE);
        write(&all, 3 * PAGE_SIZE, 7);
        let window = Window::new(4 * PAGE_SIZE, 0, true, 4).unwrap();
        let faults = Faults::new().ok();
        faults.iter().for_each(|faults| faults.watch(&window).unwrap());
        let piece = Piece { at: PAGE_SIZE, offset: (2 * PAGE_SIZE) as u64, size: 2 * PAGE_SIZE };
        window.will_show(&memory, [piece].into_iter());
        let process = Process::this();
        assert!(process.is_this());
        let seen = in_a_forked_process(|| {
            let seen = read(&window, 2 * PAGE_SIZE) + read(&window, 0) + read(&window, 3 * PAGE_SIZE + 1);
            write(&window, 2 * PAGE_SIZE, 40);
            write(&window, 0, 1);
            // Once more, with what this process has made of it.
            let again = in_a_forked_process(|| read(&window, 2 * PAGE_SIZE) + read(&window, 0));
            seen + again.unwrap_or(100) + u8::from(process.is_this())
        });
        assert_eq!(seen, Some(7 + 41));
        assert_eq!(read(&all, 3 * PAGE_SIZE), 7);
        drop(window);
        assert!(legacies().is_empty());
    }

    #[test]
    fn a_window_begins_like_the_addresses_it_stands_for() {
        for alike in [0, PAGE_SIZE, ALIGNMENT - PAGE_SIZE, 5 * ALIGNMENT + 3 * PAGE_SIZE] {
            let window = Window::new(PAGE_SIZE, alike as u64, false, 1).unwrap();
            assert_eq!(window.base().addr().get() % ALIGNMENT, alike % ALIGNMENT);
        }
    }

    #[test]
    fn windows_of_more_mappings_than_there_can_be_are_refused() {
        let refused = Window::new(PAGE_SIZE, 0, true, *MAPPINGS_MAX + 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOMEM));
        assert!(Window::new(PAGE_SIZE, 0, true, usize::MAX).is_err());
        assert!(Window::new(PAGE_SIZE, 0, true, 1).is_ok());
    }

    #[test]
    fn a_first_touch_waits_until_the_piece_is_shown() {
        // Not every process may.
        let Ok(faults) = Faults::new() else { return };
        let memory = memory();
        write(&shown(&memory, 0, 8 * PAGE_SIZE), 2 * PAGE_SIZE + 5, 9);
        let window = Window::new(4 * PAGE_SIZE, 0, false, 4).unwrap();
        faults.watch(&window).unwrap();
        thread::scope(|scope| {
            let touches = [5, 5, PAGE_SIZE + 5].map(|at| {
                scope.spawn({
                    let window = &window;
                    move || read(window, at)
                })
            });
            let mut pieces = Vec::new();
            while pieces.len() < 2 {
                let at = faults.next().unwrap().unwrap() - window.base().addr().get();
                let piece = at / PAGE_SIZE * PAGE_SIZE;
                if !pieces.contains(&piece) {
                    let shown = Piece { at: piece, offset: (2 * PAGE_SIZE) as u64, size: PAGE_SIZE };
                    window.show(&memory, shown).unwrap();
                    pieces.push(piece);
                }
                faults.wake(&window, piece, PAGE_SIZE).unwrap();
            }
            assert!(touches.into_iter().all(|touch| touch.join().unwrap() == 9));
        });
        faults.stop();
        assert_eq!(faults.next().unwrap(), None);
    }

    #[test]
    fn memory_stays_on_the_node_that_was_asked_for_however_it_is_seen() {
        let nodes = [Some(PhysicalNode(0)), None];
        let memory = SharedMemory::new(nodes.into_iter(), 4).unwrap();
        let window = shown(&memory, PAGE_SIZE, PAGE_SIZE);
        write(&window, 0, 1);
        // Not every kernel has it.
        let Ok(maps) = fs::read_to_string("/proc/self/numa_maps") else { return };
        let base = format!("{:x} ", window.base().addr());
        let line = maps.lines().find(|line| line.trim_start().starts_with(&base)).unwrap();
        assert!(line.contains("prefer"), "{line}");
    }
}
