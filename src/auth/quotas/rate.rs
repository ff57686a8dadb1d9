//! How many requests a second: the generic cell rate algorithm, from `governor`, on our time.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Uptime;

/// So many at once, then so many a second.
pub(super) struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Nanos>>,
    /// How long an empty bucket takes to be full again.
    refill: Duration,
}

/// The latest time that anybody came with. Two requests that race may both be judged at the later one's,
/// which is as right as either.
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Ticks::default()),
            refill: quota.burst_size_replenished_in(),
        }
    }

    /// Spends one, or says when the next may come. Takes no lock.
    pub(super) fn spend(&self, now: Uptime) -> Result<(), Duration> {
        let ticks = &self.limiter.clock().0;
        let now = ticks
            .fetch_max(now.nanos(), Ordering::Relaxed)
            .max(now.nanos());
        self.limiter
            .check()
            .map_err(|until| until.wait_time_from(now.into()))
    }

    /// Whether the bucket is full again, so that forgetting it gives nobody anything.
    pub(super) fn is_settled(&self, now: Uptime) -> bool {
        let last = self.limiter.clock().0.load(Ordering::Relaxed);
        last == 0 || now.since(Uptime::from_nanos(last)) >= self.refill
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(
            NonZeroU32::new(per_second).unwrap(),
            NonZeroU32::new(burst).unwrap(),
        )
    }

    #[test]
    fn a_burst_goes_through_and_then_so_many_a_second() {
        let rate = rate(10, 30);
        let at = Uptime::from_secs(100);
        let passed = |at| (0..1_000).filter(|_| rate.spend(at).is_ok()).count();
        assert_eq!(passed(at), 30);
        assert_eq!(passed(at + Duration::from_secs(1)), 10);
        assert_eq!(passed(at + Duration::from_secs(1)), 0);
        assert_eq!(passed(at + Duration::from_mins(1)), 30);
    }

    #[test]
    fn the_wait_is_the_time_until_one_more_fits() {
        let rate = rate(2, 1);
        let at = Uptime::from_secs(100);
        rate.spend(at).unwrap();
        let wait = rate.spend(at).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert!(rate.spend(at + wait).is_ok());
    }

    #[test]
    fn time_that_goes_back_neither_panics_nor_locks_out_nor_gives() {
        let rate = rate(10, 10);
        let at = Uptime::from_secs(100);
        assert_eq!((0..20).filter(|_| rate.spend(at).is_ok()).count(), 10);
        let back = Uptime::from_secs(1);
        assert!(rate.spend(back).unwrap_err() <= Duration::from_millis(100));
        assert!(rate.spend(at + Duration::from_millis(100)).is_ok());
    }

    #[test]
    fn it_is_settled_when_the_bucket_is_full_again() {
        let rate = rate(10, 30);
        let at = Uptime::from_secs(100);
        assert!(rate.is_settled(at));
        rate.spend(at).unwrap();
        assert!(!rate.is_settled(at + Duration::from_millis(2_999)));
        assert!(rate.is_settled(at + Duration::from_secs(3)));
    }
}
