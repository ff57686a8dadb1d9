//! How this server looks from outside: scheme, host, the client's address, the cookie's attributes.
//!
//! Invariant: nothing that a client can write decides them. `public_url` does; without it (then the
//! listener is on loopback) a trusted proxy's word (`forwarded.rs`), else the listener
//! itself. A `Host` header is repeated only where it names this very machine.

use std::net::{IpAddr, SocketAddr};

use http::Version;
use http::header::HOST;
use ipnet::IpNet;

use super::forwarded::{is_authority, said, trusts};
use super::request_head::{Fields, RequestHead, text};
use crate::auth::{CookieError, CookiePolicy, Scheme, needs_secure};

/// What a request is told that names no host, or several.
pub const NO_ONE_HOST: &str = "A request names its host, once, and without a user or a path.";

/// What is known of the outside before any request.
#[derive(Debug, Clone)]
pub struct FrontSettings {
    /// Scheme and authority of `public_url`, such as `https` and `tiles.example.com`.
    pub public: Option<(Scheme, String)>,
    /// Whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether this server itself speaks TLS.
    pub tls: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The session cookie's name, without a prefix.
    pub cookie: String,
    /// The session cookie's domain.
    pub cookie_domain: Option<String>,
}

/// The outside.
#[derive(Debug, Clone)]
pub struct Front {
    settings: FrontSettings,
    plain: CookiePolicy,
    secure: CookiePolicy,
    /// Whether cookies are `Secure`, where that is the same for everybody.
    always: Option<bool>,
}

/// Scheme and host by which a client sees this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    scheme: Scheme,
    host: String,
}

impl Outside {
    /// `https://tiles.example.com`, without a slash behind.
    pub fn base_url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", self.host)
    }
}

impl Front {
    /// Checks the cookie's name and domain.
    pub fn new(settings: FrontSettings) -> Result<Self, CookieError> {
        let (name, domain) = (&settings.cookie, settings.cookie_domain.as_deref());
        let public = settings.public.as_ref();
        let always = public.map(|(scheme, host)| needs_secure(*scheme, host));
        Ok(Self {
            always: always
                .or((settings.tls && settings.trusted_proxies.is_empty()).then_some(true)),
            plain: CookiePolicy::new(name, domain, false)?,
            secure: CookiePolicy::new(name, domain, true)?,
            settings,
        })
    }

    /// Whether nothing has to be asked of a request: `public_url` says it all.
    pub fn is_fixed(&self) -> bool {
        self.settings.public.is_some()
    }

    /// The session cookie as this client should have it.
    pub fn cookie<'r>(&self, peer: IpAddr, fields: impl Into<Fields<'r>>) -> &CookiePolicy {
        let fields = fields.into();
        // A client that names another host than this machine is behind a proxy of which nothing is
        // known here. If it made that name up, `Secure` costs it a log-in.
        let named = || host(fields).is_some_and(|host| needs_secure(Scheme::Http, host));
        let secure = match self.always {
            Some(always) => always,
            None if self.settings.trusted_proxies.is_empty() => named(),
            None => {
                let seen = self.outside(peer, fields);
                needs_secure(seen.scheme, &seen.host) || named()
            }
        };
        if secure { &self.secure } else { &self.plain }
    }

    /// Scheme and host, as this client sees them.
    pub fn outside<'r>(&self, peer: IpAddr, fields: impl Into<Fields<'r>>) -> Outside {
        let fields = fields.into();
        if let Some((scheme, host)) = &self.settings.public {
            return Outside {
                scheme: *scheme,
                host: host.clone(),
            };
        }
        let own = if self.settings.tls {
            Scheme::Https
        } else {
            Scheme::Http
        };
        if trusts(&self.settings.trusted_proxies, peer) {
            let said = said(&self.settings.trusted_proxies, peer, fields);
            if let Some(host) = said.host.or(host(fields)) {
                return Outside {
                    scheme: said.scheme.unwrap_or(own),
                    host: host.to_owned(),
                };
            }
        }
        let host = host(fields).filter(|host| !needs_secure(Scheme::Http, host));
        let host = host.map_or_else(|| self.settings.listen.to_string(), str::to_owned);
        Outside { scheme: own, host }
    }

    /// The client's address: the nearest one that is no trusted proxy.
    pub fn client<'r>(&self, peer: IpAddr, fields: impl Into<Fields<'r>>) -> IpAddr {
        if trusts(&self.settings.trusted_proxies, peer) {
            said(&self.settings.trusted_proxies, peer, fields).client
        } else {
            peer
        }
    }
}

/// The `Host` header, if it is one.
fn host(fields: Fields<'_>) -> Option<&str> {
    let host = text(fields.get(&HOST)?)?;
    is_authority(host).then_some(host)
}

