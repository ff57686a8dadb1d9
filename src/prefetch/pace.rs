//! How fast the server is asked: pure decisions, with the time as an argument.
//!
//! It begins with a few requests at a time and doubles them while all goes well, up to `--concurrency`. When the server
//! says that it is too much (429, 503), everybody waits as long as it says, and it begins again with one: doubling to
//! half of what was too much, then one more for each round. A server that is away is asked again by one, less and less
//! often.

use std::time::Duration;

use crate::clock::Uptime;

/// With how many it begins.
const FIRST: f64 = 4.0;
/// Between attempts to reach a server that is away: doubled up to the last.
const AWAY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Whether a request may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Now.
    Go,
    /// Not before then.
    At(Uptime),
    /// Not before another one has ended.
    Full,
}

/// How late a timer may be on a busy machine.
const LATE: Uptime = Uptime::from_nanos(20_000_000);

/// The state of it.
#[derive(Debug)]
pub(super) struct Pace {
    most: f64,
    limit: f64,
    /// Below it the limit is doubled, above it it creeps.
    doubling_to: f64,
    open: u32,
    paused_until: Uptime,
    /// When the limit was last cut: what began before has been answered by that.
    cut_at: Uptime,
    gap: Duration,
    next: Uptime,
    away: u32,
}

impl Pace {
    /// At most so many at a time, and so many in a second (0: no limit).
    pub(super) fn new(concurrency: u32, rate: f64) -> Self {
        let most = f64::from(concurrency.max(1));
        Self {
            most,
            limit: FIRST.min(most),
            doubling_to: most,
            open: 0,
            paused_until: Uptime::default(),
            cut_at: Uptime::default(),
            gap: if rate > 0.0 {
                Duration::from_secs_f64((1.0 / rate).min(3600.0))
            } else {
                Duration::ZERO
            },
            next: Uptime::default(),
            away: 0,
        }
    }

    /// Begins a request, if one may.
    pub(super) fn admit(&mut self, now: Uptime) -> Admission {
        if now < self.paused_until {
            return Admission::At(self.paused_until);
        }
        if f64::from(self.open + 1) > self.limit.floor() {
            return Admission::Full;
        }
        if now < self.next {
            return Admission::At(self.next);
        }
        self.open += 1;
        // What was not used is not caught up on, but for what a timer is late by.
        let late = Uptime::from_nanos(now.nanos().saturating_sub(LATE.nanos()));
        self.next = self.next.max(late) + self.gap;
        Admission::Go
    }

    /// An answer came.
    pub(super) fn answered(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.away = 0;
        let more = if self.limit < self.doubling_to {
            1.0
        } else {
            1.0 / self.limit
        };
        self.limit = (self.limit + more).min(self.most);
    }

    /// One ended that says nothing about what the server can take.
    pub(super) fn ended(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// The server wants less, and nothing for a while.
    pub(super) fn throttled(&mut self, began: Uptime, now: Uptime, wait: Duration) {
        self.away = 0;
        self.cut(began, now);
        self.paused_until = self.paused_until.max(now + wait);
    }

    /// The server was not reached, or the connection broke. How long nobody asks now. `share` is a random number
    /// from 0 to 1.
    pub(super) fn unreachable(&mut self, began: Uptime, now: Uptime, share: f64) -> Duration {
        if self.cut(began, now) {
            self.away = (self.away + 1).min(16);
        }
        let wait = AWAY
            .0
            .saturating_mul(1 << (self.away.max(1) - 1))
            .min(AWAY.1);
        let wait = wait.mul_f64(0.5 + share.clamp(0.0, 1.0) / 2.0);
        if now >= self.paused_until {
            self.paused_until = now + wait;
        }
        self.paused_until.since(now)
    }

    /// Begins again with one at a time; once for all that was under way.
    fn cut(&mut self, began: Uptime, now: Uptime) -> bool {
        self.open = self.open.saturating_sub(1);
        let counts = began >= self.cut_at;
        if counts {
            self.cut_at = now;
            self.doubling_to = (self.limit / 2.0).max(1.0);
            self.limit = 1.0;
        }
        counts
    }
}

/// Random numbers from a seed (Vigna's `SplitMix64`): enough to keep waits apart, and the same in every test.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Below `end`; near enough to even.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Uptime {
        Uptime::from(Duration::from_millis(millis))
    }

    fn begun(pace: &mut Pace, now: Uptime) -> u32 {
        let mut count = 0;
        while pace.admit(now) == Admission::Go {
            count += 1;
        }
        count
    }

    #[test]
    fn it_begins_with_few_and_doubles_up_to_the_most() {
        let mut pace = Pace::new(64, 0.0);
        let mut rounds = Vec::new();
        for round in 0..6 {
            let count = begun(&mut pace, at(round));
            (0..count).for_each(|_| pace.answered());
            rounds.push(count);
        }
        assert_eq!(rounds, [4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn all_wait_as_long_as_the_server_says_and_begin_again_with_one() {
        let mut pace = Pace::new(16, 0.0);
        for _ in 0..20 {
            pace.admit(at(0));
            pace.answered();
        }
        assert_eq!(begun(&mut pace, at(1)), 16);
        // Sixteen refusals are one piece of news.
        for _ in 0..16 {
            pace.throttled(at(1), at(2), Duration::from_secs(3));
        }
        assert_eq!(pace.admit(at(3)), Admission::At(at(3002)));
        let mut rounds = Vec::new();
        for round in 0..6 {
            let count = begun(&mut pace, at(3002 + round));
            (0..count).for_each(|_| pace.answered());
            rounds.push(count);
        }
        assert_eq!(rounds, [1, 2, 4, 8, 8, 9], "doubling ends at half");
    }

    #[test]
    fn no_second_has_more_than_the_rate() {
        let mut pace = Pace::new(100, 10.0);
        let mut times = Vec::new();
        for now in 0..1000 {
            while pace.admit(at(now)) == Admission::Go {
                pace.answered();
                times.push(now);
            }
        }
        assert_eq!(times.len(), 10, "{times:?}");
        let mut fast = Pace::new(100, 250.0);
        let mut count = 0;
        // Whoever is woken two milliseconds late each time still gets its share.
        for now in (0..1000).step_by(6) {
            while fast.admit(at(now)) == Admission::Go {
                fast.answered();
                count += 1;
            }
        }
        assert!((245..=256).contains(&count), "{count}");
        assert_eq!(
            begun(&mut pace, at(60_000)),
            1,
            "an idle minute is no credit"
        );
    }

    #[test]
    fn a_server_that_is_away_is_asked_less_and_less_often() {
        let mut pace = Pace::new(8, 0.0);
        let (mut now, mut waits) = (at(0), Vec::new());
        for _ in 0..9 {
            assert_eq!(pace.admit(now), Admission::Go);
            let wait = pace.unreachable(now, now, 1.0);
            waits.push(wait.as_millis());
            now = now + wait;
        }
        assert_eq!(
            waits,
            [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]
        );
        pace.admit(now);
        pace.answered();
        pace.admit(now);
        assert_eq!(pace.unreachable(now, now, 1.0).as_millis(), 250);
    }

    #[test]
    fn chance_is_the_seeds() {
        let shares = |seed| {
            let mut chance = Chance::new(seed);
            (0..100).map(|_| chance.share()).collect::<Vec<_>>()
        };
        assert_eq!(shares(7), shares(7));
        assert_ne!(shares(7), shares(8));
        assert!(shares(7).iter().all(|share| (0.0..1.0).contains(share)));
        let mut chance = Chance::new(1);
        assert!((0..1000).all(|_| chance.below(3) < 3));
    }
}
