//! The answer to a tile request whose sender may have the tile: 200, 304, or 'no such tile'.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use super::body::{Body, Chunk};
use super::cache_control::{self, Audience, CacheControl};
use super::cache_status::{CACHE_STATUS, cache_status};
use super::conditional::is_not_modified;
use super::encoding::{self, DecodeError};
use super::problem::HttpError;
use super::reply::Reply;
use super::request_head::Fields;
use super::tile_head::{ETag, Facts, Form, TileHead, protect};
use crate::cache::{CacheStatus, Held, Served};
use crate::clock::Timestamp;
use crate::metrics::Answer;
use crate::origin::OriginErrorKind;
use crate::tile::{MissingAnswer, TileFormat, TileKey, Tileset};

/// Encoded tiles up to this size are decoded where they are answered, in some 100 µs at most.
const DECODE_INLINE: usize = 32 * 1024;

/// What [`MissingAnswer::Blank`] answers for pictures of any format: 256 × 256 transparent pixels.
static BLANK_PNG: &[u8] = include_bytes!("blank.png");

/// What is known of a tile request once it has been let in.
#[derive(Debug)]
pub struct Asked<'r> {
    /// GET or HEAD.
    pub method: &'r Method,
    /// The request's fields.
    pub fields: Fields<'r>,
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

/// An answer, what it is counted as, and where it came from.
pub struct Answered {
    /// The answer.
    pub reply: Reply,
    /// What it is counted as.
    pub answer: Answer,
    /// What the caches said.
    pub status: CacheStatus,
}

/// The plain form of an encoded tile. What the origin calls encoded and cannot be decoded is damaged.
type Decoded = Result<Bytes, DecodeError>;

/// Answers with what the caches gave. `decoded` is the tile's plain form, where that was made elsewhere.
pub fn respond(asked: &Asked<'_>, served: Served, decoded: Option<Decoded>) -> Answered {
    let Served { held, status } = served;
    let (reply, answer) = if held.is_absence() {
        let mut response = respond_missing(asked);
        let told = cache_status(status);
        response.headers_mut().insert(CACHE_STATUS, told);
        (response.into(), Answer::Missing)
    } else {
        respond_tile(asked, Served { held, status }, decoded)
    };
    Answered {
        reply,
        answer,
        status,
    }
}

fn respond_tile(
    asked: &Asked<'_>,
    Served { held, status }: Served,
    decoded: Option<Decoded>,
) -> (Reply, Answer) {
    let form = Form::of(asked.fields, held.encoding());
    let etag = ETag::of(form, held.content());
    let not_modified = is_not_modified(asked.fields, etag.as_bytes(), held.last_modified());
    let facts = Facts {
        etag,
        cache_control: cache_control(asked),
        cache_status: status,
        last_modified: held.last_modified(),
        now: asked.now,
    };
    if not_modified {
        let head = TileHead::of_not_modified(form, facts);
        return (Reply::Tile(head, None), Answer::NotModified);
    }
    let tileset = asked.tileset;
    let head = TileHead::of_tile(tileset.format(), tileset.access(), form, facts);
    let head_only = asked.method == Method::HEAD;
    let reply = match form {
        // HEAD may leave out a length that only the work of decoding would tell (RFC 9110 §9.3.2).
        Form::Decoded if head_only => Reply::Tile(head, None),
        Form::Decoded => {
            match decoded.unwrap_or_else(|| encoding::decode(held.encoding(), held.body())) {
                Ok(plain) => Reply::Tile(head, Chunk::bytes(plain)),
                Err(error) => return damaged(asked, status, &error),
            }
        }
        Form::Stored(_) if head_only => {
            Reply::Tile(head, None).with_headers(|fields| tell_length(fields, held.body().len()))
        }
        Form::Stored(_) => Reply::Tile(head, Chunk::tile(held)),
    };
    (reply, Answer::Tile)
}

#[cold]
fn damaged(asked: &Asked<'_>, status: CacheStatus, error: &DecodeError) -> (Reply, Answer) {
    let tileset = asked.tileset.name();
    tracing::warn!(tileset, tile = ?asked.key, %error, "a stored tile is damaged");
    let problem = HttpError::Origin {
        kind: OriginErrorKind::Truncated,
        retry_after: None,
    };
    let mut response = problem.response();
    response
        .headers_mut()
        .insert(CACHE_STATUS, cache_status(status));
    (response.into(), problem.answer())
}

/// Whether the answer takes so much decoding that it is not for the request's own thread.
pub fn decodes_elsewhere(asked: &Asked<'_>, held: &Held) -> bool {
    held.body().len() > DECODE_INLINE
        && *asked.method != Method::HEAD
        && Form::of(asked.fields, held.encoding()) == Form::Decoded
}

/// The plain form of a large tile.
pub async fn decode_elsewhere(held: &Held) -> Decoded {
    let held = held.clone();
    let decoding =
        tokio::task::spawn_blocking(move || encoding::decode(held.encoding(), held.body()));
    let died = |_| Err(DecodeError::Damaged(io::Error::other("decoding it failed")));
    decoding.await.unwrap_or_else(died)
}

fn cache_control(asked: &Asked<'_>) -> CacheControl {
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
fn respond_missing(asked: &Asked<'_>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let believed = cache_control::for_absence(asked.missing, asked.audience, asked.now);
    headers.insert(CACHE_CONTROL, believed.value());
    protect(headers, asked.tileset.access());
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
    if *asked.method == Method::HEAD && status != StatusCode::NO_CONTENT {
        tell_length(response.headers_mut(), body.len());
    } else {
        *response.body_mut() = body.into();
    }
    response
}

/// For HEAD, which gets a body's length alone (RFC 9110 §9.3.2).
fn tell_length(fields: &mut HeaderMap, length: usize) {
    fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
}
