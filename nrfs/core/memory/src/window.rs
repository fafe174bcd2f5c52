//! Addresses of this process that show shared memory, piece by piece.
//!
//! A piece that is not shown yet reads as zeros, unless [`Faults`](crate::Faults) answers its first touch.
//!
//! The kernel bounds the number of mappings in a process (vm.max_map_count), and every piece may be one. So a window
//! says at first how many it will have at the most, and all windows together get half of what there can be: then
//! showing a piece does not fail, which nobody could be told who merely touches it.

use std::fs;
use std::io;
use std::process;
use std::ptr::NonNull;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use crate::SharedMemory;
use crate::mapping::map_aligned;

/// Windows begin so that a large page of theirs can be one of the hardware's.
const ALIGNMENT: usize = 2 << 20;

/// Mappings that all windows of this process may be made of, together.
static MAPPINGS_MAX: LazyLock<usize> = LazyLock::new(|| {
    let bound = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    bound.and_then(|bound| bound.trim().parse::<usize>().ok()).unwrap_or(65530) / 2
});

/// Mappings that they have been promised.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// A range of addresses, for as long as it lives. A process that is forked has no part in it.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    size: usize,
    writable: bool,
    _mappings: Mappings,
    process: u32,
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
        let window = Self { base, size, writable, _mappings, process: process::id() };
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
        self.process == process::id()
    }

    /// Shows `size` bytes of `memory` from `offset` on at the address `at` above the base. All are multiples of the
    /// page size.
    ///
    /// # Panics
    /// If that is not in the window.
    pub fn show(&self, at: usize, memory: &SharedMemory, offset: u64, size: usize) -> io::Result<()> {
        assert!(at <= self.size && size <= self.size - at, "a piece lies in its window");
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
            // SAFETY: the mapping is ours, and who uses its address must not outlive the window.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.size) };
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
        window.show(0, memory, offset as u64, size).unwrap();
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
                    window.show(piece, &memory, (2 * PAGE_SIZE) as u64, PAGE_SIZE).unwrap();
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
