//! The tree, as a user of it would describe it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use machines::namespace::{
    Attributes, Change, Changed, Cookie, INODE_SPACE, Namespace, NewAttributes, NewInode, NewNode, Privileges,
    RenameMode, WriteOperation, XattrMode,
};
use machines::types::{Errno, Ino, InodeFlags, Kind, Name, Owner, Permissions, Time};
use nr::Dispatch;
use proptest::prelude::*;

const OWNER: Owner = Owner { uid: 1000, gid: 100 };

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// An inode that OWNER makes under the usual umask.
fn new_inode(node: NewNode, mode: u32) -> NewInode {
    let [permissions, umask] = [mode, 0o022].map(Permissions::from_mode);
    NewInode { node, permissions, umask, owner: OWNER }
}

/// A tree whose clock ticks with every operation.
struct Tree {
    namespace: Namespace,
    seconds: i64,
}

impl Tree {
    fn new(seed: u64) -> Self {
        let root = Permissions::from_mode(0o755);
        Self { namespace: Namespace::new(root, OWNER, Time::default(), seed), seconds: 0 }
    }

    fn change(&mut self, change: Change) -> Result<Changed, Errno> {
        self.seconds += 1;
        let time = Time { seconds: self.seconds, nanoseconds: 0 };
        self.namespace.dispatch_mut(&WriteOperation { time, change })
    }

    fn make(&mut self, parent: Ino, text: &str, node: NewNode) -> Result<Ino, Errno> {
        let change = Change::Create { parent, name: name(text), inode: new_inode(node, 0o750) };
        Ok(self.change(change)?.attributes.ino)
    }

    fn file(&mut self, parent: Ino, text: &str) -> Ino {
        self.make(parent, text, NewNode::File).unwrap()
    }

    fn directory(&mut self, parent: Ino, text: &str) -> Ino {
        self.make(parent, text, NewNode::Directory).unwrap()
    }

    fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<Changed, Errno> {
        let (name_from, name_to) = (name(from.1), name(to.1));
        self.change(Change::Rename {
            parent: from.0,
            name: name_from,
            new_parent: to.0,
            new_name: name_to,
            mode,
            owner: OWNER,
        })
    }

    fn unlink(&mut self, parent: Ino, text: &str) -> Result<Changed, Errno> {
        self.change(Change::Unlink { parent, name: name(text) })
    }

    fn rmdir(&mut self, parent: Ino, text: &str) -> Result<Changed, Errno> {
        self.change(Change::RemoveDirectory { parent, name: name(text) })
    }

    fn lookup(&self, parent: Ino, text: &str) -> Result<Attributes, Errno> {
        self.namespace.lookup(parent, &name(text))
    }

    fn links(&self, ino: Ino) -> u32 {
        self.namespace.attributes(ino).unwrap().links
    }

    fn listing(&self, ino: Ino) -> BTreeMap<Vec<u8>, Ino> {
        let mut all = BTreeMap::new();
        let visit = |_, name: &[u8], attributes: Attributes| {
            all.insert(name.to_vec(), attributes.ino);
            ControlFlow::Continue(())
        };
        self.namespace.list(ino, Cookie::START, visit).unwrap();
        all
    }
}

#[test]
fn what_is_made_can_be_found_listed_and_removed() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "d");
    let file = tree.file(directory, "f");
    assert_eq!(tree.lookup(directory, "f").unwrap().ino, file);
    assert_eq!(tree.make(directory, "f", NewNode::Directory), Err(Errno::EEXIST));
    assert_eq!(tree.listing(directory).keys().map(Vec::as_slice).collect::<Vec<_>>(), [&b"."[..], b"..", b"f"]);
    assert_eq!(tree.listing(directory)[&b".."[..]], Ino::ROOT);
    assert_eq!((tree.links(Ino::ROOT), tree.links(directory)), (3, 2));

    assert_eq!(tree.rmdir(Ino::ROOT, "d"), Err(Errno::ENOTEMPTY));
    assert_eq!(tree.rmdir(directory, "f"), Err(Errno::ENOTDIR));
    assert_eq!(tree.unlink(Ino::ROOT, "d"), Err(Errno::EISDIR));
    assert_eq!(tree.unlink(directory, "f").unwrap().orphan, Some(file));
    assert_eq!(tree.unlink(directory, "f"), Err(Errno::ENOENT));
    assert_eq!(tree.rmdir(Ino::ROOT, "d").unwrap().orphan, Some(directory));
    assert_eq!(tree.links(Ino::ROOT), 2);
    assert_eq!(tree.make(directory, "late", NewNode::File), Err(Errno::ENOENT));
}

