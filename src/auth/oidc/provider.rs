//! What a provider says of itself (OpenID Connect Discovery 1.0 §3): only what is needed.

use serde::Deserialize;

use super::super::cookie::{Scheme, needs_secure};

/// The provider's addresses and habits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) jwks_uri: String,
    /// Whether it wants a client's secret in the request's body and not in its head.
    pub(super) secret_in_body: bool,
    /// Whether it promises `iss` in its answers (RFC 9207).
    pub(super) names_itself: bool,
}

/// Where an issuer publishes it (§4).
pub(super) fn discovery_url(issuer: &str) -> String {
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    format!("{base}/.well-known/openid-configuration")
}

impl Metadata {
    /// Reads the document of this issuer; `None` for one that names another (§4.3), or sends people
    /// and secrets over an open line.
    pub(super) fn parse(json: &[u8], issuer: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            authorization_endpoint: String,
            token_endpoint: String,
            jwks_uri: String,
            token_endpoint_auth_methods_supported: Option<Vec<String>>,
            #[serde(default)]
            authorization_response_iss_parameter_supported: bool,
        }
        let document: Document = serde_json::from_slice(json).ok()?;
        // A provider on this machine, in a trial, names addresses on this machine; no other may, or it could
        // have this server talk to itself.
        let local = !issuer.starts_with("https://");
        let endpoints = [
            &document.authorization_endpoint,
            &document.token_endpoint,
            &document.jwks_uri,
        ];
        let safe = endpoints.iter().all(|url| is_safe(url, local));
        if document.issuer != issuer || !safe {
            return None;
        }
        let methods = document.token_endpoint_auth_methods_supported;
        let takes = |method: &str| {
            methods
                .as_ref()
                .is_some_and(|methods| methods.iter().any(|known| known == method))
        };
        Some(Self {
            // Where nothing is said, the head is meant.
            secret_in_body: takes("client_secret_post") && !takes("client_secret_basic"),
            names_itself: document.authorization_response_iss_parameter_supported,
            authorization_endpoint: document.authorization_endpoint,
            token_endpoint: document.token_endpoint,
            jwks_uri: document.jwks_uri,
        })
    }
}

/// An `https` address, or where `local` one on loopback.
fn is_safe(url: &str, local: bool) -> bool {
    if url.starts_with("https://") {
        return true;
    }
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    local && !needs_secure(Scheme::Http, host)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://id.example.com/realm";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.example.com/auth",
            "token_endpoint": "https://id.example.com/token",
            "jwks_uri": "https://keys.example.com/jwks",
        })
    }

    fn parse(document: &Value) -> Option<Metadata> {
        Metadata::parse(document.to_string().as_bytes(), ISSUER)
    }

    #[test]
    fn a_document_of_this_issuer_is_read() {
        let metadata = parse(&document()).unwrap();
        assert!(!metadata.secret_in_body && !metadata.names_itself);
        for (methods, in_body) in [
            (json!(["client_secret_basic", "client_secret_post"]), false),
            (json!(["client_secret_post"]), true),
            (json!(["none"]), false),
        ] {
            let mut document = document();
            document["token_endpoint_auth_methods_supported"] = methods;
            assert_eq!(parse(&document).unwrap().secret_in_body, in_body);
        }
        let slash = discovery_url("https://id.example.com/");
        assert_eq!(
            slash,
            "https://id.example.com/.well-known/openid-configuration"
        );
    }

    #[test]
    fn another_issuers_document_is_none() {
        for issuer in ["https://evil.example", "https://id.example.com/realm/", ""] {
            let mut document = document();
            document["issuer"] = json!(issuer);
            assert_eq!(parse(&document), None, "{issuer}");
        }
    }

    #[test]
    fn an_open_line_is_refused_and_this_machine_only_for_who_is_on_it() {
        for key in ["authorization_endpoint", "token_endpoint", "jwks_uri"] {
            for url in [
                "http://id.example.com/x",
                "http://127.0.0.1:9090/purge",
                "javascript:alert(1)",
                "",
            ] {
                let mut document = document();
                document[key] = json!(url);
                assert_eq!(parse(&document), None, "{key} {url}");
            }
        }
        assert!(is_safe("http://127.0.0.1:4000/x", true));
        assert!(is_safe("http://localhost:4000?x", true));
        assert!(!is_safe("http://localhost.evil.example/x", true));
        assert!(!is_safe("http://localhost@evil.example/x", true));
    }
}
