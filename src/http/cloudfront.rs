//! CloudFront in front: its signed cookies beside the session's, and knowing its own requests.
//!
//! Invariant: signed cookies go to a session that CloudFront can stand for: no zoom, no area and no budget of tiles,
//! none of which it could enforce. They end 15 minutes from now at most, and with the session. A request that
//! brings the right secret is answered for tiles of the named tilesets alone, and as to a shared cache; its header
//! goes no further than here.
//! Left out on purpose: ending signed cookies. Nobody can: that is why they live so short.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::public::PublicParts;
use crate::auth::{Scope, Secret, Session};
use crate::aws::cloudfront::{COOKIES, Signed, Signer};
use crate::clock::{Clock, Timestamp, Uptime};
use crate::metrics::{Metrics, OriginSecret};
use crate::tile::{Scale, TileCoord, Tileset};

/// What the distribution adds to each request for a tile.
pub const ORIGIN_SECRET: HeaderName = HeaderName::from_static("x-tilekeep-origin-secret");

/// How long signed cookies live at most.
const LIFE: Duration = Duration::from_mins(15);
/// They end at whole minutes: nothing in them is a person's, so that all who get some in a minute get the same.
const GRID: u64 = 60;
/// Signatures that are kept: those of sessions near their end have seconds of their own.
const MOST_SIGNED: usize = 1024;
/// A wrong secret is told of no more often.
const SPACING: Duration = Duration::from_mins(1);

/// What is known of the distribution.
#[derive(Debug)]
pub struct CloudFrontSettings {
    /// The host by which browsers reach it.
    pub domain: String,
    /// The domain of its cookies; none: the public side's own host, which is the distribution's.
    pub cookie_domain: Option<String>,
    /// The tilesets that go through it.
    pub tilesets: Vec<String>,
    /// What signs.
    pub signer: Signer,
    /// What it proves itself with; any of them will do.
    pub origin_secrets: Vec<Secret>,
}

/// The distribution in front.
pub struct CloudFront {
    domain: String,
    attributes: String,
    tilesets: Vec<Box<str>>,
    signer: Signer,
    secrets: Vec<[u8; 32]>,
    signed: Mutex<HashMap<(usize, u64), Arc<Signed>>>,
    told: Mutex<Option<Uptime>>,
}

/// Cookies for one answer, and what its JSON says of them.
#[derive(Default)]
pub struct EdgeCookies {
    cookies: Vec<HeaderValue>,
    shown: Option<Value>,
}

impl EdgeCookies {
    /// `cloudfront` in a session's JSON: where the cookies are good, and for how many seconds.
    pub fn shown(&self) -> Option<Value> {
        self.shown.clone()
    }

