//! The content of files against a plain model: the bytes, and which pages are there.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use machines::content::{AllocateMode, Change, Changed, Content, SIZE_MAX, WriteOperation, pages_touched};
use machines::types::{Errno, Ino, Time};
use memory::{Arena, PAGE_SIZE, Pool};
use nr::Dispatch;
use proptest::prelude::*;

const PAGE: u64 = PAGE_SIZE as u64;
const FILE: Ino = Ino(9);

fn content() -> Content {
    Content::new(Arena::new(Arc::new(Pool::new(None))))
}

fn change(content: &mut Content, change: Change) -> Result<Changed, Errno> {
    content.dispatch_mut(&WriteOperation { ino: FILE, time: Time::default(), change })
}

fn write(offset: u64, data: &[u8], grant: u64) -> Change {
    Change::Write { offset, data: data.into(), grant, fills: true }
}

fn truncate(size: u64) -> Change {
    Change::SetAttributes { size: Some(size), modified: None, changed: None }
}

fn read_all(content: &Content) -> Vec<u8> {
    let size = content.attributes(FILE).map_or(0, |attributes| attributes.size) as usize;
    let mut bytes = vec![0xee; size + 10];
    assert_eq!(content.read(FILE, 0, &mut bytes), size);
    bytes.truncate(size);
    bytes
}

#[test]
fn a_file_that_was_never_touched_is_empty() {
    let content = content();
    assert_eq!(content.attributes(FILE), None);
    assert_eq!(content.read(FILE, 0, &mut [0; 10]), 0);
    assert_eq!(content.next_hole(FILE, 0), Err(Errno::ENXIO));
}

#[test]
fn a_write_is_cut_short_exactly_where_its_grant_ends() {
    let mut content = content();
    let data = vec![7; 3 * PAGE_SIZE];
    let done = change(&mut content, write(100, &data, 2)).unwrap();
    assert_eq!((done.written, done.taken), (2 * PAGE_SIZE - 100, 2));
    let done = change(&mut content, write(100, &data, 0)).unwrap();
    assert_eq!((done.written, done.taken), (2 * PAGE_SIZE - 100, 0), "what is there can be written again");
    let done = change(&mut content, write(10 * PAGE, &data, 0)).unwrap();
    assert_eq!(done, Changed::default());
    assert_eq!(content.attributes(FILE).unwrap().size, 2 * PAGE);
}

#[test]
fn a_sparse_file_takes_only_the_pages_that_were_written() {
    let mut content = content();
    change(&mut content, write(SIZE_MAX - 1, b"x", 1)).unwrap();
    assert_eq!(change(&mut content, write(SIZE_MAX, b"x", 1)), Err(Errno::EFBIG));
    assert_eq!(change(&mut content, truncate(SIZE_MAX + 1)), Err(Errno::EFBIG));
    let attributes = content.attributes(FILE).unwrap();
    assert_eq!((attributes.size, attributes.pages), (SIZE_MAX, 1));
    assert_eq!(content.next_data(FILE, 5), Ok(SIZE_MAX - SIZE_MAX % PAGE));
    assert_eq!(change(&mut content, truncate(1)).unwrap().freed, 1);
}

#[test]
fn all_or_nothing_is_allocated() {
    let mut content = content();
    let allocate = |grant| Change::Allocate { range: 0..5 * PAGE, mode: AllocateMode::Reserve, keep_size: true, grant };
    assert_eq!(change(&mut content, allocate(4)), Err(Errno::ENOSPC));
    assert_eq!(content.attributes(FILE), None);
    assert_eq!(change(&mut content, allocate(5)).unwrap().taken, 5);
    assert_eq!(change(&mut content, allocate(0)).unwrap().taken, 0);
    assert_eq!(content.attributes(FILE).unwrap().size, 0);
    assert_eq!(change(&mut content, truncate(0)).unwrap().freed, 5);
}

/// What a file should be.
#[derive(Default)]
struct Model {
    bytes: Vec<u8>,
    /// The pages that take space.
    pages: BTreeSet<u64>,
    /// The pages with data; the other pages that take space are only reserved.
    written: BTreeSet<u64>,
}

impl Model {
    fn resize(&mut self, size: u64) {
        self.bytes.resize(size as usize, 0);
    }

    fn touched(range: &Range<u64>) -> Range<u64> {
        if range.is_empty() { 0..0 } else { range.start / PAGE..range.end.div_ceil(PAGE) }
    }

    fn missing(&self, range: &Range<u64>) -> Vec<u64> {
        Self::touched(range).filter(|page| !self.pages.contains(page)).collect()
    }

