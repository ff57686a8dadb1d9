//! A request's head, wherever it lies: in `http`'s types, or still in the bytes that came.
//!
//! What a tile is asked for with is read where the connection put it: to make a map of its fields takes longer than
//! to look up all that is looked up in it. Who needs a request of its own makes one of the head.

use std::slice;

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
        let request = Request::builder()
            .method(self.method)
            .version(self.version)
            .uri(self.place);
        let request = match self.fields {
            Fields::Map(map) => map.iter().fold(request, |request, (name, value)| {
                request.header(name, value)
            }),
            Fields::Lines(lines) => lines.iter().fold(request, |request, line| {
                request.header(line.name, line.value)
            }),
        };
        request.body(body)
    }
}

/// A request's fields.
#[derive(Debug, Clone, Copy)]
pub enum Fields<'r> {
    /// By name.
    Map(&'r HeaderMap),
    /// In the order in which they came.
    Lines(&'r [httparse::Header<'r>]),
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
#[derive(Debug)]
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
