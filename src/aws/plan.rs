//! When to ask for new keys: the decision alone, without clock, network or task.
//!
//! Invariant: whatever happens, asks are spaced (`pause`), and there is always a next one. Keys are
//! called good only while their own time lasts.
//! Left out on purpose: who asks whom (`keeper`, `source`).

use std::time::Duration;

use crate::clock::Timestamp;

/// How early, how often, how patiently. The defaults are AWS's figures; tests scale them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// One attempt, all its steps together.
    pub attempt: Duration,
    /// New keys are asked for when this much is left, or a quarter of their life if that is longer.
    /// IMDS has the next ones 5 minutes ahead.
    pub early: Duration,
    /// The last seconds of keys, in which they are not used any more: a request takes time to arrive.
    pub margin: Duration,
    /// Keys without an end (environment, profile) are looked up again so often: files change.
    pub reread: Duration,
    /// The pause after a first failure; it doubles with each.
    pub retry_first: Duration,
    /// The longest pause between attempts that fail.
    pub retry_most: Duration,
    /// The shortest time between attempts that are made because S3 refuses the keys.
    pub after_refusal: Duration,
    /// The wall clock can jump, so no sleep relies on it for longer than this.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(8),
            early: Duration::from_mins(5),
            margin: Duration::from_secs(5),
            reread: Duration::from_mins(5),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_mins(1),
            after_refusal: Duration::from_mins(1),
            tick: Duration::from_secs(5),
        }
    }
}

/// The time that keys are good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// When they came.
    pub(super) obtained: Timestamp,
    /// When they end; none: never by themselves.
    pub(super) expires: Option<Timestamp>,
    /// Spreads the refreshes of many nodes: from the keys themselves, so always the same for these.
    pub(super) jitter: u8,
}

impl Lease {
    /// Whether these keys can sign a request now.
    pub(super) fn is_good(&self, timing: &Timing, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now + timing.margin < end)
    }

    /// When to look for the next ones.
    fn due(&self, timing: &Timing, asked: Timestamp) -> Timestamp {
        let Some(end) = self.expires else {
            return asked + timing.reread;
        };
        let early = timing.early.max(end.since(self.obtained) / 4);
        // Up to a tenth later.
        let early = early.saturating_sub(early / 10 * u32::from(self.jitter) / 255);
        self.obtained + end.since(self.obtained).saturating_sub(early)
    }
}

/// All that the decision looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The keys that are held.
    pub(super) held: Option<Lease>,
    /// When the last attempt ended.
    pub(super) asked: Option<Timestamp>,
    /// Attempts in a row that failed.
    pub(super) failures: u32,
    /// Whether S3 has refused the held keys since the last attempt.
    pub(super) refused: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing until then: the keys are good.
    Keep { until: Timestamp },
    /// Ask now.
    Refresh,
    /// New keys are wanted, but it is too soon after the last attempt.
    Retry { at: Timestamp },
}

/// Decides.
pub(super) fn plan(facts: &Facts, timing: &Timing, now: Timestamp) -> Action {
    let Some(asked) = facts.asked else {
        return Action::Refresh;
    };
    // An attempt in the future: the wall clock was set back, and no pause can be measured by it.
    let set_back = asked > now;
    let due = match facts.held {
        Some(lease) if !facts.refused && !set_back => lease.due(timing, asked),
        _ => now,
    };
    if due > now {
        return Action::Keep { until: due };
    }
    let at = asked + pause(facts, timing, asked);
    if set_back || at <= now {
        Action::Refresh
    } else {
        Action::Retry { at }
    }
}