#[test]
fn a_file_made_without_a_name_can_be_given_one_once() {
    let mut tree = Tree::new(0);
    let inode = |node| NewInode::new(node, 0o644, 0, OWNER);
    let nameless = |node| Change::CreateNameless { parent: Ino::ROOT, inode: inode(node) };
    assert_eq!(tree.change(nameless(NewNode::Directory)), Err(Errno::EINVAL));
    let before = tree.namespace.attributes(Ino::ROOT).unwrap();
    let made = tree.change(nameless(NewNode::File)).unwrap();
    assert_eq!((made.attributes.links, made.taken, made.orphan), (0, INODE_SPACE, None));
    assert_eq!(tree.namespace.attributes(Ino::ROOT).unwrap(), before);

    let ino = made.attributes.ino;
    let link = |text| Change::Link { ino, parent: Ino::ROOT, name: name(text) };
    assert_eq!(tree.change(link("a")).unwrap().attributes.links, 1);
    assert_eq!(tree.unlink(Ino::ROOT, "a").unwrap().orphan, Some(ino));
    assert_eq!(tree.change(link("b")), Err(Errno::ENOENT));
    tree.change(Change::Drop { ino }).unwrap();
}

#[test]
fn a_file_without_a_name_can_be_made_in_a_directory_that_was_removed() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "a");
    tree.change(Change::RemoveDirectory { parent: Ino::ROOT, name: name("a") }).unwrap();
    assert_eq!(tree.make(directory, "b", NewNode::File), Err(Errno::ENOENT));
    let made = tree.change(Change::CreateNameless { parent: directory, inode: new_inode(NewNode::File, 0o640) });
    let ino = made.unwrap().attributes.ino;
    let linked = tree.change(Change::Link { ino, parent: Ino::ROOT, name: name("b") }).unwrap();
    assert_eq!((linked.attributes.ino, linked.attributes.links), (ino, 1));
}

#[test]
fn an_inode_lives_until_its_last_name_is_gone_and_it_is_dropped() {
    let mut tree = Tree::new(0);
    let file = tree.file(Ino::ROOT, "a");
    let link = |parent, text| Change::Link { ino: file, parent, name: name(text) };
    assert_eq!(tree.change(link(Ino::ROOT, "b")).unwrap().attributes.links, 2);
    assert_eq!(tree.change(link(Ino::ROOT, "b")), Err(Errno::EEXIST));
    assert_eq!(tree.unlink(Ino::ROOT, "a").unwrap().orphan, None);
    assert_eq!(tree.change(Change::Drop { ino: file }), Err(Errno::EBUSY));
    assert_eq!(tree.unlink(Ino::ROOT, "b").unwrap().orphan, Some(file));
    assert_eq!(tree.change(link(Ino::ROOT, "c")), Err(Errno::ENOENT));
    assert!(tree.namespace.attributes(file).unwrap().is_orphan());
    tree.change(Change::Drop { ino: file }).unwrap();
    assert_eq!(tree.namespace.attributes(file), Err(Errno::ENOENT));
    assert!(tree.file(Ino::ROOT, "a") > file, "inode numbers are never used again");
}

#[test]
fn a_directory_has_no_second_name() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "d");
    let change = Change::Link { ino: directory, parent: Ino::ROOT, name: name("e") };
    assert_eq!(tree.change(change), Err(Errno::EPERM));
}

