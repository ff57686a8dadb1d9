//! What a browser is told to refuse, on every answer that is no tile: pages, JSON, errors, both sides.
//!
//! Invariant: an answer that says nothing else runs nothing, loads nothing, is framed by nobody, is
//! not guessed to be of another type, hands no address to other sites and is kept nowhere. A page says
//! what it needs beyond that; nothing here is ever loosened from elsewhere.

use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const RULES: [(HeaderName, &str); 7] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
    // Not `no-referrer`: a form's `Origin` would then be `null` (Fetch standard, "append a request
    // `Origin` header").
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
];

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// Adds what an answer does not say itself.
pub fn shield(headers: &mut HeaderMap) {
    for (name, value) in RULES {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

/// The same for a router's answers. What a page or a program reads is not for other sites to embed; scripts
/// and pictures may be meant for that.
pub async fn shielded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    shield(headers);
    let read = headers.get(CONTENT_TYPE).is_some_and(|content_type| {
        let content_type = content_type.as_bytes();
        content_type.starts_with(b"text/html") || content_type.starts_with(b"application/json")
    });
    if read {
        headers
            .entry(CROSS_ORIGIN_RESOURCE_POLICY)
            .or_insert(HeaderValue::from_static("same-origin"));
    }
    response
}
