//! `/session`: log in, look, renew, log out.
//!
//! Invariant (against CSRF): a write with a cookie, and every log-in, comes from this very origin
//! (`Sec-Fetch-Site: same-origin`) or from a listed one; a program that sends neither header may log
//! in with a JSON body or a bearer and no cookie: no page of another site can send either without
//! asking first. `same-site` alone is not enough: a sister domain may be hostile.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, LOCATION, ORIGIN, SET_COOKIE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cloudfront::EdgeCookies;
use super::cors::Cors;
use super::exchange::exchange;
use super::pages::LoginPage;
use super::problem::HttpError;
use super::public::Caller;
use super::request_head::Fields;
use super::site::{Peer, Site, html, problem};
use crate::auth::{
    AuthError, BeginError, Claims, EndError, Grants, IssuedSession, LoginError, RenewError, Secret,
    Session, bearer_token, session_tokens_from_cookies,
};
use crate::clock::Timestamp;
use crate::metrics::LoginWay;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// A name and a password, as JSON or as a form.
#[derive(Deserialize)]
struct Credentials {
    username: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// `POST /session`.
pub(super) async fn log_in(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Ok(body) = body else {
        return problem(&HttpError::TooLarge);
    };
    let content_type = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = content_type
        .split(|b| *b == b';')
        .next()
        .unwrap_or(b"")
        .trim_ascii();
    let is_json = media_type.eq_ignore_ascii_case(b"application/json");
    let is_form = media_type.eq_ignore_ascii_case(b"application/x-www-form-urlencoded");
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| str::from_utf8(bearer_token(value.as_bytes())?).ok());
    if !site.may_write(&headers, is_json || bearer.is_some()) {
        return problem(&HttpError::CrossSite);
    }
    let now = site.parts.clock.now();
    let credentials = if is_json {
        serde_json::from_slice::<Credentials>(&body).ok()
    } else if is_form {
        serde_urlencoded::from_bytes(&body).ok()
    } else {
        None
    };
    let Some(Credentials {
        username,
        password,
        next,
    }) = credentials
    else {
        // A proxy may put a bearer of its own beside a password; a password goes first.
        if let Some(token) = bearer.filter(|_| !site.issuers.is_empty()) {
            return exchange(&site, peer, &headers, token, now).await;
        }
        return problem(&HttpError::BadRequest(
            "Send `username` and `password` as JSON or as a form, with its Content-Type, or a configured issuer's JWT as `Authorization: Bearer`.",
        ));
    };
    let client = site.parts.front.client(peer, &headers);
    let checked = match &site.users {
        Some(users) => {
            users
                .check(&username, &Secret::new(password), client, now)
                .await
        }
        None => Err(LoginError::Refused),
    };
    match checked {
        Ok(grants) => {
            site.parts.metrics.logins.inc(LoginWay::Password);
            tracing::info!(user = %username.escape_debug(), %client, "logged in");
            let place = if is_form {
                Some(same_origin(&next))
            } else {
                None
            };
            let person = Person {
                sub: &username,
                grants: &grants,
                auth_time: now,
            };
            match begin(&site, peer, &headers, person, place, now).await {
                Ok(response) => response,
                Err(error) => {
                    tracing::error!(%error, "a session could not be begun");
                    problem(&HttpError::Internal)
                }
            }
        }
        Err(error) => {
            site.parts.metrics.login_failures.inc(LoginWay::Password);
            log_refusal(users_name(&site, &username), client, &error);
            if is_form {
                refused_page(&site, &error, &username, &next)
            } else {
                refused_json(&error)
            }
        }
    }
}

/// Somebody who has proved who they are.
pub(super) struct Person<'a> {
    pub(super) sub: &'a str,
    pub(super) grants: &'a Grants,
    /// When they did.
    pub(super) auth_time: Timestamp,
}

/// Begins a session, sets its cookie and ends the one before: with a page's way on, or as JSON.
pub(super) async fn begin(
    site: &Site,
    peer: IpAddr,
    headers: &HeaderMap,
    person: Person<'_>,
    place: Option<&str>,
    now: Timestamp,
) -> Result<Response, BeginError> {
    let sessions = &site.parts.sessions;
    let issued = sessions.begin_since(person.sub, person.grants, person.auth_time, now)?;
    let edge = site.parts.first_edge_cookies(&issued.token, now);
    let mut response = match place {
        Some(place) => {
            let mut response = StatusCode::SEE_OTHER.into_response();
            let place = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static("/"));
            response.headers_mut().insert(LOCATION, place);
            response
        }
        None => session_json(&issued.claims, &edge),
    };
    set_cookie(site, peer, headers, &issued, now, &mut response);
    edge.append_to(response.headers_mut());
    // Another person on the same browser: the last one's tiles must not be theirs to see.
    let before = site.parts.authorize_cookie(peer, headers, now).ok();
    if let Some(before) = before.filter(|before| before.sub() != person.sub) {
        if let Err(error) = sessions.end(&before, now).await {
            tracing::error!(%error, "the session before could not be ended");
        }
        clear_cache(&mut response);
    }
    Ok(response)
}