/// Whether a request names one host: an HTTP/1.1 request in `Host`, once (RFC 9112 §3.2), HTTP/2 in
/// `:authority` (RFC 9113 §8.3.1), and where it names it twice, the same. Two names are for two readers: a
/// proxy in front, and this server.
pub fn names_one_host(request: &RequestHead<'_>) -> bool {
    let mut hosts = request.fields.all(&HOST);
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return false;
    }
    let target = request.authority;
    if target.is_some_and(|target| !is_authority(target)) {
        return false;
    }
    match (host, target) {
        (None, _) => request.version != Version::HTTP_11,
        (Some(host), Some(target)) => host.eq_ignore_ascii_case(target.as_bytes()),
        // Empty where the client's own target has no host (RFC 9112 §3.2).
        (Some(host), None) => host.is_empty() || std::str::from_utf8(host).is_ok_and(is_authority),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Request};

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const AFAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

    fn front(public: Option<(Scheme, &str)>, trusted: &[&str]) -> Front {
        Front::new(FrontSettings {
            public: public.map(|(scheme, host)| (scheme, host.to_owned())),
            trusted_proxies: trusted.iter().map(|net| net.parse().unwrap()).collect(),
            tls: false,
            listen: "127.0.0.1:8080".parse().unwrap(),
            cookie: "tilekeep_session".into(),
            cookie_domain: None,
        })
        .unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_foreign_host_header_is_never_repeated() {
        let local = front(None, &[]);
        let url = |host| local.outside(LOCAL, &headers(&[("host", host)])).base_url();
        assert_eq!(url("localhost:8080"), "http://localhost:8080");
        assert_eq!(url("evil.example"), "http://127.0.0.1:8080");
        assert_eq!(url("127.0.0.1.evil.example"), "http://127.0.0.1:8080");
        let public = front(Some((Scheme::Https, "tiles.example.com")), &[]);
        let forged = headers(&[
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
        ]);
        assert_eq!(
            public.outside(LOCAL, &forged).base_url(),
            "https://tiles.example.com"
        );
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let forwarded = headers(&[
            ("host", "127.0.0.1:8080"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "tiles.example.com"),
            ("x-forwarded-for", "198.51.100.7, 203.0.113.9, 10.0.0.2"),
        ]);
        let trusting = front(None, &["127.0.0.0/8", "10.0.0.0/8"]);
        assert_eq!(
            trusting.outside(LOCAL, &forwarded).base_url(),
            "https://tiles.example.com"
        );
        assert_eq!(trusting.client(LOCAL, &forwarded), AFAR);
        assert_eq!(
            trusting.cookie(LOCAL, &forwarded).name(),
            "__Host-tilekeep_session"
        );
        let wary = front(None, &[]);
        assert_eq!(
            wary.outside(LOCAL, &forwarded).base_url(),
            "http://127.0.0.1:8080"
        );
        assert_eq!(wary.client(AFAR, &forwarded), AFAR);
        assert_eq!(wary.cookie(LOCAL, &forwarded).name(), "tilekeep_session");
    }

    #[test]
    fn behind_an_unknown_proxy_a_public_name_makes_the_cookie_secure() {
        let local = front(None, &[]);
        let name = |host| local.cookie(LOCAL, &headers(&[("host", host)])).name();
        assert_eq!(name("localhost:8080"), "tilekeep_session");
        assert_eq!(name("127.0.0.1:8080"), "tilekeep_session");
        assert_eq!(name("tiles.example.com"), "__Host-tilekeep_session");
        let wary = front(None, &["10.0.0.0/8"]);
        let public = headers(&[("host", "tiles.example.com")]);
        assert_eq!(
            wary.cookie(LOCAL, &public).name(),
            "__Host-tilekeep_session"
        );
        assert_eq!(
            local.cookie(LOCAL, &HeaderMap::new()).name(),
            "tilekeep_session"
        );
    }

    #[test]
    fn a_request_names_one_host() {
        let request = |version, target: &str, hosts: &[&str]| {
            let mut request = Request::get(target).version(version).body(()).unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, host.parse().unwrap());
            }
            names_one_host(&RequestHead::of(&request))
        };
        let (old, one, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        assert!(request(old, "/", &[]) && request(one, "/", &["a:80"]) && request(one, "/", &[""]));
        assert!(request(two, "https://a/", &[]) && request(two, "https://a/", &["A"]));
        assert!(request(one, "http://a/", &["a"]));
        for (version, target, hosts) in [
            (one, "/", &[][..]),
            (one, "/", &["a", "a"]),
            (old, "/", &["a", "b"]),
            (one, "/", &["u:p@a"]),
            (one, "/", &["a/b"]),
            (one, "http://a/", &["b"]),
            (one, "http://u@a/", &["a"]),
            (two, "https://a/", &["b"]),
            (two, "https://u@a/", &[]),
        ] {
            assert!(
                !request(version, target, hosts),
                "{version:?} {target} {hosts:?}"
            );
        }
    }
}
