//! A person's private cache, as a browser's would behave (RFC 9111, RFC 5861 §3), without the bodies.
//!
//! Invariant: it never holds more than its bytes and its entries allow, and `now` is an argument. Like
//! Chromium and Firefox it uses `stale-while-revalidate`; Safari does not. Left out: heuristic freshness (an
//! answer without `max-age` is stale at once), `Vary` (a person always sends the same headers), and
//! `stale-if-error`, which no browser knows.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue};

use crate::clock::Uptime;

/// What an entry takes beside its body: the head, the key.
const HEAD_BYTES: u64 = 512;
/// What a person's simulated cache may cost this process: some 2 MB.
const MAX_ENTRIES: usize = 16_384;

/// A tileset's number and a tile's.
pub type Key = (u16, u64);

/// What the cache says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Used as it is; nothing is sent.
    Fresh {
        /// The body's bytes.
        bytes: u64,
    },
    /// Used as it is, and asked for behind.
    Stale {
        /// The body's bytes.
        bytes: u64,
        /// To be sent as `If-None-Match`.
        etag: Option<HeaderValue>,
    },
    /// Asked for, conditionally where there is an `ETag`.
    Expired {
        /// To be sent as `If-None-Match`.
        etag: Option<HeaderValue>,
    },
    /// Asked for.
    Absent,
}

/// What `Cache-Control` allows a private cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Allowed {
    store: bool,
    max_age: Duration,
    stale_while_revalidate: Duration,
}

impl Allowed {
    fn read(headers: &HeaderMap) -> Self {
        let mut allowed = Self {
            store: true,
            ..Self::default()
        };
        let mut no_cache = false;
        for value in headers.get_all(CACHE_CONTROL) {
            for directive in value.to_str().unwrap_or("").split(',') {
                let (name, number) = directive
                    .trim()
                    .split_once('=')
                    .unwrap_or((directive.trim(), ""));
                let seconds = || Duration::from_secs(number.trim_matches('"').parse().unwrap_or(0));
                match name.to_ascii_lowercase().as_str() {
                    "no-store" => allowed.store = false,
                    "no-cache" => no_cache = true,
                    "max-age" => allowed.max_age = seconds(),
                    "stale-while-revalidate" => allowed.stale_while_revalidate = seconds(),
                    _ => {}
                }
            }
        }
        if no_cache {
            allowed.max_age = Duration::ZERO;
            allowed.stale_while_revalidate = Duration::ZERO;
        }
        allowed
    }
}

#[derive(Debug, Clone)]
struct Entry {
    etag: Option<HeaderValue>,
    bytes: u64,
    fresh_until: Uptime,
    usable_until: Uptime,
    used: u64,
}

/// The cache of one person.
#[derive(Debug)]
pub struct BrowserCache {
    entries: HashMap<Key, Entry>,
    /// By when they were last used: the first is the first to go.
    order: BTreeMap<u64, Key>,
    used: u64,
    bytes: u64,
    capacity: u64,
}