#[test]
fn rename_replaces_only_what_it_may() {
    use RenameMode::{NoReplace, Replace};
    let mut tree = Tree::new(0);
    let (full, empty) = (tree.directory(Ino::ROOT, "full"), tree.directory(Ino::ROOT, "empty"));
    let inner = tree.file(full, "inner");
    let file = tree.file(Ino::ROOT, "file");
    let root = Ino::ROOT;
    assert_eq!(tree.rename((root, "missing"), (root, "x"), Replace), Err(Errno::ENOENT));
    assert_eq!(tree.rename((root, "file"), (root, "empty"), Replace), Err(Errno::EISDIR));
    assert_eq!(tree.rename((root, "empty"), (root, "file"), Replace), Err(Errno::ENOTDIR));
    assert_eq!(tree.rename((root, "empty"), (root, "full"), Replace), Err(Errno::ENOTEMPTY));
    assert_eq!(tree.rename((root, "file"), (full, "inner"), NoReplace), Err(Errno::EEXIST));
    assert_eq!(tree.rename((root, "full"), (full, "x"), Replace), Err(Errno::EINVAL));
    assert_eq!(tree.rename((full, "inner"), (root, "full"), Replace), Err(Errno::EISDIR));

    assert_eq!(tree.rename((root, "file"), (full, "inner"), Replace).unwrap().orphan, Some(inner));
    assert_eq!(tree.lookup(full, "inner").unwrap().ino, file);
    assert_eq!(tree.rename((root, "full"), (root, "empty"), Replace).unwrap().orphan, Some(empty));
    assert_eq!((tree.lookup(root, "empty").unwrap().ino, tree.links(root)), (full, 3));
}

#[test]
fn renaming_to_another_name_of_the_same_inode_changes_nothing() {
    let mut tree = Tree::new(0);
    let file = tree.file(Ino::ROOT, "a");
    tree.change(Change::Link { ino: file, parent: Ino::ROOT, name: name("b") }).unwrap();
    tree.rename((Ino::ROOT, "a"), (Ino::ROOT, "b"), RenameMode::Replace).unwrap();
    assert_eq!((tree.lookup(Ino::ROOT, "a").unwrap().ino, tree.links(file)), (file, 2));
}

#[test]
fn a_moved_directory_has_a_new_parent() {
    let mut tree = Tree::new(0);
    let (a, b) = (tree.directory(Ino::ROOT, "a"), tree.directory(Ino::ROOT, "b"));
    let moved = tree.directory(a, "moved");
    tree.rename((a, "moved"), (b, "moved"), RenameMode::Replace).unwrap();
    assert_eq!(tree.listing(moved)[&b".."[..]], b);
    assert_eq!((tree.links(a), tree.links(b)), (2, 3));
}

#[test]
fn exchange_swaps_two_entries_of_any_kind() {
    let mut tree = Tree::new(0);
    let (a, b) = (tree.directory(Ino::ROOT, "a"), tree.directory(Ino::ROOT, "b"));
    let (file, directory) = (tree.file(a, "x"), tree.directory(b, "y"));
    let (x, y) = ((a, "x"), (b, "y"));
    assert_eq!(tree.rename(x, (b, "missing"), RenameMode::Exchange), Err(Errno::ENOENT));
    assert_eq!(tree.rename((Ino::ROOT, "b"), y, RenameMode::Exchange), Err(Errno::EINVAL));
    assert_eq!(tree.rename(y, (Ino::ROOT, "b"), RenameMode::Exchange), Err(Errno::EINVAL));
    tree.rename(x, y, RenameMode::Exchange).unwrap();
    assert_eq!((tree.lookup(a, "x").unwrap().ino, tree.lookup(b, "y").unwrap().ino), (directory, file));
    assert_eq!((tree.links(a), tree.links(b)), (3, 2));
    assert_eq!(tree.listing(directory)[&b".."[..]], a);
}

#[test]
fn a_whiteout_stays_where_the_entry_was() {
    let mut tree = Tree::new(0);
    let file = tree.file(Ino::ROOT, "a");
    tree.rename((Ino::ROOT, "a"), (Ino::ROOT, "b"), RenameMode::Whiteout).unwrap();
    let whiteout = tree.lookup(Ino::ROOT, "a").unwrap();
    assert_eq!((whiteout.kind, whiteout.device, whiteout.owner), (Kind::CharacterDevice, 0, OWNER));
    assert_eq!(tree.lookup(Ino::ROOT, "b").unwrap().ino, file);
}

