//! `/login/oidc` and back: sign-in at an identity provider (OpenID Connect).
//!
//! Invariant: a session is begun only in the browser that set out for it, by a cookie that lives for
//! the journey alone and is gone after the first return, and goes on to a path of ours. The return is a
//! navigation from another site by its nature: that cookie, not `Sec-Fetch-Site`, tells it from a log-in
//! that another site made up (RFC 6749 §10.12).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, OriginalUri, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::pages::{LoginPage, OidcLink};
use super::problem::HttpError;
use super::session::{Person, begin, same_origin};
use super::site::{Peer, Site, html, problem};
use super::unauthorized::escape_query;
use crate::auth::{
    BeginError, CookieError, CookiePolicy, LOGIN_COOKIE, Oidc, OidcError, Returned,
    TRANSACTION_LIFE, Transaction, session_tokens_from_cookies,
};
use crate::clock::Timestamp;
use crate::metrics::LoginWay;

const CALLBACK: &str = "/login/oidc/callback";
/// Codes that are redeemed at one time: each is a request to the provider.
const REDEEMING: usize = 32;

/// The provider, as the pages know it.
pub struct OidcLogin {
    oidc: Oidc,
    name: String,
    plain: CookiePolicy,
    secure: CookiePolicy,
    redeeming: Semaphore,
}

impl OidcLogin {
    /// This provider, under this name on the log-in page.
    pub fn new(oidc: Oidc, name: String) -> Result<Self, CookieError> {
        Ok(Self {
            oidc,
            name,
            // Of this host alone, also where the session's is of a domain.
            plain: CookiePolicy::new(LOGIN_COOKIE, None, false)?,
            secure: CookiePolicy::new(LOGIN_COOKIE, None, true)?,
            redeeming: Semaphore::new(REDEEMING),
        })
    }

    /// The way to it from the log-in page.
    pub(super) fn link(&self, next: &str) -> OidcLink<'_> {
        OidcLink {
            url: format!("/login/oidc?next={}", escape_query(next)),
            name: &self.name,
        }
    }

    fn cookie(&self, site: &Site, peer: IpAddr, headers: &HeaderMap) -> &CookiePolicy {
        if site.parts.front.cookie(peer, headers).is_secure() {
            &self.secure
        } else {
            &self.plain
        }
    }
}

