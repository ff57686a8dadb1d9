//! How a request ended, and where its answer came from: in the words of the status table and of `Cache-Status`.
//!
//! Invariant: every request has one outcome, and a missing tile is no failure. Left out: counting.

use http::{HeaderMap, HeaderName, StatusCode};

use crate::client::ClientErrorKind;
use crate::label_enum;
use crate::metrics::Source;

label_enum! {
    /// How a request ended.
    pub enum Outcome {
        /// A tile came.
        Tile = "tile",
        /// 304: what the browser has is good.
        NotModified = "not_modified",
        /// There is no such tile: 404, 410 or 204.
        Absent = "absent",
        /// Another address has it. It is not followed.
        Redirected = "redirected",
        /// 401.
        Unauthorized = "401",
        /// 403.
        Forbidden = "403",
        /// 429: over a quota.
        OverQuota = "429",
        /// 500, and any 5xx that is not named here.
        ServerError = "500",
        /// 502.
        BadGateway = "502",
        /// 503.
        Unavailable = "503",
        /// 504.
        GatewayTimeout = "504",
        /// Any other status.
        OtherStatus = "other_status",
        /// No connection.
        Unreachable = "unreachable",
        /// TLS: a certificate, or no HTTP/2.
        Tls = "tls",
        /// The connection ended before the answer did.
        BrokeOff = "broke_off",
        /// Not whole in time.
        Deadline = "deadline",
        /// Given up by the map: the view moved on.
        Cancelled = "cancelled",
        /// Still under way when the test was over.
        Unfinished = "unfinished",
    }
}

impl Outcome {
    /// What a status means.
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_MODIFIED => Self::NotModified,
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::NO_CONTENT => Self::Absent,
            StatusCode::UNAUTHORIZED => Self::Unauthorized,
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Self::OverQuota,
            StatusCode::BAD_GATEWAY => Self::BadGateway,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Self::GatewayTimeout,
            status if status.is_success() => Self::Tile,
            status if status.is_redirection() => Self::Redirected,
            status if status.is_server_error() => Self::ServerError,
            _ => Self::OtherStatus,
        }
    }

    /// What an error means.
    pub fn of_error(kind: ClientErrorKind) -> Self {
        match kind {
            ClientErrorKind::Unreachable => Self::Unreachable,
            ClientErrorKind::Tls => Self::Tls,
            ClientErrorKind::Deadline => Self::Deadline,
            ClientErrorKind::BrokeOff | ClientErrorKind::TooLarge => Self::BrokeOff,
        }
    }

    /// Whether a map has what it wanted.
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Self::Tile | Self::NotModified | Self::Absent | Self::Redirected
        )
    }

    /// What a failure usually comes from, for whoever has to end it; empty for what is none.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Tile
            | Self::NotModified
            | Self::Absent
            | Self::Redirected
            | Self::Cancelled
            | Self::Unfinished => "",
            Self::Unauthorized => "no session, or one that has ended",
            Self::Forbidden => "the session lacks this zoom, area or scope",
            Self::OverQuota => {
                "over the class's quota: take more tokens, or a class that allows more"
            }
            Self::ServerError => "the server's log says why",
            Self::BadGateway => "the server could not get it from S3",
            Self::Unavailable => "S3 asked for less, or too much was waiting for it",
            Self::GatewayTimeout => "S3 was too slow",
            Self::OtherStatus => "a status that is no tile's",
            Self::Unreachable => "no connection",
            Self::Tls => "the certificate, or no HTTP/2",
            Self::BrokeOff => "the connection ended before the answer did",
            Self::Deadline => "not whole within 30 s",
        }
    }

    /// Whether it went wrong: neither good nor given up by ourselves.
    pub fn is_failure(self) -> bool {
        !self.is_good() && !matches!(self, Self::Cancelled | Self::Unfinished)
    }
}