    fn apply(&mut self, change: &Change) -> Result<Changed, Errno> {
        let mut done = Changed::default();
        match change {
            Change::Write { offset, data, grant, fills } => {
                let mut end = offset + data.len() as u64;
                for page in Self::touched(&(*offset..end)) {
                    let is_missing = !self.pages.contains(&page);
                    if is_missing && done.taken == *grant || !is_missing && !fills && !self.written.contains(&page) {
                        end = (page * PAGE).max(*offset);
                        break;
                    }
                    done.taken += u64::from(is_missing);
                    self.pages.insert(page);
                }
                done.written = (end - offset) as usize;
                self.written.extend(Self::touched(&(*offset..end)));
                if self.bytes.len() < end as usize && done.written > 0 {
                    self.resize(end);
                }
                self.bytes[..].get_mut(*offset as usize..end as usize).into_iter().for_each(|part| {
                    part.copy_from_slice(&data[..done.written]);
                });
            }
            Change::SetAttributes { size: Some(size), .. } => {
                if *size <= self.bytes.len() as u64 {
                    let before = self.pages.len();
                    self.pages.retain(|page| page * PAGE < *size);
                    done.freed = (before - self.pages.len()) as u64;
                }
                self.resize(*size);
            }
            Change::Allocate { range, mode, keep_size, grant } => {
                if range.is_empty() {
                    return Err(Errno::EINVAL);
                }
                let missing = self.missing(range);
                if *mode != AllocateMode::PunchHole && missing.len() as u64 > *grant {
                    return Err(Errno::ENOSPC);
                }
                if *mode != AllocateMode::Reserve {
                    let end = (range.end as usize).min(self.bytes.len());
                    self.bytes[..].get_mut(range.start as usize..end).into_iter().for_each(|part| part.fill(0));
                }
                if *mode == AllocateMode::PunchHole {
                    let before = self.pages.len();
                    self.pages.retain(|page| page * PAGE < range.start || (page + 1) * PAGE > range.end);
                    done.freed = (before - self.pages.len()) as u64;
                } else {
                    done.taken = missing.len() as u64;
                    self.pages.extend(missing);
                }
                if !keep_size && self.bytes.len() < range.end as usize {
                    self.resize(range.end);
                }
            }
            Change::SetAttributes { .. } | Change::GiveBackMemory { .. } => {}
            Change::Drop => {
                done.freed = self.pages.len() as u64;
                *self = Self::default();
            }
        }
        self.written.retain(|page| self.pages.contains(page));
        Ok(done)
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let offset = || prop_oneof![0..8 * PAGE, (0..8_u64).prop_map(|page| page * PAGE)];
    let grant = || prop_oneof![4 => Just(100_u64), 1 => 0..3_u64];
    let data = (1_u8.., 0..3 * PAGE_SIZE).prop_map(|(byte, length)| vec![byte; length].into_boxed_slice());
    let mode = prop_oneof![
        Just((AllocateMode::Reserve, false)),
        Just((AllocateMode::Reserve, true)),
        Just((AllocateMode::PunchHole, true)),
        Just((AllocateMode::ZeroRange, false)),
        Just((AllocateMode::ZeroRange, true)),
    ];
    prop_oneof![
        4 => (offset(), data, grant(), prop::bool::weighted(0.8))
            .prop_map(|(offset, data, grant, fills)| Change::Write { offset, data: data.into(), grant, fills }),
        2 => offset().prop_map(truncate),
        3 => (offset(), offset(), mode, grant()).prop_map(|(start, length, (mode, keep_size), grant)| {
            Change::Allocate { range: start..start + length, mode, keep_size, grant }
        }),
        1 => Just(Change::Drop),
        1 => any::<bool>().prop_map(|surplus| Change::GiveBackMemory { surplus }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_changes_leave_what_a_plain_model_has(changes in prop::collection::vec(any_change(), 1..40)) {
        let (mut content, mut replica, mut model) = (content(), content(), Model::default());
        let mut pages = 0;
        for operation in changes {
            let expected = model.apply(&operation);
            let done = change(&mut content, operation.clone());
            prop_assert_eq!(done, expected);
            prop_assert_eq!(change(&mut replica, operation), expected);
            if let Ok(done) = done {
                pages = pages + done.taken - done.freed;
            }
            prop_assert_eq!(&read_all(&content), &model.bytes);
            prop_assert_eq!(pages, model.pages.len() as u64);
            prop_assert_eq!(content.attributes(FILE).map_or(0, |attributes| attributes.pages), pages);
            for offset in [0, 1, PAGE, 3 * PAGE + 7] {
                let there = |page: &u64| model.written.contains(page);
                let size = model.bytes.len() as u64;
                let from = offset / PAGE..size.div_ceil(PAGE);
                let data = from.clone().find(there).map(|page| offset.max(page * PAGE));
                prop_assert_eq!(content.next_data(FILE, offset).ok(), data.filter(|_| offset < size));
                let hole = from.clone().find(|page| !there(page)).map_or(size, |page| offset.max(page * PAGE));
                prop_assert_eq!(content.next_hole(FILE, offset).ok(), (offset < size).then_some(hole));
                let range = offset..offset + 2 * PAGE;
                prop_assert_eq!(content.missing(FILE, &range), model.missing(&range).len() as u64);
                prop_assert!(content.missing(FILE, &range) <= pages_touched(&range));
            }
        }
        prop_assert_eq!(content.digest(), replica.digest());
    }
}