#[test]
fn a_set_group_id_directory_hands_on_its_group() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "d");
    let (permissions, gid) = (Some(Permissions::from_mode(0o2775)), Some(7));
    let attributes = NewAttributes { permissions, gid, ..NewAttributes::default() };
    tree.change(Change::SetAttributes { ino: directory, attributes }).unwrap();
    let (file, inner) = (tree.file(directory, "f"), tree.directory(directory, "e"));
    let attributes = |ino| tree.namespace.attributes(ino).unwrap();
    assert_eq!((attributes(file).owner.gid, attributes(file).permissions.bits()), (7, 0o750));
    assert_eq!((attributes(inner).owner.gid, attributes(inner).permissions.bits()), (7, 0o2750));
}

#[test]
fn privileges_go_with_a_new_owner_or_foreign_content() {
    let mut tree = Tree::new(0);
    let ino = tree.file(Ino::ROOT, "f");
    let set = |permissions: Option<u32>, uid| {
        let permissions = permissions.map(Permissions::from_mode);
        Change::SetAttributes { ino, attributes: NewAttributes { permissions, uid, ..NewAttributes::default() } }
    };
    let bits = |changed: Result<Changed, Errno>| changed.unwrap().attributes.permissions.bits();
    let capability: &[u8] = b"security.capability";
    let (name, value, mode) = (capability.into(), b"v"[..].into(), XattrMode::Set);
    tree.change(Change::SetXattr { ino, name, value, mode }).unwrap();
    assert_eq!(bits(tree.change(set(Some(0o6755), None))), 0o6755);
    assert_eq!(bits(tree.change(set(None, Some(5)))), 0o755);
    assert_eq!(tree.namespace.xattr(ino, capability), Err(Errno::ENODATA));
    assert_eq!(bits(tree.change(set(Some(0o6745), Some(6)))), 0o6745, "permissions given with the owner stay");
    assert_eq!(
        bits(tree.change(Change::KillPrivileges { ino, privileges: Privileges::All })),
        0o2745,
        "without group execution it is a lock"
    );

    let directory = tree.directory(Ino::ROOT, "d");
    let attributes = NewAttributes { permissions: Some(Permissions::from_mode(0o6755)), ..NewAttributes::default() };
    tree.change(Change::SetAttributes { ino: directory, attributes }).unwrap();
    assert_eq!(bits(tree.change(Change::KillPrivileges { ino: directory, privileges: Privileges::All })), 0o6755);
    let set_group_id = Privileges::SetGroupId;
    assert_eq!(bits(tree.change(Change::KillPrivileges { ino: directory, privileges: set_group_id })), 0o4755);
}

