//! The kernel's list format of cpuset(7): `0-3,8,10-11`.

/// The numbers of a list, as they stand there. What is no number is left out.
pub(super) fn parse(list: &str) -> Vec<usize> {
    let parse_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    list.trim().split(',').filter_map(parse_range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_cpu_list_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse("0-2,5,7-8\n"), [0, 1, 2, 5, 7, 8]);
        assert_eq!(parse("\n"), []);
    }
}
