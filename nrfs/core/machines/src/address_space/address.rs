//! Addresses, areas, pages, rights and errors.

use std::fmt;
use std::ops::Range;

/// Log2 of the bytes in the smallest page.
pub const PAGE_SHIFT: u32 = 12;

/// Log2 of the entries in a page table.
pub const TABLE_SHIFT: u32 = 9;

/// Bits of an address that are translated. The bits above must equal the highest of them.
const ADDRESS_BITS: u32 = 48;

/// The number of the first page above the hole in the middle of the address space.
const UPPER_HALF: u64 = 1 << (ADDRESS_BITS - PAGE_SHIFT - 1);

/// How many pages there are: one more than the highest number.
const PAGES: u64 = 1 << (ADDRESS_BITS - PAGE_SHIFT);

/// Why an operation was refused. It has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An address, a length or a frame is not a multiple of the page size, or the length is zero.
    Unaligned,
    /// An address is not canonical, or an area reaches beyond the last address or into the hole in the middle.
    NonCanonical,
    /// Something is mapped there, and may not be replaced.
    Overlapping,
    /// Nothing is mapped there, or not everywhere in the area.
    NotMapped,
    /// The rights of the mapping do not allow it.
    Denied,
    /// No frames are left.
    NoMemory,
    /// A view shows the memory there, and the change would take it away.
    Viewed,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unaligned => "not a positive multiple of the page size",
            Self::NonCanonical => "not a canonical address, or no room behind it",
            Self::Overlapping => "something is mapped there",
            Self::NotMapped => "nothing is mapped there",
            Self::Denied => "what is mapped there may not be used so",
            Self::NoMemory => "no frames are left",
            Self::Viewed => "a view shows what is mapped there",
        })
    }
}

impl std::error::Error for Error {}

/// The number of a 4 KiB page, counted from the lowest address to the highest, without the hole between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub u64);

impl PageNumber {
    /// The page of an address.
    pub fn of(address: u64) -> Result<Self, Error> {
        let extension = 64 - ADDRESS_BITS;
        if ((address << extension) as i64 >> extension) as u64 != address {
            return Err(Error::NonCanonical);
        }
        Ok(Self((address >> PAGE_SHIFT) & (PAGES - 1)))
    }

    /// The first address of the page.
    pub fn address(self) -> u64 {
        let extension = 64 - ADDRESS_BITS;
        ((self.0 << PAGE_SHIFT << extension) as i64 >> extension) as u64
    }
}

/// Contiguous pages in one half of the address space, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area(Range<u64>);

impl Area {
    /// The pages of the whole address space.
    pub(crate) const ALL_PAGES: Range<u64> = 0..PAGES;

    /// The pages of the `length` bytes from `address` on.
    pub fn new(address: u64, length: u64) -> Result<Self, Error> {
        let start = PageNumber::of(address)?.0;
        let whole = (1 << PAGE_SHIFT) - 1;
        if address & whole != 0 || length & whole != 0 || length == 0 {
            return Err(Error::Unaligned);
        }
        let half_end = if start < UPPER_HALF { UPPER_HALF } else { PAGES };
        let pages = length >> PAGE_SHIFT;
        if pages > half_end - start {
            return Err(Error::NonCanonical);
        }
        Ok(Self(start..start + pages))
    }

    /// The page of size `page` that holds page `number`.
    pub fn around(number: PageNumber, page: PageSize) -> Self {
        let start = number.0 & !(page.pages() - 1);
        Self(start..start + page.pages())
    }

    /// The numbers of its pages.
    pub fn pages(&self) -> Range<u64> {
        self.0.clone()
    }

    /// How many pages it has.
    pub fn len(&self) -> u64 {
        self.0.end - self.0.start
    }

    /// Always false: an area has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether it consists of whole pages of that size.
    pub fn is_aligned(&self, page: PageSize) -> bool {
        (self.0.start | self.0.end) & (page.pages() - 1) == 0
    }

    /// Its first `pages` pages, or all if it has fewer. 0 counts as 1.
    pub fn first(&self, pages: u64) -> Self {
        Self(self.0.start..self.0.end.min(self.0.start + pages.max(1)))
    }

    /// This area and `behind` as one, if `behind` begins where this one ends, and in the same half.
    pub fn joined(&self, behind: &Self) -> Option<Self> {
        let touch = self.0.end == behind.0.start && is_inside_a_half(behind.0.start);
        touch.then_some(Self(self.0.start..behind.0.end))
    }

    /// The part of it that is in `pages`, if any.
    pub fn intersection(&self, pages: &Range<u64>) -> Option<Self> {
        let (start, end) = (self.0.start.max(pages.start), self.0.end.min(pages.end));
        (start < end).then_some(Self(start..end))
    }
}

/// Whether pages `number - 1` and `number` may belong to one region: false if the hole is between them.
pub(crate) fn is_inside_a_half(number: u64) -> bool {
    number != UPPER_HALF
}

/// The sizes of a page. Each is the size that an entry covers at one level of the page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PageSize {
    Small4K,
    Large2M,
    Huge1G,
}

impl PageSize {
    /// From the smallest to the largest.
    pub const ALL: [Self; 3] = [Self::Small4K, Self::Large2M, Self::Huge1G];

    /// The level of the tables whose entries are pages of this size, from 0.
    pub fn level(self) -> u32 {
        self as u32
    }

    /// The size in pages of 4 KiB.
    pub fn pages(self) -> u64 {
        1 << (TABLE_SHIFT * self.level())
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        self.pages() << PAGE_SHIFT
    }
}

/// How a page may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Nothing: the page is mapped, and every use of it is refused.
    pub const NONE: Self = Self(0);
    /// Loads.
    pub const READ: Self = Self(1);
    /// Stores.
    pub const WRITE: Self = Self(2);
    /// Instruction fetches.
    pub const EXECUTE: Self = Self(4);

    /// From the lowest three bits.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// Read 1, write 2, execute 4.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The rights that either has.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is allowed.
    pub fn allow(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::EXECUTE, "x")] {
            formatter.write_str(if self.allow(right) { letter } else { "-" })?;
        }
        Ok(())
    }
}

/// Contiguous frames of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the first.
    pub first: u64,
    /// How many.
    pub frames: u64,
}