/// Where the answer came from (RFC 9211).
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Where an answer came from, by its `Cache-Status`; `None` without one of Tilekeep's.
pub fn source(headers: &HeaderMap) -> Option<Source> {
    // The member that is nearest to us is the last one (RFC 9211 §2); a CDN's own stands behind ours.
    let values = headers.get_all(CACHE_STATUS);
    let members = values.iter().filter_map(|value| value.to_str().ok());
    let member = members
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .find(|member| member.starts_with("tilekeep"))?;
    let mut hit = false;
    let (mut collapsed, mut stale, mut ttl) = (false, false, 0_i64);
    let mut detail = "";
    for part in member.split(';').skip(1).map(str::trim) {
        match part.split_once('=') {
            None if part == "hit" => hit = true,
            None if part == "collapsed" => collapsed = true,
            Some(("fwd", "stale")) => stale = true,
            Some(("ttl", number)) => ttl = number.parse().unwrap_or(0),
            Some(("detail", word)) => detail = word,
            _ => {}
        }
    }
    match (hit, detail) {
        (true, "memory") if ttl < 0 => Some(Source::StaleMemory),
        (true, "memory") => Some(Source::Memory),
        (true, "disk") if ttl < 0 => Some(Source::StaleDisk),
        (true, "disk") => Some(Source::Disk),
        (true, _) => None,
        (false, "stale-if-error") => Some(Source::StaleIfError),
        (false, _) if collapsed => Some(Source::Collapsed),
        (false, _) if stale => Some(Source::Revalidated),
        (false, _) => Some(Source::Origin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_status_that_the_server_writes_is_understood() {
        for (text, expected) in [
            ("hit; ttl=3312; detail=memory", Source::Memory),
            ("hit; ttl=-4; detail=memory", Source::StaleMemory),
            ("hit; ttl=0; detail=disk", Source::Disk),
            ("hit; ttl=-4; detail=disk", Source::StaleDisk),
            ("fwd=miss; stored; detail=origin", Source::Origin),
            ("fwd=miss; detail=origin", Source::Origin),
            (
                "fwd=miss; stored; collapsed; detail=origin",
                Source::Collapsed,
            ),
            ("fwd=stale; fwd-status=304", Source::Revalidated),
            (
                "fwd=stale; fwd-status=200; stored; detail=origin",
                Source::Revalidated,
            ),
            (
                "fwd=stale; fwd-status=404; stored; detail=origin",
                Source::Revalidated,
            ),
            ("fwd=stale; fwd-status=304; collapsed", Source::Collapsed),
            (
                "fwd=stale; fwd-status=503; detail=stale-if-error",
                Source::StaleIfError,
            ),
            ("fwd=stale; detail=stale-if-error", Source::StaleIfError),
        ] {
            let mut headers = HeaderMap::new();
            let text = format!("tilekeep; {text}");
            headers.insert(CACHE_STATUS, text.parse().unwrap());
            assert_eq!(source(&headers), Some(expected), "{text}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(source(&headers), None);
        headers.insert(CACHE_STATUS, "edge; hit".parse().unwrap());
        assert_eq!(source(&headers), None);
        let ours = "tilekeep; fwd=miss; stored; detail=origin, edge; fwd=miss";
        headers.insert(CACHE_STATUS, ours.parse().unwrap());
        assert_eq!(source(&headers), Some(Source::Origin));
    }

    #[test]
    fn every_status_has_a_meaning() {
        for (status, outcome) in [
            (200, Outcome::Tile),
            (304, Outcome::NotModified),
            (404, Outcome::Absent),
            (204, Outcome::Absent),
            (302, Outcome::Redirected),
            (429, Outcome::OverQuota),
            (500, Outcome::ServerError),
            (504, Outcome::GatewayTimeout),
            (400, Outcome::OtherStatus),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Outcome::of_status(status), outcome);
            assert_eq!(
                outcome.is_failure(),
                status.as_u16() >= 400 && outcome != Outcome::Absent
            );
        }
        assert!(!Outcome::Cancelled.is_good() && !Outcome::Cancelled.is_failure());
    }
}
