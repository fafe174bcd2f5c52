//! The limit on file content, as users write it.

use std::fmt;
use std::str::FromStr;

use memory::Topology;

/// An amount of memory, as people write it: `4096`, `8G`, `50%` of the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes of content, counted once.
    Bytes(u64),
    /// So many hundredths of the memory of each hardware node that has replicas, for all its replicas together.
    Percent(u64),
}

/// The text is not an amount of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSizeError(String);

impl fmt::Display for ParseSizeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bad size '{}': give bytes, with k, m, g or t behind it, or a percentage of memory", self.0)
    }
}

impl std::error::Error for ParseSizeError {}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let bad = || ParseSizeError(text.into());
        let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
        let number: u64 = digits.parse().map_err(|_| bad())?;
        let shift = match &text[digits.len()..] {
            "" => 0,
            "k" | "K" => 10,
            "m" | "M" => 20,
            "g" | "G" => 30,
            "t" | "T" => 40,
            "%" if number <= Self::PERCENT_MAX => return Ok(Self::Percent(number)),
            _ => return Err(bad()),
        };
        number.checked_mul(1 << shift).map(Self::Bytes).ok_or_else(bad)
    }
}

impl Size {
    /// As on tmpfs, a limit may be higher than the machine's memory; this bounds it.
    const PERCENT_MAX: u64 = 1000;

    /// The bytes that it allows each replica. All replicas have the same content: so a percentage is of the hardware
    /// node that has the least memory for each of its replicas.
    pub fn bytes(self, topology: &Topology) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => part_of(percent, topology.hosts().map(|(node, guests)| (node.memory, guests))),
        }
    }

    /// The bytes that it allows one copy, whose pages come from all hardware nodes that have replicas.
    pub fn bytes_of_one_copy(self, topology: &Topology) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => topology.hosts().map(|(node, _)| node.memory / 100 * percent).sum(),
        }
    }
}

/// So many hundredths of the memory of that node which has the least for each of its replicas. By node: bytes of its
/// memory, and how many replicas are there.
fn part_of(percent: u64, nodes: impl Iterator<Item = (u64, usize)>) -> u64 {
    nodes.map(|(memory, replicas)| memory / 100 * percent / replicas as u64).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_mount_options_write_them() {
        let cases = [("4096", 4096), ("1k", 1024), ("8G", 8 << 30), ("3m", 3 << 20), ("1T", 1 << 40)];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size::Bytes(bytes)), "{text}");
        }
        assert_eq!("50%".parse(), Ok(Size::Percent(50)));
        for bad in ["", "G", "-1", "1.5G", "1GB", "12 k", "99999999999T", "0x10", "1001%"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_percentage_is_of_the_node_with_the_least_memory_for_each_replica_and_not_of_the_sum() {
        assert_eq!(part_of(50, [(64 << 30, 1), (4 << 30, 1)].into_iter()), part_of(50, [(4 << 30, 1)].into_iter()));
        assert_eq!(part_of(100, [(6400, 4), (3200, 1)].into_iter()), 1600);
        let (one, four) = (Topology::emulated(1).unwrap(), Topology::emulated(4).unwrap());
        assert_eq!((Size::Bytes(5).bytes(&one), Size::Bytes(5).bytes(&four)), (5, 5));
        if one.hardware().nodes.len() == 1 {
            let whole = Size::Percent(100).bytes(&one);
            assert!(one.hardware().nodes[0].memory.abs_diff(whole) < 100);
            assert_eq!(Size::Percent(100).bytes(&four), whole / 4);
        }
    }
}
