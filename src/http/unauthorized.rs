//! Without a session: 401 for images and `fetch`, the way to the log-in for people.

use http::header::{ACCEPT, CACHE_CONTROL, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::Body;
use super::problem::HttpError;
use super::request_head::Fields;
use super::session::MAX_NEXT;
use crate::auth::AuthError;
use crate::metrics::Answer;

/// What a browser says of how it asks (Fetch Metadata).
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// 401, or the way to the log-in for a person who typed an address. Only for page navigations: a
/// redirect in answer to an image or a fetch would break a map silently.
pub fn unauthorized(error: AuthError, place: &str, fields: Fields<'_>) -> (Response<Body>, Answer) {
    let mode = fields.get(&SEC_FETCH_MODE);
    let navigates = mode == Some(b"navigate");
    // Browsers without Fetch Metadata still ask for HTML in so many words when they navigate.
    let asks_for_html = mode.is_none()
        && fields
            .get(&ACCEPT)
            .is_some_and(|accept| accept.starts_with(b"text/html"));
    if !navigates && !asks_for_html {
        let problem = HttpError::from(error);
        return (problem.response(), problem.answer());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    // A longer place than the log-in would go back to is not worth a header of three times its length.
    let place = Some(place).filter(|place| !place.is_empty() && place.len() <= MAX_NEXT);
    let place = place.unwrap_or("/");
    let login = format!("/login?next={}", escape_query(place));
    let headers = response.headers_mut();
    headers.insert(
        LOCATION,
        HeaderValue::try_from(login).unwrap_or(HeaderValue::from_static("/login")),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (response, Answer::Unauthorized)
}

/// A path as the value of a query parameter: everything but unreserved characters and slashes is
/// escaped (RFC 3986 §2.3).
pub(super) fn escape_query(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut escaped, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
                escaped.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
            escaped
        })
}
