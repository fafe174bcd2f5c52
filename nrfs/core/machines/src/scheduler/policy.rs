//! How many cores each process gets.
//!
//! Shares are max-min fair, by progressive filling (Bertsekas & Gallager, "Data Networks", 1992, section 6.5.2):
//! no process gets more than it wants, and none could get more except at the cost of one that has no more. Cores are
//! whole. Cores that are left over after an even division (*odd* cores) go to processes that want more, one each, in
//! the order of a queue. A process that gets one goes to the end of the queue, and at the end of each quantum the odd
//! cores go to the front of the queue. So every other process passes a waiting one at most once.

use super::ProcessId;

/// What a process wants.
pub(super) struct Claim {
    pub process: ProcessId,
    /// Cores that it wants in all.
    pub wanted: usize,
    /// Cores that it has now.
    pub held: usize,
    /// Its place in the queue for odd cores, the lowest first.
    pub turn: u64,
}

/// What a process gets.
pub(super) struct Share {
    pub process: ProcessId,
    pub cores: usize,
    /// Whether one of them is an odd core: then the process goes to the end of the queue.
    pub odd: bool,
}

/// Divides `cores` among processes. A process that has an odd core keeps it, unless `quantum_over`: then only the queue
/// decides. In the result, those with an odd core come last, in the order of the queue.
pub(super) fn shares(cores: usize, mut claims: Vec<Claim>, quantum_over: bool) -> Vec<Share> {
    claims.sort_by_key(|claim| claim.wanted);
    let mut left = cores;
    let satisfied = (0..claims.len())
        .find(|&index| {
            let content = claims[index].wanted <= left / (claims.len() - index);
            left -= if content { claims[index].wanted } else { 0 };
            !content
        })
        .unwrap_or(claims.len());
    let mut hungry = claims.split_off(satisfied);
    let (level, odd) = if hungry.is_empty() { (0, 0) } else { (left / hungry.len(), left % hungry.len()) };
    hungry.sort_by_key(|claim| ((quantum_over || claim.held <= level), claim.turn));
    let even = hungry.split_off(odd);
    hungry.sort_by_key(|claim| claim.turn);
    let share = |claim: &Claim, cores, odd| Share { process: claim.process, cores, odd };
    let satisfied = claims.iter().map(|claim| share(claim, claim.wanted, false));
    let even = even.iter().map(|claim| share(claim, level, false));
    let odd = hungry.iter().map(|claim| share(claim, level + 1, true));
    satisfied.chain(even).chain(odd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares, in the order of the claims `(wanted, held, turn)`.
    fn share_out(cores: usize, claims: &[(usize, usize, u64)], quantum_over: bool) -> Vec<usize> {
        let claim = |(number, &(wanted, held, turn))| Claim { process: ProcessId(number as u64), wanted, held, turn };
        let mut shares = shares(cores, claims.iter().enumerate().map(claim).collect(), quantum_over);
        shares.sort_by_key(|share| share.process);
        shares.iter().map(|share| share.cores).collect()
    }

    #[test]
    fn nobody_gets_more_than_it_wants_and_the_rest_is_shared_evenly() {
        assert_eq!(share_out(10, &[(1, 0, 0), (9, 0, 1), (2, 0, 2), (8, 0, 3)], false), [1, 4, 2, 3]);
        assert_eq!(share_out(4, &[(1, 0, 0), (2, 0, 1)], false), [1, 2]);
        assert_eq!(share_out(0, &[(1, 0, 0)], false), [0]);
        assert_eq!(share_out(3, &[], false), []);
    }

    #[test]
    fn who_has_an_odd_core_keeps_it_until_the_quantum_is_over() {
        assert_eq!(share_out(3, &[(3, 1, 0), (3, 2, 1)], false), [1, 2]);
        assert_eq!(share_out(3, &[(3, 1, 0), (3, 2, 1)], true), [2, 1]);
    }
}
