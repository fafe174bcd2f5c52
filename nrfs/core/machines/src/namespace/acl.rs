//! Access control lists: rights for further users and groups, besides the owner, the group and all others.
//!
//! A list has an entry for each of the three classes that a mode has bits for, and may name more users
//! and groups. Those it names, and the owning group, get only rights that its *mask* has, too. The mode shows
//! part of a list: its group bits are the mask, or, if there is none, the owning group's entry. So a change
//! of the list changes the mode, and the reverse.
//!
//! Inodes that are made in a directory with a *default* list begin with that list, and ignore the umask.
//!
//! The kernel checks access. This module parses and writes lists, and keeps them consistent with modes.
//!
//! Source: POSIX 1003.1e, draft 17, section 23, and acl(5); the bytes are those of Linux's
//! `posix_acl_xattr.h`.

use std::iter;

use crate::types::{Errno, Permissions};

/// Rights to read, write and execute, as the three bits of a class in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights(u8);

/// A user that a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Uid(u32);

/// A group that a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gid(u32);

/// A list. It always has the three entries of a mode, and a mask if it names any user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    owner: Rights,
    users: Box<[(Uid, Rights)]>,
    group: Rights,
    groups: Box<[(Gid, Rights)]>,
    mask: Option<Rights>,
    other: Rights,
}

/// A list and a mode.
impl Acl {
    /// Whether it says no more than a mode does.
    pub fn is_minimal(&self) -> bool {
        self.mask.is_none()
    }

    /// `permissions` with the rights that this list gives to the three classes.
    pub fn shown_in(&self, permissions: Permissions) -> Permissions {
        permissions.with_classes([self.owner, self.mask.unwrap_or(self.group), self.other].map(|Rights(bits)| bits))
    }

    /// Gives the three classes the rights of a mode, as chmod(2) does.
    pub fn show(&mut self, permissions: Permissions) {
        let [owner, group, other] = permissions.classes().map(Rights);
        self.owner = owner;
        *self.mask.as_mut().unwrap_or(&mut self.group) = group;
        self.other = other;
    }

    /// The list and the permissions of an inode that is made with `permissions` in a directory whose default
    /// list this is. Each class has the rights that both give it.
    pub fn inherited(&self, permissions: Permissions) -> (Self, Permissions) {
        let left = permissions.and(self.shown_in(permissions));
        let mut list = self.clone();
        list.show(left);
        (list, left)
    }
}

/// A list as bytes: a version, and an entry of eight bytes each for
/// `owner user... group named-group... mask? other`, all in little-endian order.
impl Acl {
    const VERSION: u32 = 2;
    /// The id in an entry that names no user or group.
    const NOBODY: u32 = u32::MAX;

    /// Reads a list; `None` if it has no entries. EINVAL or EOPNOTSUPP as from Linux if it is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Errno> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (version, entries) = bytes.split_first_chunk().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != Self::VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let entries = entries.chunks(Entry::BYTES).map(Entry::parse).collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let mut entries = entries.into_iter().peekable();
        let mut next = |tag| entries.next_if(|entry| entry.tag == tag);
        let owner = next(Tag::Owner).ok_or(Errno::EINVAL)?.rights;
        let users = iter::from_fn(|| next(Tag::User)).map(|entry| (Uid(entry.id), entry.rights)).collect();
        let group = next(Tag::Group).ok_or(Errno::EINVAL)?.rights;
        let groups = iter::from_fn(|| next(Tag::NamedGroup)).map(|entry| (Gid(entry.id), entry.rights)).collect();
        let mask = next(Tag::Mask).map(|entry| entry.rights);
        let other = next(Tag::Other).ok_or(Errno::EINVAL)?.rights;
        let list = Self { owner, users, group, groups, mask, other };
        let names_nobody = list.users.is_empty() && list.groups.is_empty();
        let is_sound = entries.next().is_none() && (list.mask.is_some() || names_nobody);
        is_sound.then_some(Some(list)).ok_or(Errno::EINVAL)
    }

    /// The length of [`bytes`](Self::bytes).
    pub fn len_in_bytes(&self) -> usize {
        let entries = 3 + self.users.len() + self.groups.len() + usize::from(self.mask.is_some());
        size_of_val(&Self::VERSION) + entries * Entry::BYTES
    }

    /// Writes the list.
    pub fn bytes(&self) -> Vec<u8> {
        let entry = |tag, rights| Entry { tag, rights, id: Self::NOBODY };
        let users = self.users.iter().map(|&(Uid(id), rights)| Entry { tag: Tag::User, rights, id });
        let groups = self.groups.iter().map(|&(Gid(id), rights)| Entry { tag: Tag::NamedGroup, rights, id });
        let entries = iter::once(entry(Tag::Owner, self.owner))
            .chain(users)
            .chain(iter::once(entry(Tag::Group, self.group)))
            .chain(groups)
            .chain(self.mask.map(|rights| entry(Tag::Mask, rights)))
            .chain(iter::once(entry(Tag::Other, self.other)));
        Self::VERSION.to_le_bytes().into_iter().chain(entries.flat_map(Entry::bytes)).collect()
    }
}

