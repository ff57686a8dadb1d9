//! Where Redis is: a URL with a password in it, so that nothing here prints more than host and port.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// `redis://[user][:password@]host[:port][/database]`, or `rediss://` for TLS.
#[derive(Clone)]
pub struct Address {
    info: ConnectionInfo,
}

/// Why a text is no address. None of them repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Something else.
    #[error("is not the URL of a Redis or Valkey")]
    NotAUrl,
    /// A file of this machine.
    #[error("names a socket file, and nodes meet over the network")]
    Socket,
    /// `#insecure`.
    #[error("switches the check of the certificate off")]
    Insecure,
}

impl AddressError {
    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotAUrl | Self::Socket => {
                "write it like \"redis://10.0.0.5:6379\" or, with TLS, \"rediss://user:password@redis.internal:6379/0\"; %-encode what is special in a password"
            }
            Self::Insecure => {
                "remove `#insecure`; a certificate of your own is believed with ca = \"ca.pem\""
            }
        }
    }
}

/// Why there is no TLS to Redis.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of `ca`.
    #[error("ca: {}: {what}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The machine's own certificates.
    #[error("the system's certificates cannot be read: {0}; name a file with `ca`")]
    System(std::io::Error),
    /// The host's name.
    #[error("the host in `redis` cannot be in a certificate")]
    Host,
    /// TLS itself.
    #[error(transparent)]
    Tls(#[from] tokio_rustls::rustls::Error),
}

impl Address {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let info = url
            .into_connection_info()
            .map_err(|_| AddressError::NotAUrl)?;
        match info.addr() {
            ConnectionAddr::Tcp(host, _) if !host.is_empty() => {}
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(AddressError::Insecure),
            ConnectionAddr::TcpTls { host, .. } if !host.is_empty() => {}
            ConnectionAddr::Unix(_) => return Err(AddressError::Socket),
            _ => return Err(AddressError::NotAUrl),
        }
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        Ok(Self {
            info: info.set_redis_settings(settings),
        })
    }

    /// Host and port.
    fn place(&self) -> (&str, u16) {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host, *port)
            }
            // Refused by `parse`.
            _ => ("", 0),
        }
    }

    /// Whether it asks for TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// With what TLS needs, where it is asked for: certificates of `ca`, or the system's. Reads files.
    pub fn secured(self, ca: Option<&Path>) -> Result<Secured, TlsError> {
        if !self.is_tls() {
            return Ok(Secured {
                address: self,
                tls: None,
            });
        }
        let name = ServerName::try_from(self.place().0.to_owned()).map_err(|_| TlsError::Host)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?;
        let builder = match ca {
            Some(path) => builder.with_root_certificates(authority(path)?),
            None => builder.with_native_roots().map_err(TlsError::System)?,
        };
        Ok(Secured {
            address: self,
            tls: Some((Arc::new(builder.with_no_client_auth()), name)),
        })
    }
}

fn authority(path: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |what: String| TlsError::Authority {
        path: path.to_owned(),
        what,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it (BEGIN CERTIFICATE)".to_owned()));
    }
    Ok(roots)
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password in the wrong place of a URL could be its host.
        f.write_str("Address(not shown)")
    }
}

/// An address with what TLS to it needs.
#[derive(Clone)]
pub struct Secured {
    address: Address,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Secured {
    pub(super) fn place(&self) -> (&str, u16) {
        self.address.place()
    }

    pub(super) fn settings(&self) -> &redis::RedisConnectionInfo {
        self.address.info.redis_settings()
    }

    pub(super) fn tls(&self) -> Option<&(Arc<ClientConfig>, ServerName<'static>)> {
        self.tls.as_ref()
    }
}

impl fmt::Display for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.place();
        write!(f, "{host}:{port}")
    }
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured")
            .field("address", &self.address)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_where_and_never_with_what() {
        let url = "redis://anna:hunter2@10.0.0.5:7000/3";
        let address = Address::parse(url).unwrap();
        assert!(!address.is_tls());
        let secured = address.clone().secured(None).unwrap();
        assert_eq!(secured.to_string(), "10.0.0.5:7000");
        let shown = format!("{address:?} {secured:?} {secured} {:?}", secured.settings());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secured.settings().db(), 3);
        assert_eq!(secured.settings().password(), Some("hunter2"));
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for (url, error) in [
            ("", AddressError::NotAUrl),
            ("10.0.0.5:6379", AddressError::NotAUrl),
            ("http://h", AddressError::NotAUrl),
            ("redis://", AddressError::NotAUrl),
            ("redis://h/notanumber", AddressError::NotAUrl),
            ("redis://h:99999", AddressError::NotAUrl),
            ("unix:///run/redis.sock", AddressError::Socket),
            ("rediss://h#insecure", AddressError::Insecure),
        ] {
            assert_eq!(Address::parse(url).unwrap_err(), error, "{url}");
        }
        assert!(Address::parse("rediss://h").unwrap().is_tls());
        assert!(Address::parse("valkey://[::1]:1").is_ok());
    }
}
