//! `Cache-Status` (RFC 9211): where an answer came from, in one line.

use http::{HeaderName, HeaderValue};

use super::header_text::{HeaderText, Text};
use crate::cache::{CacheStatus, Revalidation};
use crate::metrics::{Label as _, Source, TierLabel};
use crate::origin::OriginErrorKind;

/// The header's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The longest value, with room to spare.
const MAX_LEN: usize = 96;

/// The header's value.
pub fn cache_status(status: CacheStatus) -> HeaderValue {
    let mut text = HeaderText::<MAX_LEN>::new();
    put_cache_status(status, &mut text);
    text.value_or("tilekeep")
}

/// Writes it. Its parts are ASCII of our own making.
pub fn put_cache_status(status: CacheStatus, text: &mut impl Text) {
    text.put(b"tilekeep; ");
    match status {
        CacheStatus::Hit { tier, ttl } => {
            text.put(b"hit; ttl=");
            text.put_number(ttl);
            text.put(b"; detail=");
            text.put(tier.label().as_bytes());
        }
        CacheStatus::Fetched { stored, collapsed } => {
            text.put(b"fwd=miss");
            put_flags(text, stored, collapsed);
            text.put(b"; detail=origin");
        }
        CacheStatus::Revalidated {
            found: Revalidation::NotModified,
            collapsed,
        } => {
            text.put(b"fwd=stale; fwd-status=304");
            put_flags(text, false, collapsed);
        }
        CacheStatus::Revalidated { found, collapsed } => {
            text.put(match found {
                Revalidation::Absence => b"fwd=stale; fwd-status=404" as &[u8],
                _ => b"fwd=stale; fwd-status=200",
            });
            put_flags(text, true, collapsed);
            text.put(b"; detail=origin");
        }
        CacheStatus::StaleIfError { error, .. } => {
            text.put(b"fwd=stale");
            text.put(match error {
                OriginErrorKind::Denied => b"; fwd-status=403" as &[u8],
                OriginErrorKind::Throttled => b"; fwd-status=503",
                OriginErrorKind::Server => b"; fwd-status=500",
                // No status arrived that could be told (RFC 9211 §2.3).
                OriginErrorKind::Truncated
                | OriginErrorKind::Unreachable
                | OriginErrorKind::Deadline
                | OriginErrorKind::HeldBack => b"",
            });
            text.put(b"; detail=stale-if-error");
        }
    }
}

fn put_flags(text: &mut impl Text, stored: bool, collapsed: bool) {
    if stored {
        text.put(b"; stored");
    }
    if collapsed {
        text.put(b"; collapsed");
    }
}

/// The same as a metric's label.
pub fn source(status: CacheStatus) -> Source {
    match status {
        CacheStatus::Hit {
            tier: TierLabel::Memory,
            ttl,
        } if ttl >= 0 => Source::Memory,
        CacheStatus::Hit {
            tier: TierLabel::Memory,
            ..
        } => Source::StaleMemory,
        CacheStatus::Hit {
            tier: TierLabel::Disk,
            ttl,
        } if ttl >= 0 => Source::Disk,
        CacheStatus::Hit {
            tier: TierLabel::Disk,
            ..
        } => Source::StaleDisk,
        CacheStatus::Fetched {
            collapsed: true, ..
        }
        | CacheStatus::Revalidated {
            collapsed: true, ..
        } => Source::Collapsed,
        CacheStatus::Fetched { .. } => Source::Origin,
        CacheStatus::Revalidated { .. } => Source::Revalidated,
        CacheStatus::StaleIfError { .. } => Source::StaleIfError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: CacheStatus) -> String {
        cache_status(status).to_str().unwrap().to_owned()
    }

    #[test]
    fn the_words_are_those_of_the_contract() {
        let hit = |tier, ttl| text(CacheStatus::Hit { tier, ttl });
        assert_eq!(
            hit(TierLabel::Memory, 3312),
            "tilekeep; hit; ttl=3312; detail=memory"
        );
        assert_eq!(
            hit(TierLabel::Disk, -4),
            "tilekeep; hit; ttl=-4; detail=disk"
        );
        let fetched = |collapsed| {
            text(CacheStatus::Fetched {
                stored: true,
                collapsed,
            })
        };
        assert_eq!(fetched(false), "tilekeep; fwd=miss; stored; detail=origin");
        assert_eq!(
            fetched(true),
            "tilekeep; fwd=miss; stored; collapsed; detail=origin"
        );
        let found = Revalidation::NotModified;
        let revalidated = CacheStatus::Revalidated {
            found,
            collapsed: false,
        };
        assert_eq!(text(revalidated), "tilekeep; fwd=stale; fwd-status=304");
        let error = OriginErrorKind::Throttled;
        assert_eq!(
            text(CacheStatus::StaleIfError { error, ttl: -9 }),
            "tilekeep; fwd=stale; fwd-status=503; detail=stale-if-error"
        );
    }
}
