//! The answer to a tile request whose sender may have the tile: 200, 304, or 'no such tile'.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use super::body::Body;
use super::cache_control::{self, Audience};
use super::cache_status::{CACHE_STATUS, cache_status};
use super::conditional::is_not_modified;
use super::encoding;
use super::header_text::HeaderText;
use super::problem::HttpError;
use crate::cache::{Held, Served};
use crate::clock::Timestamp;
use crate::metrics::Answer;
use crate::origin::OriginErrorKind;
use crate::tile::{Access, MissingAnswer, TileFormat, TileKey, Tileset};

/// `Cross-Origin-Resource-Policy` (Fetch standard): who may embed a tile without CORS.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Encoded tiles up to this size are decoded where they are answered, in some 100 µs at most.
const DECODE_INLINE: usize = 32 * 1024;

/// What [`MissingAnswer::Blank`] answers for pictures of any format: 256 × 256 transparent pixels.
static BLANK_PNG: &[u8] = include_bytes!("blank.png");

/// What is known of a tile request once it has been let in.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// GET or HEAD.
    pub method: &'r Method,
    /// The request's headers.
    pub headers: &'r HeaderMap,
    /// The tileset.
    pub tileset: &'r Tileset,
    /// The tile.
    pub key: TileKey,
    /// Who may keep the answer.
    pub audience: Audience,
    /// Whether the URL names the tileset's current version.
    pub versioned: bool,
    /// How long 'no such tile' is believed.
    pub missing: Duration,
    /// The time.
    pub now: Timestamp,
}

/// Answers with what the caches gave.
pub async fn respond(asked: Asked<'_>, served: &Served) -> (Response<Body>, Answer) {
    let answered = if served.held.is_absence() {
        Ok((respond_missing(asked), Answer::Missing))
    } else {
        respond_tile(asked, &served.held).await
    };
    let (mut response, answer) =
        answered.unwrap_or_else(|problem: HttpError| (problem.response(), problem.answer()));
    response
        .headers_mut()
        .insert(CACHE_STATUS, cache_status(served.status));
    (response, answer)
}

async fn respond_tile(
    asked: Asked<'_>,
    held: &Held,
) -> Result<(Response<Body>, Answer), HttpError> {
    let coding = encoding::name(held.encoding());
    let decoded = coding.is_some_and(|coding| !encoding::accepts(asked.headers, coding));
    let etag = held.content().etag();
    let etag = if decoded {
        decoded_etag(&etag)
    } else {
        Bytes::copy_from_slice(&etag)
    };
    let not_modified = is_not_modified(asked.headers, &etag, held.last_modified());

    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.reserve(12);
    headers.insert(ETAG, value(etag));
    headers.insert(CACHE_CONTROL, cache_control(asked));
    if coding.is_some() {
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if not_modified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok((response, Answer::NotModified));
    }
    if let Some(date) = held.last_modified().and_then(http_date) {
        headers.insert(LAST_MODIFIED, date);
    }
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(asked.tileset.format().content_type()),
    );
    if let (Some(coding), false) = (coding, decoded) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    protect(headers, asked.tileset);
    // HEAD may leave out a length that only the work of decoding would tell (RFC 9110 §9.3.2).
    if !decoded {
        send(asked.method, &mut response, held.body().len(), || {
            held.bytes()
        });
    } else if asked.method != Method::HEAD {
        let body = plain_body(asked, held).await?;
        *response.body_mut() = body.into();
    }
    Ok((response, Answer::Tile))
}

/// The plain form of an encoded tile. What the origin calls encoded and cannot be decoded is damaged.
async fn plain_body(asked: Asked<'_>, held: &Held) -> Result<Bytes, HttpError> {
    let encoding = held.encoding();
    let body = held.bytes();
    let decoded = if body.len() <= DECODE_INLINE {
        encoding::decode(encoding, &body)
    } else {
        let decoding = tokio::task::spawn_blocking(move || encoding::decode(encoding, &body));
        decoding.await.map_err(|_| HttpError::Internal)?
    };
    decoded.map_err(|error| {
        tracing::warn!(tileset = asked.tileset.name(), tile = ?asked.key, %error, "a stored tile is damaged");
        HttpError::Origin {
            kind: OriginErrorKind::Truncated,
            retry_after: None,
        }
    })
}

fn cache_control(asked: Asked<'_>) -> HeaderValue {
    if asked.versioned {
        cache_control::for_version(asked.audience, asked.now)
    } else {
        cache_control::for_tile(
            asked.tileset.browser(),
            asked.audience,
            asked.key,
            asked.now,
        )
    }
}

/// 'No such tile', as the tileset says it.
fn respond_missing(asked: Asked<'_>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let believed = cache_control::for_absence(asked.missing, asked.audience, asked.now);
    headers.insert(CACHE_CONTROL, believed);
    protect(headers, asked.tileset);
    let problem = |status: StatusCode| {
        let detail = "There is no such tile.";
        json!({ "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail })
            .to_string()
            .into()
    };
    let (status, content_type, body) = match asked.tileset.missing() {
        MissingAnswer::NotFound => (
            StatusCode::NOT_FOUND,
            Some("application/problem+json"),
            problem(StatusCode::NOT_FOUND),
        ),
        MissingAnswer::Gone => (
            StatusCode::GONE,
            Some("application/problem+json"),
            problem(StatusCode::GONE),
        ),
        MissingAnswer::NoContent => (StatusCode::NO_CONTENT, None, Bytes::new()),
        MissingAnswer::Blank if asked.tileset.format() == TileFormat::Mvt => (
            StatusCode::OK,
            Some(TileFormat::Mvt.content_type()),
            Bytes::new(),
        ),
        MissingAnswer::Blank => (
            StatusCode::OK,
            Some("image/png"),
            Bytes::from_static(BLANK_PNG),
        ),
    };
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        send(asked.method, &mut response, body.len(), || body);
    }
    response
}

/// Puts a body in place; for HEAD its length alone (RFC 9110 §9.3.2).
fn send(method: &Method, response: &mut Response<Body>, len: usize, body: impl FnOnce() -> Bytes) {
    if method == Method::HEAD {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(len));
    } else {
        *response.body_mut() = body().into();
    }
}

pub(super) fn protect(headers: &mut HeaderMap, tileset: &Tileset) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let embedders = match tileset.access() {
        Access::Session => "same-site",
        Access::Public => "cross-origin",
    };
    headers.insert(
        CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static(embedders),
    );
}

/// The decoded form has other bytes, so it has another strong tag (RFC 9110 §8.8.3.3).
fn decoded_etag(etag: &[u8]) -> Bytes {
    let mut tag = BytesMut::with_capacity(etag.len() + 2);
    tag.put_slice(&etag[..etag.len().saturating_sub(1)]);
    tag.put_slice(b"-d\"");
    tag.freeze()
}

/// The first second that an HTTP date cannot say.
const YEAR_10000: u64 = 253_402_300_800;

/// Seconds since the epoch as an HTTP date (RFC 9110 §5.6.7).
pub(super) fn http_date(seconds: u64) -> Option<HeaderValue> {
    (seconds < YEAR_10000).then(|| {
        let mut text = HeaderText::<29>::new();
        text.put_http_date(seconds);
        text.value_or("")
    })
}

/// A header value from ASCII.
fn value(text: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static(""))
}
