//! The session cookie: its name and attributes, and finding tokens in what a browser sends.
//! Bytes in, text out; no HTTP type.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use memchr::{memchr, memchr_iter};

use super::MAX_TOKEN_LEN;

/// Cookies of our name that are looked at. A browser sends one; a parent domain's makes two.
const MAX_CANDIDATES: usize = 4;
/// Bytes of `Cookie` headers that are looked at.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The scheme that the browser used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

/// Whether cookies are `Secure`: always, except where a browser reaches this very machine by
/// http. `host` is the public one, with or without a port; a wrong guess there must cost a log-in and
/// never a cookie in clear text.
pub fn needs_secure(scheme: Scheme, host: &str) -> bool {
    scheme == Scheme::Https || !is_loopback(host)
}

/// `localhost`, a name under it (RFC 6761 §6.3), or a loopback address.
fn is_loopback(host: &str) -> bool {
    let (name, port) = if let Some(bracketed) = host.strip_prefix('[') {
        let Some((address, rest)) = bracketed.split_once(']') else {
            return false;
        };
        (address, rest.strip_prefix(':'))
    } else {
        match host.split_once(':') {
            // A bare IPv6 address.
            Some((_, rest)) if rest.contains(':') => (host, None),
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        }
    };
    if port.is_some_and(|port| !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let ends_with = |end: &str| {
        let start = name.len().checked_sub(end.len());
        start.is_some_and(|start| name.as_bytes()[start..].eq_ignore_ascii_case(end.as_bytes()))
    };
    name.eq_ignore_ascii_case("localhost")
        || ends_with(".localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Why a cookie cannot be set like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// Not a token of RFC 9110, or a prefix that is set by itself.
    #[error(
        "cookie {0:?}: a name is 1 to 64 letters, digits, `-`, `_` or `.`, without `__Host-` or `__Secure-` in front: that is added where it may be"
    )]
    Name(String),
    /// Not a host name.
    #[error("domain {0:?}: a host name such as example.com, without scheme or port")]
    Domain(String),
}

/// The session cookie's name and attributes. The name has the prefix `__Host-` exactly when the
/// cookie is `Secure` and has no domain: browsers then let no other host set it (RFC 6265bis
/// §4.1.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookiePolicy {
    name: String,
    attributes: String,
    secure: bool,
}

impl CookiePolicy {
    /// For this name and domain; `secure` by [`needs_secure`]. Where the scheme is known by request
    /// alone, there is a policy for either.
    pub fn new(name: &str, domain: Option<&str>, secure: bool) -> Result<Self, CookieError> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let prefixed = ["__host-", "__secure-"]
            .iter()
            .any(|prefix| name.to_ascii_lowercase().starts_with(prefix));
        if name.is_empty() || name.len() > 64 || !name.bytes().all(token) || prefixed {
            return Err(CookieError::Name(name.to_owned()));
        }
        let mut attributes = String::from("; Path=/; HttpOnly; SameSite=Lax");
        if secure {
            attributes.push_str("; Secure");
        }
        if let Some(domain) = domain {
            let bare = domain.strip_prefix('.').unwrap_or(domain);
            let label = |label: &str| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            };
            if bare.len() > 253 || !bare.split('.').all(label) {
                return Err(CookieError::Domain(domain.to_owned()));
            }
            attributes.push_str("; Domain=");
            attributes.push_str(bare);
        }
        let prefix = if secure && domain.is_none() {
            "__Host-"
        } else {
            ""
        };
        Ok(Self {
            name: format!("{prefix}{name}"),
            attributes,
            secure,
        })
    }

    /// The name that browsers send.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is `Secure`.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// A `Set-Cookie` value. `token` is a JWT: letters, digits, `-`, `_` and `.`.
    pub fn set(&self, token: &str, max_age: Duration) -> String {
        let Self {
            name, attributes, ..
        } = self;
        format!("{name}={token}{attributes}; Max-Age={}", max_age.as_secs())
    }

    /// The `Set-Cookie` value that removes it: name, path and domain are what a browser goes by.
    pub fn delete(&self) -> String {
        format!("{}={}; Max-Age=0", self.name, self.attributes)
    }
}