impl BrowserCache {
    /// An empty cache of so many bytes; 0 keeps nothing.
    pub fn new(capacity: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            used: 0,
            bytes: 0,
            capacity,
        }
    }

    /// What to do about a tile.
    pub fn lookup(&mut self, key: Key, now: Uptime) -> Lookup {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Lookup::Absent;
        };
        self.order.remove(&entry.used);
        self.used += 1;
        entry.used = self.used;
        self.order.insert(self.used, key);
        let bytes = entry.bytes;
        if now < entry.fresh_until {
            Lookup::Fresh { bytes }
        } else if now < entry.usable_until {
            Lookup::Stale {
                bytes,
                etag: entry.etag.clone(),
            }
        } else {
            Lookup::Expired {
                etag: entry.etag.clone(),
            }
        }
    }

    /// Keeps an answer, if it may be kept and has room.
    pub fn store(&mut self, key: Key, headers: &HeaderMap, bytes: u64, now: Uptime) {
        self.drop_entry(key);
        let allowed = Allowed::read(headers);
        let size = bytes + HEAD_BYTES;
        let etag = headers.get(ETAG).cloned();
        let useless = allowed.max_age.is_zero() && etag.is_none();
        if !allowed.store || useless || size > self.capacity {
            return;
        }
        while self.bytes + size > self.capacity || self.entries.len() >= MAX_ENTRIES {
            let Some((_, oldest)) = self.order.first_key_value() else {
                break;
            };
            self.drop_entry(*oldest);
        }
        self.used += 1;
        self.bytes += size;
        self.order.insert(self.used, key);
        let fresh_until = now + allowed.max_age;
        let entry = Entry {
            etag,
            bytes,
            fresh_until,
            usable_until: fresh_until + allowed.stale_while_revalidate,
            used: self.used,
        };
        self.entries.insert(key, entry);
    }

    /// A 304 came: what is held is as good as new (RFC 9111 §4.3.4). The bytes that were not sent again.
    pub fn confirm(&mut self, key: Key, headers: &HeaderMap, now: Uptime) -> u64 {
        let allowed = Allowed::read(headers);
        let Some(entry) = self.entries.get_mut(&key) else {
            return 0;
        };
        entry.fresh_until = now + allowed.max_age;
        entry.usable_until = entry.fresh_until + allowed.stale_while_revalidate;
        entry.bytes
    }

    fn drop_entry(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes + HEAD_BYTES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(control: &'static str, etag: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
        if let Some(etag) = etag {
            headers.insert(ETAG, HeaderValue::from_static(etag));
        }
        headers
    }

    const TILE: Key = (0, 5);

    fn second(n: u64) -> Uptime {
        Uptime::from_secs(n)
    }

    fn with(control: &'static str) -> BrowserCache {
        let mut cache = BrowserCache::new(1 << 20);
        cache.store(TILE, &headers(control, Some("\"a\"")), 900, second(0));
        cache
    }

    #[test]
    fn a_tile_is_fresh_then_stale_then_expired_and_fresh_again_after_a_304() {
        let mut cache = with("private, max-age=60, stale-while-revalidate=40");
        let etag = Some(HeaderValue::from_static("\"a\""));
        assert_eq!(cache.lookup(TILE, second(59)), Lookup::Fresh { bytes: 900 });
        let stale = Lookup::Stale {
            bytes: 900,
            etag: etag.clone(),
        };
        assert_eq!(cache.lookup(TILE, second(60)), stale);
        assert_eq!(cache.lookup(TILE, second(100)), Lookup::Expired { etag });
        let again = headers("private, max-age=60", None);
        assert_eq!(cache.confirm(TILE, &again, second(100)), 900);
        assert_eq!(
            cache.lookup(TILE, second(159)),
            Lookup::Fresh { bytes: 900 }
        );
        assert_eq!(cache.lookup((1, 5), second(0)), Lookup::Absent);
    }

    #[test]
    fn no_store_is_not_kept_and_no_cache_is_asked_for_each_time() {
        assert_eq!(with("no-store").lookup(TILE, second(0)), Lookup::Absent);
        let mut cache = with("no-cache, max-age=60");
        assert!(matches!(
            cache.lookup(TILE, second(0)),
            Lookup::Expired { etag: Some(_) }
        ));
    }

    #[test]
    fn an_answer_that_may_not_be_kept_takes_the_place_of_one_that_was() {
        let mut cache = with("max-age=60");
        cache.store(TILE, &headers("no-store", None), 10, second(1));
        assert_eq!(cache.lookup(TILE, second(1)), Lookup::Absent);
        assert_eq!((cache.bytes, cache.order.len()), (0, 0));
    }

    #[test]
    fn room_is_bounded_and_the_longest_unused_goes_first() {
        let mut cache = BrowserCache::new(3 * (1000 + HEAD_BYTES));
        let fresh = headers("max-age=60", None);
        for n in 0..3 {
            cache.store((0, n), &fresh, 1000, second(0));
        }
        cache.lookup((0, 0), second(1));
        cache.store((0, 3), &fresh, 1000, second(1));
        let held: Vec<bool> = (0..4)
            .map(|n| cache.lookup((0, n), second(1)) != Lookup::Absent)
            .collect();
        assert_eq!(held, [true, false, true, true]);
        cache.store((0, 9), &fresh, 1 << 30, second(1));
        assert_eq!(cache.lookup((0, 9), second(1)), Lookup::Absent);
        assert!(cache.bytes <= cache.capacity);
    }
}
