//! Tests the service with concurrent callers: accepted data is stored, an operation is refused only if there is no
//! room, space of deleted files is free again, and all replicas agree.

use std::thread;

use filesystem::{
    AllocateMode, Attributes, Capacity, Configuration, ContentPlace, Errno, Filesystem, Ino, InodeFlags, Kind, Name,
    NewAttributes, NewInode, NewNode, Owner, Permissions, Privileges, RenameMode, ResizeError, Size, Time, Token,
    Topology, Whence, XattrMode,
};

const PAGE: usize = 4096;
const OWNER: Owner = Owner { uid: 0, gid: 0 };
const THREADS: usize = 6;

fn filesystem(nodes: usize, logs: usize, pages: u64, inodes: u64) -> Filesystem {
    let configuration = Configuration {
        topology: Topology::emulated(nodes).unwrap(),
        content: ContentPlace::Replicated,
        logs,
        size: Size::Bytes(pages * PAGE as u64),
        inodes: Some(inodes),
        permissions: Permissions::from_mode(0o755),
        owner: OWNER,
    };
    Filesystem::new(configuration).unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn new_inode(node: NewNode) -> NewInode {
    let [permissions, umask] = [0o666, 0o022].map(Permissions::from_mode);
    NewInode { node, permissions, umask, owner: OWNER }
}

fn create(fs: &Filesystem, text: &str, token: &Token) -> Result<Attributes, Errno> {
    fs.create(Ino::ROOT, name(text), new_inode(NewNode::File), token)
}

/// Runs `work` in several threads, spread over the nodes.
fn concurrently(fs: &Filesystem, nodes: usize, work: impl Fn(usize, &Token) + Sync) {
    thread::scope(|scope| {
        for number in 0..THREADS {
            let work = &work;
            scope.spawn(move || work(number, &fs.register(nr::NodeId(number % nodes))));
        }
    });
}

fn check_replicas(fs: &Filesystem) {
    fs.with_token(|token| assert!(fs.verify(token).iter().all(|verification| verification.agrees())));
}

/// Numbers of nodes and of logs that tests run with.
const SHAPES: [(usize, usize); 4] = [(1, 1), (2, 1), (2, 4), (4, 4)];

#[test]
fn a_full_file_system_has_accepted_exactly_its_size() {
    for (nodes, logs) in SHAPES {
        let fs = filesystem(nodes, logs, 1000, 100);
        concurrently(&fs, nodes, |number, token| {
            let ino = create(&fs, &format!("f{number}"), token).unwrap().ino;
            let data = [number as u8; 10 * PAGE];
            let mut size = 0;
            loop {
                match fs.write(ino, size, &data, token) {
                    Ok(written) => size += written as u64,
                    Err(errno) => break assert_eq!(errno, Errno::ENOSPC),
                }
            }
            assert_eq!(fs.attributes(ino, token).unwrap().size, size);
            let again = &data[..PAGE.min(size as usize)];
            assert_eq!(fs.write(ino, 0, again, token), Ok(again.len()), "what is there can be written again");
        });
        assert_eq!(fs.capacity().blocks_free, 0);
        check_replicas(&fs);
    }
}

#[test]
fn the_limits_change_while_others_write_and_never_below_what_is_in_use() {
    const SIZES: [u64; 3] = [700, 400, 1000];
    let bytes = |pages: u64| Some(Size::Bytes(pages * PAGE as u64));
    for (nodes, logs) in SHAPES {
        let fs = filesystem(nodes, logs, 1000, 100);
        concurrently(&fs, nodes, |number, token| {
            if number == 0 {
                for round in 0..200 {
                    let (before, pages) = (fs.capacity().blocks, SIZES[round % 3]);
                    match fs.resize(bytes(pages), Some(50 + pages)) {
                        Ok(()) => assert_eq!((fs.capacity().blocks, fs.capacity().inodes), (pages, 50 + pages)),
                        Err(error) => assert_eq!((error, fs.capacity().blocks), (ResizeError::Size, before)),
                    }
                    let Capacity { blocks, blocks_free, .. } = fs.capacity();
                    assert!(blocks_free <= blocks);
                }
                return;
            }
            let ino = create(&fs, &format!("f{number}"), token).unwrap().ino;
            for _ in 0..100 {
                let written = fs.write(ino, 0, &[1; 120 * PAGE], token);
                assert!(matches!(written, Ok(_) | Err(Errno::ENOSPC)));
                fs.set_attributes(ino, Some(0), NewAttributes::default(), token).unwrap();
            }
        });
        fs.with_token(|token| {
            for number in 1..THREADS {
                let ino = fs.lookup(Ino::ROOT, &name(&format!("f{number}")), token).unwrap().ino;
                assert_eq!(fs.write(ino, 0, &[1; PAGE], token), Ok(PAGE));
            }
        });
        let (files, inodes) = (THREADS as u64 - 1, fs.capacity().inodes);
        assert_eq!(fs.resize(bytes(2), None), Err(ResizeError::Size));
        assert_eq!(fs.resize(bytes(0), None), Err(ResizeError::Size));
        assert_eq!(fs.resize(bytes(files), Some(files)), Err(ResizeError::Inodes));
        assert_eq!((fs.capacity().inodes, fs.resize(None, Some(u64::MAX))), (inodes, Err(ResizeError::Inodes)));
        assert_eq!(fs.resize(bytes(files), Some(files + 1)), Ok(()));
        assert_eq!((fs.capacity().blocks_free, fs.capacity().inodes_free), (0, 0));
        check_replicas(&fs);
    }
}

#[test]
fn a_grant_that_others_do_not_use_is_not_missed() {
    // Each write is granted two pages that it does not need, as they exist: it must never be refused.
    let fs = filesystem(2, 1, 2, 10);
    let ino = fs.with_token(|token| {
        let ino = create(&fs, "f", token).unwrap().ino;
        assert_eq!(fs.write(ino, 0, &[1; 2 * PAGE], token), Ok(2 * PAGE));
        ino
    });
    concurrently(&fs, 2, |_, token| {
        for _ in 0..500 {
            assert_eq!(fs.write(ino, 1, &[2; 2 * PAGE - 1], token), Ok(2 * PAGE - 1));
            assert_eq!(fs.allocate(ino, 0, 2 * PAGE as u64, AllocateMode::ZeroRange, false, token), Ok(()));
        }
    });
}

#[test]
fn what_is_deleted_comes_back_whoever_still_used_it() {
    for (nodes, logs) in SHAPES {
        let fs = filesystem(nodes, logs, 10_000, 1000);
        concurrently(&fs, nodes, |number, token| {
            for round in 0..100 {
                // All threads use the same few names.
                let text = format!("f{}", (number + round) % 3);
                if let Ok(created) = create(&fs, &text, token) {
                    if fs.hold(created.ino, 2, token).is_ok() {
                        let _ = fs.write(created.ino, 100, &[3; 3 * PAGE], token);
                        fs.forget(created.ino, 1, token);
                        fs.forget(created.ino, 1, token);
                    }
                }
                if let Ok(found) = fs.lookup(Ino::ROOT, &name(&text), token) {
                    let _ = fs.write(found.ino, 0, &[4; 2 * PAGE], token);
                    let size = Some(PAGE as u64 + 1);
                    let _ = fs.set_attributes(found.ino, size, NewAttributes::default(), token);
                }
                let _ = fs.unlink(Ino::ROOT, name(&text), token);
            }
        });
        for text in ["f0", "f1", "f2"] {
            let _ = fs.with_token(|token| fs.unlink(Ino::ROOT, name(text), token));
        }
        let capacity = fs.capacity();
        assert_eq!((capacity.blocks_free, capacity.inodes_free), (10_000, 999));
        check_replicas(&fs);
    }
}

/// An access control list with this number of entries.
fn list(entries: u32) -> Box<[u8]> {
    let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat();
    let users = (4..entries).map(|id| entry(2, id));
    let entries = [entry(1, u32::MAX)].into_iter().chain(users).chain([4, 0x10, 0x20].map(|tag| entry(tag, u32::MAX)));
    [2_u32.to_le_bytes().to_vec()].into_iter().chain(entries).flatten().collect()
}

const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

#[test]
fn space_of_inodes_comes_back_whoever_took_it() {
    for (nodes, logs) in SHAPES {
        let fs = filesystem(nodes, logs, 10, 40);
        concurrently(&fs, nodes, |number, token| {
            for round in 0..200 {
                let text = |step: usize| name(&format!("f{}", (number + round + step) % 5));
                let node = match (number + round) % 3 {
                    0 => NewNode::File,
                    1 => NewNode::Directory,
                    _ => NewNode::Symlink(vec![b'x'; 2000].into()),
                };
                let made = fs.create(Ino::ROOT, text(0), new_inode(node), token);
                if let Ok(found) = made.or_else(|_| fs.lookup(Ino::ROOT, &text(1), token)) {
                    let _ = fs.link(found.ino, Ino::ROOT, text(2), token);
                    let _ = fs.set_xattr(found.ino, b"user.a"[..].into(), [7; 700].into(), XattrMode::Set, token);
                    let _ =
                        fs.set_attributes(found.ino, None, NewAttributes { uid: Some(5), ..Default::default() }, token);
                }
                let value = list(if round % 2 == 0 { 500 } else { 5 });
                let _ = fs.set_xattr(Ino::ROOT, DEFAULT_LIST.into(), value, XattrMode::Set, token);
                let mode = [RenameMode::Replace, RenameMode::Whiteout, RenameMode::Exchange][round % 3];
                let _ = fs.rename((Ino::ROOT, text(0)), (Ino::ROOT, text(3)), mode, OWNER, token);
                let _ = fs.unlink(Ino::ROOT, text(4), token);
                let _ = fs.remove_directory(Ino::ROOT, text(4), token);
            }
        });
        fs.with_token(|token| {
            for text in ["f0", "f1", "f2", "f3", "f4"].map(name) {
                let _ = fs.unlink(Ino::ROOT, text.clone(), token);
                let _ = fs.remove_directory(Ino::ROOT, text, token);
            }
            fs.remove_xattr(Ino::ROOT, DEFAULT_LIST.into(), token).unwrap();
        });
        assert_eq!(fs.capacity().inodes_free, 39);
        check_replicas(&fs);
    }
}

#[test]
fn what_would_take_more_space_than_there_is_changes_nothing() {
    let fs = filesystem(2, 1, 10, 10);
    fs.with_token(|token| {
        let directory = fs.create(Ino::ROOT, name("d"), new_inode(NewNode::Directory), token).unwrap().ino;
        let file = fs.create(directory, name("f"), new_inode(NewNode::File), token).unwrap().ino;
        let set = |value| fs.set_xattr(directory, DEFAULT_LIST.into(), value, XattrMode::Set, token);
        set(list(500)).unwrap();
        assert_eq!(fs.capacity().inodes_free, 3);
        let make = |text, node| fs.create(directory, name(text), new_inode(node), token);
        assert_eq!(make("file", NewNode::File), Err(Errno::ENOSPC), "it would inherit the list");
        assert_eq!(make("directory", NewNode::Directory), Err(Errno::ENOSPC), "twice");
        make("symlink", NewNode::Symlink(b"target"[..].into())).unwrap();
        fs.unlink(directory, name("symlink"), token).unwrap();
        let mut links = 0;
        while fs.link(file, directory, name(&format!("link {links}")), token).is_ok() {
            links += 1;
        }
        assert_eq!(fs.link(file, directory, name("link 0"), token), Err(Errno::EEXIST));
        assert_eq!((links, fs.capacity().inodes_free), (3, 0));
        assert_eq!(fs.attributes(file, token).unwrap().links, 4);
    });
    check_replicas(&fs);
}

#[test]
fn an_unlinked_file_lives_while_it_is_held() {
    let fs = filesystem(2, 4, 100, 10);
    fs.with_token(|token| {
        let ino = create(&fs, "f", token).unwrap().ino;
        fs.hold(ino, 3, token).unwrap();
        fs.unlink(Ino::ROOT, name("f"), token).unwrap();
        assert_eq!(fs.write(ino, 0, b"still here", token), Ok(10));
        fs.forget(ino, 2, token);
        assert_eq!(fs.attributes(ino, token).unwrap().links, 0);
        fs.forget(ino, 1, token);
        assert_eq!(fs.attributes(ino, token), Err(Errno::ENOENT));
        assert_eq!(fs.hold(ino, 1, token), Err(Errno::ENOENT));
        assert_eq!(fs.capacity().blocks_free, 100);
    });
}

#[test]
fn a_file_made_without_a_name_goes_when_it_is_forgotten_unless_it_was_linked() {
    let fs = filesystem(2, 4, 100, 10);
    fs.with_token(|token| {
        let inode = || NewInode::new(NewNode::File, 0o644, 0, Owner { uid: 0, gid: 0 });
        let [kept, lost] = [(); 2].map(|()| fs.create_nameless(Ino::ROOT, inode(), token).unwrap().attributes.ino);
        [kept, lost].iter().for_each(|&ino| assert_eq!(fs.write(ino, 0, b"content", token), Ok(7)));
        assert_eq!(fs.link(kept, Ino::ROOT, name("kept"), token).unwrap().links, 1);
        [kept, lost].iter().for_each(|&ino| fs.forget(ino, 1, token));
        assert_eq!(fs.attributes(lost, token), Err(Errno::ENOENT));
        assert_eq!(fs.lookup(Ino::ROOT, &name("kept"), token).unwrap().size, 7);
        assert_eq!((fs.capacity().blocks_free, fs.capacity().inodes_free), (99, 8));
        fs.unlink(Ino::ROOT, name("kept"), token).unwrap();
        assert_eq!((fs.capacity().blocks_free, fs.capacity().inodes_free), (100, 9));
    });
    check_replicas(&fs);
}

#[test]
fn inodes_run_out_with_an_errno_and_come_back() {
    let fs = filesystem(1, 1, 10, 3);
    fs.with_token(|token| {
        create(&fs, "a", token).unwrap();
        assert_eq!(create(&fs, "a", token), Err(Errno::EEXIST));
        create(&fs, "b", token).unwrap();
        assert_eq!(create(&fs, "c", token), Err(Errno::ENOSPC));
        fs.unlink(Ino::ROOT, name("a"), token).unwrap();
        create(&fs, "c", token).unwrap();
    });
}

#[test]
fn content_operations_are_for_files() {
    let fs = filesystem(1, 1, 10, 10);
    fs.with_token(|token| {
        assert_eq!(fs.read(Ino::ROOT, 0, &mut [0], token), Err(Errno::EISDIR));
        assert_eq!(fs.write(Ino(77), 0, b"x", token), Err(Errno::ENOENT));
        let fifo = fs.create(Ino::ROOT, name("p"), new_inode(NewNode::Fifo), token).unwrap();
        assert_eq!(fifo.kind, Kind::Fifo);
        assert_eq!(fs.write(fifo.ino, 0, b"x", token), Err(Errno::EINVAL));
        let file = create(&fs, "f", token).unwrap().ino;
        assert_eq!(fs.write(file, i64::MAX as u64, b"x", token), Err(Errno::EFBIG));
        assert_eq!(fs.write(file, i64::MAX as u64 - 1, b"xy", token), Ok(1));
        assert_eq!(fs.seek(file, 0, Whence::Hole, token), Ok(0));
        assert_eq!(fs.allocate(file, 0, 0, AllocateMode::Reserve, false, token), Err(Errno::EINVAL));
        assert_eq!(fs.allocate(file, 0, 11 * PAGE as u64, AllocateMode::Reserve, false, token), Err(Errno::ENOSPC));
    });
}

#[test]
fn a_change_stamps_the_times_that_are_its_own() {
    let fs = filesystem(1, 1, 1, 10);
    fs.with_token(|token| {
        let created = create(&fs, "f", token).unwrap();
        let set = |new| {
            // For longer than a tick of the coarse clock.
            thread::sleep(std::time::Duration::from_millis(20));
            fs.set_attributes(created.ino, None, new, token).unwrap()
        };
        let mode = Some(Permissions::from_mode(0o600));
        let late = Some(Time { seconds: 1 << 40, nanoseconds: 0 });
        let after = set(NewAttributes { permissions: mode, changed: late, ..NewAttributes::default() });
        assert_eq!((after.modified, Some(after.changed)), (created.modified, late), "chmod leaves mtime");

        let other = create(&fs, "g", token).unwrap();
        let modified = Some(Time { seconds: 5, nanoseconds: 0 });
        thread::sleep(std::time::Duration::from_millis(20));
        let new = NewAttributes { modified, ..NewAttributes::default() };
        let after = fs.set_attributes(other.ino, None, new, token).unwrap();
        assert_eq!((Some(after.modified), after.changed > other.changed), (modified, true), "utimensat stamps ctime");

        fs.write(created.ino, 0, &[1; PAGE], token).unwrap();
        let before = fs.attributes(other.ino, token).unwrap();
        assert_eq!(fs.write(other.ino, 0, b"x", token), Err(Errno::ENOSPC));
        assert_eq!(fs.attributes(other.ino, token), Ok(before), "what is refused leaves no trace");
    });
}

#[test]
fn a_refusal_names_what_is_wrong_before_it_names_a_limit() {
    let fs = filesystem(1, 1, 10, 2);
    fs.with_token(|token| {
        let file = create(&fs, "f", token).unwrap().ino;
        let make = |parent| fs.create(parent, name("f"), new_inode(NewNode::Directory), token);
        assert_eq!(make(Ino::ROOT), Err(Errno::EEXIST));
        assert_eq!(make(file), Err(Errno::ENOTDIR));
        assert_eq!(make(Ino(99)), Err(Errno::ENOENT));
        assert_eq!(create(&fs, "g", token), Err(Errno::ENOSPC));
        assert_eq!(fs.capacity().inodes_free, 0);
    });
}

#[test]
fn a_whiteout_costs_an_inode_only_where_it_is_made() {
    let fs = filesystem(1, 1, 10, 10);
    fs.with_token(|token| {
        let file = create(&fs, "a", token).unwrap().ino;
        fs.link(file, Ino::ROOT, name("b"), token).unwrap();
        let rename = |from, to| {
            fs.rename((Ino::ROOT, name(from)), (Ino::ROOT, name(to)), RenameMode::Whiteout, OWNER, token).unwrap();
        };
        rename("a", "b");
        assert_eq!(fs.capacity().inodes_free, 7);
        rename("a", "c");
        assert_eq!(fs.capacity().inodes_free, 6);
    });
}

#[test]
fn attributes_join_what_tree_and_content_know() {
    let fs = filesystem(2, 4, 100, 10);
    fs.with_token(|token| {
        let ino = create(&fs, "f", token).unwrap().ino;
        fs.write(ino, 2 * PAGE as u64, b"x", token).unwrap();
        let attributes = fs.attributes(ino, token).unwrap();
        assert_eq!((attributes.size, attributes.blocks), (2 * PAGE as u64 + 1, 8));
        let time = |seconds| Time { seconds, nanoseconds: 1 };
        let new = NewAttributes {
            permissions: Some(Permissions::from_mode(0o600)),
            accessed: Some(time(1)),
            modified: Some(time(2)),
            changed: Some(time(1 << 40)),
            ..NewAttributes::default()
        };
        let set = fs.set_attributes(ino, Some(5), new, token).unwrap();
        assert_eq!((set.mode(), set.size, set.blocks), (0o100600, 5, 0));
        assert_eq!((set.accessed, set.modified, set.changed), (time(1), time(2), time(1 << 40)));
        assert_eq!(fs.lookup(Ino::ROOT, &name("f"), token), Ok(set));
    });
}

#[test]
fn extended_attributes_take_space_of_inodes_until_they_are_gone() {
    let fs = filesystem(2, 1, 10, 10);
    fs.with_token(|token| {
        let ino = create(&fs, "f", token).unwrap().ino;
        let set = |name: &[u8], bytes: usize, mode| {
            let (name, value) = (name.into(), vec![0; bytes].into());
            fs.set_xattr(ino, name, value, mode, token).map(|()| fs.capacity().inodes_free)
        };
        // The name takes 6 bytes more, and the entry 40.
        assert_eq!(set(b"user.a", 1024 - 46, XattrMode::Set), Ok(7));
        assert_eq!(set(b"user.b", 1024 - 46 + 1, XattrMode::Create), Ok(5));
        assert_eq!(set(b"user.b", 10, XattrMode::Create), Err(Errno::EEXIST));
        assert_eq!(set(b"user.b", 6 * 1024, XattrMode::Replace), Err(Errno::ENOSPC), "the old one takes space, too");
        assert_eq!(set(b"user.b", 10, XattrMode::Replace), Ok(6));
        assert_eq!(set(b"user.c", 1 << 17, XattrMode::Set), Err(Errno::ENOSPC));
        fs.remove_xattr(ino, b"user.a"[..].into(), token).unwrap();
        assert_eq!(set(b"security.capability", 1024, XattrMode::Set), Ok(6));
        fs.kill_privileges(ino, Privileges::All, token).unwrap();
        assert_eq!(fs.capacity().inodes_free, 7);
        fs.unlink(Ino::ROOT, name("f"), token).unwrap();
        assert_eq!(fs.capacity().inodes_free, 9);
    });
    check_replicas(&fs);
}

#[test]
fn what_is_immutable_is_refused_as_such_also_where_there_is_no_room() {
    let fs = filesystem(2, 1, 10, 2);
    let token = fs.register(nr::NodeId(0));
    let ino = create(&fs, "a", &token).unwrap().ino;
    let set = |text: &[u8]| fs.set_xattr(ino, text.into(), b"v"[..].into(), XattrMode::Set, &token);
    assert_eq!(create(&fs, "b", &token), Err(Errno::ENOSPC));
    assert_eq!(set(b"user.a"), Err(Errno::ENOSPC));
    for ino in [ino, Ino::ROOT] {
        fs.set_flags(ino, InodeFlags::IMMUTABLE, &token).unwrap();
        assert_eq!(fs.attributes(ino, &token).unwrap().flags, InodeFlags::IMMUTABLE);
    }
    assert_eq!(create(&fs, "b", &token), Err(Errno::EPERM));
    assert_eq!(create(&fs, "a", &token), Err(Errno::EEXIST));
    assert_eq!(set(b"user.a"), Err(Errno::EPERM));
    check_replicas(&fs);
}
