//! The server's address, as a person types it.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::Authority;

/// Why a text is no server's address. None of them repeats a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// No URL, or none with a host.
    #[error("{0:?}: not an address like https://tiles.example.com")]
    Malformed(String),
    /// Neither http nor https.
    #[error("{0:?}: the scheme is http or https")]
    Scheme(String),
    /// A user or a password in front of the host.
    #[error(
        "leave user and password out of the address, like {0}; a token goes into TILEKEEP_TOKEN or a file"
    )]
    UserInfo(String),
    /// A path or a query behind the host.
    #[error("{0:?}: the server's address alone, like {1}: tilesets are named apart")]
    Path(String, String),
}

/// Where a server is: scheme, host and port, nothing else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    tls: bool,
    authority: Authority,
}

impl ServerUrl {
    /// Whether it is asked over TLS.
    pub fn is_https(&self) -> bool {
        self.tls
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
    }

    /// The port, the scheme's own where none was written.
    pub fn port(&self) -> u16 {
        let default = if self.tls { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(default)
    }

    /// Host and port as `Host` and `:authority` carry them.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// What to say before a secret goes there; `None`: nobody can listen on the way.
    pub fn warning(&self) -> Option<String> {
        let heard = !self.is_https() && !self.is_loopback();
        heard
            .then(|| format!("{self} is not https: whoever can listen on the way sees the session"))
    }

    /// Whether the host is this very machine, as far as its name tells.
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A password may hold anything, so it is looked for before the text is taken apart or repeated.
        let behind_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
        if let Some((_, host)) = behind_scheme.rsplit_once('@') {
            let scheme = text.split_once("://").map_or("https", |(scheme, _)| scheme);
            return Err(ServerUrlError::UserInfo(format!("{scheme}://{host}")));
        }
        let malformed = || ServerUrlError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(ServerUrlError::Scheme(text.to_owned())),
            None => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?.clone();
        // A port that is no number is taken for none by the parser.
        let has_port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty() || (has_port && authority.port_u16().is_none()) {
            return Err(malformed());
        }
        let url = Self { tls, authority };
        if uri.path_and_query().is_some_and(|rest| rest != "/") || text.contains('#') {
            return Err(ServerUrlError::Path(text.to_owned(), url.to_string()));
        }
        Ok(url)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<ServerUrl, ServerUrlError> {
        text.parse()
    }

    #[test]
    fn an_address_is_scheme_host_and_port() {
        let plain = url("http://127.0.0.1:8080/").unwrap();
        assert_eq!((plain.host(), plain.port()), ("127.0.0.1", 8080));
        assert_eq!(plain.to_string(), "http://127.0.0.1:8080");
        let tls = url("https://tiles.example.com").unwrap();
        assert_eq!((tls.is_https(), tls.port()), (true, 443));
        let six = url("https://[::1]:8443").unwrap();
        assert_eq!((six.host(), six.port()), ("::1", 8443));
        assert!(six.is_loopback() && plain.is_loopback() && !tls.is_loopback());
    }

    #[test]
    fn who_can_listen_is_told_of() {
        for safe in [
            "https://tiles.example.com",
            "http://127.0.0.1:8080",
            "http://localhost",
        ] {
            assert_eq!(url(safe).unwrap().warning(), None, "{safe}");
        }
        let said = url("http://10.0.0.5").unwrap().warning().unwrap();
        assert!(said.starts_with("http://10.0.0.5 is not https"), "{said}");
    }

    #[test]
    fn what_is_no_address_is_named() {
        for bad in ["", "tiles.example.com", "/world", "http://", "http://h:x"] {
            let error = url(bad).unwrap_err();
            assert_eq!(error, ServerUrlError::Malformed(bad.into()));
        }
        assert!(matches!(url("ftp://h"), Err(ServerUrlError::Scheme(_))));
        let error = url("https://h/world").unwrap_err().to_string();
        assert!(error.contains("https://h/world") && error.contains("like https://h:"));
        assert!(matches!(url("https://h/?a"), Err(ServerUrlError::Path(..))));
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        for bad in [
            "https://anna:hunter2@h",
            "https://anna:hun@ter2@h/",
            "anna:hunter2@h",
        ] {
            let error = url(bad).unwrap_err().to_string();
            assert!(error.contains("https://h") && error.contains("TILEKEEP_TOKEN"));
            assert!(
                !error.contains("hunter2") && !error.contains("anna") && !error.contains("ter2")
            );
        }
    }
}