/// All changes of names and extended attributes of `a` (a file) in directory `d`, each with its answer.
fn everything_done_to(flags_of_file: InodeFlags, flags_of_directory: InodeFlags) -> Vec<(&'static str, bool)> {
    use RenameMode::{Exchange, Replace, Whiteout};
    let run = |work: fn(&mut Tree, Ino, Ino) -> Result<Changed, Errno>| {
        let mut tree = Tree::new(0);
        let directory = tree.directory(Ino::ROOT, "d");
        let file = tree.file(directory, "a");
        tree.file(Ino::ROOT, "outside");
        let (name, value, mode) = (b"user.a"[..].into(), b"v"[..].into(), XattrMode::Set);
        tree.change(Change::SetXattr { ino: file, name, value, mode }).unwrap();
        tree.change(Change::SetFlags { ino: file, flags: flags_of_file }).unwrap();
        tree.change(Change::SetFlags { ino: directory, flags: flags_of_directory }).unwrap();
        let before = tree.namespace.digest();
        let result = work(&mut tree, directory, file);
        assert!(matches!(result, Ok(_) | Err(Errno::EPERM)), "{result:?}");
        assert!(result.is_ok() || tree.namespace.digest() == before, "what is refused changes nothing");
        result.is_ok()
    };
    vec![
        ("unlink", run(|tree, directory, _| tree.unlink(directory, "a"))),
        (
            "create",
            run(|tree, directory, _| {
                let change =
                    Change::Create { parent: directory, name: name("b"), inode: new_inode(NewNode::File, 0o644) };
                tree.change(change)
            }),
        ),
        (
            "create without a name",
            run(|tree, parent, _| {
                tree.change(Change::CreateNameless { parent, inode: new_inode(NewNode::File, 0o644) })
            }),
        ),
        ("link", run(|tree, _, ino| tree.change(Change::Link { ino, parent: Ino::ROOT, name: name("b") }))),
        (
            "link into",
            run(|tree, parent, _| {
                let ino = tree.lookup(Ino::ROOT, "outside")?.ino;
                tree.change(Change::Link { ino, parent, name: name("b") })
            }),
        ),
        ("rename out", run(|tree, directory, _| tree.rename((directory, "a"), (Ino::ROOT, "b"), Replace))),
        ("rename with a whiteout", run(|tree, directory, _| tree.rename((directory, "a"), (Ino::ROOT, "b"), Whiteout))),
        ("rename into", run(|tree, directory, _| tree.rename((Ino::ROOT, "outside"), (directory, "b"), Replace))),
        ("rename over", run(|tree, directory, _| tree.rename((Ino::ROOT, "outside"), (directory, "a"), Replace))),
        ("exchange", run(|tree, directory, _| tree.rename((Ino::ROOT, "outside"), (directory, "a"), Exchange))),
        (
            "set an attribute",
            run(|tree, _, ino| {
                let (name, value, mode) = (b"user.b"[..].into(), b"v"[..].into(), XattrMode::Set);
                tree.change(Change::SetXattr { ino, name, value, mode })
            }),
        ),
        (
            "remove an attribute",
            run(|tree, _, ino| tree.change(Change::RemoveXattr { ino, name: b"user.a"[..].into() })),
        ),
        ("set flags", run(|tree, _, ino| tree.change(Change::SetFlags { ino, flags: InodeFlags::default() }))),
    ]
}

#[test]
fn what_is_immutable_or_append_only_keeps_its_names_entries_and_attributes() {
    let refused = |file, directory| {
        let done = everything_done_to(file, directory).into_iter();
        done.filter(|(_, is_done)| !is_done).map(|(what, _)| what).collect::<Vec<_>>()
    };
    let none = InodeFlags::default();
    assert_eq!(refused(none, none), [""; 0]);
    assert_eq!(refused(InodeFlags::NO_DUMP.with(InodeFlags::NO_ACCESS_TIME), InodeFlags::NO_DUMP), [""; 0]);
    let about_names = ["unlink", "link", "rename out", "rename with a whiteout", "rename over", "exchange"];
    let of_file = [&about_names[..], &["set an attribute", "remove an attribute"]].concat();
    assert_eq!(refused(InodeFlags::IMMUTABLE, none), of_file);
    assert_eq!(refused(InodeFlags::APPEND_ONLY, none), of_file);
    let removals = ["unlink", "rename out", "rename with a whiteout", "rename over", "exchange"];
    assert_eq!(refused(none, InodeFlags::APPEND_ONLY), removals);
    let of_directory = ["unlink", "create", "create without a name", "link into"];
    let renames = ["rename out", "rename with a whiteout", "rename into", "rename over", "exchange"];
    assert_eq!(refused(none, InodeFlags::IMMUTABLE), [&of_directory[..], &renames].concat());
}