    /// Adds them to an answer.
    pub fn append_to(self, headers: &mut HeaderMap) {
        for cookie in self.cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

impl CloudFront {
    /// With these settings.
    pub fn new(settings: CloudFrontSettings) -> Self {
        let mut attributes = String::from("; HttpOnly; SameSite=Lax; Secure");
        if let Some(domain) = &settings.cookie_domain {
            attributes.push_str("; Domain=");
            attributes.push_str(domain);
        }
        let names = settings.tilesets.into_iter();
        Self {
            domain: settings.domain,
            attributes,
            tilesets: names.map(String::into_boxed_str).collect(),
            signer: settings.signer,
            secrets: settings
                .origin_secrets
                .iter()
                .map(|secret| hashed(secret.expose()))
                .collect(),
            signed: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// A URL for one tile, with a canned policy, and when it ends: for whoever may have that tile and has spent it,
    /// a zoom, an area and a budget included, as it opens nothing else. `None` for a tileset that goes another way.
    ///
    /// It ends at a multiple of half of `life`, so that half of it is left at least; with an RSA key all who ask
    /// meanwhile get the same, with ECDSA each another. 60 seconds of `life` or more.
    pub fn signed_url(
        &self,
        tileset: &Tileset,
        (coord, scale): (TileCoord, Scale),
        life: Duration,
        now: Timestamp,
    ) -> Option<(String, Timestamp)> {
        let name = tileset.name();
        if !self.carries(name) {
            return None;
        }
        let window = (life.as_secs() / 2).max(1);
        let ends = Timestamp::from_secs((now.secs() / window + 2) * window);
        let (z, x, y) = (coord.z(), coord.x(), coord.y());
        let (suffix, extension) = (scale.suffix(), tileset.format().extension());
        let version = tileset
            .version()
            .map_or_else(String::new, |version| format!("?v={version}"));
        let domain = &self.domain;
        let url = format!("https://{domain}/{name}/{z}/{x}/{y}{suffix}.{extension}{version}");
        Some((self.signer.canned_url(&url, ends)?, ends))
    }

    /// Whether the tileset goes through it.
    pub fn carries(&self, tileset: &str) -> bool {
        self.tilesets.iter().any(|name| **name == *tileset)
    }

    /// Whether a session may have what lets its browser in at CloudFront for a whole tileset, unasked: signed cookies.
    pub fn may_stand_for(session: &Session, uptime: Uptime) -> bool {
        let budget = session
            .spender()
            .and_then(|spender| spender.tiles_left(uptime));
        !session.is_confined() && budget.is_none() && session.scopes().contains(Scope::Tiles)
    }

    /// Takes the secret header off a request: whether it is the distribution's. A wrong one is as none.
    pub fn proves(&self, headers: &mut HeaderMap, metrics: &Metrics, clock: &Clock) -> bool {
        let mut sent = headers.get_all(&ORIGIN_SECRET).iter();
        let Some(first) = sent.next() else {
            return false;
        };
        let sent_hash = hashed(first.as_bytes());
        let alone = sent.next().is_none();
        // All are compared, each in a time that tells nothing.
        let right = self.secrets.iter().fold(false, |right, secret| {
            right | verify_slices_are_equal(secret, &sent_hash).is_ok()
        });
        headers.remove(&ORIGIN_SECRET);
        if right && alone {
            metrics.cloudfront.inc(OriginSecret::Right);
            return true;
        }
        metrics.cloudfront.inc(OriginSecret::Wrong);
        self.tell_wrong(clock.uptime());
        false
    }

    /// Anybody can send one: not a line each.
    fn tell_wrong(&self, now: Uptime) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| now.since(told) >= SPACING) {
            *told = Some(now);
            tracing::warn!(
                "a request had {ORIGIN_SECRET} with a wrong secret and was answered as any other: a distribution with an old one, or somebody who guesses"
            );
        }
    }

    /// The cookies of a session that lasts until `until`, of all its tilesets or of one.
    fn cookies(
        &self,
        session: &Session,
        until: Timestamp,
        times: Times,
        only: Option<&str>,
    ) -> EdgeCookies {
        let ends = ending(until, times.now);
        let Some(ends) = ends.filter(|_| Self::may_stand_for(session, times.uptime)) else {
            return EdgeCookies::default();
        };
        let max_age = ends.since(times.now).as_secs();
        let mut given = EdgeCookies::default();
        for (place, name) in self.tilesets.iter().enumerate() {
            if !session.allows_tileset(name) || only.is_some_and(|only| *only != **name) {
                continue;
            }
            let Some(signed) = self.signed(place, ends) else {
                tracing::error!("the operating system gave no random bytes: no CloudFront cookies");
                break;
            };
            for (cookie, value) in self.signer.cookies(&signed) {
                given
                    .cookies
                    .extend(self.cookie(cookie, value, name, max_age));
            }
        }
        if !given.cookies.is_empty() {
            given.shown = Some(json!({ "domain": self.domain, "expires_in": max_age }));
        }
        given
    }

    /// The signature for a tileset up to a moment, made once for all who get it.
    fn signed(&self, place: usize, ends: Timestamp) -> Option<Arc<Signed>> {
        let key = (place, ends.secs());
        let kept = |signed: &Mutex<HashMap<_, Arc<Signed>>>| {
            let signed = signed.lock().unwrap_or_else(PoisonError::into_inner);
            signed.get(&key).cloned()
        };
        if let Some(signed) = kept(&self.signed) {
            return Some(signed);
        }
        // Without the lock, as it takes up to a millisecond: two at once make it twice.
        let resource = format!("https://{}/{}/*", self.domain, self.tilesets[place]);
        let made = Arc::new(self.signer.sign(&resource, ends)?);
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if signed.len() >= MOST_SIGNED {
            signed.clear();
        }
        signed.insert(key, Arc::clone(&made));
        Some(made)
    }

    /// Cookies that remove what a browser may have from before. Name, path and domain are what it goes by.
    fn removals(&self, except: impl Fn(&str) -> bool) -> Vec<HeaderValue> {
        let gone = self.tilesets.iter().filter(|name| !except(name));
        gone.flat_map(|name| COOKIES.map(|cookie| self.cookie(cookie, "", name, 0)))
            .flatten()
            .collect()
    }

    /// One `Set-Cookie`. The path keeps the tilesets' sets apart, which have the same names.
    fn cookie(
        &self,
        cookie: &str,
        value: &str,
        tileset: &str,
        max_age: u64,
    ) -> Option<HeaderValue> {
        let attributes = &self.attributes;
        let text = format!("{cookie}={value}; Path=/{tileset}{attributes}; Max-Age={max_age}");
        HeaderValue::try_from(text).ok()
    }
}

impl fmt::Debug for CloudFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudFront")
            .field("domain", &self.domain)
            .field("tilesets", &self.tilesets)
            .finish_non_exhaustive()
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy)]
struct Times {
    now: Timestamp,
    uptime: Uptime,
}

