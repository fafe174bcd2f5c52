//! Addresses of this process that show shared memory, piece by piece.
//!
//! A piece that is not shown yet reads as zeros, unless [`Faults`](crate::Faults) reports its first touch.
//!
//! The kernel bounds the number of mappings in a process (vm.max_map_count), and every piece may be one. So a window
//! reserves the most mappings that it will need when it is made, and all windows together get half of the kernel's
//! bound. Then showing a piece does not fail for want of mappings. If it did, a thread that only touched an address
//! could not be told.
//!
//! A forked process has no windows: no thread there would show a piece, and a piece that is shown would stay for ever.
//! Instead it has, at the same addresses, a private copy of what the window [was to show](Window::will_show).

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

/// Windows are aligned to the hardware's large pages, so that they can consist of those.
const ALIGNMENT: usize = 2 << 20;

/// The most mappings that all windows of this process together may have.
static MAPPINGS_MAX: LazyLock<usize> = LazyLock::new(|| {
    let bound = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    bound.and_then(|bound| bound.trim().parse::<usize>().ok()).unwrap_or(65530) / 2
});

/// Mappings that are promised to windows.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// What a forked process has in place of each window, by the window's first address.
static LEGACIES: Mutex<BTreeMap<usize, Legacy>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The lock of [`LEGACIES`], held during a fork, so that no window is made or dropped meanwhile.
    static KEPT: RefCell<Option<MutexGuard<'static, BTreeMap<usize, Legacy>>>> = const { RefCell::new(None) };
}

/// What a forked process has in place of a window.
struct Legacy {
    size: usize,
    protection: i32,
    memory: Arc<SharedMemory>,
    pieces: Box<[Piece]>,
}

/// A part of a window, and the part of the memory that it shows. All three are multiples of the page size.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Bytes above the window's base.
    pub at: usize,
    /// Bytes from the beginning of the memory.
    pub offset: u64,
    /// Bytes.
    pub size: usize,
}

/// A range of addresses that shows pieces of shared memory. A forked process does not have it.
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
// SAFETY: `&Window` gives access only to its address, and to what is shown there. The kernel changes the latter in one
// step for all threads.
unsafe impl Sync for Window {}

impl Window {
    /// A window of `size` bytes, a multiple of the page size. Its base is as far above a multiple of 2 MiB as `alike`
    /// is. It can be read, and written if `writable`. `mappings` is the most pieces that it will consist of, counting
    /// the gaps between shown pieces.
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

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether this process has the window: false in a forked process.
    pub fn is_here(&self) -> bool {
        self.process.is_this()
    }

    fn has(&self, piece: Piece) -> bool {
        piece.at <= self.size && piece.size <= self.size - piece.at
    }

    /// Sets what forked processes have in place of the window: all pieces that will ever be shown, and zeros elsewhere.
    ///
    /// # Panics
    /// If a piece is not in the window.
    pub fn will_show(&self, memory: &Arc<SharedMemory>, pieces: impl Iterator<Item = Piece>) {
        let (memory, pieces) = (Arc::clone(memory), pieces.collect::<Box<[_]>>());
        assert!(pieces.iter().all(|&piece| self.has(piece)), "a piece lies in its window");
        let legacy = Legacy { size: self.size, protection: protection(self.writable), memory, pieces };
        legacies().insert(self.base.addr().get(), legacy);
    }

    /// Shows a piece.
    ///
    /// # Panics
    /// If the piece is not in the window.
    pub fn show(&self, memory: &SharedMemory, piece: Piece) -> io::Result<()> {
        let Piece { at, offset, size } = piece;
        assert!(self.has(piece), "a piece lies in its window");
        let address = self.base.as_ptr().wrapping_add(at);
        // SAFETY: what is replaced lies in our own mapping, and there is no reference into that: users of a window's
        // address must expect its memory to change at any time.
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
            // SAFETY: the mapping is ours, and users of its address must not outlive the window.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
        }
    }
}

fn legacies() -> MutexGuard<'static, BTreeMap<usize, Legacy>> {
    // Each change of the map is a single step, so poison means nothing.
    LEGACIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Before a fork: no window is made or dropped until [`let_go`] or [`bequeath`].
pub(crate) fn keep_as_they_are() {
    KEPT.set(Some(legacies()));
}

/// After a fork, in the parent.
pub(crate) fn let_go() {
    KEPT.take();
}

/// After a fork, in the child: maps a private copy in place of each window.
pub(crate) fn bequeath() {
    let Some(mut kept) = KEPT.take() else { return };
    kept.iter().for_each(|(base, legacy)| legacy.leave(*base));
    // Not freed: the allocator might wait for a thread that does not exist here.
    mem::forget(mem::take(&mut *kept));
}

impl Legacy {
    fn leave(&self, base: usize) {
        let address = std::ptr::without_provenance_mut::<u8>(base);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: nothing but the window can be mapped there, as this is the first thing that the process does. The
        // window's own mapping is not copied to it (MADV_DONTFORK), unless it was made just before the fork.
        unsafe { libc::mmap(address.cast(), self.size, self.protection, flags, -1, 0) };
        for piece in &self.pieces {
            let address = address.wrapping_add(piece.at);
            // SAFETY: the piece lies in what was mapped above. If the mapping fails, the zeros stay.
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

    /// Returns what `look` finds in a forked process. It must only read and write memory.
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
            // A process forked from the forked process sees its changes.
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
        // Not every process may use userfaultfd(2).
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
        // Not every kernel has this file.
        let Ok(maps) = fs::read_to_string("/proc/self/numa_maps") else { return };
        let base = format!("{:x} ", window.base().addr());
        let line = maps.lines().find(|line| line.trim_start().starts_with(&base)).unwrap();
        assert!(line.contains("prefer"), "{line}");
    }
}
