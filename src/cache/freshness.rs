//! Whether a stored response may be served: a pure decision, with the time as an argument.
//!
//! Tilekeep's copies are fresh for a configured time after the origin last confirmed them. S3 says
//! nothing of freshness, so RFC 9111's headers do not enter; its words do, and RFC 5861's two windows.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long stored responses are believed. All durations count from the last confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshnessPolicy {
    /// A tile is fresh for this long.
    pub fresh: Duration,
    /// After that it is answered at once and revalidated behind, for this long (RFC 5861 §3).
    pub stale_while_revalidate: Duration,
    /// After `fresh` it may stand in for an origin that fails, for this long (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// 'No such tile' is believed for this long.
    pub missing: Duration,
}

/// After a failed revalidation the origin is left alone for this long, tile by tile: what may be
/// served stale is, and nobody waits for another failure.
pub const FAILURE_PAUSE: Duration = Duration::from_secs(5);

/// A clock that was set back leaves entries from the future. Up to this far ahead they are as good
/// as new (nodes' clocks differ); further, their age is unknown, and they are revalidated behind.
const CLOCK_TOLERANCE: Duration = Duration::from_mins(1);

/// What to do with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Answer.
    Fresh,
    /// Answer, and revalidate behind.
    StaleWhileRevalidate,
    /// Revalidate, then answer.
    RevalidateFirst,
}

/// What the origin confirmed of a stored response, and when: all that its freshness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The tile.
    Tile(Timestamp),
    /// That there is none.
    Absence(Timestamp),
}

/// The whole judgement over a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assessment {
    /// What to do.
    pub freshness: Freshness,
    /// Seconds of freshness left; negative when stale.
    pub ttl: i64,
    /// Whether it may stand in for an origin that fails.
    pub usable_on_error: bool,
}

impl Assessment {
    /// Whether it stays fresh for so long (RFC 9111 §5.2.1.3, `min-fresh`).
    pub fn stays_fresh(&self, wish: Duration) -> bool {
        self.freshness == Freshness::Fresh && lasts(self.ttl, wish)
    }
}

/// Whether so many seconds of freshness are enough.
pub(super) fn lasts(ttl: i64, wish: Duration) -> bool {
    u64::try_from(ttl).is_ok_and(|ttl| ttl >= wish.as_secs())
}

impl FreshnessPolicy {
    /// Judges a stored response.
    pub fn assess(&self, confirmed: Confirmed, now: Timestamp) -> Assessment {
        match confirmed {
            Confirmed::Tile(at) => self.judge(at, now, self.fresh, self.stale_while_revalidate),
            // Nobody should be told twice that a tile is missing when it has come by now: a stale
            // absence is always asked about first.
            Confirmed::Absence(at) => self.judge(at, now, self.missing, Duration::ZERO),
        }
    }

    fn judge(
        &self,
        validated_at: Timestamp,
        now: Timestamp,
        fresh: Duration,
        stale_while_revalidate: Duration,
    ) -> Assessment {
        let age = now.since(validated_at);
        let from_the_future = validated_at.since(now) > CLOCK_TOLERANCE;
        let freshness = if from_the_future {
            Freshness::StaleWhileRevalidate
        } else if age < fresh {
            Freshness::Fresh
        } else if age < fresh + stale_while_revalidate {
            Freshness::StaleWhileRevalidate
        } else {
            Freshness::RevalidateFirst
        };
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let ttl = match freshness {
            Freshness::Fresh => seconds(fresh.saturating_sub(age)),
            // Stale is stale, even by less than a second.
            _ => -seconds(age.saturating_sub(fresh)).max(1),
        };
        Assessment {
            freshness,
            ttl,
            usable_on_error: age < fresh + self.stale_if_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: FreshnessPolicy = FreshnessPolicy {
        fresh: Duration::from_secs(100),
        stale_while_revalidate: Duration::from_secs(1000),
        stale_if_error: Duration::from_secs(5000),
        missing: Duration::from_secs(10),
    };
    const START: Timestamp = Timestamp::from_secs(1_000_000);

    const TILE: Confirmed = Confirmed::Tile(START);

    fn after(stored: Confirmed, seconds: u64) -> Assessment {
        POLICY.assess(stored, START + Duration::from_secs(seconds))
    }

    #[test]
    fn a_tile_goes_through_all_stages() {
        let at = |seconds| after(TILE, seconds);
        assert_eq!((at(0).freshness, at(0).ttl), (Freshness::Fresh, 100));
        assert_eq!((at(99).freshness, at(99).ttl), (Freshness::Fresh, 1));
        assert_eq!(
            (at(100).freshness, at(100).ttl),
            (Freshness::StaleWhileRevalidate, -1)
        );
        assert_eq!(
            (at(1099).freshness, at(1099).ttl),
            (Freshness::StaleWhileRevalidate, -999)
        );
        assert_eq!(at(1100).freshness, Freshness::RevalidateFirst);
        assert!(at(5099).usable_on_error);
        assert!(!at(5100).usable_on_error);
    }

    #[test]
    fn a_stale_absence_is_asked_about_first() {
        let absence = Confirmed::Absence(START);
        assert_eq!(after(absence, 9).freshness, Freshness::Fresh);
        assert_eq!(after(absence, 10).freshness, Freshness::RevalidateFirst);
        assert!(after(absence, 10).usable_on_error);
    }

    #[test]
    fn a_clock_set_back_loses_no_hit() {
        let before = |seconds: u64| {
            POLICY
                .assess(TILE, Timestamp::from_secs(START.secs() - seconds))
                .freshness
        };
        assert_eq!(before(30), Freshness::Fresh);
        assert_eq!(before(3600), Freshness::StaleWhileRevalidate);
    }
}
