//! The way out to identity providers: key sets, discovery documents, and codes to redeem.
//!
//! Invariant: every answer is whole within 5 s and 256 KiB; no redirect is followed (a document is
//! where the configuration or its issuer says, RFC 8414 §6.2); TLS certificates are checked against the
//! machine's roots. Which addresses may be asked is decided where they are read.
//! Left out: proxies on the way out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::auth::{Fetch, FetchError, FetchErrorKind, Fetched, Fetching};
use crate::client::native_roots;
use crate::metrics::{IdentityAnswer, Metrics};

/// For one request, from its connection to the last byte of its answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// More than any key set, discovery document or token answer has.
const MAX_BODY: usize = 256 * 1024;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The way out.
#[derive(Clone)]
pub struct Outbound {
    client: HttpClient,
    metrics: Arc<Metrics>,
}

impl Outbound {
    /// A client with no connection yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let mut http = HttpConnector::new();
        // Either scheme: which addresses may go without TLS is decided where they are read.
        http.enforce_http(false);
        http.set_connect_timeout(Some(DEADLINE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(native_roots("identity providers"))
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(4)
            .build(https);
        Self { client, metrics }
    }

    /// Sends a request and collects its answer.
    async fn exchange(
        self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, FetchError> {
        let agent = HeaderValue::from_static(concat!("tilekeep/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| {
                // The chain says which of name, connection and certificate it was.
                failure(FetchErrorKind::Unreachable, &chain(&error))
            })?;
            let (head, body) = response.into_parts();
            match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Err(failure(
                    FetchErrorKind::TooLarge,
                    &format!("more than {MAX_BODY} bytes"),
                )),
                Err(_) => Err(failure(FetchErrorKind::Unreachable, "the answer broke off")),
            }
        };
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        answer.unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", DEADLINE.as_secs());
            Err(failure(FetchErrorKind::Deadline, &detail))
        })
    }

    fn count<T>(&self, outcome: Result<T, FetchError>) -> Result<T, FetchError> {
        self.metrics.identity_requests.inc(match &outcome {
            Ok(_) => IdentityAnswer::Answered,
            Err(error) => match error.kind {
                FetchErrorKind::Unreachable => IdentityAnswer::Unreachable,
                FetchErrorKind::Deadline => IdentityAnswer::Deadline,
                FetchErrorKind::Refused => IdentityAnswer::Refused,
                FetchErrorKind::TooLarge => IdentityAnswer::TooLarge,
            },
        });
        outcome
    }
}

impl Fetch for Outbound {
    fn get(&self, url: &str) -> Fetching<Fetched> {
        let request = Request::get(url)
            .header(ACCEPT, "application/json")
            .body(Full::default());
        let this = self.clone();
        Box::pin(async move {
            let fetched = match request {
                Ok(request) => this.clone().exchange(request).await.and_then(document),
                Err(error) => Err(failure(FetchErrorKind::Unreachable, &error.to_string())),
            };
            this.count(fetched)
        })
    }

    fn send(&self, request: oauth2::HttpRequest) -> Fetching<oauth2::HttpResponse> {
        let this = self.clone();
        Box::pin(async move {
            let request = request.map(|body| Full::new(Bytes::from(body)));
            let answer = this.clone().exchange(request).await;
            // A provider in trouble is not one that says no, and its page is no answer to read.
            let answer = answer.and_then(|answer| match answer.status() {
                status if status.is_server_error() => Err(status_failure(status)),
                _ => Ok(answer.map(Vec::from)),
            });
            this.count(answer)
        })
    }
}

fn document(answer: Response<Bytes>) -> Result<Fetched, FetchError> {
    if answer.status() != StatusCode::OK {
        return Err(status_failure(answer.status()));
    }
    Ok(Fetched {
        max_age: max_age(answer.headers()),
        body: answer.into_body(),
    })
}

/// How long the answer may be kept. Zero where it should not be: the caller has a least time.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or("").split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-store" || directive == "no-cache" {
                return Some(Duration::ZERO);
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                let seconds = seconds.trim_matches('"').parse().ok();
                found = found.or(seconds.map(Duration::from_secs));
            }
        }
    }
    found
}

fn status_failure(status: StatusCode) -> FetchError {
    failure(
        FetchErrorKind::Refused,
        &format!("the answer was {}", status.as_u16()),
    )
}

fn failure(kind: FetchErrorKind, detail: &str) -> FetchError {
    FetchError {
        kind,
        detail: detail.to_owned(),
    }
}

/// An error and its causes. Addresses and certificates' troubles are among them, bodies are not.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(value: &'static str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
        max_age(&headers).map(|age| age.as_secs())
    }

    #[test]
    fn a_document_is_kept_as_long_as_it_says() {
        assert_eq!(max_age(&HeaderMap::new()), None);
        assert_eq!(age("public, Max-Age=19800, must-revalidate"), Some(19_800));
        assert_eq!(age("max-age=60, no-cache"), Some(0));
        assert_eq!(age("no-store"), Some(0));
        assert_eq!(age("max-age=soon"), None);
    }
}