/// The tokens among a request's cookies, in the order they were sent. Bytes: that one is text, its signature
/// says.
#[derive(Clone, Default)]
pub struct CookieTokens<'a> {
    tokens: [&'a [u8]; MAX_CANDIDATES],
    len: usize,
    oversized: bool,
}

impl<'a> CookieTokens<'a> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.tokens.into_iter().take(self.len)
    }

    /// Whether one was passed over for its length.
    pub fn had_oversized(&self) -> bool {
        self.oversized
    }

    /// Names are compared exactly: browsers do (RFC 6265bis §5.7).
    fn look_at(&mut self, pair: &'a [u8], name: &str) {
        let Some(equals) = memchr(b'=', pair) else {
            return;
        };
        if pair[..equals].trim_ascii() != name.as_bytes() {
            return;
        }
        let value = pair[equals + 1..].trim_ascii();
        let bare = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        self.push(bare.unwrap_or(value));
    }

    fn push(&mut self, token: &'a [u8]) {
        if token.len() > MAX_TOKEN_LEN {
            self.oversized = true;
        } else if !token.is_empty()
            && self.len < MAX_CANDIDATES
            && !self.tokens[..self.len].contains(&token)
        {
            self.tokens[self.len] = token;
            self.len += 1;
        }
    }
}

impl fmt::Debug for CookieTokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieTokens")
            .field("len", &self.len)
            .field("oversized", &self.oversized)
            .finish_non_exhaustive()
    }
}

/// Finds the tokens of the cookie `name` in the values of all `Cookie` headers (HTTP/2 may split them,
/// RFC 9113 §8.2.3). Without allocation; the first four different ones, of at most
/// [`MAX_TOKEN_LEN`] bytes each.
pub fn session_tokens_from_cookies<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
    name: &str,
) -> CookieTokens<'a> {
    let mut found = CookieTokens::default();
    let mut left = MAX_HEADER_BYTES;
    for header in headers {
        if header.len() > left {
            break;
        }
        left -= header.len();
        let mut begin = 0;
        for end in memchr_iter(b';', header).chain([header.len()]) {
            found.look_at(&header[begin..end], name);
            begin = end + 1;
        }
    }
    found
}

