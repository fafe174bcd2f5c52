//! Whether there is memory for more. Asked before an operation is granted anything.
//!
//! Once an operation is in the log, it cannot be refused. If the system has no page for it (a cgroup's limit, the
//! machine's memory), the kernel kills the process; if the system refuses a mapping (a limit on addresses, or on what
//! may be committed), the process ends itself. So operations are refused before the log, early enough that those under
//! way still find memory. Two things are kept for them:
//!
//! - the *spare*: memory that this machine, and the cgroups of this process, must have left. It is measured each time
//!   that a number of bytes has been [taken]: the less is left, the smaller is the number;
//! - the *reserves*: unused addresses, one reserve for content and one for the heap. A reserve is given up when a
//!   mapping is refused. Until it can be made again, nothing more of its kind is granted.
//!
//! All state here is global, as memory belongs to the process. As long as there is enough, [`left`] reads one flag that
//! is rarely written.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use crate::topology::{bytes_of, confined_to};
use crate::{Buffer, PhysicalNode};

/// The spare of a machine or a cgroup is at most its whole memory divided by this.
const SPARE_PART: u64 = 8;

/// The most and the fewest bytes that are taken before memory is measured again.
const STEP_MAX: u64 = 64 << 20;
const STEP_MIN: u64 = 2 << 20;

/// Whether memory is to be measured by the next call of [`left`].
static IS_DUE: AtomicBool = AtomicBool::new(true);

/// Bytes that can be taken before memory is measured again.
static STEP: AtomicI64 = AtomicI64::new(0);

/// Bytes that were left for content when memory was last measured.
static CONTENT_LEFT: AtomicU64 = AtomicU64::new(u64::MAX);

/// Bytes that operations under way may take for content: the size of the reserve.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the heap that operations under way may take.
const HEAP_UNDER_WAY: usize = 32 << 20;

/// Bytes of addresses for other heaps in this process, such as Python's. They are part of the heap's reserve.
const OTHERS: usize = 32 << 20;

/// The reserves; `None` after they were given up.
static CONTENT: Mutex<Option<Buffer>> = Mutex::new(None);
static HEAP: Mutex<Option<(Vec<u8>, Buffer)>> = Mutex::new(None);

thread_local! {
    /// Whether this thread is making the heap's reserve: if that fails, no reserve is to be given up for it.
    static IS_ASKING: Cell<bool> = const { Cell::new(false) };
}

/// What is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Enough of all.
    Enough,
    /// No addresses for more content. It can still have the free pages of chunks that are in use.
    Vacancies,
    /// Too little memory, or heap.
    Nothing,
}

static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(Group::of_this_process);

/// Makes the reserves large enough for operations under way that may take `under_way` bytes for content. Returns false
/// if they cannot be made.
pub fn prepare(under_way: usize) -> bool {
    if UNDER_WAY.fetch_max(under_way, Ordering::SeqCst) < under_way {
        *lock(&CONTENT) = None;
    }
    has_heap() && has_addresses()
}

/// What is left after `bytes` more are taken. Callers may pass 0 for a few bytes. If there is not enough, calls
/// `give_back` with what is left, to give memory back to the system, and measures again.
pub fn left(bytes: u64, give_back: impl FnOnce(Left)) -> Left {
    if !IS_DUE.load(Ordering::Relaxed) && bytes < STEP_MIN { Left::Enough } else { look(bytes, give_back) }
}

/// Bytes that were left for content when memory was last measured.
pub fn content_left() -> u64 {
    CONTENT_LEFT.load(Ordering::Relaxed)
}

/// Notes that `bytes` of memory were mapped, or may have been.
pub fn taken(bytes: u64) {
    let bytes = bytes as i64;
    if STEP.fetch_sub(bytes, Ordering::Relaxed) <= bytes {
        IS_DUE.store(true, Ordering::Relaxed);
    }
}

/// Gives up the reserve for content, after a mapping was refused. The caller then tries once more.
#[cold]
pub(crate) fn give_up_content() {
    IS_DUE.store(true, Ordering::Relaxed);
    drop(lock(&CONTENT).take());
}

/// Gives up a reserve, after the heap was refused memory. Returns whether the caller should try once more.
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

/// What is left after `bytes` more are taken, and the bytes of memory that can be taken now.
fn judge(bytes: u64) -> (Left, u64) {
    let room = room();
    let left = match room > bytes && has_heap() {
        true if has_addresses() => Left::Enough,
        true => Left::Vacancies,
        false => Left::Nothing,
    };
    (left, room)
}

/// Bytes of memory that can be taken until only the spare is left.
fn room() -> u64 {
    let spare =
        |all: u64| (all / SPARE_PART).min((UNDER_WAY.load(Ordering::Relaxed).saturating_add(HEAP_UNDER_WAY)) as u64);
    let sources = GROUPS.iter().filter_map(Group::left).chain(machine_left()).chain(nodes_left());
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

/// Bytes of memory that the machine can still give, and bytes that it has in all.
fn machine_left() -> Option<(u64, u64)> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| {
        let rest = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let left = kibibytes("MemAvailable")? + kibibytes("SwapFree").unwrap_or(0);
    Some((left * 1024, kibibytes("MemTotal")? * 1024))
}

/// The same of the nodes that this process is confined to, if it is. Of pages of files, half counts as free.
fn nodes_left() -> Option<(u64, u64)> {
    let of_node = |node: &PhysicalNode| {
        let table = fs::read_to_string(format!("/sys/devices/system/node/node{}/meminfo", node.0)).ok()?;
        let files = bytes_of(&table, "Active(file):") + bytes_of(&table, "Inactive(file):");
        Some((bytes_of(&table, "MemFree:") + files / 2, bytes_of(&table, "MemTotal:")))
    };
    let nodes: Vec<(u64, u64)> = confined_to()?.iter().map(of_node).collect::<Option<_>>()?;
    Some((nodes.iter().map(|(left, _)| left).sum(), nodes.iter().map(|(_, all)| all).sum()))
}

/// A cgroup that may limit the memory of this process.
struct Group {
    limit: PathBuf,
    used: PathBuf,
    statistics: PathBuf,
    /// The fields of `statistics` with memory that could be reclaimed: content of files on disks.
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

    /// Bytes of memory that it can still give, and its limit; `None` if it has no limit.
    fn left(&self) -> Option<(u64, u64)> {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let limit = number(&self.limit)?;
        let left = limit.saturating_sub(number(&self.used)?);
        // Read only if needed, as the kernel takes longer to sum up the statistics.
        let is_plenty = left > STEP_MAX.max(limit / 2);
        Some((if is_plenty { left } else { (left + self.reclaimable()).min(limit) }, limit))
    }

    /// Bytes that could be reclaimed. Only half of what the kernel says is counted: its statistics are seconds old.
    fn reclaimable(&self) -> u64 {
        let statistics = fs::read_to_string(&self.statistics).unwrap_or_default();
        let fields = statistics.lines().filter_map(|line| line.split_once(' '));
        let reclaimable = fields.filter(|(name, _)| self.reclaimable.contains(name));
        reclaimable.filter_map(|(_, bytes)| bytes.parse::<u64>().ok()).sum::<u64>() / 2
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under a lock is a single step, so poison means nothing.
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