#[test]
fn flags_are_part_of_the_digest_stamp_the_inode_and_are_handed_on_in_part() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "d");
    let before = (tree.namespace.digest(), tree.namespace.attributes(directory).unwrap());
    let handed_on = InodeFlags::NO_DUMP.with(InodeFlags::NO_ACCESS_TIME);
    let flags = handed_on.with(InodeFlags::APPEND_ONLY);
    let set = tree.change(Change::SetFlags { ino: directory, flags }).unwrap().attributes;
    assert_eq!((set.flags, set.changed.seconds), (flags, tree.seconds));
    let other = tree.change(Change::SetFlags { ino: directory, flags: handed_on }).unwrap().attributes;
    assert!(other.changed > set.changed && set.changed > before.1.changed && set.modified == before.1.modified);
    let mut twin = Tree::new(0);
    twin.directory(Ino::ROOT, "d");
    twin.change(Change::SetFlags { ino: directory, flags: InodeFlags::default() }).unwrap();
    twin.change(Change::SetFlags { ino: directory, flags: InodeFlags::default() }).unwrap();
    assert_ne!(tree.namespace.digest(), twin.namespace.digest());

    tree.change(Change::SetFlags { ino: directory, flags }).unwrap();
    let file = tree.file(directory, "f");
    let symlink = tree.make(directory, "s", NewNode::Symlink(b"f"[..].into())).unwrap();
    assert_eq!([file, symlink].map(|ino| tree.namespace.flags(ino)), [Ok(handed_on); 2]);
}

#[test]
fn extended_attributes_answer_as_those_of_tmpfs() {
    let mut tree = Tree::new(0);
    let ino = tree.file(Ino::ROOT, "f");
    let set = |text: &str, mode| Change::SetXattr { ino, name: text.as_bytes().into(), value: b"v"[..].into(), mode };
    let remove = |text: &str| Change::RemoveXattr { ino, name: text.as_bytes().into() };
    assert_eq!(tree.change(set("user.a", XattrMode::Replace)), Err(Errno::ENODATA));
    tree.change(set("user.a", XattrMode::Create)).unwrap();
    assert_eq!(tree.change(set("user.a", XattrMode::Create)), Err(Errno::EEXIST));
    assert_eq!(tree.change(set("other.a", XattrMode::Set)), Err(Errno::EOPNOTSUPP));
    assert_eq!(tree.change(set("user.", XattrMode::Set)), Err(Errno::EINVAL));
    assert_eq!(tree.change(set(&format!("user.{}", "n".repeat(251)), XattrMode::Set)), Err(Errno::ERANGE));
    let (name, value) = (b"user.a"[..].into(), vec![0; (1 << 16) + 1].into());
    assert_eq!(tree.change(Change::SetXattr { ino, name, value, mode: XattrMode::Set }), Err(Errno::E2BIG));
    assert_eq!(tree.namespace.xattr(ino, b"user.a").as_deref(), Ok(&b"v"[..]));
    assert_eq!(tree.namespace.xattr_names(ino, true).unwrap().collect::<Vec<_>>(), [b"user.a"]);
    tree.change(set("trusted.a", XattrMode::Set)).unwrap();
    let names = |is_root| tree.namespace.xattr_names(ino, is_root).unwrap().collect::<Vec<_>>();
    assert_eq!((names(true), names(false)), (vec![&b"trusted.a"[..], b"user.a"], vec![&b"user.a"[..]]));
    tree.change(remove("user.a")).unwrap();
    assert_eq!(tree.change(remove("user.a")), Err(Errno::ENODATA));
    assert_eq!(tree.namespace.xattr(ino, b"user.a"), Err(Errno::ENODATA));
}

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

/// u::rwx,g::r-x,o::r--
const MINIMAL: &[u8] =
    b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";

/// u::rwx,u:5:rwx,g::r-x,m::rwx,o::---
const EXTENDED: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x05\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

fn set_list(ino: Ino, name: &[u8], value: &[u8]) -> Change {
    Change::SetXattr { ino, name: name.into(), value: value.into(), mode: XattrMode::Set }
}

#[test]
fn an_access_list_and_the_permissions_are_two_views_of_one_thing() {
    let mut tree = Tree::new(0);
    let ino = tree.file(Ino::ROOT, "f");
    let bits = |tree: &Tree| tree.namespace.attributes(ino).unwrap().permissions.bits();
    tree.change(set_list(ino, ACCESS_LIST, EXTENDED)).unwrap();
    assert_eq!(bits(&tree), 0o770);
    assert_eq!(tree.namespace.xattr(ino, ACCESS_LIST).as_deref(), Ok(EXTENDED));
    let attributes = NewAttributes { permissions: Some(Permissions::from_mode(0o640)), ..NewAttributes::default() };
    tree.change(Change::SetAttributes { ino, attributes }).unwrap();
    let mut masked = EXTENDED.to_vec();
    (masked[6], masked[30]) = (6, 4);
    assert_eq!(tree.namespace.xattr(ino, ACCESS_LIST).as_deref(), Ok(&masked[..]));

    tree.change(set_list(ino, ACCESS_LIST, MINIMAL)).unwrap();
    assert_eq!(bits(&tree), 0o754);
    assert_eq!(tree.namespace.xattr(ino, ACCESS_LIST), Err(Errno::ENODATA), "the permissions say it all");
    tree.change(set_list(ino, ACCESS_LIST, b"")).unwrap();
    tree.change(Change::RemoveXattr { ino, name: ACCESS_LIST.into() }).unwrap();
    assert_eq!(bits(&tree), 0o754);
}

