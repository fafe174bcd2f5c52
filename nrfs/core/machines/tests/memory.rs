//! Counts the heap that the tree takes: at most `HEAP_PER_SPACE` bytes for each byte of inode space.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use machines::content::{self, Content};
use machines::namespace::{
    Change, HEAP_PER_SPACE, INODE_SPACE, Namespace, NewAttributes, NewInode, NewNode, RenameMode, WriteOperation,
    XattrMode,
};
use machines::types::{Errno, Ino, Name, Owner, Permissions, Time};
use memory::{Arena, Pool};
use nr::Dispatch;
use proptest::prelude::*;

/// Counts what a thread has allocated, rounded up as allocators do: to one of four sizes between two powers of two.
struct Counting;

thread_local! {
    static HEAP: Cell<i64> = const { Cell::new(0) };
}

fn count(layout: Layout, sign: i64) {
    let size = layout.size().max(16);
    let step = size.next_power_of_two() / 8;
    // Fails at the end of a thread, when the count is of no use.
    let _ = HEAP.try_with(|heap| heap.set(heap.get() + sign * size.next_multiple_of(step) as i64));
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const OWNER: Owner = Owner { uid: 1000, gid: 100 };

/// A tree, with the heap and the space that it takes.
struct Tree {
    namespace: Namespace,
    heap_before: i64,
    space: u64,
    has_long_lists: bool,
    /// The highest ratio of heap to space, apart from nearly empty trees.
    ratio: f64,
}

impl Tree {
    /// The heap that an empty tree may take, with tables that are kept for a few hundred inodes.
    const BESIDE: i64 = 32 << 10;

    fn new() -> Self {
        let heap_before = HEAP.get();
        let namespace = Namespace::new(Permissions::from_mode(0o777), OWNER, Time::default(), 7);
        Self { namespace, heap_before, space: INODE_SPACE, has_long_lists: false, ratio: 0.0 }
    }

    fn heap(&self) -> i64 {
        HEAP.get() - self.heap_before
    }

    fn change(&mut self, change: Change) -> Result<Ino, Errno> {
        self.has_long_lists |= change.sets_long_default_list();
        let wanted = self.namespace.space_wanted(&change);
        let without_lists = change.space_without_lists().filter(|_| !self.has_long_lists);
        assert!(without_lists.is_none_or(|without| without == wanted), "{change:?}");
        let operation = WriteOperation { time: Time::default(), change };
        let heap = HEAP.get();
        let changed = self.namespace.dispatch_mut(&operation);
        let Ok(changed) = changed else {
            assert_eq!(HEAP.get(), heap, "what is refused takes nothing: {operation:?}");
            return Err(changed.unwrap_err());
        };
        assert!(changed.taken <= wanted, "{operation:?} took {} of {wanted}", changed.taken);
        self.space = self.space + changed.taken - changed.freed;
        // The operation itself was allocated meanwhile.
        drop(operation);
        let taken = (self.heap() - Self::BESIDE) as f64 / self.space as f64;
        self.ratio = self.ratio.max(taken);
        assert!(taken <= HEAP_PER_SPACE as f64, "{} bytes for {}", self.heap(), self.space);
        if let Some(orphan) = changed.orphan {
            self.change(Change::Drop { ino: orphan })?;
        }
        Ok(changed.attributes.ino)
    }

    fn make(&mut self, parent: Ino, name: &Name, node: NewNode) -> Result<Ino, Errno> {
        let inode = NewInode::new(node, 0o777, 0, OWNER);
        self.change(Change::Create { parent, name: name.clone(), inode })
    }

    fn unlink(&mut self, parent: Ino, name: &Name) {
        self.change(Change::Unlink { parent, name: name.clone() }).unwrap();
    }

    fn set(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<Ino, Errno> {
        self.change(Change::SetXattr { ino, name: name.into(), value: value.into(), mode: XattrMode::Set })
    }
}

/// A name of `length` bytes.
fn name(number: usize, length: usize) -> Name {
    Name::new(format!("{number:0length$}").as_bytes()).unwrap()
}

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// An access control list that names `users` users.
fn list(users: u32) -> Vec<u8> {
    let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat();
    let users = (0..users).map(|id| entry(2, id));
    let entries = [entry(1, u32::MAX)].into_iter().chain(users).chain([4, 0x10, 0x20].map(|tag| entry(tag, u32::MAX)));
    [2_u32.to_le_bytes().to_vec()].into_iter().chain(entries).flatten().collect()
}

const MANY: usize = 1500;

/// The worst case of each kind of change, so many times that tables of every size occur.
#[test]
fn whatever_fills_a_tree_takes_no_more_than_it_says() {
    type Filling = fn(&mut Tree, usize);
    let fillings: &[(&str, Filling)] = &[
        ("files", |tree, number| {
            tree.make(Ino::ROOT, &name(number, 255), NewNode::File).unwrap();
        }),
        ("short names", |tree, number| {
            tree.make(Ino::ROOT, &name(number, 1), NewNode::File).unwrap();
        }),
        ("links", |tree, number| match number {
            0 => {
                tree.make(Ino::ROOT, &name(0, 255), NewNode::File).unwrap();
            }
            _ => {
                let (ino, parent) = (Ino(2), Ino::ROOT);
                tree.change(Change::Link { ino, parent, name: name(number, 255) }).unwrap();
            }
        }),
        ("directories", |tree, number| {
            tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
        }),
        ("a chain", |tree, number| {
            tree.make(Ino(1 + number as u64), &name(0, 255), NewNode::Directory).unwrap();
        }),
        ("emptied directories", |tree, number| {
            let parent = tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
            (0..20).for_each(|inner| {
                tree.make(parent, &name(inner, 255), NewNode::File).unwrap();
            });
            (0..20).for_each(|inner| tree.unlink(parent, &name(inner, 255)));
        }),
        ("directories of which the last entry stays", |tree, number| {
            let parent = tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
            (0..50).for_each(|inner| {
                tree.make(parent, &name(inner, 255), NewNode::File).unwrap();
            });
            (0..49).for_each(|inner| tree.unlink(parent, &name(inner, 255)));
        }),
        ("directories of which the first entry stays", |tree, number| {
            let parent = tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
            (0..50).for_each(|inner| {
                tree.make(parent, &name(inner, 255), NewNode::File).unwrap();
            });
            (1..50).for_each(|inner| tree.unlink(parent, &name(inner, 255)));
        }),
        ("short targets", |tree, number| {
            tree.make(Ino::ROOT, &name(number, 255), NewNode::Symlink(vec![b'x'; 128].into())).unwrap();
        }),
        ("middling targets", |tree, number| {
            tree.make(Ino::ROOT, &name(number, 255), NewNode::Symlink(vec![b'x'; 1030].into())).unwrap();
        }),
        ("long targets", |tree, number| {
            tree.make(Ino::ROOT, &name(number, 255), NewNode::Symlink(vec![b'x'; 4095].into())).unwrap();
        }),
        ("an attribute each", |tree, number| {
            let ino = tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
            tree.set(ino, b"user.a", b"").unwrap();
        }),
        ("attributes of one", |tree, number| {
            tree.set(Ino::ROOT, format!("user.{}", number * 7919 % MANY).as_bytes(), b"").unwrap();
        }),
        ("large attributes", |tree, number| {
            tree.set(Ino::ROOT, format!("user.{number}").as_bytes(), &[7; 1030]).unwrap();
        }),
        ("short lists", |tree, number| {
            let ino = tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
            tree.set(ino, ACCESS_LIST, &list(8)).unwrap();
            tree.set(ino, DEFAULT_LIST, &list(8)).unwrap();
            tree.set(ino, b"user.a", b"").unwrap();
        }),
        ("inherited lists", |tree, number| {
            if number == 0 {
                tree.set(Ino::ROOT, DEFAULT_LIST, &list(100)).unwrap();
            }
            tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
        }),
        ("long lists", |tree, number| {
            let ino = tree.make(Ino::ROOT, &name(number, 255), NewNode::Directory).unwrap();
            tree.set(ino, ACCESS_LIST, &list(1020)).unwrap();
            tree.set(ino, DEFAULT_LIST, &list(1020)).unwrap();
        }),
        ("whiteouts", |tree, number| {
            if number == 0 {
                tree.set(Ino::ROOT, DEFAULT_LIST, &list(100)).unwrap();
            }
            tree.make(Ino::ROOT, &name(2 * number, 255), NewNode::File).unwrap();
            let (from, to) = (name(2 * number, 255), name(2 * number + 1, 255));
            let (parent, mode, owner) = (Ino::ROOT, RenameMode::Whiteout, OWNER);
            tree.change(Change::Rename { parent, name: from, new_parent: parent, new_name: to, mode, owner }).unwrap();
        }),
    ];
    for (kind, fill) in fillings {
        let mut tree = Tree::new();
        (0..MANY).for_each(|number| fill(&mut tree, number));
        println!(
            "{kind}: at the most {:.2} bytes for each, {:.2} at the end",
            tree.ratio,
            tree.heap() as f64 / tree.space as f64
        );
    }
}

#[test]
fn of_many_names_all_but_a_few_removed_leave_little_behind() {
    for kept in [1, 2, 17, 1000] {
        let mut tree = Tree::new();
        (0..5 * MANY).for_each(|number| {
            tree.make(Ino::ROOT, &name(number, 255), NewNode::File).unwrap();
        });
        let gone = (0..5 * MANY).filter(|number| number % kept != kept - 1 || kept == 1);
        gone.for_each(|number| tree.unlink(Ino::ROOT, &name(number, 255)));
        println!("one in {kept}: at the most {:.2} bytes for each", tree.ratio);
    }
}

/// Changes that concern few inodes, with sizes on both sides of every threshold.
fn any_change() -> impl Strategy<Value = Change> {
    let ino = || (1_u64..20).prop_map(Ino);
    let any_name = || (0..6_usize, prop_oneof![Just(1), Just(255)]).prop_map(|(number, length)| name(number, length));
    let node = prop_oneof![
        Just(NewNode::Directory),
        Just(NewNode::File),
        prop_oneof![Just(1), Just(128), Just(129), Just(4095)]
            .prop_map(|length| NewNode::Symlink(vec![b'x'; length].into())),
    ];
    let mode = prop_oneof![
        3 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplaceWhiteout),
        1 => Just(RenameMode::Exchange),
        1 => Just(RenameMode::Whiteout),
    ];
    let set = |name: &'static [u8], value: Vec<u8>| {
        move |ino| Change::SetXattr { ino, name: name.into(), value: value.clone().into(), mode: XattrMode::Set }
    };
    let lists = || prop_oneof![Just(0), Just(8), Just(9), Just(500)].prop_map(list);
    let plain: &[&[u8]] = &[b"user.a", b"user.b", b"security.capability"];
    let values = prop_oneof![Just(vec![]), Just(vec![1; 100]), Just(vec![2; 5000])];
    let removed: &[&[u8]] = &[b"user.a", b"user.b", ACCESS_LIST, DEFAULT_LIST];
    prop_oneof![
        5 => (ino(), any_name(), node)
            .prop_map(|(parent, name, node)| Change::Create { parent, name, inode: NewInode::new(node, 0o777, 0, OWNER) }),
        1 => ino().prop_map(|parent| {
            Change::CreateNameless { parent, inode: NewInode::new(NewNode::File, 0o777, 0, OWNER) }
        }),
        3 => (ino(), ino(), any_name()).prop_map(|(ino, parent, name)| Change::Link { ino, parent, name }),
        2 => (ino(), any_name()).prop_map(|(parent, name)| Change::Unlink { parent, name }),
        1 => (ino(), any_name()).prop_map(|(parent, name)| Change::RemoveDirectory { parent, name }),
        2 => (ino(), any_name(), ino(), any_name(), mode).prop_map(|(parent, name, new_parent, new_name, mode)| {
            Change::Rename { parent, name, new_parent, new_name, mode, owner: OWNER }
        }),
        2 => (ino(), lists()).prop_map(move |(ino, value)| set(ACCESS_LIST, value)(ino)),
        2 => (ino(), lists()).prop_map(move |(ino, value)| set(DEFAULT_LIST, value)(ino)),
        2 => (ino(), prop::sample::select(plain), values).prop_map(move |(ino, name, value)| set(name, value)(ino)),
        2 => (ino(), prop::sample::select(removed)).prop_map(|(ino, name)| Change::RemoveXattr { ino, name: name.into() }),
        1 => ino().prop_map(|ino| {
            Change::SetAttributes { ino, attributes: NewAttributes { uid: Some(5), ..NewAttributes::default() } }
        }),
    ]
}

