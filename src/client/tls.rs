//! The TLS that this program asks others with: the machine's roots, one provider.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The machine's certificate roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` count). Without any, no `https` address can
/// be trusted, which the attempt then says; `why` ends the warning's sentence with what that means for the caller.
#[expect(
    clippy::missing_panics_doc,
    reason = "the provider that is built in has both versions"
)]
pub fn native_roots(why: &str) -> ClientConfig {
    let builder = || {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
    };
    match builder().with_native_roots() {
        Ok(config) => config.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(%error, "this machine has no CA certificates, so {why} cannot be reached over https: install ca-certificates, or set SSL_CERT_FILE");
            builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    }
}
