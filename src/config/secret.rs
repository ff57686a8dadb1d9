//! A secret: readable by who asks for it by name, and by nobody who prints what it is in.

use std::fmt;
use std::sync::Arc;

/// A secret out of the configuration, an environment variable or a file.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<str>);

impl SecretValue {
    /// Keeps a secret.
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }

    /// The secret itself. Not for logs, errors or headers of answers.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(not shown)")
    }
}
