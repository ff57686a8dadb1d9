//! What trusted proxies say of a request: who sent it, by which scheme, to which host.
//!
//! Each proxy of a chain appends what it saw, or replaces what it was sent, to `X-Forwarded-For`,
//! `-Proto` and `-Host`, or to `Forwarded` (RFC 7239). So lists are read from the right, as far as
//! trusted proxies wrote them: the first address that is no trusted proxy's is the client, and what the
//! outermost trusted proxy saw of scheme and host stands at the same place. What is further left is the
//! client's own text.
//!
//! Invariant: no entry counts that a stranger wrote. A proxy that writes one kind of header passes
//! the other on as the client sent it; where both are there, only what they agree on is believed.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;

use super::request_head::{Fields, text};
use crate::auth::Scheme;

static X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'r> {
    /// Who sent the request, or the nearest who is known.
    pub client: IpAddr,
    /// By which scheme.
    pub scheme: Option<Scheme>,
    /// To which host; one that can stand in a URL.
    pub host: Option<&'r str>,
}

/// What the proxies say that stand between `peer`, which is one of them, and the client.
pub fn said<'r>(trusted: &[IpNet], peer: IpAddr, fields: impl Into<Fields<'r>>) -> Said<'r> {
    let fields = fields.into();
    match (
        x_forwarded(trusted, peer, fields),
        forwarded(trusted, peer, fields),
    ) {
        (Some(said), None) | (None, Some(said)) => said,
        (None, None) => Said {
            client: peer,
            scheme: None,
            host: None,
        },
        (Some(one), Some(other)) => Said {
            client: if one.client == other.client {
                one.client
            } else {
                peer
            },
            scheme: one.scheme.filter(|_| one.scheme == other.scheme),
            host: one.host.filter(|_| one.host == other.host),
        },
    }
}

/// Whether an address is a trusted proxy's.
pub(super) fn trusts(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

fn x_forwarded<'r>(trusted: &[IpNet], peer: IpAddr, fields: Fields<'r>) -> Option<Said<'r>> {
    if ![&X_FOR, &X_PROTO, &X_HOST]
        .iter()
        .any(|name| fields.has(name))
    {
        return None;
    }
    let (client, hops) = walk(trusted, peer, from_right(fields, &X_FOR).map(address));
    Some(Said {
        client,
        scheme: outermost(from_right(fields, &X_PROTO), hops).and_then(scheme),
        host: outermost(from_right(fields, &X_HOST), hops).filter(|host| is_authority(host)),
    })
}

fn forwarded<'r>(trusted: &[IpNet], peer: IpAddr, fields: Fields<'r>) -> Option<Said<'r>> {
    let elements = || from_right(fields, &http::header::FORWARDED);
    elements().next()?;
    let (client, hops) = walk(
        trusted,
        peer,
        elements().map(|element| address(parameter(element, "for")?)),
    );
    let of = |name: &'static str| elements().map(move |element| parameter(element, name));
    Some(Said {
        client,
        scheme: outermost(of("proto"), hops).flatten().and_then(scheme),
        host: outermost(of("host"), hops)
            .flatten()
            .filter(|host| is_authority(host)),
    })
}

/// Walks from the nearest address outwards to the first that is no trusted proxy's; at which place that
/// is, or an entry that is no address.
fn walk(
    trusted: &[IpNet],
    peer: IpAddr,
    entries: impl Iterator<Item = Option<IpAddr>>,
) -> (IpAddr, usize) {
    let (mut nearest, mut hops) = (peer, 0);
    for (hop, entry) in entries.enumerate() {
        hops = hop;
        let Some(address) = entry else { break };
        nearest = address;
        if !trusts(trusted, address) {
            break;
        }
    }
    (nearest, hops)
}

/// The entry that the outermost trusted proxy wrote: at the client's place, or the leftmost there is.
fn outermost<T>(entries: impl Iterator<Item = T>, hops: usize) -> Option<T> {
    entries.take(hops + 1).last()
}

/// The entries of a list, in however many lines it came, the last one first.
fn from_right<'r>(fields: Fields<'r>, name: &HeaderName) -> impl Iterator<Item = &'r str> {
    fields
        .all(name)
        .rev()
        .flat_map(|line| text(line).unwrap_or("").rsplit(',').map(str::trim))
}