impl PublicParts {
    /// What an answer to a session by cookie, which lasts until `until`, brings for CloudFront.
    pub(super) fn edge_cookies(
        &self,
        session: &Session,
        until: Timestamp,
        now: Timestamp,
        only: Option<&str>,
    ) -> EdgeCookies {
        let Some(cloudfront) = &self.cloudfront else {
            return EdgeCookies::default();
        };
        let uptime = self.clock.uptime();
        cloudfront.cookies(session, until, Times { now, uptime }, only)
    }

    /// What a log-in's answer brings: its own cookies, and the end of those that somebody before had.
    pub(super) fn first_edge_cookies(&self, token: &str, now: Timestamp) -> EdgeCookies {
        let Some(cloudfront) = &self.cloudfront else {
            return EdgeCookies::default();
        };
        let session = self.sessions.authorize(token, now).ok();
        let mut given = session
            .as_ref()
            .map_or_else(EdgeCookies::default, |session| {
                self.edge_cookies(session, session.expires_at(), now, None)
            });
        let theirs = session.filter(|_| given.shown.is_some());
        let has = |name: &str| {
            theirs
                .as_ref()
                .is_some_and(|session| session.allows_tileset(name))
        };
        given.cookies.extend(cloudfront.removals(has));
        given
    }

    /// What a log-out's answer brings.
    pub(super) fn no_edge_cookies(&self) -> EdgeCookies {
        let cookies = self
            .cloudfront
            .as_ref()
            .map(|cloudfront| cloudfront.removals(|_| false));
        EdgeCookies {
            cookies: cookies.unwrap_or_default(),
            shown: None,
        }
    }
}

/// When cookies that are given now end; `None` where the session is over.
fn ending(session: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let longest = (now + LIFE).secs() / GRID * GRID;
    let ends = Timestamp::from_secs(longest.min(session.secs()));
    (ends.since(now) >= Duration::from_secs(1)).then_some(ends)
}

fn hashed(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    #[test]
    fn cookies_end_within_a_quarter_of_an_hour_and_with_the_session() {
        let far = at(9_000_000);
        for now in 1_000_000..1_000_120 {
            let ends = ending(far, at(now)).unwrap();
            assert_eq!(ends.secs() % 60, 0);
            let left = ends.since(at(now)).as_secs();
            assert!((841..=900).contains(&left), "{left}");
        }
        assert_eq!(ending(at(1_000_100), at(1_000_000)), Some(at(1_000_100)));
        for over in [999_000, 1_000_000] {
            assert_eq!(ending(at(over), at(1_000_000)), None);
        }
    }
}
