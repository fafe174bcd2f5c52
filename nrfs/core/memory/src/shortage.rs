//! Whether there is memory for more: to be asked before more is promised to anybody.
//!
//! Whoever applies an operation cannot refuse it any more: where the system has no page for it, it kills the process (a
//! cgroup's limit, the machine's memory), and where it makes no mapping (a limit on addresses, or on what may be
//! committed), the process ends itself. So it is refused before, and what is under way by then must still find memory:
//!
//! - the *spare*: what this machine, and the cgroups of this process, are to have left. They are asked each time that
//!   some of it has been [taken], sooner if there is little;
//! - the *reserves*: addresses that nobody uses, one for content and one of the heap, given up when a mapping is
//!   refused. Until one can be had again there is no more of its kind.
//!
//! Both are the process's, and so is all in here. As long as there is enough, to ask is to read one flag that nobody
//! writes.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::Buffer;

/// Of a machine, or of a cgroup, what is to be left is no more than this part of all it has.
const SPARE_PART: u64 = 8;

/// Bytes that are taken at the most, and at the least, before the next look.
const STEP_MAX: u64 = 64 << 20;
const STEP_MIN: u64 = 2 << 20;

/// Whether it is time for a look.
static IS_DUE: AtomicBool = AtomicBool::new(true);

/// Bytes that can be taken before it is.
static STEP: AtomicI64 = AtomicI64::new(0);

/// Bytes that there were for content at the last look.
static CONTENT_LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Bytes that operations under way may take for content: the reserve has as many.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the heap that they may take.
const HEAP_UNDER_WAY: usize = 32 << 20;

/// Addresses for others in this process that have a heap of their own, such as Python: given up with those of the heap.
const OTHERS: usize = 32 << 20;

/// `None` when they have been given up.
static CONTENT: Mutex<Option<Buffer>> = Mutex::new(None);
static HEAP: Mutex<Option<(Vec<u8>, Buffer)>> = Mutex::new(None);

thread_local! {
    /// Whether this thread asks for the heap's reserve: where that is refused, none is given up for it.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Enough of all.
    Enough,
    /// No addresses for more content: it can have pages that are free where others are in use.
    Vacancies,
    /// Too little memory, or heap.
    Nothing,
}

static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(Group::of_this_process);

/// Has the reserves be enough for operations under way whose content may take so many bytes. False if they cannot be had.
pub fn prepare(under_way: usize) -> bool {
    if UNDER_WAY.fetch_max(under_way, Ordering::SeqCst) < under_way {
        *lock(&CONTENT) = None;
    }
    has_heap() && has_addresses()
}

/// What there is if so many bytes more are taken; of a few it need not be told how many. If there is not enough, it looks
/// again after `give_back`, which is told what there is, and gives back what helps.
pub fn left(bytes: u64, give_back: impl FnOnce(Left)) -> Left {
    if !IS_DUE.load(Ordering::Relaxed) && bytes < STEP_MIN { Left::Enough } else { look(bytes, give_back) }
}

/// Bytes that there were for content at the last look.
pub fn content_left() -> u64 {
    CONTENT_LEFT.load(Ordering::Relaxed)
}

/// Notes that memory of so many bytes was mapped, or may have been.
pub fn taken(bytes: u64) {
    let bytes = bytes as i64;
    if STEP.fetch_sub(bytes, Ordering::Relaxed) <= bytes {
        IS_DUE.store(true, Ordering::Relaxed);
    }
}

/// Gives up the reserve of content, which was refused a mapping: worth one more try.
#[cold]
pub(crate) fn give_up_content() {
    IS_DUE.store(true, Ordering::Relaxed);
    drop(lock(&CONTENT).take());
}

/// Gives up a reserve for the heap, which was refused memory: whether one more try is worth it.
#[cold]
pub fn give_up_heap() -> bool {
    if IS_ASKING.get() {
        return false;
    }
    IS_DUE.store(true, Ordering::Relaxed);
    let heap = lock(&HEAP).take();
    if heap.is_none() {
        give_up_content();
    }
    true
}

#[cold]
fn look(bytes: u64, give_back: impl FnOnce(Left)) -> Left {
    let (mut left, mut room) = judge(bytes);
    if left != Left::Enough {
        give_back(left);
        (left, room) = judge(bytes);
    }
    STEP.store((room / 2).clamp(STEP_MIN, STEP_MAX) as i64, Ordering::Relaxed);
    IS_DUE.store(room == 0 || left != Left::Enough, Ordering::Relaxed);
    CONTENT_LEFT.store(if has_heap() && has_addresses() { room } else { 0 }, Ordering::Relaxed);
    left
}

/// What there is, and how many bytes of memory.
fn judge(bytes: u64) -> (Left, u64) {
    let room = room();
    let left = match room > bytes && has_heap() {
        true if has_addresses() => Left::Enough,
        true => Left::Vacancies,
        false => Left::Nothing,
    };
    (left, room)
}

/// Bytes of memory that can be taken until too little would be left.
fn room() -> u64 {
    let spare =
        |all: u64| (all / SPARE_PART).min((UNDER_WAY.load(Ordering::Relaxed).saturating_add(HEAP_UNDER_WAY)) as u64);
    let sources = GROUPS.iter().filter_map(Group::left).chain(machine_left());
    sources.map(|(left, all)| left.saturating_sub(spare(all))).min().unwrap_or(u64::MAX)
}

