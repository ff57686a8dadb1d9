//! What a tile's `Cache-Control` allows a browser, cut by the session's end.
//!
//! `private`, because RFC 9111 §3.5 protects answers to `Authorization` from shared caches, but not
//! those to cookies. `max-age` is jittered by tile: MapLibre asks again for every visible tile when
//! its time runs out, and they need not all run out at once.

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};

use super::header_text::{HeaderText, Text};
use crate::clock::Timestamp;
use crate::tile::{BrowserCaching, TileKey};

/// A year: what `immutable` answers live (RFC 8246).
const YEAR: u64 = 365 * 24 * 3600;

/// Who may keep an answer, and for how long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// One person's browser, until the session ends.
    Session {
        /// When it ends.
        until: Timestamp,
    },
    /// Everybody: the tileset is public.
    Public,
    /// A distribution that has proved itself and lets in by signed cookies.
    Distribution,
}

/// A distribution keeps a tile for so long at most: a purge does not reach it.
const MOST_SHARED: u64 = 3600;
/// A browser behind it keeps a tile for longer than it by so much at most: as long as a signed cookie lives.
const MOST_BEHIND: u64 = 15 * 60;

/// A `Cache-Control` (RFC 9111 §5.2.2), as its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheControl {
    /// Who may keep it, as it is written, up to the number behind `max-age`.
    audience: &'static [u8],
    max_age: u64,
    more: More,
}

/// What is said behind `max-age`; in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    Immutable,
    Stale { revalidate: u64, on_error: u64 },
    Shared { max_age: u64, immutable: bool },
}

impl CacheControl {
    /// Writes it.
    pub fn put(&self, text: &mut impl Text) {
        const IMMUTABLE: &[u8] = b", immutable";
        text.put(self.audience);
        text.put_number(self.max_age);
        match self.more {
            More::Nothing => {}
            More::Immutable => text.put(IMMUTABLE),
            More::Stale {
                revalidate,
                on_error,
            } => {
                text.put(b", stale-while-revalidate=");
                text.put_number(revalidate);
                text.put(b", stale-if-error=");
                text.put_number(on_error);
            }
            More::Shared { max_age, immutable } => {
                text.put(b", s-maxage=");
                text.put_number(max_age);
                if immutable {
                    text.put(IMMUTABLE);
                }
            }
        }
    }

    /// The header's value.
    pub fn value(&self) -> HeaderValue {
        let mut text = HeaderText::<128>::new();
        self.put(&mut text);
        text.value_or("no-store")
    }
}

/// How long a client wishes an answer to stay fresh (RFC 9111 §5.2.1.3). A wish that is not understood is none.
pub fn min_fresh(request: &HeaderMap) -> Option<Duration> {
    let values = request.get_all(CACHE_CONTROL).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let mut directives = texts.flat_map(|text| text.split(','));
    directives.find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        let seconds = name.eq_ignore_ascii_case("min-fresh").then_some(seconds)?;
        seconds.parse().ok().map(Duration::from_secs)
    })
}

impl Audience {
    fn seconds_left(self, now: Timestamp) -> u64 {
        match self {
            Self::Session { until } => until.since(now).as_secs(),
            Self::Public | Self::Distribution => u64::MAX,
        }
    }

    fn word(self) -> &'static [u8] {
        match self {
            Self::Session { .. } => b"private, max-age=",
            Self::Public | Self::Distribution => b"public, max-age=",
        }
    }
}

/// For a tile under its stable URL.
///
/// Each of `max-age` + `stale-while-revalidate` and `max-age` + `stale-if-error` ends no later than
/// the session; `max-age` is then lowered to 0.8–1.0 of itself, always the same for a tile.
pub fn for_tile(
    browser: BrowserCaching,
    audience: Audience,
    key: TileKey,
    now: Timestamp,
) -> CacheControl {
    if audience == Audience::Distribution {
        return for_distribution(browser.max_age.as_secs(), Some(key), false);
    }
    let left = audience.seconds_left(now);
    let max_age = browser.max_age.as_secs().min(left);
    let revalidate = browser.stale_while_revalidate.as_secs().min(left - max_age);
    let on_error = browser.stale_if_error.as_secs().min(left - max_age);
    CacheControl {
        audience: audience.word(),
        max_age: jittered(max_age, key),
        more: More::Stale {
            revalidate,
            on_error,
        },
    }
}

/// For a tile under a URL that names the tileset's version: it will never be another.
pub fn for_version(audience: Audience, now: Timestamp) -> CacheControl {
    if audience == Audience::Distribution {
        return for_distribution(MOST_SHARED, None, true);
    }
    CacheControl {
        audience: audience.word(),
        max_age: audience.seconds_left(now).min(YEAR),
        more: More::Immutable,
    }
}

/// For a redirect to a signed URL.
pub fn for_redirect(lives: Duration, audience: Audience, now: Timestamp) -> CacheControl {
    for_absence(lives, audience, now)
}

