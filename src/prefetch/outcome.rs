//! What an answer means for a tile.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::client::{ClientError, ClientErrorKind};

/// How a tile ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// The server had to ask its origin.
    Fetched,
    /// It had the tile.
    Stored {
        /// Seconds that it stays fresh; negative: stale, and revalidated behind this answer.
        ttl: Option<i64>,
    },
    /// It had the tile, stale, and asked its origin whether it has changed.
    Revalidated,
    /// There is no such tile, which is an answer like any other.
    Absent,
    /// It does not have the tile, and was not made to fetch it (`--stale-only`).
    NotStored,
    /// It is in the archive already.
    InArchive,
}

/// Why a tile failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// 403: not this zoom, not this area, or no scope.
    Forbidden,
    /// The tileset is answered by redirects to signed URLs.
    Redirected,
    /// Another 4xx, or a status that says nothing.
    Refused,
    /// 429 or 503 each time.
    Overloaded,
    /// Another 5xx.
    ServerError,
    /// No answer in time, ours or the server's (504).
    TimedOut,
    /// The connection broke in the middle.
    BrokeOff,
    /// Larger than a tile may be.
    TooLarge,
    /// Bytes that are not what their `Content-Encoding` says.
    Corrupt,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Forbidden,
        Self::Redirected,
        Self::Refused,
        Self::Overloaded,
        Self::ServerError,
        Self::TimedOut,
        Self::BrokeOff,
        Self::TooLarge,
        Self::Corrupt,
    ];

    /// The word for reports and resume files.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::TimedOut => "timed_out",
            Self::BrokeOff => "broke_off",
            Self::TooLarge => "too_large",
            Self::Corrupt => "corrupt",
        }
    }

    /// By its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == word)
    }
}

/// What an answer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing more.
    Done(Done),
    /// Giving the tile up.
    Failed(Reason),
    /// The same again later.
    Again(Reason, Option<Duration>),
    /// The same again later, and everybody waits.
    Throttled(Option<Duration>),
    /// A session.
    Unauthorized,
}

/// By status and headers.
pub(super) fn judge(status: StatusCode, headers: &HeaderMap) -> Verdict {
    let wait = || retry_after(headers);
    match status {
        StatusCode::OK | StatusCode::NOT_MODIFIED => Verdict::Done(by_cache_status(headers)),
        StatusCode::NO_CONTENT | StatusCode::NOT_FOUND | StatusCode::GONE => {
            Verdict::Done(Done::Absent)
        }
        StatusCode::UNAUTHORIZED => Verdict::Unauthorized,
        StatusCode::FORBIDDEN => Verdict::Failed(Reason::Forbidden),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Verdict::Throttled(wait())
        }
        StatusCode::GATEWAY_TIMEOUT => Verdict::Again(Reason::TimedOut, wait()),
        status if status.is_server_error() => Verdict::Again(Reason::ServerError, wait()),
        status if status.is_redirection() => Verdict::Failed(Reason::Redirected),
        _ => Verdict::Failed(Reason::Refused),
    }
}

/// What went wrong under way. `None`: the server was not reached.
pub(super) fn judge_error(error: &ClientError) -> Option<Verdict> {
    match error.kind {
        ClientErrorKind::Unreachable | ClientErrorKind::Tls => None,
        ClientErrorKind::Deadline => Some(Verdict::Again(Reason::TimedOut, None)),
        ClientErrorKind::BrokeOff => Some(Verdict::Again(Reason::BrokeOff, None)),
        ClientErrorKind::TooLarge => Some(Verdict::Failed(Reason::TooLarge)),
    }
}

/// `Cache-Status` (RFC 9211) has the caches in the order from the origin to here; Tilekeep's is its own, a CDN's in front
/// comes after it.
fn by_cache_status(headers: &HeaderMap) -> Done {
    let values = headers.get_all("cache-status").iter();
    let mut members = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    let Some(ours) = members.find(|member| member.starts_with("tilekeep")) else {
        return Done::Fetched;
    };
    let mut parameters = ours.split(';').skip(1).map(str::trim);
    if parameters.clone().any(|parameter| parameter == "hit") {
        let ttl = parameters.find_map(|parameter| parameter.strip_prefix("ttl="));
        return Done::Stored {
            ttl: ttl.and_then(|ttl| ttl.parse().ok()),
        };
    }
    if parameters.any(|parameter| parameter == "fwd=stale") {
        return Done::Revalidated;
    }
    Done::Fetched
}

/// `Retry-After` in seconds, as Tilekeep writes it. A date (RFC 9110 §10.2.3) is some proxy's; our own wait does.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn done(cache_status: &'static str) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert("cache-status", HeaderValue::from_static(cache_status));
        judge(StatusCode::OK, &headers)
    }

    #[test]
    fn where_a_tile_came_from_is_what_cache_status_says() {
        for (text, expected) in [
            (
                "tilekeep; hit; ttl=3312; detail=memory",
                Done::Stored { ttl: Some(3312) },
            ),
            (
                "tilekeep; hit; ttl=-4; detail=disk",
                Done::Stored { ttl: Some(-4) },
            ),
            ("tilekeep; fwd=miss; stored; detail=origin", Done::Fetched),
            ("tilekeep; fwd=stale; fwd-status=304", Done::Revalidated),
            (
                "tilekeep; hit; ttl=5, CDN; fwd=miss",
                Done::Stored { ttl: Some(5) },
            ),
            ("CDN; hit", Done::Fetched),
        ] {
            assert_eq!(done(text), Verdict::Done(expected), "{text}");
        }
    }

    #[test]
    fn an_absent_tile_is_a_success_and_a_refused_one_is_not_asked_again() {
        let judged = |status| judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for status in [204, 404, 410] {
            assert_eq!(judged(status), Verdict::Done(Done::Absent));
        }
        assert_eq!(judged(403), Verdict::Failed(Reason::Forbidden));
        assert_eq!(judged(400), Verdict::Failed(Reason::Refused));
        assert_eq!(judged(302), Verdict::Failed(Reason::Redirected));
        assert_eq!(judged(502), Verdict::Again(Reason::ServerError, None));
        assert_eq!(judged(503), Verdict::Throttled(None));
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("7"));
        let wait = Some(Duration::from_secs(7));
        assert_eq!(
            judge(StatusCode::TOO_MANY_REQUESTS, &headers),
            Verdict::Throttled(wait)
        );
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.label()), Some(reason));
        }
    }
}
