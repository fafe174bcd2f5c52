//! Tests a server with random and malformed requests, on a real file system.
//!
//! Each request must get one well-formed reply, without a panic, a hang or unbounded memory, and the replicas must stay
//! equal. `PROPTEST_CASES` sets how many sequences of requests are tried.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use filesystem::{Configuration, ContentPlace, Filesystem, NodeId, Owner, Permissions, Size, Token, Topology};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zerocopy::{FromBytes, IntoBytes};

use crate::channel::{Origin, ReplyTo};
use crate::kernel::Kernel;
use crate::latency::Latencies;
use crate::native::{COPY_MAX, Native};
use crate::negotiation::{Negotiation, native_terms};
use crate::protocol::handshake::{self, Agreement, InitFlags, Offer, Terms};
use crate::protocol::opcode::Opcode;
use crate::protocol::reply;
use crate::protocol::request::Request;
use crate::protocol::wire::{
    AttrReply, CountReply, Dirent, EntryReply, ExtendedFlags, GetxattrArguments, InitReply, IoctlReply, OffsetReply,
    OpenReply, ReadArguments, ReplyHeader, RequestHeader, SetattrValid, StatfsReply, StatxReply,
};
use crate::python::Python;
use crate::server::{Outcome, Server};
use crate::steward::Steward;

/// Pages of the file system: enough for most sequences, but so few that some fill it.
const PAGES: u64 = 300;

/// Bytes of addresses that the whole process may map.
const ADDRESS_SPACE: u64 = 3 << 30;

/// Features that a kernel may offer.
const OFFERS: &[InitFlags] = &[InitFlags::empty(), InitFlags::SETXATTR_EXT, InitFlags::all()];

/// Bytes of the buffer for a reply. The kernel's is larger.
const ROOM: usize = 1 << 16;

/// The largest error number that the kernel accepts.
const ERRNO_MAX: i32 = 4095;

/// One request: made of valid parts, and then damaged.
#[derive(Clone, Debug)]
struct Message {
    opcode: u32,
    node: u64,
    uid: u32,
    extensions: u16,
    argument: Vec<u8>,
    payload: Vec<u8>,
    damage: Vec<Damage>,
    in_parts: bool,
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Byte(Index, u8),
    /// Sets the length in the header.
    Length(u32),
    Extra(Vec<u8>),
}

impl Message {
    fn bytes(&self, unique: u64) -> Vec<u8> {
        let header = RequestHeader {
            length: (size_of::<RequestHeader>() + self.argument.len() + self.payload.len()) as u32,
            opcode: self.opcode,
            unique,
            node: self.node,
            uid: self.uid,
            gid: self.uid,
            pid: 1,
            extensions: self.extensions,
            padding: 0,
        };
        let mut message = [header.as_bytes(), &self.argument, &self.payload].concat();
        for damage in &self.damage {
            match damage {
                Damage::Cut(index) => message.truncate(index.index(message.len() + 1)),
                Damage::Byte(index, byte) if !message.is_empty() => *index.get_mut(&mut message) = *byte,
                Damage::Byte(..) => {}
                Damage::Length(length) if message.len() >= 4 => message[..4].copy_from_slice(length.as_bytes()),
                Damage::Length(_) => {}
                Damage::Extra(extra) => message.extend(extra),
            }
        }
        message
    }
}