/// Removes everything in a directory, and all inodes that were made without a name.
fn empty(tree: &mut Tree) {
    loop {
        let mut names = Vec::new();
        let mut pending = vec![Ino::ROOT];
        while let Some(parent) = pending.pop() {
            let visit = |_, entry: &[u8], attributes: machines::namespace::Attributes| {
                if let Ok(name) = Name::new(entry) {
                    names.push((parent, name, attributes));
                }
                std::ops::ControlFlow::Continue(())
            };
            tree.namespace.list(parent, machines::namespace::Cookie::START, visit).unwrap();
            let inner =
                names.iter().filter(|(of, _, found)| *of == parent && found.kind == machines::types::Kind::Directory);
            pending.extend(inner.map(|(_, _, attributes)| attributes.ino));
        }
        if names.is_empty() {
            break;
        }
        for (parent, name, attributes) in names {
            let _ = match attributes.kind {
                machines::types::Kind::Directory => tree.change(Change::RemoveDirectory { parent, name }),
                _ => tree.change(Change::Unlink { parent, name }),
            };
        }
    }
    (2..100).for_each(|ino| {
        let _ = tree.change(Change::Drop { ino: Ino(ino) });
    });
    for name in [&b"user.a"[..], b"user.b", b"security.capability", ACCESS_LIST, DEFAULT_LIST] {
        let _ = tree.change(Change::RemoveXattr { ino: Ino::ROOT, name: name.into() });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_takes_no_more_than_it_says_and_gives_all_of_it_back(
        changes in prop::collection::vec(any_change(), 1..80)
    ) {
        let mut tree = Tree::new();
        changes.into_iter().for_each(|change| { let _ = tree.change(change); });
        empty(&mut tree);
        prop_assert_eq!(tree.space, INODE_SPACE);
        prop_assert!(tree.heap() < Tree::BESIDE, "{} bytes are left", tree.heap());
    }
}

/// The content's heap holds where pages are in files, and which pages are free.
#[test]
fn a_page_takes_little_beside_itself() {
    const PAGE: u64 = 4096;
    const PAGES: u64 = 20_000;
    type Place = fn(u64) -> (u64, u64);
    let fillings: &[(&str, Place)] = &[
        ("one after the other", |number| (2, number)),
        ("every other", |number| (2, 2 * number)),
        ("anywhere", |number| (2, number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << 50))),
        ("a file each", |number| (number, 0)),
    ];
    for (kind, place) in fillings {
        let heap_before = HEAP.get();
        let mut content = Content::new(Arena::new(std::sync::Arc::new(Pool::new(None))));
        for number in 0..PAGES {
            let (ino, page) = place(number);
            let range = page * PAGE..(page + 1) * PAGE;
            let change =
                content::Change::Allocate { range, mode: content::AllocateMode::Reserve, keep_size: false, grant: 1 };
            let operation = content::WriteOperation { ino: Ino(ino), time: Time::default(), change };
            assert_eq!(content.dispatch_mut(&operation).unwrap().taken, 1);
        }
        let each = (HEAP.get() - heap_before) as u64 / PAGES;
        println!("{kind}: {each} bytes a page");
        assert!(each <= if kind.contains("each") { 400 } else { content::HEAP_PER_PAGE }, "{kind}: {each}");
    }
    let heap = HEAP.get();
    let mut content = Content::new(Arena::new(std::sync::Arc::new(Pool::new(None))));
    let change = content::Change::SetAttributes { size: Some(content::SIZE_MAX), modified: None, changed: None };
    content.dispatch_mut(&content::WriteOperation { ino: Ino(2), time: Time::default(), change }).unwrap();
    assert!(HEAP.get() - heap < 1024, "a file of nothing but a hole costs what an empty one does");
}