#[test]
fn what_is_made_inherits_the_default_list_in_place_of_the_umask() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "d");
    tree.change(set_list(directory, DEFAULT_LIST, EXTENDED)).unwrap();
    let mut make = |text: &str, node| {
        let inode = NewInode { umask: Permissions::from_mode(0o777), ..new_inode(node, 0o777) };
        tree.change(Change::Create { parent: directory, name: name(text), inode }).unwrap().attributes
    };
    let (file, inner) = (make("f", NewNode::File), make("d", NewNode::Directory));
    let symlink = make("s", NewNode::Symlink(b"f"[..].into()));
    assert_eq!([file, inner, symlink].map(|made| made.permissions.bits()), [0o770, 0o770, 0o777]);
    let names = |ino| tree.namespace.xattr_names(ino, true).unwrap().map(<[u8]>::to_vec).collect::<Vec<_>>();
    assert_eq!(names(file.ino), [ACCESS_LIST]);
    assert_eq!(names(inner.ino), [ACCESS_LIST, DEFAULT_LIST]);
    assert!(names(symlink.ino).is_empty());
    let outside = tree.change(Change::Create {
        parent: Ino::ROOT,
        name: name("outside"),
        inode: new_inode(NewNode::File, 0o666),
    });
    assert_eq!(outside.unwrap().attributes.permissions.bits(), 0o644);
}

#[test]
fn a_list_is_refused_where_it_has_no_place() {
    let mut tree = Tree::new(0);
    let file = tree.file(Ino::ROOT, "f");
    let symlink = tree.make(Ino::ROOT, "s", NewNode::Symlink(b"f"[..].into())).unwrap();
    let remove = |ino, name: &[u8]| Change::RemoveXattr { ino, name: name.into() };
    assert_eq!(tree.change(set_list(file, DEFAULT_LIST, MINIMAL)), Err(Errno::EACCES));
    assert_eq!(tree.change(set_list(file, ACCESS_LIST, &EXTENDED[..20])), Err(Errno::EINVAL));
    assert!(tree.change(remove(file, DEFAULT_LIST)).is_ok());
    for list in [ACCESS_LIST, DEFAULT_LIST] {
        assert_eq!(tree.change(set_list(symlink, list, MINIMAL)), Err(Errno::EOPNOTSUPP));
        assert_eq!(tree.change(remove(symlink, list)), Err(Errno::EOPNOTSUPP));
        assert_eq!(tree.namespace.xattr(symlink, list), Err(Errno::EOPNOTSUPP));
    }
}

#[test]
fn times_and_sizes_follow_the_changes() {
    let mut tree = Tree::new(0);
    let directory = tree.directory(Ino::ROOT, "d");
    let before = tree.namespace.attributes(directory).unwrap();
    let file = tree.file(directory, "f");
    let after = tree.namespace.attributes(directory).unwrap();
    assert_eq!((before.size, after.size), (40, 60));
    assert!(after.modified > before.modified && after.changed > before.changed);
    let modified = Some(Time { seconds: -5, nanoseconds: 3 });
    let attributes = NewAttributes { modified, ..NewAttributes::default() };
    let set = tree.change(Change::SetAttributes { ino: file, attributes }).unwrap().attributes;
    assert_eq!(Some(set.modified), modified);
    assert_eq!(set.changed, Time { seconds: tree.seconds, nanoseconds: 0 });
}