/// For 'no such tile'.
pub fn for_absence(believed: Duration, audience: Audience, now: Timestamp) -> CacheControl {
    if audience == Audience::Distribution {
        return for_distribution(believed.as_secs(), None, false);
    }
    CacheControl {
        audience: audience.word(),
        max_age: believed.as_secs().min(audience.seconds_left(now)),
        more: More::Nothing,
    }
}

/// For a distribution's cache, and for the browsers behind it.
///
/// These are told the tile's age in that cache (`Age`), and a `max-age` that it has reached would have them ask again
/// for every tile at every step: so theirs is longer, by what the tile is then still worth to them. They keep it for
/// the sum at most, whenever the session ends: `SECURITY.md` says so. No `stale-…`, which would be for both.
fn for_distribution(seconds: u64, jitter: Option<TileKey>, immutable: bool) -> CacheControl {
    let shared = seconds.min(MOST_SHARED);
    let shared = jitter.map_or(shared, |key| jittered(shared, key));
    CacheControl {
        audience: Audience::Distribution.word(),
        max_age: shared + seconds.min(MOST_BEHIND),
        more: More::Shared {
            max_age: shared,
            immutable,
        },
    }
}

/// 0.8 to 1.0 of `max_age`, by the tile.
fn jittered(max_age: u64, key: TileKey) -> u64 {
    let share = 800 + key.spread() % 201;
    max_age.saturating_mul(share) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::{KeySpace, Scale, TileCoord};

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn key(x: u32) -> TileKey {
        TileKey::new(
            KeySpace::new("t", None),
            TileCoord::new(10, x, 0).unwrap(),
            Scale::One,
        )
    }

    fn numbers(value: &HeaderValue) -> Vec<u64> {
        let text = value.to_str().unwrap();
        text.split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .collect()
    }

    fn until(seconds: u64) -> Audience {
        Audience::Session {
            until: NOW + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn nothing_outlives_the_session() {
        for left in [0, 1, 59, 1800, 3600, 5000, 100_000, 10_000_000] {
            for x in 0..50 {
                let value = for_tile(BrowserCaching::default(), until(left), key(x), NOW).value();
                let [age, revalidate, on_error] = numbers(&value)[..] else {
                    panic!("{value:?}")
                };
                assert!(
                    age + revalidate <= left && age + on_error <= left,
                    "{left}: {value:?}"
                );
                assert!(value.to_str().unwrap().starts_with("private, "));
            }
        }
    }

    #[test]
    fn max_age_is_spread_and_always_the_same_for_a_tile() {
        let age = |x| {
            let value = for_tile(BrowserCaching::default(), Audience::Public, key(x), NOW);
            numbers(&value.value())[0]
        };
        let ages: Vec<u64> = (0..500).map(age).collect();
        assert!(ages.iter().all(|age| (2880..=3600).contains(age)));
        assert!(ages.iter().min() < Some(&2950) && ages.iter().max() > Some(&3530));
        assert_eq!(age(7), age(7));
    }

    #[test]
    fn a_versioned_url_is_immutable_for_as_long_as_the_session() {
        assert_eq!(
            for_version(Audience::Public, NOW).value(),
            "public, max-age=31536000, immutable"
        );
        assert_eq!(
            for_version(until(60), NOW).value(),
            "private, max-age=60, immutable"
        );
    }

    #[test]
    fn an_absence_is_believed_for_less_long() {
        let believed = Duration::from_mins(5);
        assert_eq!(
            for_absence(believed, until(9000), NOW).value(),
            "private, max-age=300"
        );
        assert_eq!(
            for_absence(believed, until(9), NOW).value(),
            "private, max-age=9"
        );
    }

    #[test]
    fn a_browser_behind_a_distribution_never_gets_a_tile_that_is_stale_on_arrival() {
        let values = |x| {
            let value = for_tile(
                BrowserCaching::default(),
                Audience::Distribution,
                key(x),
                NOW,
            )
            .value();
            assert!(!value.to_str().unwrap().contains("stale"));
            numbers(&value)
        };
        for x in 0..200 {
            let [age, shared] = values(x)[..] else {
                panic!("{:?}", values(x))
            };
            assert!((2880..=3600).contains(&shared) && age == shared + 900);
        }
        assert_eq!(
            for_version(Audience::Distribution, NOW).value(),
            "public, max-age=4500, s-maxage=3600, immutable"
        );
        assert_eq!(
            for_absence(Duration::from_mins(5), Audience::Distribution, NOW).value(),
            "public, max-age=600, s-maxage=300"
        );
        let never = BrowserCaching {
            max_age: Duration::ZERO,
            ..BrowserCaching::default()
        };
        let value = for_tile(never, Audience::Distribution, key(1), NOW).value();
        assert_eq!(value, "public, max-age=0, s-maxage=0");
    }
}
