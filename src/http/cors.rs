//! Cross-origin answers (Fetch standard, "CORS protocol"): for listed origins alone, with credentials.
//!
//! Invariant: on every answer, refusals and failures included, or a page cannot read what went wrong.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    CACHE_CONTROL, Entry, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::body::Body;
use super::request_head::Fields;

/// Which origins' pages may read answers.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// Exact origins, as browsers send them.
    pub fn new(origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        Self {
            origins: origins.into_iter().collect(),
        }
    }

    /// The request's `Origin`, where that can matter: kept for [`Cors::apply`], as the request itself
    /// does not last that long.
    pub fn origin_of(&self, request: Fields<'_>) -> Option<HeaderValue> {
        let origin = || HeaderValue::from_bytes(request.get(&ORIGIN)?).ok();
        self.is_on().then(origin).flatten()
    }

    /// Whether a page of this origin may read answers and write.
    pub fn allows(&self, origin: Option<&[u8]>) -> bool {
        origin.is_some_and(|origin| self.origins.iter().any(|listed| listed == origin))
    }

    /// Whether any origin is listed: then answers vary by `Origin`.
    pub fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Adds what a listed origin's page needs. Only if [`Cors::is_on`].
    pub fn apply(&self, origin: Option<HeaderValue>, answer: &mut HeaderMap) {
        debug_assert!(
            self.is_on(),
            "answers do not vary by an origin that nobody listed"
        );
        match answer.entry(VARY) {
            Entry::Vacant(vary) => {
                vary.insert(HeaderValue::from_static("Origin"));
            }
            Entry::Occupied(mut vary) if vary.get() == "Accept-Encoding" => {
                vary.insert(HeaderValue::from_static("Accept-Encoding, Origin"));
            }
            Entry::Occupied(mut vary) => vary.append(HeaderValue::from_static("Origin")),
        }
        if let Some(origin) = origin.filter(|origin| self.allows(Some(origin.as_bytes()))) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
            answer.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("Cache-Status, ETag, Retry-After"),
            );
        }
    }

    /// The answer to `OPTIONS`: a preflight or a plain question. It needs no session, as browsers
    /// send none with it.
    pub fn preflight(&self, origin: Option<&HeaderValue>, allow: &'static str) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(allow));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.allows(origin.map(HeaderValue::as_bytes)) {
            headers.insert(
                ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static(allow),
            );
            headers.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static("Authorization, Content-Type, If-None-Match"),
            );
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
        }
        response
    }
}