/// A parameter of an element of `Forwarded`, without its quotes.
fn parameter<'r>(element: &'r str, name: &str) -> Option<&'r str> {
    element.split(';').find_map(|pair| {
        let (found, value) = pair.split_once('=')?;
        found
            .trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().trim_matches('"'))
    })
}

/// An address with or without a port: proxies write both.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok();
    let address = address.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

fn scheme(entry: &str) -> Option<Scheme> {
    [("https", Scheme::Https), ("http", Scheme::Http)]
        .into_iter()
        .find_map(|(name, scheme)| entry.eq_ignore_ascii_case(name).then_some(scheme))
}

/// A host with or without a port, and nothing that would break out of a URL.
pub(super) fn is_authority(host: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
    };
    !host.is_empty() && host.len() <= 255 && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const CLIENT: &str = "203.0.113.9";

    fn check(pairs: &[(&'static str, &str)]) -> (String, Option<Scheme>, Option<String>) {
        let trusted = [
            "127.0.0.0/8".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let said = said(&trusted, PROXY, &headers);
        (
            said.client.to_string(),
            said.scheme,
            said.host.map(str::to_owned),
        )
    }

    #[test]
    fn a_chain_tells_what_its_outermost_trusted_proxy_saw() {
        let chain = check(&[
            ("x-forwarded-for", "203.0.113.9, 10.0.0.2"),
            ("x-forwarded-proto", "https, http"),
            ("x-forwarded-host", "tiles.example.com, inner:8080"),
        ]);
        let told = (
            CLIENT.into(),
            Some(Scheme::Https),
            Some("tiles.example.com".into()),
        );
        assert_eq!(chain, told);
        let lines = check(&[
            ("x-forwarded-for", CLIENT),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "HTTPS"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "tiles.example.com"),
        ]);
        assert_eq!(
            lines, told,
            "in several lines, and where a proxy replaces instead"
        );
        let standard = check(&[(
            "forwarded",
            "for=203.0.113.9;proto=https;host=tiles.example.com, For=\"10.0.0.2:4711\";Proto=http",
        )]);
        assert_eq!((standard.0, standard.1), (told.0, told.1));
    }

    #[test]
    fn what_a_client_put_in_front_of_the_chain_is_not_read() {
        let (client, scheme, host) = check(&[
            (
                "x-forwarded-for",
                "127.0.0.1, 198.51.100.1, 203.0.113.9, 10.0.0.2",
            ),
            ("x-forwarded-proto", "https, https, http, http"),
            (
                "x-forwarded-host",
                "evil.example, evil.example, a.example, b.example",
            ),
        ]);
        assert_eq!((client.as_str(), scheme), (CLIENT, Some(Scheme::Http)));
        assert_eq!(host.unwrap(), "a.example");
        let (client, scheme, host) = check(&[(
            "forwarded",
            "for=\"x, for=198.51.100.1;proto=https;host=evil.example, for=203.0.113.9;proto=http",
        )]);
        assert_eq!(
            (client.as_str(), scheme, host),
            (CLIENT, Some(Scheme::Http), None)
        );
    }

    #[test]
    fn of_two_kinds_of_header_only_what_they_agree_on_is_believed() {
        let agreed = check(&[
            ("x-forwarded-for", CLIENT),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=203.0.113.9;proto=https"),
        ]);
        assert_eq!(agreed, (CLIENT.into(), Some(Scheme::Https), None));
        let smuggled = check(&[
            ("x-forwarded-for", CLIENT),
            (
                "forwarded",
                "for=198.51.100.1;proto=https;host=evil.example",
            ),
        ]);
        assert_eq!(smuggled, (PROXY.to_string(), None, None));
    }

    #[test]
    fn addresses_come_in_many_forms_and_nonsense_names_the_proxy() {
        for (entry, address) in [
            ("203.0.113.9:4711", CLIENT),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:203.0.113.9", CLIENT),
            ("unknown, ::garbage::", "127.0.0.1"),
            ("unknown, 10.0.0.2", "10.0.0.2"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(check(&[("x-forwarded-for", entry)]).0, address, "{entry}");
        }
        assert_eq!(
            check(&[("forwarded", "for=_hidden, for=\"[2001:db8::1]\"")]).0,
            "2001:db8::1"
        );
        for host in ["a b", "evil.example/x", "u@evil.example", ""] {
            assert_eq!(check(&[("x-forwarded-host", host)]).2, None, "{host}");
        }
        assert_eq!(check(&[("x-forwarded-proto", "gopher")]).1, None);
    }
}
