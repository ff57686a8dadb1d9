//! How this server looks from outside: scheme, host, the client's address, the cookie's attributes.
//!
//! Invariant: nothing that a client can write decides them. `public_url` does; without it (then the
//! listener is on loopback) a trusted proxy's `X-Forwarded-*`, else the listener itself. A `Host`
//! header is repeated only where it names this very machine.

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::auth::{CookieError, CookiePolicy, Scheme, needs_secure};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
        Ok(Self {
            plain: CookiePolicy::new(name, domain, false)?,
            secure: CookiePolicy::new(name, domain, true)?,
            settings,
        })
    }

    /// The session cookie as this client should have it.
    pub fn cookie(&self, peer: IpAddr, headers: &HeaderMap) -> &CookiePolicy {
        let secure = match &self.settings.public {
            Some((scheme, host)) => needs_secure(*scheme, host),
            // Nothing to ask the request about: the listener is on loopback.
            None if self.settings.trusted_proxies.is_empty() => self.settings.tls,
            None => {
                let seen = self.outside(peer, headers);
                needs_secure(seen.scheme, &seen.host)
            }
        };
        if secure { &self.secure } else { &self.plain }
    }

    /// Scheme and host, as this client sees them.
    pub fn outside(&self, peer: IpAddr, headers: &HeaderMap) -> Outside {
        if let Some((scheme, host)) = &self.settings.public {
            return Outside {
                scheme: *scheme,
                host: host.clone(),
            };
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let own = if self.settings.tls {
            Scheme::Https
        } else {
            Scheme::Http
        };
        if self.trusts(peer) {
            let scheme = match text(FORWARDED_PROTO) {
                Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
                Some(_) => Scheme::Http,
                None => own,
            };
            let host = text(FORWARDED_HOST)
                .or(text(HOST))
                .filter(|host| is_authority(host));
            if let Some(host) = host {
                return Outside {
                    scheme,
                    host: host.to_owned(),
                };
            }
        }
        let host =
            text(HOST).filter(|host| is_authority(host) && !needs_secure(Scheme::Http, host));
        let host = host.map_or_else(|| self.settings.listen.to_string(), str::to_owned);
        Outside { scheme: own, host }
    }

    /// The client's address: the nearest one that is no trusted proxy.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        // Each proxy appends whom it saw; what stands left of the first stranger is the stranger's own.
        let mut nearest = peer;
        for list in headers.get_all(FORWARDED_FOR).iter().rev() {
            for entry in list.to_str().unwrap_or("").rsplit(',') {
                let Some(address) = forwarded_address(entry.trim()) else {
                    return nearest;
                };
                nearest = address;
                if !self.trusts(address) {
                    return nearest;
                }
            }
        }
        nearest
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.settings
            .trusted_proxies
            .iter()
            .any(|net| net.contains(&address))
    }
}

/// An address with or without a port: proxies write both.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok();
    let address = address.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// A host with or without a port, and nothing that would break out of a URL.
fn is_authority(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

#[cfg(test)]
mod tests {
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
    fn nonsense_from_a_proxy_names_the_proxy() {
        let trusting = front(None, &["127.0.0.0/8"]);
        let nonsense = headers(&[("x-forwarded-for", "unknown, ::garbage::")]);
        assert_eq!(trusting.client(LOCAL, &nonsense), LOCAL);
    }
}