fn has_addresses() -> bool {
    if lock(&CONTENT).is_none() {
        let reserve = Buffer::try_new(UNDER_WAY.load(Ordering::Relaxed).max(crate::PAGE_SIZE));
        *lock(&CONTENT) = reserve.ok();
    }
    lock(&CONTENT).is_some()
}

fn has_heap() -> bool {
    if lock(&HEAP).is_none() {
        // Allocated without the lock, which the allocator may need.
        let mut reserve = Vec::new();
        IS_ASKING.set(true);
        let others = reserve.try_reserve_exact(HEAP_UNDER_WAY).ok().and_then(|()| Buffer::try_new(OTHERS).ok());
        IS_ASKING.set(false);
        *lock(&HEAP) = others.map(|others| (reserve, others));
    }
    lock(&HEAP).is_some()
}

/// What the machine can still give, and what it has.
fn machine_left() -> Option<(u64, u64)> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| {
        let rest = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let left = kibibytes("MemAvailable")? + kibibytes("SwapFree").unwrap_or(0);
    Some((left * 1024, kibibytes("MemTotal")? * 1024))
}

/// A cgroup that may limit the memory of this process.
struct Group {
    limit: PathBuf,
    used: PathBuf,
    statistics: PathBuf,
    /// What is used and could be had back: content of files on disks.
    reclaimable: [&'static str; 2],
}

impl Group {
    fn of_this_process() -> Vec<Self> {
        let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let groups = table.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            match controllers.split(',').any(|controller| controller == "memory") {
                true => Some(Self::and_above(Path::new("/sys/fs/cgroup/memory"), path, Self::of_version_1)),
                false if controllers.is_empty() => {
                    Some(Self::and_above(Path::new("/sys/fs/cgroup"), path, Self::of_version_2))
                }
                false => None,
            }
        });
        groups.flatten().filter(|group| group.limit.exists()).collect()
    }

    fn and_above(root: &Path, path: &str, group: fn(&Path) -> Self) -> Vec<Self> {
        let inside = root.join(path);
        inside.ancestors().take_while(|folder| folder.starts_with(root)).map(group).collect()
    }

    fn of_version_1(folder: &Path) -> Self {
        Self {
            limit: folder.join("memory.limit_in_bytes"),
            used: folder.join("memory.usage_in_bytes"),
            statistics: folder.join("memory.stat"),
            reclaimable: ["total_inactive_file", "total_active_file"],
        }
    }

    fn of_version_2(folder: &Path) -> Self {
        Self {
            limit: folder.join("memory.max"),
            used: folder.join("memory.current"),
            statistics: folder.join("memory.stat"),
            reclaimable: ["inactive_file", "active_file"],
        }
    }

    /// What it can still give, and what it has; `None` where it has no limit.
    fn left(&self) -> Option<(u64, u64)> {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = number(&self.limit)?;
        let left = limit.saturating_sub(number(&self.used)?);
        // To sum the statistics up takes the kernel longer.
        let is_plenty = left > STEP_MAX.max(limit / 2);
        Some((if is_plenty { left } else { (left + self.reclaimable()).min(limit) }, limit))
    }

    /// Of content of files, half is counted: the kernel's statistics lag behind by seconds, and it may be gone.
    fn reclaimable(&self) -> u64 {
        let statistics = fs::read_to_string(&self.statistics).unwrap_or_default();
        let fields = statistics.lines().filter_map(|line| line.split_once(' '));
        let reclaimable = fields.filter(|(name, _)| self.reclaimable.contains(name));
        reclaimable.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum::<u64>() / 2
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here is ever half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The state is the process's: so there is one test.
    #[test]
    fn what_is_left_follows_from_the_reserves_and_from_what_is_asked_for() {
        let nothing = |_| panic!("nothing is to be given back");
        assert!(prepare(1 << 20));
        assert_eq!(left(0, nothing), Left::Enough);
        assert_eq!(left(1 << 60, |left| assert_eq!(left, Left::Nothing)), Left::Nothing);

        taken(2 * STEP_MAX);
        assert!(IS_DUE.load(Ordering::Relaxed));
        assert_eq!(left(0, nothing), Left::Enough);

        // As many addresses as no process can have.
        UNDER_WAY.store(1 << 60, Ordering::Relaxed);
        give_up_content();
        assert_eq!(left(0, |left| assert_eq!(left, Left::Vacancies)), Left::Vacancies);
        UNDER_WAY.store(1 << 20, Ordering::Relaxed);
        assert_eq!(left(0, nothing), Left::Enough);

        assert!(give_up_heap());
        assert!(lock(&HEAP).is_none() && lock(&CONTENT).is_some());
        assert!(give_up_heap());
        assert!(lock(&CONTENT).is_none());
        assert_eq!(left(0, nothing), Left::Enough);
        assert!(lock(&HEAP).is_some() && lock(&CONTENT).is_some());
    }

    #[test]
    fn what_a_cgroup_has_left_is_its_limit_without_what_cannot_be_had_back() {
        let folder = std::env::temp_dir().join(format!("nrfs-cgroup-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("memory.current", "900\n");
        write("memory.stat", "anon 500\nfile 400\ninactive_file 100\nactive_file 150\n");
        let groups = Group::and_above(&folder, "inner", Group::of_version_2);
        assert_eq!(groups.len(), 2);
        for (limit, left) in [("max\n", None), ("1000\n", Some((225, 1000))), ("500\n", Some((125, 500)))] {
            write("memory.max", limit);
            assert_eq!(groups[1].left(), left);
        }
        assert_eq!(groups[0].left(), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