/// Numbers that have a meaning in some request: types, flags, and sizes and offsets near limits.
fn any_number() -> impl Strategy<Value = u64> {
    const MODES: &[u32] = &[
        libc::S_IFREG | 0o644,
        libc::S_IFDIR | 0o2775,
        libc::S_IFLNK | 0o777,
        libc::S_IFIFO | 0o600,
        libc::S_IFCHR | 0o4755,
        libc::S_IFMT | 0o7777,
    ];
    const ENDS: &[u64] =
        &[4095, 4096, 4097, 1 << 16, 1 << 20, 999_999_999, 1 << 30, 1 << 31, 1 << 40, 1 << 62, 1 << 63, u64::MAX];
    /// FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and their longer forms, in the half of a word where IOCTL has its command.
    const COMMANDS: &[u64] = &[0x8008_6601 << 32, 0x4008_6602 << 32, 0x801c_581f << 32, 0x401c_5820 << 32];
    let word = prop_oneof![2 => 0..16_u32, 1 => select(MODES), 1 => any::<u32>()];
    prop_oneof![
        6 => 0..16_u64,
        2 => select(MODES).prop_map(u64::from),
        1 => select(COMMANDS),
        3 => (select(ENDS), 0..3_u64).prop_map(|(end, before)| end - before),
        2 => (word.clone(), word).prop_map(|(low, high)| u64::from(low) | u64::from(high) << 32),
    ]
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    const ENTRIES: &[&str] = &["a", "b", "c", "d", "e"];
    const XATTRS: &[&str] = &[
        "user.a",
        "user.b",
        "trusted.a",
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.other",
        "nothing.",
    ];
    const NO_NAMES: &[&str] = &["", ".", "..", "a/b", "/"];
    let one_of = |names: &'static [&str]| select(names).prop_map(|name| name.as_bytes().to_vec());
    prop_oneof![
        8 => one_of(ENTRIES),
        2 => one_of(XATTRS),
        1 => one_of(NO_NAMES),
        1 => select(&[254_usize, 255, 256, 4096]).prop_map(|length| vec![b'n'; length]),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

fn any_data() -> impl Strategy<Value = Vec<u8>> {
    /// An access control list with one entry for each class of users, in the format of `posix_acl_xattr.h`.
    const ACCESS_LIST: &[u8] =
        b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x04\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
    prop_oneof![
        2 => Just(Vec::new()),
        2 => Just(ACCESS_LIST.to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..64),
        2 => (0..3 * 4096_usize).prop_map(|length| vec![0xa5; length]),
        1 => prop::collection::vec(0..20_u64, 0..8).prop_map(|words| words.as_bytes().to_vec()),
    ]
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        any::<(Index, u8)>().prop_map(|(index, byte)| Damage::Byte(index, byte)),
        any::<u32>().prop_map(Damage::Length),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Damage::Extra),
    ]
}

/// A message. Most are valid, so that there are inodes that others can be about.
fn any_message() -> impl Strategy<Value = Message> {
    const NUMBERS_OF_THE_LARGEST: usize = 11;
    let opcode = prop_oneof![30 => select(Opcode::ALL).prop_map(number_of), 1 => any::<u32>()];
    let node = prop_oneof![6 => Just(1), 12 => 1..8_u64, 1 => any_number()];
    let numbers = prop::collection::vec(any_number(), NUMBERS_OF_THE_LARGEST);
    let names = prop::collection::vec((any_name(), prop::bool::weighted(0.98)), 3);
    let has_usual_names = prop::bool::weighted(0.9);
    let damage = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any_damage(), 1..4)];
    let rest = (any::<bool>(), select(&[0, 0, 0, 1, 3, u16::MAX]), select(&[0, 0, 1000, u32::MAX]));
    (opcode, node, numbers, names, has_usual_names, any_data(), damage, rest).prop_map(
        |(opcode, node, numbers, mut names, has_usual_names, data, damage, (in_parts, extensions, uid))| {
            let size = Opcode::from_number(opcode).map_or(0, Opcode::argument_size);
            if has_usual_names {
                names.truncate(Opcode::from_number(opcode).map_or(0, usual_names));
            }
            let mut payload = Vec::new();
            for (name, ends) in names {
                payload.extend(name);
                payload.extend(ends.then_some(0));
            }
            payload.extend(data);
            let argument = numbers.as_bytes()[..size].to_vec();
            Message { opcode, node, uid, extensions, argument, payload, damage, in_parts }
        },
    )
}

