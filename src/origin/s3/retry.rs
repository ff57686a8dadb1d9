//! When to ask again: few times, soon, at different moments, and from a budget that all share.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The first try and two more.
pub(super) const MAX_ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long to wait after this many attempts: 50 ms, 200 ms, …, each times 0.5 to 1.5.
pub(super) fn pause(attempts: u32, random: u32) -> Duration {
    let base = FIRST_PAUSE * 4u32.saturating_pow(attempts.saturating_sub(1)).min(64);
    base / 2 + base.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// A token bucket filled by successes: a retry costs what ten successes earn.
///
/// When the origin is down, nothing fills it, and after [`RetryBudget::FULL`] retries each tile is
/// asked for once: an outage is not met with three times the load.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    const COST: u32 = 10;
    /// Twenty retries: enough for the odd failure of a quiet server, which earns little.
    const FULL: u32 = 20 * Self::COST;

    /// A request succeeded.
    pub(super) fn deposit(&self) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                (held < Self::FULL).then_some(held + 1)
            });
    }

    /// Pays for a retry, or says that there is not enough.
    pub(super) fn withdraw(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_sub(Self::COST)
            })
            .is_ok()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(Self::FULL))
    }
}

/// Numbers that differ between requests and between servers: `SplitMix64` (Steele, Lea, Flood 2014)
/// from a seed of the standard library's. Nothing secret hangs on them.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Default for Jitter {
    fn default() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one(0)))
    }
}

impl Jitter {
    pub(super) fn next(&self) -> u32 {
        let mut z = self
            .0
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_spread() {
        assert_eq!(pause(1, 0), Duration::from_millis(25));
        assert_eq!(pause(1, u32::MAX), Duration::from_millis(75));
        assert_eq!(pause(2, 0), Duration::from_millis(100));
        assert!(pause(u32::MAX, u32::MAX) < Duration::from_secs(5));
    }

    #[test]
    fn an_outage_empties_the_budget_and_successes_fill_it_slowly() {
        let budget = RetryBudget::default();
        let spent = (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(spent, 20);
        (0..9).for_each(|_| budget.deposit());
        assert!(!budget.withdraw(), "nine successes do not pay for a retry");
        budget.deposit();
        assert!(budget.withdraw());
        (0..10_000).for_each(|_| budget.deposit());
        let spent = (0..1000).filter(|_| budget.withdraw()).count();
        assert_eq!(spent, 20, "it does not save up for the next outage");
    }

    #[test]
    fn two_requests_do_not_wait_equally_long() {
        let jitter = Jitter::default();
        let numbers: std::collections::HashSet<u32> = (0..100).map(|_| jitter.next()).collect();
        assert!(numbers.len() > 95);
    }
}
