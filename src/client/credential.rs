//! As whom the server is asked: a token, or the cookie of a log-in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{ClientError, Connection};

/// More than the server reads of a token.
const MAX_TOKEN_FILE: u64 = 64 * 1024;
/// More than a log-in's answer has.
const MAX_ANSWER: usize = 64 * 1024;

/// Why there is no credential. None of them repeats a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("--token-file {}: {error}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// What is given is no token.
    #[error(
        "{0}: not a token: one line of letters, digits, `-`, `_` and `.`, as `tilekeep token mint` prints it"
    )]
    NoToken(String),
    /// The server knows no such user or password, or has had too many attempts.
    #[error("log-in as {user:?}: the server answered {status}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    Refused {
        /// Who wanted in.
        user: String,
        /// With which status.
        status: u16,
        /// What the server says about it.
        detail: String,
    },
    /// The server did not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// As whom the server is asked.
#[derive(Clone, Default)]
pub enum Credential {
    /// As nobody: public tilesets.
    #[default]
    Nobody,
    /// With a token, as `Authorization: Bearer`.
    Bearer(HeaderValue),
    /// With the cookies of a log-in.
    Cookie(HeaderValue),
}

impl Credential {
    /// A token from the environment's `TILEKEEP_TOKEN` (its value, if it is set) or a file, which goes first.
    pub fn find(file: Option<&Path>, variable: Option<&str>) -> Result<Self, CredentialError> {
        match (file, variable) {
            (Some(file), _) => {
                let error = |error| CredentialError::File {
                    file: file.to_owned(),
                    error,
                };
                let length = std::fs::metadata(file).map_err(error)?.len();
                if length > MAX_TOKEN_FILE {
                    return Err(CredentialError::NoToken(file.display().to_string()));
                }
                let text = std::fs::read_to_string(file).map_err(error)?;
                Self::token(&text)
                    .ok_or_else(|| CredentialError::NoToken(file.display().to_string()))
            }
            (None, Some(text)) => Self::token(text)
                .ok_or_else(|| CredentialError::NoToken("TILEKEEP_TOKEN".to_owned())),
            (None, None) => Ok(Self::Nobody),
        }
    }

    /// A token. `None` where a header could not carry it.
    pub fn token(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_token = !text.is_empty()
            && text.bytes().all(|b| {
                b.is_ascii_alphanumeric()
                    || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+' | b'/' | b'~')
            });
        let value = is_token.then(|| HeaderValue::try_from(format!("Bearer {text}")).ok());
        value.flatten().map(|mut value| {
            value.set_sensitive(true);
            Self::Bearer(value)
        })
    }

    /// Logs in with name and password, as a program does: JSON, no cookie, no `Origin`.
    pub async fn log_in(
        connection: &mut Connection,
        user: &str,
        password: &str,
        deadline: Duration,
    ) -> Result<Self, CredentialError> {
        let body = serde_json::json!({"username": user, "password": password}).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = connection
            .send(
                Method::POST,
                "/session",
                headers,
                Bytes::from(body),
                deadline,
            )
            .await?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let body = answer.collect(MAX_ANSWER).await?;
        let mut credential = Self::Nobody;
        if status == StatusCode::OK && credential.absorb(&headers) {
            return Ok(credential);
        }
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(CredentialError::Refused {
            user: user.to_owned(),
            status: status.as_u16(),
            detail: problem["detail"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Takes the cookies of an answer, if it sets any: a log-in's, or those of a session that was renewed. A token
    /// is not replaced by them.
    pub fn absorb(&mut self, headers: &HeaderMap) -> bool {
        if matches!(self, Self::Bearer(_)) {
            return false;
        }
        let pairs: Vec<&str> = headers
            .get_all(SET_COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            // The session's: CloudFront's are of one tileset's path each, and for CloudFront.
            .filter(|cookie| {
                let mut attributes = cookie.split(';').skip(1).map(str::trim);
                attributes.all(|attribute| {
                    let (name, path) = attribute.split_once('=').unwrap_or((attribute, ""));
                    !name.eq_ignore_ascii_case("path") || path == "/"
                })
            })
            .filter_map(|cookie| cookie.split(';').next())
            .map(str::trim)
            .filter(|pair| {
                pair.split_once('=')
                    .is_some_and(|(_, value)| !value.is_empty())
            })
            .collect();
        let Ok(mut value) = HeaderValue::try_from(pairs.join("; ")) else {
            return false;
        };
        value.set_sensitive(true);
        if pairs.is_empty() {
            return false;
        }
        *self = Self::Cookie(value);
        true
    }

    /// Puts it into a request's headers.
    pub fn put(&self, headers: &mut HeaderMap) {
        match self {
            Self::Nobody => {}
            Self::Bearer(value) => {
                headers.insert(AUTHORIZATION, value.clone());
            }
            Self::Cookie(value) => {
                headers.insert(COOKIE, value.clone());
            }
        }
    }

    /// Whether there is something to keep to oneself.
    pub fn is_secret(&self) -> bool {
        !matches!(self, Self::Nobody)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Bearer(_) => "a token (not shown)",
            Self::Cookie(_) => "cookies (not shown)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_nowhere() {
        let token = Credential::find(None, Some(" abc.def.ghi\n")).unwrap();
        let mut headers = HeaderMap::new();
        token.put(&mut headers);
        assert_eq!(headers[AUTHORIZATION], "Bearer abc.def.ghi");
        let shown = format!("{token:?} {headers:?}");
        assert!(!shown.contains("abc"), "{shown}");
        let error = Credential::find(None, Some("two words")).unwrap_err();
        assert!(
            error.to_string().starts_with("TILEKEEP_TOKEN: ") && !error.to_string().contains("two")
        );
    }

    #[test]
    fn a_file_with_a_token_goes_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "a.b.c\n").unwrap();
        let mut headers = HeaderMap::new();
        Credential::find(Some(&file), Some("d.e.f"))
            .unwrap()
            .put(&mut headers);
        assert_eq!(headers[AUTHORIZATION], "Bearer a.b.c");
        let missing = Credential::find(Some(&folder.path().join("none")), None).unwrap_err();
        assert!(missing.to_string().contains("--token-file"), "{missing}");
    }

    #[test]
    fn cookies_are_kept_without_their_attributes() {
        let mut headers = HeaderMap::new();
        headers.append(
            SET_COOKIE,
            HeaderValue::from_static("__Host-a=x.y; Path=/; Secure"),
        );
        headers.append(SET_COOKIE, HeaderValue::from_static("b=2"));
        headers.append(SET_COOKIE, HeaderValue::from_static("gone=; Max-Age=0"));
        headers.append(
            SET_COOKIE,
            HeaderValue::from_static("CloudFront-Policy=p; Path=/world; Secure"),
        );
        let mut credential = Credential::Nobody;
        assert!(credential.absorb(&headers));
        let mut sent = HeaderMap::new();
        credential.put(&mut sent);
        assert_eq!(sent[COOKIE], "__Host-a=x.y; b=2");
        assert!(!format!("{credential:?}").contains("x.y"));
    }
}
