//! A limit on how many connections may be open at once, counted across all shards.

use super::sync::{AtomicU32, Ordering};

/// A count of what is open and its ceiling. The count is kept whether or not there is a ceiling.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU32,
    /// `u32::MAX` is off.
    limit: AtomicU32,
}

impl Budget {
    /// A budget with nothing taken. `None` is off.
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            used: AtomicU32::new(0),
            limit: AtomicU32::new(limit.unwrap_or(u32::MAX)),
        }
    }

    /// Takes one if the limit allows it, and returns whether it did. The limit is never exceeded, under any race.
    pub fn try_take(&self) -> bool {
        self.try_take_below(u32::MAX)
    }

    /// Takes one if both its own limit and `limit` allow it, and returns whether it did.
    pub fn try_take_below(&self, limit: u32) -> bool {
        let limit = limit.min(self.limit.load(Ordering::Relaxed));
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |used| {
                (used < limit).then(|| used + 1)
            })
            .is_ok()
    }

    /// Takes one even beyond the limit.
    pub fn take_anyway(&self) {
        self.used.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives back one that was taken; to be called once for each.
    pub fn release(&self) {
        let before = self.used.fetch_sub(1, Ordering::AcqRel);
        debug_assert_ne!(before, 0, "given back more often than taken");
    }

    /// How many are taken. After the limit was lowered, they may be more than it.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// The limit; `None` is off.
    pub fn limit(&self) -> Option<u32> {
        let limit = self.limit.load(Ordering::Relaxed);
        (limit != u32::MAX).then_some(limit)
    }

    /// Sets the limit; `None` is off. It closes nothing: a lower limit refuses new ones until enough have ended.
    pub fn set_limit(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// One slot of a [`Budget`]. Dropping it gives it back, unless it was [kept](Slot::keep).
pub(super) struct Slot<'a>(&'a Budget);

impl<'a> Slot<'a> {
    /// A slot, if both the budget's limit and `limit` allow it.
    pub(super) fn below(budget: &'a Budget, limit: u32) -> Option<Self> {
        // Not `then_some`: it would make a slot in either case, and its drop would give back one that was never taken.
        budget.try_take_below(limit).then(|| Self(budget))
    }

    /// A slot, even beyond the limit.
    pub(super) fn anyway(budget: &'a Budget) -> Self {
        budget.take_anyway();
        Self(budget)
    }

    /// Leaves it taken: from now on the caller must call `Budget::release` for it.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_lowering_it_ends_no_connection() {
        let budget = Budget::new(Some(2));
        assert_eq!(
            [budget.try_take(), budget.try_take(), budget.try_take()],
            [true, true, false]
        );
        budget.set_limit(Some(1));
        assert_eq!((budget.used(), budget.limit()), (2, Some(1)));
        budget.release();
        assert!(!budget.try_take());
        budget.set_limit(None);
        assert!(budget.try_take() && budget.limit().is_none());
        assert!(!budget.try_take_below(2));
        budget.take_anyway();
        assert_eq!(budget.used(), 3);
    }

    #[test]
    fn a_slot_that_is_not_kept_comes_back() {
        let budget = Budget::new(Some(1));
        drop(Slot::below(&budget, 9));
        assert!(Slot::below(&budget, 0).is_none());
        Slot::anyway(&budget).keep();
        assert!(Slot::below(&budget, 9).is_none());
        assert_eq!(budget.used(), 1);
    }

    #[test]
    fn eight_threads_never_hold_more_than_the_limit() {
        let budget = Budget::new(Some(10));
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| budget.try_take()).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or(usize::MAX))
                .sum()
        });
        assert_eq!((taken, budget.used()), (10, 10));
    }
}