/// Why somebody came back without a session, or did not get away.
enum Refusal {
    /// No log-in of this browser is under way, or another one is.
    NotUnderWay,
    /// The provider says no, in the protocol's word for it.
    Said(&'static str),
    /// Too many failures from this address.
    Throttled(Duration),
    /// Too many people come back at this moment.
    Busy,
    /// What the provider sent is not accepted, or it sent nothing.
    Provider(OidcError),
    /// The session could not be begun.
    Begin(BeginError),
}

impl Refusal {
    /// The word for the log.
    fn label(&self) -> &'static str {
        match self {
            Self::NotUnderWay => "not_under_way",
            Self::Said(word) => word,
            Self::Throttled(_) => "throttled",
            Self::Busy => "busy",
            Self::Provider(error) => error.label(),
            Self::Begin(BeginError::TooLongAgo) => "too_long_ago",
            Self::Begin(_) => "not_begun",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotUnderWay
            | Self::Provider(OidcError::CodeRefused | OidcError::WrongProvider) => {
                StatusCode::BAD_REQUEST
            }
            Self::Said("access_denied") | Self::Begin(BeginError::TooLongAgo) => {
                StatusCode::FORBIDDEN
            }
            Self::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy | Self::Provider(OidcError::Unreachable { .. }) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Said("temporarily_unavailable") => StatusCode::SERVICE_UNAVAILABLE,
            Self::Said(_) | Self::Provider(_) | Self::Begin(_) => StatusCode::BAD_GATEWAY,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(wait) => Some(*wait),
            Self::Provider(OidcError::Unreachable { retry_after }) => Some(*retry_after),
            Self::Busy | Self::Said("temporarily_unavailable") => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// What the person can do. Nothing of what the provider or a stranger wrote is repeated.
    fn sentence(&self) -> &'static str {
        match self {
            Self::NotUnderWay
            | Self::Provider(OidcError::CodeRefused | OidcError::WrongProvider) => {
                "This sign-in was not begun in this browser, took too long, or is over. Sign in again."
            }
            Self::Said("access_denied") => {
                "The identity provider did not let you in, or you turned back there."
            }
            Self::Said("temporarily_unavailable" | "server_error") => {
                "The identity provider is in trouble at the moment. Try again shortly."
            }
            Self::Throttled(_) => "Too many attempts to sign in. Wait a little and try again.",
            Self::Busy => {
                "Too many people are signing in at this moment. Try again in a few seconds."
            }
            Self::Provider(OidcError::Unreachable { .. }) => {
                "The identity provider cannot be reached. Try again shortly."
            }
            Self::Begin(BeginError::TooLongAgo) => {
                "Your sign-in at the identity provider is too old. Sign out there and try again."
            }
            Self::Said(_) | Self::Provider(_) | Self::Begin(_) => {
                "The identity provider's answer was not accepted. The operator of this server finds the reason in the log."
            }
        }
    }
}

#[derive(Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

/// `GET /login/oidc`: off to the provider.
pub(super) async fn start(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let Some(login) = &site.oidc else {
        return problem(&HttpError::UnknownPage);
    };
    let next = Query::<Next>::try_from_uri(&uri).map(|query| query.0.next);
    let next = next.unwrap_or_default();
    let next = same_origin(&next);
    let redirect_uri = redirect_uri(&site, peer, &headers);
    let now = site.parts.clock.now();
    match login.oidc.start(&redirect_uri, next, now).await {
        Ok(started) => {
            let cookie = login.cookie(&site, peer, &headers);
            let cookie = cookie.set(&started.sealed, TRANSACTION_LIFE);
            let (Ok(place), Ok(cookie)) = (started.url.try_into(), HeaderValue::try_from(cookie))
            else {
                return problem(&HttpError::Internal);
            };
            let headers: [(_, HeaderValue); 3] = [
                (LOCATION, place),
                (SET_COOKIE, cookie),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (StatusCode::SEE_OTHER, headers).into_response()
        }
        Err(error) => {
            let refusal = Refusal::Provider(error);
            if !matches!(refusal, Refusal::Provider(OidcError::Unreachable { .. })) {
                tracing::error!(reason = refusal.label(), "a sign-in could not be begun");
            }
            refused(&site, &refusal, next)
        }
    }
}

/// What the provider sends a browser back with (RFC 6749 §4.1.2, RFC 9207).
#[derive(Deserialize, Default)]
struct Callback {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// `GET /login/oidc/callback`: back from the provider.
pub(super) async fn callback(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let Some(login) = &site.oidc else {
        return problem(&HttpError::UnknownPage);
    };
    let now = site.parts.clock.now();
    let cookie = login.cookie(&site, peer, &headers);
    // What cannot be read is the answer to no log-in.
    let callback = read(&uri);
    let under_way = {
        let sent = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
        let cookies = session_tokens_from_cookies(sent, cookie.name());
        let sealed = cookies
            .iter()
            .filter_map(|sealed| str::from_utf8(sealed).ok());
        login.oidc.resume(sealed, &callback.state, now)
    };
    let next = under_way
        .as_ref()
        .map_or_else(|| "/".to_owned(), |under_way| under_way.next().to_owned());
    let outcome = match under_way {
        Some(under_way) => arrive(&site, login, peer, &headers, callback, under_way, now).await,
        None => Err(Refusal::NotUnderWay),
    };
    let mut response = outcome.unwrap_or_else(|refusal| {
        let client = site.parts.front.client(peer, &headers);
        site.parts.metrics.login_failures.inc(LoginWay::Oidc);
        match refusal {
            // Anybody can do this as often as they like, and must not fill the log.
            Refusal::NotUnderWay
            | Refusal::Throttled(_)
            | Refusal::Busy
            | Refusal::Provider(OidcError::Unreachable { .. }) => {
                tracing::debug!(%client, reason = refusal.label(), "a sign-in was refused");
            }
            Refusal::Provider(OidcError::ClientRefused(said) | OidcError::BadAnswer(said)) => {
                tracing::error!(%client, reason = refusal.label(), said, "a sign-in was refused");
            }
            _ => tracing::warn!(%client, reason = refusal.label(), "a sign-in was refused"),
        }
        refused(&site, &refusal, &next)
    });
    if let Ok(gone) = HeaderValue::try_from(cookie.delete()) {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    response
}

/// Somebody is back in the browser that set out.
async fn arrive(
    site: &Site,
    login: &OidcLogin,
    peer: IpAddr,
    headers: &HeaderMap,
    callback: Callback,
    under_way: Transaction,
    now: Timestamp,
) -> Result<Response, Refusal> {
    let client = site.parts.front.client(peer, headers);
    // Each try is a request to the provider, and who has set out once could come back with any code. It is
    // counted before, and given back where it was no guess: who hangs up meanwhile has tried all the same.
    site.throttle
        .stray(client, now)
        .map_err(|throttled| Refusal::Throttled(throttled.retry_after))?;
    if let Some(error) = &callback.error {
        return Err(Refusal::Said(known_word(error)));
    }
    let Some(code) = &callback.code else {
        return Err(Refusal::NotUnderWay);
    };
    let Ok(_turn) = login.redeeming.try_acquire() else {
        site.throttle.forgive(client);
        return Err(Refusal::Busy);
    };
    let returned = Returned {
        code,
        issuer: callback.iss.as_deref(),
    };
    let next = under_way.next().to_owned();
    let redirect_uri = redirect_uri(site, peer, headers);
    let finished = login
        .oidc
        .finish(under_way, returned, &redirect_uri, now)
        .await;
    let identity = finished.map_err(|error| {
        if matches!(error, OidcError::Unreachable { .. }) {
            site.throttle.forgive(client);
        }
        Refusal::Provider(error)
    })?;
    site.throttle.forgive(client);
    let person = Person {
        sub: &identity.sub,
        grants: &identity.grants,
        auth_time: identity.auth_time,
    };
    // Checked when it was sealed; twice is cheaper than an open redirect.
    let place = Some(same_origin(&next));
    let response = begin(site, peer, headers, person, place, now)
        .await
        .map_err(Refusal::Begin)?;
    site.parts.metrics.logins.inc(LoginWay::Oidc);
    let (user, issuer) = (identity.sub.escape_debug(), identity.issuer.escape_debug());
    tracing::info!(%user, %issuer, %client, "logged in at the identity provider");
    Ok(response)
}

fn read(uri: &Uri) -> Callback {
    Query::<Callback>::try_from_uri(uri)
        .map(|query| query.0)
        .unwrap_or_default()
}

/// Where the provider sends browsers back to: what is registered there.
fn redirect_uri(site: &Site, peer: IpAddr, headers: &HeaderMap) -> String {
    let base = site.parts.front.outside(peer, headers).base_url();
    format!("{base}{CALLBACK}")
}

/// The error codes of RFC 6749 §4.1.2.1 and OpenID Connect Core §3.1.2.6; no other text goes on.
fn known_word(error: &str) -> &'static str {
    const WORDS: [&str; 14] = [
        "access_denied",
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "interaction_required",
        "login_required",
        "account_selection_required",
        "consent_required",
        "request_not_supported",
        "request_uri_not_supported",
        "registration_not_supported",
    ];
    WORDS
        .into_iter()
        .find(|word| *word == error)
        .unwrap_or("another_error")
}

/// The log-in page again, with what happened.
fn refused(site: &Site, refusal: &Refusal, next: &str) -> Response {
    let page = LoginPage {
        error: Some(refusal.sentence()),
        ..site.login_page(same_origin(next))
    };
    let policy = LoginPage::content_security_policy();
    let mut response = html(refusal.status(), page.to_html(), &policy);
    if let Some(wait) = refusal.retry_after() {
        let seconds = HeaderValue::from(wait.as_secs().max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}
