//! Which log a part of the address space belongs to.
//!
//! The address space is cut into slices of 1 GiB, the size of the largest page. Slice `n` belongs to log `n` modulo the
//! number of logs.

use std::ops::Range;

use machines::address_space::{Area, PageNumber, PageSize, WriteOperation};
use nr::{LogId, LogMapper};

/// The log mapper of the address space.
pub(crate) struct BySlice;

impl BySlice {
    pub fn log_of(page: PageNumber, logs: usize) -> LogId {
        LogId((slice(page.0) % logs as u64) as usize)
    }

    /// Whether pages of an area belong to several logs.
    pub fn spans_logs(area: &Area, logs: usize) -> bool {
        let Range { start, end } = area.pages();
        logs > 1 && slice(start) != slice(end - 1)
    }

    /// The logs that pages of an area belong to.
    pub fn logs(area: &Area, logs: usize) -> impl Iterator<Item = LogId> {
        let Range { start, end } = Self::slices(&area.pages());
        (start..end.min(start + logs as u64)).map(move |slice| LogId((slice % logs as u64) as usize))
    }

    /// The slices that these pages, at least one, belong to.
    pub fn slices(pages: &Range<u64>) -> Range<u64> {
        slice(pages.start)..slice(pages.end - 1) + 1
    }

    /// The pages of a slice.
    pub fn pages(slice: u64) -> Range<u64> {
        let pages = PageSize::Huge1G.pages();
        slice * pages..(slice + 1) * pages
    }
}

fn slice(page: u64) -> u64 {
    page / PageSize::Huge1G.pages()
}

impl LogMapper<WriteOperation> for BySlice {
    fn log(&self, operation: &WriteOperation, logs: usize) -> LogId {
        Self::log_of(PageNumber(operation.area.pages().start), logs)
    }
}
