//! What is in the pages of a file: where a page is, and who wrote it. So it shows in what was read whether it is from
//! there, and whether a page is as one write left it.

use std::ops::Range;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Bytes at the beginning of a page that say where it is.
const MARK: usize = size_of::<u64>();

/// A page by a writer, whose number all its bytes are: it is yet to be [`mark`]ed.
pub fn of(writer: usize) -> [u8; PAGE] {
    [byte_of(writer); PAGE]
}

/// Makes it the page at this offset in a file, in bytes.
pub fn mark(page: &mut [u8; PAGE], offset: u64) {
    page[..MARK].copy_from_slice(&offset.to_le_bytes());
}

/// Whether `bytes` are what is in a file from `offset` on, a multiple of [`PAGE`], where each page is as one of
/// `writers` left it. They may end within a page.
pub fn are_right(bytes: &[u8], offset: u64, writers: Range<usize>) -> bool {
    let offsets = (offset..).step_by(PAGE);
    bytes.chunks(PAGE).zip(offsets).all(|(page, offset)| {
        let (mark, rest) = page.split_at(page.len().min(MARK));
        let is_marked = mark == &offset.to_le_bytes()[..mark.len()];
        let is_by_a_writer = rest.first().is_none_or(|&byte| writers.clone().any(|writer| byte_of(writer) == byte));
        // Each byte is as the next. To compare slices is quicker than to go through the bytes.
        is_marked && is_by_a_writer && (rest.is_empty() || rest[1..] == rest[..rest.len() - 1])
    })
}

/// Whether `bytes` may be what is in a file from `offset` on, a multiple of [`PAGE`], while `writers` write there: they
/// are at most a page, and each byte is as one of the writers left it. A kernel lets a read see half of a write.
pub fn may_be_there(bytes: &[u8], offset: u64, writers: usize) -> bool {
    let last = byte_of(writers.min(255) - 1);
    // No short cut, so that many bytes are compared at once.
    let is_by_writers = |bytes: &[u8]| bytes.iter().fold(true, |right, &byte| right & (byte.wrapping_sub(1) < last));
    is_marked(bytes, offset) && is_by_writers(&bytes[MARK..])
}

/// Makes `bytes`, at least 8, those of no page, so that it shows whether a page is read into them.
pub fn unmark(bytes: &mut [u8]) {
    bytes[..MARK].fill(0xff);
}

/// Whether `bytes`, at least 8, begin as the page at `offset` in a file does.
pub fn is_marked(bytes: &[u8], offset: u64) -> bool {
    bytes[..MARK] == offset.to_le_bytes()
}

/// Never 0, which is what a hole reads as. Of more than 255 writers some have the same.
fn byte_of(writer: usize) -> u8 {
    (writer % 255) as u8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(writer: usize, offset: u64) -> [u8; PAGE] {
        let mut page = of(writer);
        mark(&mut page, offset);
        page
    }

    #[test]
    fn pages_of_known_writers_are_right_where_they_were_written() {
        let bytes = [page(0, 8192), page(1, 12288)].concat();
        for length in [0, 1, 7, 8, 9, 4096, 4097, 8192] {
            assert!(are_right(&bytes[..length], 8192, 0..2), "{length}");
        }
        assert!(!are_right(&bytes, 8192, 0..1));
        assert!(!are_right(&bytes, 0, 0..2));
    }

    #[test]
    fn half_of_a_write_is_right_only_while_writers_write() {
        let mut half = page(0, 4096);
        half[2000..].fill(page(1, 0)[MARK]);
        assert!(may_be_there(&half, 4096, 2));
        assert!(!may_be_there(&half, 4096, 1));
        assert!(!may_be_there(&half, 0, 2));
        half[3000] = 0;
        assert!(!may_be_there(&half, 4096, 2));
    }

    #[test]
    fn a_page_of_two_writes_is_wrong_and_so_is_a_hole() {
        let mut torn = page(0, 0);
        torn[PAGE - 1] = of(1)[0];
        assert!(!are_right(&torn, 0, 0..2));
        assert!(!are_right(&[0; PAGE], 0, 0..2));
    }
}
