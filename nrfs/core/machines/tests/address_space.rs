//! An address space against a plain model: each page of 4 KiB by itself.

use std::collections::BTreeMap;

use machines::address_space::{
    AddressSpace, Area, Change, Changed, Error, PageNumber, PageSize, Response, Rights, Run, WriteOperation,
};
use nr::Dispatch;
use proptest::prelude::*;
use smallvec::smallvec;

const KIB_4: u64 = 4096;
const MIB_2: u64 = 512 * KIB_4;
const GIB_1: u64 = 512 * MIB_2;
const READ_WRITE: Rights = Rights::READ.or(Rights::WRITE);

fn map(area: (u64, u64), page: PageSize, first: u64, replace: bool) -> WriteOperation {
    let area = Area::new(area.0, area.1).unwrap();
    WriteOperation { area, change: Change::Map { page, rights: READ_WRITE, first, owned: true, replace } }
}

fn unmap(address: u64, length: u64) -> WriteOperation {
    WriteOperation { area: Area::new(address, length).unwrap(), change: Change::Unmap }
}

fn protect(address: u64, length: u64, rights: Rights) -> WriteOperation {
    WriteOperation { area: Area::new(address, length).unwrap(), change: Change::Protect { rights } }
}

fn regions(space: &AddressSpace) -> Vec<(u64, u64, Rights)> {
    space
        .regions()
        .map(|(pages, rights)| (PageNumber(pages.start).address(), pages.end - pages.start, rights))
        .collect()
}

#[test]
fn an_area_is_refused_that_is_unaligned_or_not_canonical() {
    assert_eq!(Area::new(1, KIB_4), Err(Error::Unaligned));
    assert_eq!(Area::new(0, 0), Err(Error::Unaligned));
    assert_eq!(Area::new(0, 4095), Err(Error::Unaligned));
    assert_eq!(Area::new(1 << 47, KIB_4), Err(Error::NonCanonical));
    assert_eq!(Area::new((1 << 47) - KIB_4, 2 * KIB_4), Err(Error::NonCanonical), "over the hole");
    assert_eq!(Area::new(u64::MAX - 4095, 2 * KIB_4), Err(Error::NonCanonical), "behind the last page");
    assert_eq!(Area::new(u64::MAX - 4095, KIB_4).unwrap().len(), 1);
    assert_eq!(PageNumber::of(u64::MAX).unwrap().address(), u64::MAX - 4095);
    assert_eq!(AddressSpace::default().resolve(1 << 63).unwrap_err(), Error::NonCanonical);
}

#[test]
fn a_part_of_a_huge_page_that_goes_splits_it() {
    let mut space = AddressSpace::default();
    space.dispatch_mut(&map((GIB_1, GIB_1), PageSize::Huge1G, 512 * 512, false)).unwrap();
    let address = GIB_1 + 3 * MIB_2 + 5 * KIB_4;
    let changed = space.dispatch_mut(&unmap(address, KIB_4)).unwrap();
    assert_eq!(changed, Changed { freed: smallvec![Run { first: 512 * 512 + 3 * 512 + 5, frames: 1 }], outdated: 1 });
    assert_eq!(space.resolve(address).unwrap_err(), Error::NotMapped);
    assert_eq!(space.resolve(address + KIB_4).unwrap().page, PageSize::Small4K);
    assert_eq!(space.resolve(address + MIB_2).unwrap().page, PageSize::Large2M);
    assert_eq!(space.resolve(address + MIB_2).unwrap().physical(address + MIB_2 + 7), address + MIB_2 + 7);
    assert_eq!(space.pages().len(), 511 + 511);
}

#[test]
fn refused_operations_change_nothing() {
    let mut space = AddressSpace::default();
    space.dispatch_mut(&map((0, 2 * KIB_4), PageSize::Small4K, 0, false)).unwrap();
    let before = space.digest();
    let mut refuse = |operation: &WriteOperation, error| {
        assert_eq!(space.dispatch_mut(operation), Err(error));
        assert_eq!(space.digest(), before);
    };
    refuse(&map((KIB_4, 2 * KIB_4), PageSize::Small4K, 0, false), Error::Overlapping);
    refuse(&map((KIB_4, 512 * KIB_4), PageSize::Large2M, 0, true), Error::Unaligned);
    refuse(&map((MIB_2, MIB_2), PageSize::Large2M, 1, true), Error::Unaligned);
    refuse(&protect(KIB_4, 2 * KIB_4, Rights::READ), Error::NotMapped);
}

#[test]
fn regions_meet_at_the_hole_and_stay_two() {
    let mut space = AddressSpace::default();
    let (below, above) = ((1 << 47) - KIB_4, u64::MAX << 47);
    space.dispatch_mut(&map((below, KIB_4), PageSize::Small4K, 0, false)).unwrap();
    space.dispatch_mut(&map((above, KIB_4), PageSize::Small4K, 1, false)).unwrap();
    assert_eq!(regions(&space), [(below, 1, READ_WRITE), (above, 1, READ_WRITE)]);
}

