//! `GET /{tileset}/{z}/{x}/{y}/explain`: where a tile is, how old, how fresh, under which validator.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde_json::{Value, json};

use super::body::Body;
use super::encoding;
use super::header_text::http_date;
use super::shield::shield;
use crate::cache::{Assessment, Explained, Freshness, Held, Wanted};
use crate::clock::Timestamp;

/// The answer: JSON that is made for reading.
pub fn explain(wanted: Wanted<'_>, explained: &Explained) -> Response<Body> {
    let now = explained.now;
    let text = json!({
        "tileset": wanted.tileset.name(),
        "version": wanted.tileset.version(),
        "tile": wanted.coord.to_string(),
        "scale": if wanted.scale == crate::tile::Scale::Two { 2 } else { 1 },
        "memory": explained.memory.as_ref().map(|(judged, held)| in_memory(*judged, held, now)),
        "disk": explained.disk.as_ref().map(|meta| json!({
            "record_bytes": meta.record_bytes,
            "validated_seconds_ago": now.since(meta.validated_at).as_secs(),
        })),
        "being_fetched": explained.filling,
    });
    let text = serde_json::to_vec_pretty(&text).unwrap_or_default();
    let mut response = Response::new(Body::from(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    shield(headers);
    response
}

fn in_memory(judged: Assessment, held: &Held, now: Timestamp) -> Value {
    let mut json = json!({
        "freshness": match judged.freshness {
            Freshness::Fresh => "fresh",
            Freshness::StaleWhileRevalidate => "stale, served while it is revalidated",
            Freshness::RevalidateFirst => "stale, revalidated before it is served",
        },
        "ttl_seconds": judged.ttl,
        "usable_on_error": judged.usable_on_error,
        "validated_seconds_ago": now.since(held.validated_at()).as_secs(),
        "last_failure": held.failure().map(|(at, kind)| json!({
            "seconds_ago": now.since(at).as_secs(),
            "kind": format!("{kind:?}"),
        })),
    });
    if held.is_absence() {
        json["absent"] = true.into();
    } else {
        let validator = held.validator();
        json["bytes"] = held.body().len().into();
        json["etag"] = String::from_utf8_lossy(&held.content().etag()).into();
        json["content_encoding"] = encoding::name(held.encoding()).into();
        json["origin_validator"] = validator.as_ref().map(ToString::to_string).into();
        json["last_modified"] = held
            .last_modified()
            .and_then(http_date)
            .map(|date| String::from_utf8_lossy(&date).into_owned())
            .into();
    }
    json
}