/// How many names a valid request has behind its arguments.
fn usual_names(opcode: Opcode) -> usize {
    match opcode {
        Opcode::Rename | Opcode::Rename2 | Opcode::Symlink => 2,
        Opcode::Lookup | Opcode::Mknod | Opcode::Mkdir | Opcode::Create | Opcode::Link => 1,
        Opcode::Unlink | Opcode::Rmdir | Opcode::Setxattr | Opcode::Getxattr | Opcode::Removexattr => 1,
        _ => 0,
    }
}

/// Valid messages that make files, a directory and a symlink.
fn beginning() -> impl Iterator<Item = Message> {
    let made = [
        (Opcode::Mknod, vec![libc::S_IFREG | 0o644, 0, 0, 0], &b"a\0"[..]),
        (Opcode::Mknod, vec![libc::S_IFREG | 0o4755, 0, 0, 0], b"b\0"),
        (Opcode::Mkdir, vec![0o755, 0], b"c\0"),
        (Opcode::Symlink, vec![], b"d\0target\0"),
    ];
    made.into_iter().map(|(opcode, words, payload)| whole(opcode, 1, words.as_bytes(), payload))
}

/// A valid request of root's.
fn whole(opcode: Opcode, node: u64, argument: &[u8], payload: &[u8]) -> Message {
    Message {
        opcode: number_of(opcode),
        node,
        uid: 0,
        extensions: 0,
        argument: argument.to_vec(),
        payload: payload.to_vec(),
        damage: Vec::new(),
        in_parts: false,
    }
}

fn number_of(opcode: Opcode) -> u32 {
    (0..64).find(|&number| Opcode::from_number(number) == Some(opcode)).expect("the opcodes are below 64")
}

/// The agreement with a kernel that offers `offered`, if all features are wanted.
fn agreement(offered: InitFlags) -> Agreement {
    let mut reply = [[0; size_of::<ReplyHeader>()].as_slice(), InitReply::default().as_bytes()].concat();
    let terms = Terms { kept: InitFlags::empty(), wanted: InitFlags::all(), data: ROOM };
    handshake::conclude(&mut reply, Offer { unique: 1, flags: offered }, terms).unwrap()
}

fn filesystem(pages: u64) -> Filesystem {
    Filesystem::new(Configuration {
        topology: Topology::emulated(2).unwrap(),
        content: ContentPlace::Replicated,
        logs: 2,
        size: Size::Bytes(pages << 12),
        inodes: Some(20),
        permissions: Permissions::from_mode(0o755),
        owner: Owner { uid: 0, gid: 0 },
    })
    .unwrap()
}

/// A server of `filesystem`, and the sockets that stand for its kernel and for pyfuse3. Nothing reads from them.
fn server(filesystem: Filesystem, caching: bool, offered: InitFlags) -> (Server, [OwnedFd; 2]) {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let (python, pyfuse3) = Python::new().unwrap();
    let (native, kernel) =
        (Arc::new(Native::new(Arc::new(filesystem), caching, None)), Arc::new(Kernel::of(&ours).unwrap()));
    native.agree(agreement(offered));
    let steward = Some(Arc::new(Steward::new(Arc::clone(&native), Arc::clone(&kernel), Arc::default(), true)));
    let negotiation = Negotiation::new(native_terms(caching, true, false));
    (
        Server {
            native,
            kernel,
            steward,
            python,
            forwarded: Latencies::new(),
            trace: Arc::default(),
            negotiation,
            is_native: true,
        },
        [theirs, pyfuse3],
    )
}

/// An origin that must get no reply: the threads that would give one do not run.
struct Nowhere;

impl ReplyTo for Nowhere {
    fn deliver(&self, _: &[u8]) {
        panic!("nobody replies later");
    }
}

