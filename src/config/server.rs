//! `[server]`: addresses, TLS, whom to believe and whom to let in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::section::{Item, Section};
use super::{SecretValue, WebOrigin};

/// Where and how the server listens.
#[derive(Debug, Clone)]
pub struct Server {
    /// The public side's address.
    pub listen: SocketAddr,
    /// The admin side's address: metrics, health, purge, dashboard.
    pub admin_listen: SocketAddr,
    /// What the admin side asks for as `Authorization: Bearer`; always there when it is not on loopback.
    pub admin_token: Option<SecretValue>,
    /// How browsers reach the public side; always there when it is not on loopback.
    pub public_url: Option<WebOrigin>,
    /// Certificate and key; none: plain HTTP/1.1 and h2c.
    pub tls: Option<Tls>,
    /// Networks whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins whose pages may use a session across sites.
    pub cors_origins: Vec<WebOrigin>,
    /// The tileset that also answers `/{z}/{x}/{y}`.
    pub default_tileset: Option<String>,
    /// How long open requests and queued disk writes may take at the end.
    pub shutdown_grace: Duration,
}

/// Files for TLS; both were readable when the configuration was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl Default for Server {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            listen: loopback(8080),
            admin_listen: loopback(9090),
            admin_token: None,
            public_url: None,
            tls: None,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            default_tileset: None,
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

impl Server {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let server = Self {
            listen: section
                .read("listen", Item::address)
                .unwrap_or(default.listen),
            admin_listen: section
                .read("admin_listen", Item::address)
                .unwrap_or(default.admin_listen),
            admin_token: section.read("admin_token", admin_token),
            public_url: section.read("public_url", Item::origin),
            tls: section.read("tls", Tls::read),
            trusted_proxies: section.list("trusted_proxies", Item::network),
            cors_origins: section.list("cors_origins", Item::origin),
            default_tileset: section.read("default_tileset", Item::word),
            shutdown_grace: section
                .read("shutdown_grace", |item| {
                    item.duration(Duration::ZERO..=Duration::from_mins(10))
                })
                .unwrap_or(default.shutdown_grace),
        };
        server.check(section);
        server
    }

    fn check(&self, section: &Section<'_>) {
        if !self.listen.ip().is_loopback() && !section.has("public_url") {
            section.refuse(
                "public_url",
                "is missing: `listen` is not a loopback address, and links, cookies and TileJSON need the address that browsers use",
                "add it, like public_url = \"https://tiles.example.com\"",
            );
        }
        if !self.admin_listen.ip().is_loopback() && !section.has("admin_token") {
            section.refuse(
                "admin_token",
                "is missing: `admin_listen` is not a loopback address, so others can reach it",
                "add it, like admin_token = { env = \"TILEKEEP_ADMIN_TOKEN\" }, or listen on 127.0.0.1",
            );
        }
        let (public, admin) = (self.listen, self.admin_listen);
        let overlap = public.ip() == admin.ip()
            || public.ip().is_unspecified()
            || admin.ip().is_unspecified();
        if public.port() == admin.port() && public.port() != 0 && overlap {
            section.refuse(
                "admin_listen",
                "has the port of `listen`",
                "give the admin side a port of its own",
            );
        }
    }
}

/// At least 16 characters that can stand in a header.
fn admin_token(item: &Item<'_>) -> Option<SecretValue> {
    let token = item.secret()?;
    let text = token.expose();
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return item.refuse(
            "cannot stand in a header",
            "use letters, digits and signs of ASCII, without spaces",
        );
    }
    if text.len() < 16 {
        return item.refuse(
            "is too short to keep anyone out",
            "use 16 characters or more: openssl rand -base64 32",
        );
    }
    Some(token)
}

impl Tls {
    fn read(item: &Item<'_>) -> Option<Self> {
        let section = item.table(None)?;
        let pem = |key: &'static str, label: &'static str| {
            section.need(key, "name a PEM file", |item| {
                let path = item.readable()?;
                let text = item.contents(&path)?;
                let found = text
                    .lines()
                    .any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
                if found {
                    return Some(path);
                }
                item.refuse(
                    format!("names a file without a PEM block {label}"),
                    "check that `cert` and `key` are not exchanged and are PEM, not DER",
                )
            })
        };
        let (cert, key) = (pem("cert", "CERTIFICATE"), pem("key", "PRIVATE KEY"));
        Some(Self {
            cert: cert?,
            key: key?,
        })
    }
}