/// `GET /session`.
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let now = site.parts.clock.now();
    match site.parts.authorize(peer, &headers, now) {
        Ok(caller) => {
            let edge = site.edge_cookies(&caller, caller.session.expires_at(), now);
            let mut session = session_value(caller.session.claims(), &edge);
            let uptime = site.parts.clock.uptime();
            if let Some(left) = caller.session.spender().and_then(|s| s.tiles_left(uptime)) {
                session["distinct_tiles_left"] = left.into();
            }
            let mut response = json_response(&session);
            edge.append_to(response.headers_mut());
            response
        }
        Err(error) => problem(&error.into()),
    }
}

/// `POST /session/renew`.
pub(super) async fn renew(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let now = site.parts.clock.now();
    let caller = match site.writer(peer, &headers, now) {
        Ok(caller) => caller,
        Err(refusal) => return problem(&refusal),
    };
    match site.parts.sessions.renew(&caller.session, now) {
        Ok(issued) => {
            if !caller.by_cookie {
                return renewed_bearer(&issued);
            }
            let edge = site.edge_cookies(&caller, issued.expires_at, now);
            let mut response = session_json(&issued.claims, &edge);
            set_cookie(&site, peer, &headers, &issued, now, &mut response);
            edge.append_to(response.headers_mut());
            response
        }
        // It lasts as long as it can already, which is what was asked for.
        Err(RenewError::NoLater) => {
            let edge = site.edge_cookies(&caller, caller.session.expires_at(), now);
            let mut response = session_json(caller.session.claims(), &edge);
            edge.append_to(response.headers_mut());
            response
        }
        Err(RenewError::NotOurs) => problem(&HttpError::NotRenewable),
        Err(RenewError::Revoked) => problem(&AuthError::Revoked.into()),
        Err(error @ RenewError::Begin(_)) => {
            tracing::error!(%error, "a session could not be renewed");
            problem(&HttpError::Internal)
        }
    }
}

/// `DELETE /session`.
pub(super) async fn log_out(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let now = site.parts.clock.now();
    match site.writer(peer, &headers, now) {
        Ok(caller) => {
            let carried = site.carried(caller, peer, &headers, now);
            let sessions = site.parts.sessions.clone();
            // In a task of its own: a browser that leaves the page as it logs out hangs up, and that must not
            // leave some of them, or other nodes, with a session that its person has ended.
            let ending = tokio::spawn(async move {
                for session in carried {
                    sessions.end(&session, now).await?;
                    tracing::info!(user = %session.sub().escape_debug(), "logged out");
                }
                Ok::<_, EndError>(())
            });
            let ended = ending.await.unwrap_or(Err(EndError::Stopping));
            if let Err(error) = ended {
                // The person must not believe that it has ended.
                tracing::error!(%error, "a session could not be ended");
                return problem(&HttpError::Internal);
            }
        }
        // A cookie that is dead already still has to go, and what it had let in.
        Err(HttpError::Unauthorized(error))
            if error != AuthError::Missing && site.may_write(&headers, false) => {}
        Err(refusal) => return problem(&refusal),
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let delete = site.parts.front.cookie(peer, &headers).delete();
    if let Ok(cookie) = HeaderValue::try_from(delete) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    let edge = site.parts.no_edge_cookies();
    edge.append_to(response.headers_mut());
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    clear_cache(&mut response);
    response
}

impl Site {
    /// What CloudFront wants of the browser of a session that lasts until `until`. Who sends a token itself keeps no
    /// cookies.
    fn edge_cookies(&self, caller: &Caller, until: Timestamp, now: Timestamp) -> EdgeCookies {
        if caller.by_cookie {
            self.parts.edge_cookies(&caller.session, until, now, None)
        } else {
            EdgeCookies::default()
        }
    }

    /// Whether a request that changes something may: see the module's invariant. `preflighted`: another
    /// site's page could not send it without a browser asking here first.
    fn may_write(&self, headers: &HeaderMap, preflighted: bool) -> bool {
        may_write(&self.parts.cors, headers.into(), preflighted)
    }

    /// Every session that a request carries: a second cookie of our name, which a parent domain's can be,
    /// must not outlive the log-out of the first.
    fn carried(
        &self,
        caller: Caller,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Vec<Arc<Session>> {
        let mut carried = vec![caller.session];
        if self.may_write(headers, false) {
            let cookies = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
            let name = self.parts.front.cookie(peer, headers).name();
            for token in session_tokens_from_cookies(cookies, name).iter() {
                carried.extend(self.parts.sessions.authorize(token, now));
            }
        }
        carried.dedup_by_key(|session| session.revocation_id());
        carried
    }

    /// The session of a request that may change it.
    pub(super) fn writer(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Caller, HttpError> {
        let caller = self.parts.authorize(peer, headers, now)?;
        if caller.by_cookie && !self.may_write(headers, false) {
            return Err(HttpError::CrossSite);
        }
        Ok(caller)
    }
}

/// As [`Site::may_write`] says.
pub(super) fn may_write(cors: &Cors, fields: Fields<'_>, preflighted: bool) -> bool {
    let origin = fields.get(&ORIGIN);
    let listed = cors.allows(origin);
    match fields.get(&SEC_FETCH_SITE) {
        Some(site) => site == b"same-origin" || listed,
        None if origin.is_some() => listed,
        None => preflighted && !fields.has(&COOKIE),
    }
}

/// The name as the log may have it: a user's. Anything else may be a password in the wrong field.
fn users_name<'a>(site: &Site, typed: &'a str) -> &'a str {
    let known = site.users.as_ref().is_some_and(|users| users.has(typed));
    if known { typed } else { "(unknown)" }
}

/// What a throttle holds back is its counter's business: a line each would let anybody fill the log.
fn log_refusal(user: &str, client: IpAddr, error: &LoginError) {
    let reason = error.label();
    match error {
        LoginError::Refused if user != "(unknown)" => {
            tracing::warn!(%user, %client, reason, "log-in refused");
        }
        _ => tracing::debug!(%user, %client, reason, "log-in refused"),
    }
}

/// A place to go on to at most.
pub(super) const MAX_NEXT: usize = 2048;

/// A path on this origin, or `/`. Browsers read a backslash as a slash and drop tabs and newlines,
/// and two slashes begin a host (WHATWG URL standard).
pub(super) fn same_origin(next: &str) -> &str {
    let safe = next.starts_with('/')
        && next.len() <= MAX_NEXT
        && !next.starts_with("//")
        && next
            .bytes()
            .all(|b| (0x21..0x7f).contains(&b) && b != b'\\');
    if safe { next } else { "/" }
}

/// Who sends its token itself gets the new one in the answer; a cookie would plant the session
/// elsewhere.
fn renewed_bearer(issued: &IssuedSession) -> Response {
    let mut session = session_value(&issued.claims, &EdgeCookies::default());
    session["token"] = issued.token.as_str().into();
    json_response(&session)
}

fn session_json(claims: &Claims, edge: &EdgeCookies) -> Response {
    json_response(&session_value(claims, edge))
}

fn session_value(claims: &Claims, edge: &EdgeCookies) -> Value {
    let mut session = json!({
        "sub": claims.sub,
        "exp": claims.exp,
        "auth_time": claims.auth_time,
        "tilesets": claims.tilesets,
        "scope": claims.scope.as_deref().unwrap_or("tiles"),
        "maxzoom": claims.maxzoom,
        "bounds": claims.bounds,
        "quota": claims.quota,
    });
    if let Some(shown) = edge.shown() {
        session["cloudfront"] = shown;
    }
    session
}

fn json_response(session: &Value) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, session.to_string()).into_response()
}