/// The token of an `Authorization` value of the scheme `Bearer` (RFC 6750 §2.1); `None` for other
/// schemes.
pub fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at(memchr(b' ', authorization)?);
    scheme
        .eq_ignore_ascii_case(b"bearer")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found<'a>(headers: &[&'a str]) -> Vec<&'a str> {
        let headers = headers.iter().map(|header| header.as_bytes());
        let tokens = session_tokens_from_cookies(headers, "tk");
        let text = |token: &'a [u8]| std::str::from_utf8(token).unwrap();
        tokens.iter().map(text).collect()
    }

    #[test]
    fn the_token_is_found_among_other_cookies_and_headers() {
        assert_eq!(found(&["a=1; tk=x.y.z; b=2"]), ["x.y.z"]);
        assert_eq!(found(&["a=1", "b=2;tk=x"]), ["x"]);
        assert_eq!(found(&["tk=\"x\""]), ["x"]);
        assert_eq!(found(&["TK=x; xtk=y; tkx=z; tk; tk="]), [""; 0]);
        assert_eq!(found(&["a=tk=x"]), [""; 0]);
        assert_eq!(found(&[]), [""; 0]);
    }

    #[test]
    fn a_name_that_only_looks_like_ours_is_not() {
        // A browser checks the prefix `__Host-` of the name as it is; what it keeps under another name
        // must not become ours by trimming.
        for header in [
            "\u{2000}tk=x",
            "\u{a0}tk=x",
            "\u{feff}tk=x",
            "tk\u{3000}=x",
            "$Version=1,tk=x",
        ] {
            assert_eq!(found(&[header]), [""; 0], "{header:?}");
        }
    }

    #[test]
    fn duplicates_are_tried_in_order_up_to_four() {
        assert_eq!(found(&["tk=a; tk=b", "tk=a; tk=c"]), ["a", "b", "c"]);
        assert_eq!(found(&["tk=1;tk=2;tk=3;tk=4;tk=5"]).len(), 4);
    }

    #[test]
    fn an_oversized_cookie_is_passed_over_and_noted() {
        let header = format!("tk={}; tk=good", "x".repeat(MAX_TOKEN_LEN + 1));
        let tokens = session_tokens_from_cookies([header.as_bytes()], "tk");
        assert_eq!(tokens.iter().collect::<Vec<_>>(), [b"good"]);
        assert!(tokens.had_oversized());
        assert!(!format!("{tokens:?}").contains("good"));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_token() {
        let tokens = session_tokens_from_cookies([&b"tk=\xff\xfe; tk=ok"[..]], "tk");
        assert_eq!(tokens.iter().collect::<Vec<_>>(), [&b"\xff\xfe"[..], b"ok"]);
    }

    #[test]
    fn cookies_are_secure_except_on_this_machine_by_http() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:80",
            "app.localhost",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "::1",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(!needs_secure(Scheme::Http, host), "{host}");
            assert!(needs_secure(Scheme::Https, host), "{host}");
        }
        for host in [
            "tiles.example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "notlocalhost",
            "10.0.0.1",
            "[::2]",
            "localhost:80@evil.example",
            "[::1",
            "",
        ] {
            assert!(needs_secure(Scheme::Http, host), "{host}");
        }
    }

    #[test]
    fn the_name_has_its_prefix_exactly_when_secure_and_without_a_domain() {
        let policy = |domain, secure| CookiePolicy::new("tk", domain, secure).unwrap();
        let ttl = Duration::from_millis(60_900);
        let cases = [
            (
                policy(None, true),
                "__Host-tk=T; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60",
            ),
            (
                policy(None, false),
                "tk=T; Path=/; HttpOnly; SameSite=Lax; Max-Age=60",
            ),
            (
                policy(Some("example.com"), true),
                "tk=T; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=example.com; Max-Age=60",
            ),
            (
                policy(Some(".example.com"), false),
                "tk=T; Path=/; HttpOnly; SameSite=Lax; Domain=example.com; Max-Age=60",
            ),
        ];
        for (policy, set) in cases {
            assert_eq!(policy.set("T", ttl), set);
            let deleted = set.replace("=T;", "=;").replace("Max-Age=60", "Max-Age=0");
            assert_eq!(policy.delete(), deleted);
        }
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_cookies_attributes() {
        for name in ["", "a b", "a;b", "a=b", "__Host-x", "__secure-x", "é"] {
            assert!(CookiePolicy::new(name, None, true).is_err(), "{name}");
        }
        for domain in ["", ".", "a;b", "a..b", "http://a", "a:80", "a\r\nb", "a b"] {
            assert!(
                CookiePolicy::new("tk", Some(domain), true).is_err(),
                "{domain}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_fall_over(
            headers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
            token in "[a-z.]{1,20}",
        ) {
            let ours = format!("x=1; tk={token}");
            let all = headers.iter().map(Vec::as_slice).chain([ours.as_bytes()]);
            let tokens = session_tokens_from_cookies(all, "tk");
            prop_assert!(tokens.iter().any(|found| found == token.as_bytes()));
        }
    }

    #[test]
    fn a_bearer_is_told_from_other_schemes() {
        assert_eq!(bearer_token(b"Bearer x.y.z"), Some(&b"x.y.z"[..]));
        assert_eq!(bearer_token(b"bearer  x"), Some(&b"x"[..]));
        assert_eq!(bearer_token(b"Basic eDp5"), None);
        assert_eq!(bearer_token(b"Bearer"), None);
    }
}
