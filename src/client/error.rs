//! Why a request brought no answer. A status is an answer, whatever it says.

use std::error::Error;
use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientErrorKind {
    /// The name has no address, or nothing answers there.
    Unreachable,
    /// TLS: a certificate that is not trusted, another name's, or no HTTP/2.
    Tls,
    /// Not done in time.
    Deadline,
    /// The connection ended before the answer did.
    BrokeOff,
    /// The body is larger than it may be.
    TooLarge,
}

impl ClientErrorKind {
    /// The word for reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Deadline => "deadline",
            Self::BrokeOff => "broke_off",
            Self::TooLarge => "too_large",
        }
    }

    /// Whether asking again may help.
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Unreachable | Self::Deadline | Self::BrokeOff => true,
            Self::Tls | Self::TooLarge => false,
        }
    }
}

/// A request without an answer. Its text has neither credentials nor bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    /// What went wrong.
    pub kind: ClientErrorKind,
    /// In words, with the address.
    pub detail: String,
}

impl ClientError {
    pub(super) fn new(kind: ClientErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// With the causes of an error, each said once.
    pub(super) fn caused(kind: ClientErrorKind, what: &str, error: &dyn Error) -> Self {
        let mut detail = format!("{what}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !detail.contains(&more) {
                detail = format!("{detail}: {more}");
            }
            cause = error.source();
        }
        Self { kind, detail }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Error for ClientError {}