/// Serves a message as a worker does. Returns the reply; `None` if there is none, or another thread would give it.
fn serve(server: &Server, message: &Message, unique: u64, token: &Token) -> Option<Vec<u8>> {
    let extended = server.native.has(InitFlags::SETXATTR_EXT);
    let bytes = message.bytes(unique);
    let whole = Request::from_message(&bytes, extended)?;
    let argument_size = whole.opcode().map_or(0, Opcode::argument_size) + if extended { 8 } else { 0 };
    let (header, behind) = bytes.split_at(size_of::<RequestHeader>());
    let (argument, payload) = behind.split_at(argument_size.min(behind.len()));
    let request =
        if message.in_parts { Request::from_parts(header, argument, payload, extended).unwrap() } else { whole };

    let forwarded = request.to_message();
    assert_eq!(forwarded[..4], (forwarded.len() as u32).to_ne_bytes());
    let mut buffer = vec![0xee; ROOM];
    let origin: Origin = Arc::new(Nowhere);
    let packed = match server.serve(request, &origin, true, &mut None, token) {
        Ok(Outcome::NoReply | Outcome::Left) => return None,
        Ok(Outcome::Reply(answer)) => server.native.pack(answer, &mut buffer, token),
        Err(errno) => Err(errno),
    };
    let header = reply::header(request.unique(), packed);
    let data = &buffer[..packed.unwrap_or(0)];
    assert!((-ERRNO_MAX..=0).contains(&header.error));
    assert_eq!(header.length as usize, size_of::<ReplyHeader>() + data.len());
    if packed.is_ok() {
        check(request, data);
    }
    Some([header.as_bytes(), data].concat())
}

/// Asserts that the kernel would accept the data of a reply to `request`.
fn check(request: Request, data: &[u8]) {
    let (entry, opened) = (size_of::<EntryReply>(), size_of::<OpenReply>());
    let size = match request.opcode().expect("what is not known is not answered") {
        Opcode::Lookup | Opcode::Mknod | Opcode::Mkdir | Opcode::Symlink | Opcode::Link => entry,
        Opcode::Create | Opcode::Tmpfile => entry + opened,
        Opcode::Open | Opcode::Opendir => opened,
        Opcode::Getattr | Opcode::Setattr => size_of::<AttrReply>(),
        Opcode::Statx => size_of::<StatxReply>(),
        Opcode::Statfs => size_of::<StatfsReply>(),
        Opcode::Write | Opcode::CopyFileRange => size_of::<CountReply>(),
        Opcode::Lseek | Opcode::CopyFileRange64 => size_of::<OffsetReply>(),
        Opcode::Ioctl => {
            let out_max = size_of::<IoctlReply>() + size_of::<ExtendedFlags>();
            return assert!((size_of::<IoctlReply>()..=out_max).contains(&data.len()));
        }
        Opcode::Readlink => return assert!(data.len() < libc::PATH_MAX as usize),
        Opcode::Getxattr | Opcode::Listxattr => {
            let GetxattrArguments { size, .. } = request.argument().unwrap();
            if size > 0 {
                return assert!(data.len() <= size as usize);
            }
            size_of::<CountReply>()
        }
        Opcode::Read => {
            let ReadArguments { size, .. } = request.argument().unwrap();
            return assert!(data.len() <= size as usize);
        }
        Opcode::Readdir | Opcode::Readdirplus => {
            let ReadArguments { size, .. } = request.argument().unwrap();
            assert!(data.len() <= size as usize);
            return check_listing(data, if request.opcode() == Some(Opcode::Readdirplus) { entry } else { 0 });
        }
        _ => 0,
    };
    assert_eq!(data.len(), size, "{:?}", request.opcode());
}

/// Asserts that a listing has only whole entries, each behind `about` bytes, and no name twice.
fn check_listing(mut data: &[u8], about: usize) {
    let mut names = HashSet::new();
    while !data.is_empty() {
        let (dirent, behind) = Dirent::read_from_prefix(&data[about..]).unwrap();
        let length = dirent.name_length as usize;
        assert!(names.insert(&behind[..length]));
        data = &behind[length.next_multiple_of(8)..];
    }
}

