//! A running server's admin side, as its client: JSON there and back, over plain HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;

/// The environment variable with the admin token.
const TOKEN: &str = "TILEKEEP_ADMIN_TOKEN";

/// For connecting and for the whole: a purge looks at every entry.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_mins(2);
/// Of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// A server's admin side.
pub(super) struct Admin {
    url: Uri,
    authority: String,
    token: Option<HeaderValue>,
}

impl Admin {
    /// At this address, with the token of the environment.
    pub(super) fn from_environment(url: &Uri) -> Result<Self, Failure> {
        Self::new(url, None)
    }

    /// At this address; without a token, with the environment's.
    pub(super) fn new(url: &Uri, token: Option<&str>) -> Result<Self, Failure> {
        let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(Failure::Usage(
                "--admin: an address like http://127.0.0.1:9090; the admin side speaks plain HTTP"
                    .to_owned(),
            ));
        };
        // The address is printed with every error and sent as `Host`: no place for a password.
        if authority.as_str().contains('@') {
            return Err(Failure::Usage(format!(
                "--admin: leave user and password out of the address, like http://{}; the admin side takes the \
                 server's `admin_token`: put it into {TOKEN}",
                authority.as_str().rsplit('@').next().unwrap_or_default()
            )));
        }
        let token = token.map(str::to_owned).or(std::env::var(TOKEN).ok());
        let bearer = |token: String| HeaderValue::try_from(format!("Bearer {}", token.trim()));
        let token = token
            .map(bearer)
            .transpose()
            .map_err(|_| Failure::Usage(format!("{TOKEN}: not a token that a header can carry")))?;
        Ok(Self {
            authority: authority.to_string(),
            url: url.clone(),
            token,
        })
    }

    /// Posts JSON and reads JSON.
    pub(super) async fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Failure> {
        let admin = &self.url;
        let address = format!(
            "{}:{}",
            admin.host().unwrap_or_default(),
            admin.port_u16().unwrap_or(80)
        );
        let unreachable = |what: &dyn std::fmt::Display| {
            Failure::Failed(format!(
                "{admin}: {what}; is that the server's `admin_listen`?"
            ))
        };
        let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(&error)),
            Err(_) => return Err(unreachable(&"no answer")),
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
        tokio::spawn(connection);
        let body = serde_json::to_vec(body).map_err(|error| Failure::failed(&error))?;
        let mut request = Request::post(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::failed(&error))?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|e| Failure::failed(&e))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|e| Failure::Failed(e.to_string()))?.to_bytes();
            Ok::<_, Failure>((head.status, body))
        };
        let (status, body) = timeout(TIMEOUT, answer)
            .await
            .map_err(|_| Failure::Failed(format!("{admin}: no answer within {TIMEOUT:?}")))??;
        match status {
            StatusCode::OK => {
                serde_json::from_slice(&body).map_err(|error| Failure::failed(&error))
            }
            StatusCode::UNAUTHORIZED => Err(Failure::Failed(format!(
                "{admin}: it asks for a token: put the server's `admin_token` into {TOKEN}"
            ))),
            _ => {
                let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let detail = problem["detail"].as_str().unwrap_or("no reason given");
                let detail = detail.replace(char::is_control, " ");
                Err(Failure::Failed(format!("{admin}: {status}: {detail}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_address_is_refused_unsent_and_unrepeated() {
        let admin = Uri::from_static("http://anna:hunter2@127.0.0.1:1/");
        let Err(Failure::Usage(text)) = Admin::new(&admin, None) else {
            panic!("wrong usage");
        };
        assert!(
            text.contains("like http://127.0.0.1:1;") && text.contains(TOKEN),
            "{text}"
        );
        assert!(
            !text.contains("hunter2") && !text.contains("anna"),
            "{text}"
        );
    }
}