/// A random change of few inodes and names, so that changes in a sequence concern the same ones.
fn any_change() -> impl Strategy<Value = Change> {
    let ino = || (1_u64..12).prop_map(Ino);
    let name = || (0..4_u8).prop_map(|letter| Name::new(&[b'a' + letter]).unwrap());
    let node = prop_oneof![
        3 => Just(NewNode::Directory),
        2 => Just(NewNode::File),
        1 => Just(NewNode::Symlink(b"target"[..].into())),
        1 => Just(NewNode::BlockDevice(3)),
    ];
    let mode = prop_oneof![
        4 => Just(RenameMode::Replace),
        1 => Just(RenameMode::NoReplace),
        2 => Just(RenameMode::Exchange),
        1 => Just(RenameMode::Whiteout),
    ];
    let list = prop_oneof![Just(EXTENDED), Just(MINIMAL)];
    let list_name = prop_oneof![Just(ACCESS_LIST), Just(DEFAULT_LIST)];
    prop_oneof![
        4 => (ino(), name(), node)
            .prop_map(move |(parent, name, node)| Change::Create { parent, name, inode: new_inode(node, 0o2755) }),
        1 => (ino(), list_name, list).prop_map(|(ino, name, value)| set_list(ino, name, value)),
        2 => (ino(), ino(), name()).prop_map(|(ino, parent, name)| Change::Link { ino, parent, name }),
        2 => (ino(), name()).prop_map(|(parent, name)| Change::Unlink { parent, name }),
        2 => (ino(), name()).prop_map(|(parent, name)| Change::RemoveDirectory { parent, name }),
        4 => (ino(), name(), ino(), name(), mode)
            .prop_map(|(parent, name, new_parent, new_name, mode)| Change::Rename { parent, name, new_parent, new_name, mode, owner: OWNER }),
        1 => (ino(), 0..16_u32)
            .prop_map(|(ino, bits)| Change::SetFlags { ino, flags: InodeFlags::from_bits(bits << 4).unwrap() }),
        1 => ino().prop_map(|ino| Change::SetFlags { ino, flags: InodeFlags::default() }),
        1 => ino().prop_map(|ino| Change::Drop { ino }),
    ]
}

/// Checks that every directory is reached from the root exactly once, and that its link count fits its entries.
fn check_tree(tree: &Tree) {
    let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut pending = vec![(Ino::ROOT, Ino::ROOT)];
    while let Some((directory, parent)) = pending.pop() {
        let mut entries = tree.listing(directory);
        assert_eq!(entries.remove(&b"."[..]), Some(directory));
        assert_eq!(entries.remove(&b".."[..]), Some(parent));
        assert_eq!(tree.namespace.attributes(directory).unwrap().size, 40 + 20 * entries.len() as u64);
        let mut subdirectories = 0;
        for (_, ino) in entries {
            *names.entry(ino).or_default() += 1;
            if tree.namespace.attributes(ino).unwrap().kind == Kind::Directory {
                subdirectories += 1;
                pending.push((ino, directory));
            }
        }
        assert_eq!(tree.links(directory), 2 + subdirectories);
    }
    for (ino, count) in names {
        if tree.namespace.attributes(ino).unwrap().kind != Kind::Directory {
            assert_eq!(tree.links(ino), count);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_leave_a_sound_tree_and_equal_replicas(changes in prop::collection::vec(any_change(), 1..60)) {
        let (mut tree, mut replica) = (Tree::new(1), Tree::new(2));
        for change in changes {
            let time = Time { seconds: 1, nanoseconds: 0 };
            let operation = WriteOperation { time, change };
            prop_assert_eq!(tree.namespace.dispatch_mut(&operation), replica.namespace.dispatch_mut(&operation));
        }
        check_tree(&tree);
        prop_assert_eq!(tree.namespace.digest(), replica.namespace.digest());
        tree.change(Change::SetFlags { ino: Ino::ROOT, flags: InodeFlags::default() }).unwrap();
        let before = tree.namespace.digest();
        tree.file(Ino::ROOT, "one more");
        prop_assert_ne!(tree.namespace.digest(), before);
    }
}