/// Limits the addresses of the process, so that it ends if a request takes unbounded memory.
fn bound_memory() {
    let bound = Rlimit { current: Some(ADDRESS_SPACE), maximum: getrlimit(Resource::As).maximum };
    setrlimit(Resource::As, bound).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_requests_get_well_formed_replies_and_leave_the_replicas_alike(
        messages in prop::collection::vec(any_message(), 1..40),
        (caching, offered) in (any::<bool>(), select(OFFERS)),
    ) {
        bound_memory();
        let (server, _others) = server(filesystem(PAGES), caching, offered);
        let filesystem = server.filesystem();
        let tokens = [0, 1].map(|node| filesystem.register(NodeId(node)));
        for (unique, message) in beginning().chain(messages).enumerate() {
            let unique = unique as u64;
            if let Some(reply) = serve(&server, &message, unique, &tokens[unique as usize % 2]) {
                let is_damaged = !message.damage.is_empty();
                prop_assert!(is_damaged || reply::unique(&reply) == Some(unique));
            }
        }
        let capacity = filesystem.capacity();
        prop_assert!(capacity.blocks_free <= capacity.blocks && capacity.inodes_free <= capacity.inodes);
        for log in filesystem.verify(&tokens[0]) {
            prop_assert_eq!(log.digests[0], log.digests[1], "{}", log.log);
        }
    }

    #[test]
    fn any_bytes_are_a_request_or_none(
        bytes in prop::collection::vec(any::<u8>(), 0..300), opcode in 0..64_u32, extended in any::<bool>(),
    ) {
        let mut bytes = bytes;
        if let Some(field) = bytes.get_mut(4..8) {
            field.copy_from_slice(opcode.as_bytes());
        }
        let request = Request::from_message(&bytes, extended);
        prop_assert_eq!(request.is_some(), bytes.len() >= size_of::<RequestHeader>());
        if let Some(request) = request {
            let _ = (request.names(), request.name(), request.entry_name(), request.data(opcode));
            let _ = (request.kills_privileges(), request.setxattr_extension(), handshake::offer(request));
            prop_assert!(request.forgotten().map_or(0, Iterator::count) <= bytes.len());
            prop_assert!(request.to_message().len() <= bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_a_reply_to_the_handshake_or_none(
        bytes in prop::collection::vec(any::<u8>(), 0..120), flags in any::<u64>(),
    ) {
        let flags = InitFlags::from_bits_retain(flags);
        let mut concluded = bytes.clone();
        let terms = Terms { kept: flags, wanted: !flags, data: ROOM };
        let agreement = handshake::conclude(&mut concluded, Offer { unique: 1, flags }, terms);
        prop_assert_eq!(concluded.len(), bytes.len());
        prop_assert!(agreement.is_some() || concluded == bytes);
    }
}

#[test]
fn a_copy_of_any_length_is_bounded() {
    let (server, _others) = server(filesystem(2 * (COPY_MAX >> 12)), true, InitFlags::all());
    let token = server.filesystem().register(NodeId(0));
    let (from, to) = (2_u64, 3_u64);
    let size = [u64::from(SetattrValid::SIZE.bits()), 0, 1 << 40, 0, 0, 0, 0, 0, 0, 0, 0];
    let copy = [0, 0, to, 0, 0, u64::MAX, 0];
    let messages = [
        whole(Opcode::Setattr, from, size.as_bytes(), b""),
        whole(Opcode::CopyFileRange64, from, copy.as_bytes(), b""),
    ];
    let replies = beginning().chain(messages).map(|message| serve(&server, &message, 1, &token).unwrap());
    assert_eq!(replies.last().unwrap()[size_of::<ReplyHeader>()..], COPY_MAX.to_ne_bytes());
}
