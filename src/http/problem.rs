//! Every refusal and failure, translated once: status, a sentence for the public, what may be kept.
//!
//! The body is RFC 9457 `application/problem+json`. It names no bucket, key or credential: those
//! are for the log, which the caller writes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use super::helper_error::HelperError;
use super::route::Malformed;
use super::shield::shield;
use crate::auth::{AuthError, OverQuota, QuotaLimit};
use crate::metrics::Answer;
use crate::origin::OriginErrorKind;
use crate::tile::Outside;

/// Why a request is not answered with what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// A method that the path does not have; with the `Allow` list.
    Method(&'static str),
    /// A path that cannot be one of ours.
    Malformed(Malformed),
    /// A request whose content is wrong, in words.
    BadRequest(&'static str),
    /// A body longer than any that makes sense here.
    TooLarge,
    /// A purge that makes no sense, in words; the admin side's alone.
    BadPurge(String),
    /// A switch of version that makes no sense, in words; the admin side's alone.
    BadVersion(String),
    /// A question about what is cached that makes no sense, in words that name the parameter; the admin side's
    /// alone.
    BadQuestion(String),
    /// Somebody is looking through the caches already; the admin side's alone.
    LookedThrough,
    /// No such tileset; with those that there are, for the admin side.
    NoSuchTileset(String),
    /// No session, or one that is not valid.
    Unauthorized(AuthError),
    /// No such tileset, or not for this session: the two look alike.
    UnknownTileset,
    /// No such page.
    UnknownPage,
    /// Another extension than the tileset's.
    WrongExtension(&'static str),
    /// The tileset has no such place.
    Outside(Outside),
    /// The session does not reach this zoom or area.
    ForbiddenPlace,
    /// The session lacks a scope.
    ForbiddenScope(&'static str),
    /// A write from a page that may not write.
    CrossSite,
    /// A request to the admin side from a page of another site.
    AdminCrossSite,
    /// A request to the admin side without its token, or with a wrong one.
    AdminToken {
        /// Whether there was one.
        given: bool,
    },
    /// A log-in with a wrong name or password.
    WrongPassword,
    /// A session that another than this server issued.
    NotRenewable,
    /// Another issuer's token that is not exchanged for a session; in words.
    TokenRefused(&'static str),
    /// An identity provider that cannot be asked at this moment.
    IdentityProvider {
        /// When to come back.
        retry_after: Duration,
    },
    /// Too many.
    TooMany {
        /// When to come back.
        retry_after: Duration,
    },
    /// The session's person has spent a quota.
    OverQuota(OverQuota),
    /// The origin failed, and nothing stale can stand in.
    Origin {
        /// How.
        kind: OriginErrorKind,
        /// When to come back, if known.
        retry_after: Option<Duration>,
    },
    /// AWS's own access is not handed out.
    Helper(HelperError),
    /// Ours.
    Internal,
}

impl HttpError {
    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_)
            | Self::BadRequest(_)
            | Self::BadPurge(_)
            | Self::BadVersion(_)
            | Self::BadQuestion(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_)
            | Self::WrongPassword
            | Self::TokenRefused(_)
            | Self::AdminToken { .. } => StatusCode::UNAUTHORIZED,
            Self::IdentityProvider { .. } | Self::LookedThrough => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnknownTileset
            | Self::NoSuchTileset(_)
            | Self::UnknownPage
            | Self::WrongExtension(_)
            | Self::Outside(_) => StatusCode::NOT_FOUND,
            Self::ForbiddenPlace
            | Self::ForbiddenScope(_)
            | Self::CrossSite
            | Self::AdminCrossSite
            | Self::NotRenewable => StatusCode::FORBIDDEN,
            Self::TooMany { .. } | Self::OverQuota(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Origin { kind, .. } => match kind {
                OriginErrorKind::Denied
                | OriginErrorKind::Server
                | OriginErrorKind::Truncated
                | OriginErrorKind::Unreachable => StatusCode::BAD_GATEWAY,
                OriginErrorKind::Throttled | OriginErrorKind::HeldBack => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                OriginErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
            },
            Self::Helper(error) => error.status(),
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The metric's label.
    pub fn answer(&self) -> Answer {
        match self {
            Self::Method(_)
            | Self::Malformed(_)
            | Self::BadRequest(_)
            | Self::TooLarge
            | Self::BadPurge(_)
            | Self::BadVersion(_)
            | Self::BadQuestion(_) => Answer::Malformed,
            Self::Unauthorized(_)
            | Self::WrongPassword
            | Self::TokenRefused(_)
            | Self::AdminToken { .. } => Answer::Unauthorized,
            Self::IdentityProvider { .. } | Self::LookedThrough => Answer::Other,
            Self::UnknownTileset
            | Self::NoSuchTileset(_)
            | Self::UnknownPage
            | Self::WrongExtension(_)
            | Self::Outside(_) => Answer::NotFound,
            Self::ForbiddenPlace
            | Self::ForbiddenScope(_)
            | Self::CrossSite
            | Self::AdminCrossSite
            | Self::NotRenewable => Answer::Forbidden,
            Self::TooMany { .. } | Self::OverQuota(_) => Answer::OverQuota,
            Self::Helper(error) => error.answer(),
            Self::Origin { .. } => Answer::OriginFailed,
            Self::Internal => Answer::Internal,
        }
    }

    /// A sentence that a person can act on.
    fn detail(&self) -> String {
        match self {
            Self::Method(allow) => format!("This address answers to {allow}."),
            Self::Malformed(Malformed::Path) => {
                "This path is none of this server's. A tile is at /{tileset}/{z}/{x}/{y}.".into()
            }
            Self::Malformed(Malformed::Coordinates) => {
                "Tile coordinates are plain decimal numbers: /{tileset}/{z}/{x}/{y}.{ext}.".into()
            }
            Self::Malformed(Malformed::Density) => {
                "The only density that a tile's address can name is @2x.".into()
            }
            Self::BadRequest(what) | Self::TokenRefused(what) => (*what).into(),
            Self::BadPurge(what) => format!("This purge was not done: {what}."),
            Self::BadVersion(what) => format!("The version was not switched: {what}."),
            Self::BadQuestion(what) => format!("What is cached cannot be told: {what}."),
            Self::LookedThrough => {
                "The caches are being looked through for somebody else. Ask again in a second.".into()
            }
            Self::NoSuchTileset(names) => format!("There is no such tileset; there are: {names}."),
            Self::Unauthorized(error) => match error {
                AuthError::Missing => "Sign in first: there is no session.".into(),
                AuthError::Expired => "The session has ended. Sign in again.".into(),
                AuthError::Revoked => "The session was ended. Sign in again.".into(),
                AuthError::UnknownQuota => {
                    "The session's quota class is not one of this server's. Its operator can tell which are.".into()
                }
                _ => "The session is not valid. Sign in again.".into(),
            },
            Self::UnknownTileset => "There is no such tileset, or this session may not see it.".into(),
            Self::UnknownPage => "There is nothing at this address.".into(),
            Self::WrongExtension(right) => format!("This tileset's tiles end in .{right}."),
            Self::Outside(Outside::Zoom) => "The tileset has no tiles at this zoom.".into(),
            Self::Outside(Outside::Bounds) => "The tileset has no tiles in this area.".into(),
            Self::Outside(Outside::Pyramid) => {
                "There is no such tile: at zoom z, x and y are below 2^z.".into()
            }
            Self::Outside(Outside::Density) => "The tileset has no @2x tiles.".into(),
            Self::ForbiddenPlace => "This session does not reach this zoom or area.".into(),
            Self::ForbiddenScope(scope) => {
                format!("This session lacks the scope `{scope}`. Ask for one that has it.")
            }
            Self::CrossSite => {
                "A page of another site may not do this: if it should, list its origin in `cors_origins`. A program \
                 logs in with JSON, and then sends its token as `Authorization: Bearer`."
                    .into()
            }
            Self::AdminCrossSite => "The admin side answers to no page of another site.".into(),
            Self::AdminToken { given: false } => {
                "The admin side wants `admin_token` of [server], as `Authorization: Bearer`.".into()
            }
            Self::AdminToken { given: true } => "This is not `admin_token` of [server].".into(),
            Self::TooLarge => "The request's body is longer than this address takes.".into(),
            Self::WrongPassword => "Name or password is wrong.".into(),
            Self::NotRenewable => {
                "This session was not issued here: whoever issued it renews it.".into()
            }
            Self::IdentityProvider { .. } => {
                "The identity provider cannot be reached. Try again shortly.".into()
            }
            Self::TooMany { .. } => "Too many requests. Wait as long as Retry-After says.".into(),
            Self::OverQuota(over) => match (over.limit, over.seen_are_served) {
                (QuotaLimit::Rate, _) => {
                    "Too many requests at once: this session's tiles are asked for faster than its quota allows."
                }
                (QuotaLimit::DistinctTiles, true) => {
                    "Too many different tiles within an hour. Those that were seen in it are still served; Retry-After says when new ones are."
                }
                (QuotaLimit::DistinctTiles, false) => {
                    "Too many different tiles within an hour. Retry-After says when there are more."
                }
            }
            .into(),
            Self::Origin { kind, .. } => match kind {
                OriginErrorKind::Denied => {
                    "The storage refused this server. Its operator finds the reason in the log."
                }
                OriginErrorKind::Throttled | OriginErrorKind::HeldBack => {
                    "The storage is busy. Try again shortly."
                }
                OriginErrorKind::Server => "The storage failed. Try again shortly.",
                OriginErrorKind::Truncated => {
                    "The storage sent a damaged tile, which was not kept. Try again shortly."
                }
                OriginErrorKind::Unreachable => "The storage cannot be reached. Try again shortly.",
                OriginErrorKind::Deadline => {
                    "The storage did not answer in time. Try again shortly."
                }
            }
            .into(),
            Self::Helper(error) => error.detail(),
            Self::Internal => "Something went wrong in this server. Its operator finds it in the log.".into(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after }
            | Self::IdentityProvider { retry_after }
            | Self::OverQuota(OverQuota { retry_after, .. }) => Some(*retry_after),
            Self::LookedThrough => Some(Duration::from_secs(1)),
            Self::Helper(error) => error.retry_after(),
            Self::Origin { retry_after, .. } => Some(retry_after.unwrap_or(Duration::from_secs(2))),
            _ => None,
        }
    }

    /// The answer. What is refused now may be allowed in a moment, so nothing of it is kept, but
    /// for places that a tileset does not have (the caller says for how long).
    pub fn response(&self) -> Response<Body> {
        let status = self.status();
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.detail(),
        });
        let mut response = Response::new(Body::from(Bytes::from(problem.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        shield(headers);
        if let Self::Method(allow) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if matches!(
            self,
            Self::WrongPassword | Self::AdminToken { given: false }
        ) {
            // RFC 9110 §15.5.2: a 401 carries a challenge.
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(
            self,
            Self::TokenRefused(_) | Self::AdminToken { given: true }
        ) {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if let Self::Unauthorized(error) = self {
            // RFC 6750 §3: no error code where there were no credentials.
            let challenge = match error {
                AuthError::Missing => "Bearer",
                _ => "Bearer error=\"invalid_token\"",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(wait) = self.retry_after() {
            // Whole seconds, rounded up (RFC 9110 §10.2.3).
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<Malformed> for HttpError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<AuthError> for HttpError {
    fn from(error: AuthError) -> Self {
        Self::Unauthorized(error)
    }
}

impl From<Outside> for HttpError {
    fn from(outside: Outside) -> Self {
        Self::Outside(outside)
    }
}
