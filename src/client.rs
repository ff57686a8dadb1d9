//! What a program needs that asks a running Tilekeep server over its public URLs, as a map in a browser does.
//!
//! Invariant: every wait has a deadline and every body a bound; a credential is in no error, log or `Debug`; no
//! redirect is followed, so a credential goes to the one server that was named.
//! Left out: pools, retries, caches. Who asks decides how often and how many at a time.

mod connection;
mod credential;
mod error;
mod tls;
mod url;

pub use connection::{Answer, Client, Connection, Protocol};
pub use credential::{Credential, CredentialError};
pub use error::{ClientError, ClientErrorKind};
pub use tls::native_roots;
pub use url::{ServerUrl, ServerUrlError};
