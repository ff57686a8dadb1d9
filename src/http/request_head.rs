//! A request's head, wherever it lies: in `http`'s types, or still in the bytes that came.
//!
//! What a tile is asked for with is read where the connection put it: to make a map of its fields takes longer than
//! to look up all that is looked up in it. Who needs a request of its own makes one of the head.

use std::{fmt, slice};

use http::header::ValueIter;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// A request without its body.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'r> {
    /// GET or another.
    pub method: &'r Method,
    /// HTTP's.
    pub version: Version,
    /// The target's host, where it names one.
    pub authority: Option<&'r str>,
    /// The target's path and query.
    pub place: &'r str,
    /// The fields.
    pub fields: Fields<'r>,
}

impl<'r> RequestHead<'r> {
    /// Of a request.
    pub fn of<B>(request: &'r Request<B>) -> Self {
        let uri = request.uri();
        Self {
            method: request.method(),
            version: request.version(),
            authority: uri.authority().map(http::uri::Authority::as_str),
            place: place(uri),
            fields: request.headers().into(),
        }
    }

    /// The target's path.
    pub fn path(&self) -> &'r str {
        self.split().0
    }

    /// The target's query.
    pub fn query(&self) -> Option<&'r str> {
        self.split().1
    }

    fn split(&self) -> (&'r str, Option<&'r str>) {
        match self.place.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.place, None),
        }
    }

    /// A request of its own, which names no authority in its target.
    pub fn to_request<B>(&self, body: B) -> http::Result<Request<B>> {
        let mut request = Request::builder()
            .method(self.method)
            .version(self.version)
            .uri(self.place)
            .body(body)?;
        match self.fields {
            Fields::Map(map) => request.headers_mut().clone_from(map),
            Fields::Lines(lines) => {
                let fields = request.headers_mut();
                fields.reserve(lines.len());
                for line in lines {
                    let name = HeaderName::from_bytes(line.name.as_bytes())?;
                    fields.append(name, HeaderValue::from_bytes(line.value)?);
                }
            }
        }
        Ok(request)
    }
}

/// A request's fields.
#[derive(Clone, Copy)]
pub enum Fields<'r> {
    /// By name.
    Map(&'r HeaderMap),
    /// In the order in which they came.
    Lines(&'r [httparse::Header<'r>]),
}

impl fmt::Debug for Fields<'_> {
    /// Cookies and tokens are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields(hidden)")
    }
}

impl<'r> From<&'r HeaderMap> for Fields<'r> {
    fn from(map: &'r HeaderMap) -> Self {
        Self::Map(map)
    }
}

impl<'r> Fields<'r> {
    /// The values of all fields of a name, in the order in which they came.
    pub fn all<'n>(self, name: &'n HeaderName) -> Values<'r, 'n> {
        match self {
            Self::Map(map) => Values::Map(map.get_all(name).iter()),
            Self::Lines(lines) => Values::Lines(name.as_str(), lines.iter()),
        }
    }

    /// The value of the first field of a name.
    pub fn get(self, name: &HeaderName) -> Option<&'r [u8]> {
        self.all(name).next()
    }

    /// Whether there is a field of a name.
    pub fn has(self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }
}

/// The values of a name.
pub enum Values<'r, 'n> {
    /// Of a map.
    Map(ValueIter<'r, HeaderValue>),
    /// Of lines, whose names may have capitals.
    Lines(&'n str, slice::Iter<'r, httparse::Header<'r>>),
}

impl<'r> Values<'r, '_> {
    fn of(
        name: &str,
        mut lines: impl Iterator<Item = &'r httparse::Header<'r>>,
    ) -> Option<&'r [u8]> {
        lines
            .find(|line| line.name.len() == name.len() && line.name.eq_ignore_ascii_case(name))
            .map(|line| line.value)
    }
}

impl<'r> Iterator for Values<'r, '_> {
    type Item = &'r [u8];

    fn next(&mut self) -> Option<&'r [u8]> {
        match self {
            Self::Map(values) => values.next().map(HeaderValue::as_bytes),
            Self::Lines(name, lines) => Self::of(name, lines),
        }
    }
}

impl<'r> DoubleEndedIterator for Values<'r, '_> {
    fn next_back(&mut self) -> Option<&'r [u8]> {
        match self {
            Self::Map(values) => values.next_back().map(HeaderValue::as_bytes),
            Self::Lines(name, lines) => Self::of(name, lines.rev()),
        }
    }
}

/// A target's path and query.
pub fn place(uri: &Uri) -> &str {
    let place = uri.path_and_query();
    place.map_or("", http::uri::PathAndQuery::as_str)
}

/// A value as text, if all of it is visible ASCII, blanks and tabs: as [`HeaderValue::to_str`] has it.
pub fn text(value: &[u8]) -> Option<&str> {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    value
        .iter()
        .all(is_text)
        .then(|| std::str::from_utf8(value).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_made_again_of_its_head() {
        let request = Request::get("/world/0/0/0.png?v=2")
            .header("host", "x")
            .header("cookie", "a=b")
            .header("cookie", "c=d")
            .body(())
            .unwrap();
        let head = RequestHead::of(&request);
        assert_eq!(
            (head.path(), head.query()),
            ("/world/0/0/0.png", Some("v=2"))
        );
        let lines: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| httparse::Header {
                name: name.as_str(),
                value: value.as_bytes(),
            })
            .collect();
        for fields in [head.fields, Fields::Lines(&lines)] {
            let head = RequestHead { fields, ..head };
            assert!(!format!("{head:?}").contains("a=b"), "a cookie");
            let again = head.to_request(()).unwrap();
            assert_eq!(again.uri(), request.uri());
            assert_eq!(again.headers(), request.headers());
        }
    }

    #[test]
    fn text_is_what_http_takes_for_text() {
        for byte in 0..=u8::MAX {
            let Ok(value) = HeaderValue::from_bytes(&[b'a', byte]) else {
                continue;
            };
            assert_eq!(text(value.as_bytes()), value.to_str().ok(), "{byte}");
        }
    }
}