fn set_cookie(
    site: &Site,
    peer: IpAddr,
    headers: &HeaderMap,
    issued: &IssuedSession,
    now: Timestamp,
    response: &mut Response,
) {
    let cookie = site
        .parts
        .front
        .cookie(peer, headers)
        .set(&issued.token, issued.max_age(now));
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn clear_cache(response: &mut Response) {
    response
        .headers_mut()
        .insert(CLEAR_SITE_DATA, HeaderValue::from_static("\"cache\""));
}

fn refused_page(site: &Site, error: &LoginError, username: &str, next: &str) -> Response {
    let (status, wait) = refusal(error);
    let text = error.to_string();
    let mut sentence = text.clone();
    if let Some(first) = sentence.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    sentence.push('.');
    let page = LoginPage {
        username,
        error: Some(&sentence),
        ..site.login_page(same_origin(next))
    };
    let mut response = html(
        status,
        page.to_html(),
        &LoginPage::content_security_policy(),
    );
    if let Some(wait) = wait {
        response.headers_mut().insert(
            http::header::RETRY_AFTER,
            HeaderValue::from(wait.as_secs().max(1)),
        );
    }
    response
}

fn refused_json(error: &LoginError) -> Response {
    match refusal(error) {
        (_, Some(retry_after)) => problem(&HttpError::TooMany { retry_after }),
        (_, None) => problem(&HttpError::WrongPassword),
    }
}

fn refusal(error: &LoginError) -> (StatusCode, Option<Duration>) {
    match error {
        LoginError::Refused => (StatusCode::UNAUTHORIZED, None),
        LoginError::Throttled { retry_after } => {
            (StatusCode::TOO_MANY_REQUESTS, Some(*retry_after))
        }
        LoginError::Busy => (StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(3))),
    }
}

#[cfg(test)]
mod tests {
    use super::same_origin;

    #[test]
    fn next_stays_on_this_origin() {
        for good in ["/", "/map", "/map?x=1&y=2#z", "/world/0/0/0.png"] {
            assert_eq!(same_origin(good), good);
        }
        for bad in [
            "",
            "map",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil",
            "javascript:alert(1)",
            "/a\r\nSet-Cookie: x=y",
            "/ä",
            "\\\\evil",
        ] {
            assert_eq!(same_origin(bad), "/", "{bad:?}");
        }
    }
}