/// The class, or the kind of user, that an entry is for, with its number in the format.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    Group = 0x04,
    NamedGroup = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    const ALL: [Self; 6] = [Self::Owner, Self::User, Self::Group, Self::NamedGroup, Self::Mask, Self::Other];
}

/// One entry, as it is written.
struct Entry {
    tag: Tag,
    rights: Rights,
    id: u32,
}

impl Entry {
    const BYTES: usize = 8;

    fn parse(bytes: &[u8]) -> Result<Self, Errno> {
        let &[tag_0, tag_1, rights, 0, id_0, id_1, id_2, id_3] = bytes else { return Err(Errno::EINVAL) };
        let (tag, id) = (u16::from_le_bytes([tag_0, tag_1]), u32::from_le_bytes([id_0, id_1, id_2, id_3]));
        let tag = Tag::ALL.into_iter().find(|&known| known as u16 == tag).ok_or(Errno::EINVAL)?;
        let must_name = matches!(tag, Tag::User | Tag::NamedGroup);
        if rights > 0o7 || must_name && id == Acl::NOBODY {
            return Err(Errno::EINVAL);
        }
        Ok(Self { tag, rights: Rights(rights), id })
    }

    fn bytes(self) -> [u8; Self::BYTES] {
        let ([tag_0, tag_1], [id_0, id_1, id_2, id_3]) = ((self.tag as u16).to_le_bytes(), self.id.to_le_bytes());
        [tag_0, tag_1, self.rights.0, 0, id_0, id_1, id_2, id_3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A list written as acl(5) does in short: `u::rwx,u:1000:r-x,g::r--,g:7:---,m::rwx,o::---`.
    fn bytes(text: &str) -> Vec<u8> {
        let entry = |entry: &str| {
            let fields: Vec<&str> = entry.split(':').collect();
            let tag = match (fields[0], fields[1]) {
                ("u", "") => Tag::Owner,
                ("u", _) => Tag::User,
                ("g", "") => Tag::Group,
                ("g", _) => Tag::NamedGroup,
                ("m", _) => Tag::Mask,
                _ => Tag::Other,
            };
            let rights = fields[2].bytes().fold(0, |bits, letter| bits << 1 | u8::from(letter != b'-'));
            Entry { tag, rights: Rights(rights), id: fields[1].parse().unwrap_or(Acl::NOBODY) }.bytes()
        };
        Acl::VERSION.to_le_bytes().into_iter().chain(text.split(',').flat_map(entry)).collect()
    }

    fn list(text: &str) -> Acl {
        Acl::parse(&bytes(text)).unwrap().unwrap()
    }

    fn mode(bits: u32) -> Permissions {
        Permissions::from_mode(bits)
    }

    #[test]
    fn a_list_has_its_entries_in_order_and_a_mask_if_it_names_anybody() {
        for sound in [
            "u::rwx,g::r-x,o::---",
            "u::rwx,g::r-x,m::rwx,o::---",
            "u::rwx,u:5:r--,u:4:rw-,u:5:---,g::r-x,m::rwx,o::---",
            "u::rwx,g::r-x,g:9:r--,m::rwx,o::---",
        ] {
            assert_eq!(list(sound).bytes(), bytes(sound));
        }
        for unsound in [
            "u::rwx",
            "u::rwx,g::r-x",
            "g::r-x,u::rwx,o::---",
            "u::rwx,u::rwx,g::r-x,o::---",
            "u::rwx,u:5:r--,g::r-x,o::---",
            "u::rwx,g::r-x,g:9:r--,o::---",
            "u::rwx,g:9:r--,g::r-x,m::rwx,o::---",
            "u::rwx,g::r-x,m::rwx,m::rwx,o::---",
            "u::rwx,g::r-x,o::---,o::---",
        ] {
            assert_eq!(Acl::parse(&bytes(unsound)), Err(Errno::EINVAL), "{unsound}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused_as_the_kernel_does() {
        let whole = bytes("u::rwx,u:5:r--,g::r-x,m::rwx,o::---");
        assert_eq!(Acl::parse(b""), Ok(None));
        assert_eq!(Acl::parse(&whole[..4]), Ok(None));
        for length in (1..4).chain(5..whole.len()) {
            assert_eq!(Acl::parse(&whole[..length]), Err(Errno::EINVAL), "{length} bytes");
        }
        // The version, a tag, the rights, and a user's id.
        for (place, value, errno) in [(0, 1, Errno::EOPNOTSUPP), (4, 3, Errno::EINVAL), (6, 8, Errno::EINVAL)] {
            let mut other = whole.clone();
            other[place] = value;
            assert_eq!(Acl::parse(&other), Err(errno));
        }
        let mut other = whole.clone();
        other[16..20].fill(0xff);
        assert_eq!(Acl::parse(&other), Err(Errno::EINVAL));
    }

    #[test]
    fn the_group_bits_of_a_mode_are_the_mask_where_there_is_one() {
        let (mut minimal, mut extended) = (list("u::rw-,g::r--,o::---"), list("u::rw-,u:5:rwx,g::rwx,m::r--,o::---"));
        assert_eq!(minimal.shown_in(mode(0o6777)), mode(0o6640));
        assert_eq!(extended.shown_in(mode(0o1777)), mode(0o1640));
        assert!(minimal.is_minimal() && !extended.is_minimal());
        minimal.show(mode(0o751));
        extended.show(mode(0o751));
        assert_eq!(minimal, list("u::rwx,g::r-x,o::--x"));
        assert_eq!(extended, list("u::rwx,u:5:rwx,g::rwx,m::r-x,o::--x"));
    }

    #[test]
    fn what_is_made_has_the_rights_that_the_default_and_its_mode_share() {
        let (made, permissions) = list("u::rwx,u:5:rwx,g::rwx,m::rwx,o::r-x").inherited(mode(0o4644));
        assert_eq!((made, permissions), (list("u::rw-,u:5:rwx,g::rwx,m::r--,o::r--"), mode(0o4644)));
        let (made, permissions) = list("u::r-x,g::rwx,o::---").inherited(mode(0o666));
        assert_eq!((made, permissions), (list("u::r--,g::rw-,o::---"), mode(0o460)));
    }

    fn any_list() -> impl Strategy<Value = Acl> {
        let rights = || (0..8_u8).prop_map(Rights);
        let users = prop::collection::vec(((0..u32::MAX).prop_map(Uid), rights()), 0..3);
        let groups = prop::collection::vec(((0..u32::MAX).prop_map(Gid), rights()), 0..3);
        (rights(), users, rights(), groups, prop::option::of(rights()), rights()).prop_map(
            |(owner, users, group, groups, mask, other)| {
                let needs_mask = !users.is_empty() || !groups.is_empty();
                let mask = mask.or(needs_mask.then_some(Rights(0)));
                Acl { owner, users: users.into(), group, groups: groups.into(), mask, other }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_list_that_is_written_reads_the_same(list in any_list()) {
            prop_assert_eq!(list.bytes().len(), list.len_in_bytes());
            prop_assert_eq!(Acl::parse(&list.bytes()), Ok(Some(list)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Acl::parse(&bytes);
        }

        #[test]
        fn a_list_and_its_mode_agree_whichever_is_set(list in any_list(), bits in 0..0o10000_u32) {
            let mut changed = list.clone();
            changed.show(mode(bits));
            prop_assert_eq!(changed.shown_in(mode(bits)), mode(bits));
            prop_assert_eq!((&changed.users, &changed.groups), (&list.users, &list.groups));
            prop_assert_eq!(changed.is_minimal(), list.is_minimal());
            let (made, left) = list.inherited(mode(bits));
            prop_assert_eq!(made.shown_in(left), left);
            prop_assert_eq!(left.bits() & !bits, 0, "nothing is given that was not asked for");
            prop_assert_eq!(left.bits() & !list.shown_in(mode(bits)).bits(), 0, "nor what the default withholds");
        }
    }
}
