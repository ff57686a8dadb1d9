//! `Cache-Control`, written and read: what a browser is allowed never outlives the session, and the reader of the load
//! test's browsers keeps what any text allows and no more.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue};

use super::{header_values, number};
use crate::clock::{Timestamp, Uptime};
use crate::http::cache_control::{Audience, for_absence, for_tile, for_version};
use crate::loadtest::browser_cache::{BrowserCache, Lookup};
use crate::tile::{BrowserCaching, KeySpace, Scale, TileCoord, TileKey};

const KEY: (u16, u64) = (0, 1);

pub(super) fn run(data: &[u8]) {
    written(data);
    read(data);
}

fn written(data: &[u8]) {
    let (max_age, data) = number(data);
    let (stale_while_revalidate, data) = number(data);
    let (stale_if_error, data) = number(data);
    let (left, data) = number(data);
    let (now, _) = number(data);
    let browser = BrowserCaching {
        max_age: Duration::from_secs(max_age),
        stale_while_revalidate: Duration::from_secs(stale_while_revalidate),
        stale_if_error: Duration::from_secs(stale_if_error),
    };
    let now = Timestamp::from_millis(now);
    let until = now + Duration::from_secs(left);
    let left = until.since(now).as_secs();
    let place = TileCoord::new(9, 300, 200).unwrap();
    let key = TileKey::new(KeySpace::new("w", None), place, Scale::One);
    for audience in [
        Audience::Session { until },
        Audience::Public,
        Audience::Distribution,
    ] {
        for value in [
            for_tile(browser, audience, key, now),
            for_version(audience, now),
            for_absence(browser.max_age, audience, now),
        ] {
            let value = value.value();
            let text = value.to_str().unwrap();
            let of = |name: &str| -> u64 {
                let mut all = text.split(", ").filter_map(|one| one.strip_prefix(name));
                all.next().map_or(0, |number| number.parse().unwrap())
            };
            let age = of("max-age=");
            if matches!(audience, Audience::Session { .. }) {
                let stale = of("stale-while-revalidate=").max(of("stale-if-error="));
                assert!(text.starts_with("private, "), "{text}");
                assert!(age.saturating_add(stale) <= left, "{text} of {left}");
            } else {
                assert!(text.starts_with("public, "), "{text}");
            }
        }
    }
}

fn read(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in header_values(data) {
        headers.append(CACHE_CONTROL, value);
    }
    headers.insert(ETAG, HeaderValue::from_static("\"a\""));
    let texts: Vec<String> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| Some(value.to_str().ok()?.to_ascii_lowercase()))
        .collect();
    let says = |wanted: &str| {
        let mut all = texts.iter().flat_map(|text| text.split(','));
        all.any(|one| one.trim().split('=').next() == Some(wanted))
    };
    let mut cache = BrowserCache::new(10_000);
    let now = Uptime::from_secs(1_000);
    cache.store(KEY, &headers, 100, now);
    for after in [0, 1, 60, 1 << 31, u64::MAX] {
        let found = cache.lookup(KEY, now + Duration::from_secs(after));
        match found {
            Lookup::Absent => assert!(says("no-store"), "{texts:?}"),
            _ if says("no-store") => panic!("kept: {texts:?}"),
            Lookup::Fresh { .. } => assert!(says("max-age") && !says("no-cache"), "{texts:?}"),
            Lookup::Stale { .. } => assert!(says("stale-while-revalidate"), "{texts:?}"),
            Lookup::Expired { .. } => {}
        }
    }
    cache.confirm(KEY, &headers, now);
}