/// How long to wait after the last attempt.
fn pause(facts: &Facts, timing: &Timing, asked: Timestamp) -> Duration {
    if facts.failures > 0 {
        let doubled = 1 << (facts.failures - 1).min(16);
        return timing
            .retry_first
            .saturating_mul(doubled)
            .min(timing.retry_most);
    }
    if facts.refused {
        return timing.after_refusal;
    }
    // The source has no newer ones yet: an eighth of what is left, so ever more often.
    let end = facts.held.and_then(|lease| lease.expires);
    let left = end.map_or(Duration::ZERO, |end| end.since(asked));
    timing.retry_first.max(left / 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: fn(u64) -> Timestamp = Timestamp::from_secs;

    fn hour(failures: u32, asked: u64) -> Facts {
        Facts {
            held: Some(Lease {
                obtained: T(10_000),
                expires: Some(T(13_600)),
                jitter: 0,
            }),
            asked: Some(T(asked)),
            failures,
            refused: false,
        }
    }

    #[test]
    fn the_table_of_decisions() {
        use Action::{Keep, Refresh, Retry};
        let timing = Timing::default();
        let nothing = Facts::default();
        let failed = |failures| Facts {
            asked: Some(T(10_000)),
            failures,
            ..nothing
        };
        let refused = |asked| Facts {
            refused: true,
            ..hour(0, asked)
        };
        let endless = Facts {
            held: Some(Lease {
                obtained: T(10_000),
                expires: None,
                jitter: 9,
            }),
            asked: Some(T(10_600)),
            ..nothing
        };
        // Of an hour, a quarter is left at 12,700.
        for (what, facts, now, expected) in [
            ("the start", nothing, 0, Refresh),
            ("a failure", failed(1), 10_000, Retry { at: T(10_001) }),
            ("its pause is over", failed(1), 10_001, Refresh),
            ("a third one", failed(3), 10_000, Retry { at: T(10_004) }),
            ("many", failed(40), 10_000, Retry { at: T(10_060) }),
            ("new", hour(0, 10_000), 10_001, Keep { until: T(12_700) }),
            ("a quarter left", hour(0, 10_000), 12_700, Refresh),
            (
                "none newer",
                hour(0, 12_800),
                12_801,
                Retry { at: T(12_900) },
            ),
            (
                "none newer, late",
                hour(0, 13_592),
                13_592,
                Retry { at: T(13_593) },
            ),
            ("failing", hour(2, 12_700), 12_701, Retry { at: T(12_702) }),
            ("expired", hour(9, 13_600), 13_660, Refresh),
            ("refused", refused(10_000), 10_100, Refresh),
            ("again", refused(10_100), 10_130, Retry { at: T(10_160) }),
            ("no end", endless, 10_700, Keep { until: T(10_900) }),
            ("no end, later", endless, 10_900, Refresh),
            ("the clock was set back", endless, 5_000, Refresh),
        ] {
            assert_eq!(plan(&facts, &timing, T(now)), expected, "{what}");
        }
    }

    #[test]
    fn fifteen_minutes_are_renewed_at_five_and_twelve_hours_at_three() {
        let timing = Timing::default();
        for (life, left) in [(900, 300), (3_600, 900), (43_200, 10_800)] {
            let lease = |jitter| Lease {
                obtained: T(1_000),
                expires: Some(T(1_000 + life)),
                jitter,
            };
            assert_eq!(lease(0).due(&timing, T(1_000)), T(1_000 + life - left));
            let latest = T(1_000 + life - left * 9 / 10);
            assert_eq!(lease(255).due(&timing, T(1_000)), latest);
        }
    }

    #[test]
    fn keys_are_not_used_in_their_last_seconds() {
        let lease = hour(0, 0).held.unwrap();
        let timing = Timing::default();
        assert!(lease.is_good(&timing, T(13_594)));
        assert!(!lease.is_good(&timing, T(13_595)));
        assert!(!lease.is_good(&timing, T(20_000)));
    }

    /// What a source does when it is asked.
    #[derive(Debug, Clone, Copy)]
    enum Source {
        Brings(u64),
        HasNoNewer,
        Fails,
    }

    fn source() -> impl Strategy<Value = Source> {
        prop_oneof![
            (1_u64..50_000).prop_map(Source::Brings),
            Just(Source::HasNoNewer),
            Just(Source::Fails),
        ]
    }

    proptest! {
        /// Runs the decision against a source with moods, a second at a time.
        #[test]
        fn asks_are_spaced_and_never_cease(
            moods in prop::collection::vec((source(), 1_u64..5_000), 1..12),
            refusals in prop::collection::vec(any::<bool>(), 12),
        ) {
            let timing = Timing::default();
            let mut facts = Facts::default();
            let mut now = 1_000_000_u64;
            let mut asks = Vec::new();
            for ((mood, lasts), refusal) in moods.iter().zip(refusals) {
                facts.refused |= refusal && facts.held.is_some();
                let end = now + lasts;
                while now < end {
                    match plan(&facts, &timing, T(now)) {
                        Action::Refresh => {
                            if let Some(last) = asks.last() {
                                prop_assert!(now > *last, "two asks in a second");
                            }
                            asks.push(now);
                            facts.asked = Some(T(now));
                            facts.refused = false;
                            match mood {
                                Source::Brings(life) => {
                                    facts.failures = 0;
                                    let expires = Some(T(now + life));
                                    facts.held = Some(Lease { obtained: T(now), expires, jitter: 77 });
                                }
                                Source::HasNoNewer if facts.held.is_some_and(|l| l.is_good(&timing, T(now))) => facts.failures = 0,
                                Source::HasNoNewer | Source::Fails => facts.failures += 1,
                            }
                        }
                        Action::Keep { until } => {
                            // Kept keys are good to their end, and the next ask comes before it.
                            let lease = facts.held.unwrap();
                            prop_assert!(until > T(now));
                            prop_assert!(lease.expires.is_none_or(|expires| until < expires));
                        }
                        Action::Retry { at } => {
                            prop_assert!(at > T(now));
                            let longest = facts.held.and_then(|l| l.expires)
                                .map_or(Duration::ZERO, |e| e.since(facts.asked.unwrap()) / 8)
                                .max(timing.retry_most);
                            prop_assert!(at <= T(now) + longest);
                        }
                    }
                    now += 1;
                }
            }
            // In trouble no more than a minute passes without an ask.
            let waits = asks.windows(2).filter(|pair| pair[1] - pair[0] < 1).count();
            prop_assert_eq!(waits, 0);
        }
    }
}
