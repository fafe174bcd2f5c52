//! Which node's memory small objects come from.
//!
//! Code that makes or changes a replica sets the [`Home`] of the calling thread for as long as that takes. The
//! allocator of the process reads it: see `python/src/heaps.rs`. With another allocator it has no effect.

use std::cell::Cell;

use crate::PhysicalNode;

/// Where small objects are allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// Wherever the allocator finds memory.
    #[default]
    Anywhere,
    /// On one node of the hardware.
    Node(PhysicalNode),
    /// Page by page on all nodes in turn.
    Interleaved,
}

thread_local! {
    static HOME: Cell<Home> = const { Cell::new(Home::Anywhere) };
}

impl Home {
    /// The home of what belongs to a node; anywhere if the hardware has only one.
    pub fn of(node: Option<PhysicalNode>) -> Self {
        node.map_or(Self::Anywhere, Self::Node)
    }

    /// Calls `work`; what it allocates on this thread comes from here.
    pub fn during<R>(self, work: impl FnOnce() -> R) -> R {
        struct Back(Home);
        impl Drop for Back {
            fn drop(&mut self) {
                HOME.set(self.0);
            }
        }
        let _back = Back(HOME.replace(self));
        work()
    }

    /// Where the calling thread is to allocate now.
    #[inline]
    pub fn current() -> Self {
        // At the end of a thread it may be gone.
        HOME.try_with(Cell::get).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_holds_until_the_work_ends_also_by_a_panic() {
        let node = Home::of(Some(PhysicalNode(1)));
        assert_eq!(node.during(|| Home::Interleaved.during(Home::current)), Home::Interleaved);
        assert_eq!(node.during(|| (Home::Interleaved.during(|| ()), Home::current()).1), node);
        std::panic::catch_unwind(|| node.during(|| panic!("as a test does"))).unwrap_err();
        assert_eq!(Home::current(), Home::Anywhere);
        assert_eq!(Home::of(None), Home::Anywhere);
    }
}
