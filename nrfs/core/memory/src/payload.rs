//! The bytes that an operation carries.

use std::fmt;
use std::ops::Deref;
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that an operation carries: its own, or lent by a caller that waits until the operation has been dropped. To
/// lend them saves a copy, and the memory for it.
pub struct Payload(Bytes);

enum Bytes {
    Own(Box<[u8]>),
    Lent { bytes: NonNull<[u8]>, is_back: NonNull<AtomicBool> },
}

// SAFETY: lent bytes are only read, by any thread, and stay until `is_back` is set, which is an atomic.
unsafe impl Send for Payload {}
// SAFETY: as above.
unsafe impl Sync for Payload {}

/// Ends the process if lent bytes are not back when it is dropped: they are about to be used for something else.
struct Loan(AtomicBool);

impl Drop for Loan {
    fn drop(&mut self) {
        // Acquire: the last use of the bytes happens before the lender uses them again.
        if !self.0.load(Ordering::Acquire) {
            eprintln!("memory: bytes that were lent to an operation are not back; the process ends here");
            process::abort();
        }
    }
}

impl Payload {
    /// Lends `bytes` to an operation that `work` makes of the payload. `work` must not return before the payload has
    /// been dropped, on whatever thread; otherwise the process ends.
    pub fn lend<R>(bytes: &[u8], work: impl FnOnce(Self) -> R) -> R {
        let loan = Loan(AtomicBool::new(false));
        work(Self(Bytes::Lent { bytes: NonNull::from(bytes), is_back: NonNull::from(&loan.0) }))
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Bytes::Lent { is_back, .. } = self.0 {
            // SAFETY: the loan lives until this is stored, and the payload does not touch it afterwards. Release: see
            // `Loan`.
            unsafe { is_back.as_ref() }.store(true, Ordering::Release);
        }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Own(bytes) => bytes,
            // SAFETY: the lender's borrow lasts until this payload is dropped.
            Bytes::Lent { bytes, .. } => unsafe { bytes.as_ref() },
        }
    }
}

impl<T: Into<Box<[u8]>>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Self(Bytes::Own(bytes.into()))
    }
}

/// The copy owns its bytes.
impl Clone for Payload {
    fn clone(&self) -> Self {
        (**self).into()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn lent_bytes_can_be_read_elsewhere_until_they_are_back() {
        let bytes = [1, 2, 3];
        let (copy, sum) = Payload::lend(&bytes, |payload| {
            let copy = payload.clone();
            (copy, thread::spawn(move || payload.iter().sum::<u8>()).join().unwrap())
        });
        assert_eq!((&*copy, sum), (&bytes[..], 6));
    }

    #[test]
    fn a_panic_of_the_lender_passes_when_the_bytes_are_back() {
        std::panic::catch_unwind(|| Payload::lend(&[1], |payload| assert!(payload.is_empty()))).unwrap_err();
    }
}
