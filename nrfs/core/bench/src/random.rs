//! Random numbers that cost next to nothing beside what is measured.

/// The generator of one thread: xorshift64, of Marsaglia, "Xorshift RNGs" (Journal of Statistical Software, 2003).
pub struct Random(u64);

impl Random {
    /// Threads draw different numbers, and each the same ones in every run.
    pub fn of_thread(thread: usize) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ (thread as u64 + 1))
    }

    /// Any number but 0.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number from 0 to `end` - 1; `end` is at most 2^32.
    pub fn below(&mut self, end: u64) -> u64 {
        // A product instead of a remainder: a division would take longer than all the rest here.
        ((self.number() >> 32) * end) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_a_limit_is_drawn_and_no_other() {
        let mut random = Random::of_thread(0);
        let mut drawn = [false; 7];
        (0..1000).for_each(|_| drawn[random.below(7) as usize] = true);
        assert_eq!(drawn, [true; 7]);
    }
}