/// What an address space should be: by page of 4 KiB, its frame, rights and whether the frame is owned.
#[derive(Default)]
struct Model(BTreeMap<u64, (u64, Rights, bool)>);

impl Model {
    fn apply(&mut self, operation: &WriteOperation) -> Result<(Vec<u64>, u64), Error> {
        let pages = operation.area.pages();
        let mut freed = Vec::new();
        let mut outdated = 0;
        match &operation.change {
            Change::Map { page, rights, first, owned, replace } => {
                if !operation.area.is_aligned(*page) {
                    return Err(Error::Unaligned);
                }
                if self.0.range(pages.clone()).next().is_some() && !replace {
                    return Err(Error::Overlapping);
                }
                for (page, frame) in pages.zip(*first..) {
                    if let Some((frame, _, true)) = self.0.insert(page, (frame, *rights, *owned)) {
                        freed.push(frame);
                    }
                }
            }
            Change::Unmap => {
                let gone: Vec<u64> = self.0.range(pages).map(|(&page, _)| page).collect();
                outdated = gone.len() as u64;
                freed.extend(
                    gone.iter().filter_map(|page| self.0.remove(page)).filter(|gone| gone.2).map(|gone| gone.0),
                );
            }
            Change::Protect { rights } => {
                if self.0.range(pages.clone()).count() as u64 != operation.area.len() {
                    return Err(Error::NotMapped);
                }
                for (_, page) in self.0.range_mut(pages) {
                    outdated += u64::from(page.1 != *rights);
                    page.1 = *rights;
                }
            }
        }
        Ok((freed, outdated))
    }

    fn regions(&self) -> Vec<(u64, u64, Rights)> {
        let mut regions: Vec<(u64, u64, Rights)> = Vec::new();
        for (&page, &(_, rights, _)) in &self.0 {
            match regions.last_mut() {
                Some((start, length, last)) if *start + *length == page && *last == rights => *length += 1,
                _ => regions.push((page, 1, rights)),
            }
        }
        regions.into_iter().map(|(start, length, rights)| (PageNumber(start).address(), length, rights)).collect()
    }
}

/// Operations in three neighbouring gigabytes, mostly on the edges of pages of all sizes.
fn operations() -> impl Strategy<Value = Vec<WriteOperation>> {
    let address = (0..3_u64, prop::sample::select(vec![0, 1, 2, 510, 511]), prop::sample::select(vec![0, 1, 2, 511]))
        .prop_map(|(huge, large, small)| huge * GIB_1 + large * MIB_2 + small * KIB_4);
    let length = prop_oneof![
        16 => (1..4_u64).prop_map(|pages| pages * KIB_4),
        8 => (1..3_u64).prop_map(|pages| pages * MIB_2),
        1 => Just(GIB_1),
    ];
    let change = (
        0..4_u8,
        prop::sample::select(vec![0_usize, 0, 0, 0, 1, 1, 1, 2]),
        0..8_u8,
        any::<bool>(),
        any::<bool>(),
        0..64_u64,
    );
    let operation =
        (address, length, change).prop_map(|(address, length, (kind, size, rights, owned, replace, frame))| {
            let page = PageSize::ALL[size];
            let round = if kind < 2 && rights != 0 { page.bytes() } else { KIB_4 };
            let area = Area::new(address / round * round, length.next_multiple_of(round)).unwrap();
            let (rights, first) = (Rights::from_bits(rights), frame * PageSize::Huge1G.pages());
            let change = match kind {
                0 | 1 => Change::Map { page, rights, first, owned, replace },
                2 => Change::Unmap,
                _ => Change::Protect { rights },
            };
            WriteOperation { area, change }
        });
    prop::collection::vec(operation, 1..12)
}

fn summary(response: Response) -> Result<(Vec<u64>, u64), Error> {
    response.map(|changed| {
        (changed.freed.iter().flat_map(|run| run.first..run.first + run.frames).collect(), changed.outdated)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_does_to_each_page_what_the_model_says(operations in operations()) {
        let (mut space, mut model) = (AddressSpace::default(), Model::default());
        for operation in &operations {
            let replaces = matches!(operation.change, Change::Map { .. });
            let (answer, expected) = (summary(space.dispatch_mut(operation)), model.apply(operation));
            // The model does not count the translations of replaced pages.
            match (answer, expected) {
                (Ok((freed, _)), Ok((expected, _))) if replaces => prop_assert_eq!(freed, expected),
                (answer, expected) => prop_assert_eq!(answer, expected),
            }
            prop_assert_eq!(regions(&space), model.regions());
        }
        let mut pages = BTreeMap::new();
        for mapping in space.pages() {
            for part in 0..mapping.page.pages() {
                pages.insert(mapping.start.0 + part, (mapping.frame + part, mapping.rights, mapping.owned));
            }
        }
        prop_assert_eq!(&pages, &model.0);
        for &page in model.0.keys().step_by(997) {
            let address = PageNumber(page).address() + 5;
            prop_assert_eq!(space.resolve(address).unwrap().physical(address), (model.0[&page].0 << 12) + 5);
        }
    }
}
