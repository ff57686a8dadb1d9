//! An origin of the web (RFC 6454 §6.2): `scheme://host[:port]`, as browsers write it.

use std::fmt;
use std::net::IpAddr;

/// Why a text is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebOriginError {
    /// A wildcard.
    #[error("name each origin: \"*\" would let any page in the world use a visitor's session")]
    Wildcard,
    /// No `http://` or `https://`.
    #[error("start with https:// or http://")]
    Scheme,
    /// Something after host and port.
    #[error("end after the host or port, without a slash, path, query or `*`")]
    Path,
    /// A name and password.
    #[error("leave out the user name and password")]
    UserInfo,
    /// Upper-case letters.
    #[error("write scheme and host in lower case, as browsers do")]
    Case,
    /// Not a host name.
    #[error(
        "name a host, like \"https://maps.example.com\"; an international name in its xn-- form"
    )]
    Host,
    /// Not a port.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// The scheme's own port.
    #[error("leave out the port: 443 for https and 80 for http are never written")]
    DefaultPort,
}

/// A checked origin. Compares and prints byte for byte as in a browser's `Origin` header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebOrigin {
    text: String,
    https: bool,
    host: String,
}

impl WebOrigin {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, WebOriginError> {
        use WebOriginError as E;
        if text == "*" {
            return Err(E::Wildcard);
        }
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(E::Case);
        }
        let (scheme, rest) = text.split_once("://").ok_or(E::Scheme)?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(E::Scheme),
        };
        if rest.contains('@') {
            return Err(E::UserInfo);
        }
        if rest.contains(['/', '?', '#', '*', '\\']) {
            return Err(E::Path);
        }
        let (host, port) = split_port(rest).ok_or(E::Host)?;
        if !valid_host(host) {
            return Err(E::Host);
        }
        match port.map(|port| (port, port.parse::<u16>())) {
            None => {}
            Some((_, Ok(443))) if https => return Err(E::DefaultPort),
            Some((_, Ok(80))) if !https => return Err(E::DefaultPort),
            Some((port, Ok(1..))) if !port.starts_with(['0', '+']) => {}
            Some(_) => return Err(E::Port),
        }
        Ok(Self {
            text: text.to_owned(),
            https,
            host: host.trim_matches(['[', ']']).to_owned(),
        })
    }

    /// As browsers write it, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is https.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the host is this machine: `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(inside) = authority.strip_prefix('[') {
        let end = inside.find(']')? + 2;
        return match &authority[end..] {
            "" => Some((authority, None)),
            port => Some((&authority[..end], Some(port.strip_prefix(':')?))),
        };
    }
    Some(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

/// A host name in lower case, or an IP address in its one canonical form.
pub(super) fn valid_host(host: &str) -> bool {
    if let Some(inside) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inside
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|ip| ip.to_string() == inside);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    let numeric = host
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= 253
        && host.split('.').all(label)
        && (!numeric || host.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for text in [
            "https://maps.example.com",
            "http://localhost:3000",
            "https://192.0.2.7:8443",
            "http://[::1]:8080",
        ] {
            assert_eq!(
                WebOrigin::parse(text).map(|o| o.to_string()),
                Ok(text.into())
            );
        }
        assert!(WebOrigin::parse("http://[::1]:8080").unwrap().is_loopback());
        assert!(
            !WebOrigin::parse("http://localhost.example")
                .unwrap()
                .is_loopback()
        );
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        use WebOriginError as E;
        for (text, error) in [
            ("*", E::Wildcard),
            ("null", E::Scheme),
            ("example.com", E::Scheme),
            ("ftp://example.com", E::Scheme),
            ("https://example.com/", E::Path),
            ("https://*.example.com", E::Path),
            ("https://a:b@example.com", E::UserInfo),
            ("https://Example.com", E::Case),
            ("https://", E::Host),
            ("https://ex ample", E::Host),
            ("https://exämple.com", E::Host),
            ("https://256.0.0.1", E::Host),
            ("https://[0::1]", E::Host),
            ("https://[::1", E::Host),
            ("https://example.com.", E::Host),
            ("https://example.com:443", E::DefaultPort),
            ("http://example.com:80", E::DefaultPort),
            ("https://example.com:", E::Port),
            ("https://example.com:0", E::Port),
            ("https://example.com:08", E::Port),
            ("https://example.com:99999", E::Port),
        ] {
            assert_eq!(WebOrigin::parse(text), Err(error), "{text}");
        }
    }
}
