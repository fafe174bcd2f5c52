//! Where the files of a measurement are. Each core has a directory of its own, and all share one.

/// The directory that all cores share.
pub const SHARED: &[u8] = b"shared";

/// The file in it that all cores share.
pub const SHARED_FILE: &[u8] = b"shared/file";

/// How many names deep the files are that are asked for.
pub const DEPTH: usize = 5;

/// How many names each directory of the shared tree has.
pub const BRANCHES: u64 = 8;

/// The directory of a core.
pub fn own(core: usize) -> Vec<u8> {
    format!("{core:04}").into()
}

/// The file of a core.
pub fn own_file(core: usize) -> Vec<u8> {
    format!("{core:04}/file").into()
}

/// What the names begin with that a core makes in the shared directory.
pub fn mine(core: usize) -> String {
    format!("{core:04}-")
}

/// The directories above the file of a core that is five names deep, from the top down; and that file.
pub fn deep(core: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
    let path = |depth: usize| format!("{core:04}{}", "/0".repeat(depth)).into();
    ((1..DEPTH - 1).map(path).collect(), path(DEPTH - 1))
}

/// Paths that differ in a number at their end, written in place, as to format them would take longer.
pub struct Numbered {
    path: Vec<u8>,
    number: u64,
}

const DIGITS: usize = 8;

impl Numbered {
    pub fn new(beginning: &str) -> Self {
        Self { path: [beginning.as_bytes(), &[b'0'; DIGITS]].concat(), number: 0 }
    }

    /// The path of this number. It takes least for the number after the last one.
    pub fn at(&mut self, number: u64) -> &[u8] {
        let digits = self.path.len() - DIGITS;
        if number == self.number + 1 {
            for digit in self.path[digits..].iter_mut().rev() {
                if *digit < b'9' {
                    *digit += 1;
                    break;
                }
                *digit = b'0';
            }
        } else if number != self.number {
            self.path[digits..].copy_from_slice(format!("{:0DIGITS$}", number % 10_u64.pow(DIGITS as u32)).as_bytes());
        }
        self.number = number;
        &self.path
    }
}

/// The paths of the shared tree, likewise.
pub struct Tree(Vec<u8>);

impl Tree {
    pub fn new() -> Self {
        Self([SHARED, &b"/0".repeat(DEPTH)].concat())
    }

    /// A file of the tree, of which any number is one.
    pub fn file(&mut self, mut number: u64) -> &[u8] {
        for digit in self.0[SHARED.len()..].iter_mut().skip(1).step_by(2) {
            *digit = b'0' + (number % BRANCHES) as u8;
            number /= BRANCHES;
        }
        &self.0
    }

    /// All directories of the tree from the top down, and all its files.
    pub fn all() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut levels = vec![vec![SHARED.to_owned()]];
        for _ in 0..DEPTH {
            let mut below = Vec::new();
            for parent in levels.last().into_iter().flatten() {
                below.extend((0..BRANCHES).map(|name| [parent, format!("/{name}").as_bytes()].concat()));
            }
            levels.push(below);
        }
        let files = levels.pop().unwrap_or_default();
        (levels.into_iter().skip(1).flatten().collect(), files)
    }
}

#[cfg(test)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_at_the_end() {
        let mut paths = Numbered::new("shared/0001-");
        for number in [1234, 0, 1, 1, 9, 10, 11, 99_999_999, 100_000_000, 100_000_001, 7] {
            let expected = format!("shared/0001-{:08}", number % 100_000_000);
            assert_eq!(paths.at(number), expected.as_bytes());
        }
    }

    #[test]
    fn numbers_lead_to_all_files_of_the_tree() {
        let (directories, mut files) = Tree::all();
        assert_eq!((directories.len(), files.len()), (8 + 64 + 512 + 4096, 32768));
        let mut tree = Tree::new();
        let mut found: Vec<Vec<u8>> = (0..32768).map(|number| tree.file(number).to_owned()).collect();
        found.sort();
        files.sort();
        assert_eq!(found, files);
    }

    #[test]
    fn the_file_of_a_core_is_five_names_deep() {
        let (directories, file) = deep(3);
        assert_eq!(file.split(|&byte| byte == b'/').count(), DEPTH);
        assert_eq!(directories, [&b"0003/0"[..], b"0003/0/0", b"0003/0/0/0"]);
    }
}
