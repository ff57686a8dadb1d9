//! `POST /session` with another issuer's JWT as `Authorization: Bearer`: exchanged for a session.
//!
//! Whoever sends one has it already, so the answer says little of why it is refused; the log says
//! which check it was. Failures count with those at passwords, by address.

use std::net::IpAddr;

use axum::response::Response;
use http::HeaderMap;

use super::problem::HttpError;
use super::session::{Person, begin};
use super::site::{Site, problem};
use crate::auth::{BeginError, IssuerError};
use crate::clock::Timestamp;
use crate::metrics::LoginWay;

/// Begins a session for the token's person, or says no.
pub(super) async fn exchange(
    site: &Site,
    peer: IpAddr,
    headers: &HeaderMap,
    token: &str,
    now: Timestamp,
) -> Response {
    let client = site.parts.front.client(peer, headers);
    let metrics = &site.parts.metrics;
    // Counted before the keys are asked for, and given back where it was no guess: who hangs up meanwhile has
    // tried all the same.
    if let Err(throttled) = site.throttle.stray(client, now) {
        metrics.login_failures.inc(LoginWay::Issuer);
        tracing::debug!(%client, reason = "throttled", "a token was not exchanged");
        return problem(&HttpError::TooMany {
            retry_after: throttled.retry_after,
        });
    }
    let identity = match site.issuers.verify(token, now).await {
        Ok(identity) => identity,
        Err(error) => {
            metrics.login_failures.inc(LoginWay::Issuer);
            let reason = error.label();
            if matches!(error, IssuerError::KeysUnavailable { .. }) {
                // Not its fault; and a line each would let anybody fill the log while that lasts.
                tracing::debug!(%client, reason, "a token was not exchanged");
                site.throttle.forgive(client);
            } else {
                tracing::warn!(%client, reason, "a token was not exchanged");
            }
            return problem(&refusal(error));
        }
    };
    site.throttle.forgive(client);
    let (user, issuer) = (identity.sub.escape_debug(), identity.issuer.escape_debug());
    let person = Person {
        sub: &identity.sub,
        grants: &identity.grants,
        auth_time: identity.auth_time,
    };
    match begin(site, peer, headers, person, None, now).await {
        Ok(response) => {
            metrics.logins.inc(LoginWay::Issuer);
            tracing::info!(%user, %issuer, %client, "logged in by another issuer's token");
            response
        }
        Err(error) => {
            metrics.login_failures.inc(LoginWay::Issuer);
            tracing::warn!(%user, %issuer, %client, %error, "a token was not exchanged");
            problem(&not_begun(error))
        }
    }
}

fn refusal(error: IssuerError) -> HttpError {
    match error {
        IssuerError::KeysUnavailable { retry_after } => HttpError::IdentityProvider { retry_after },
        IssuerError::Expired => {
            HttpError::TokenRefused("The token has expired. Get a new one from its issuer.")
        }
        _ => HttpError::TokenRefused(
            "The token is not exchanged: its issuer, audience, key, time or claims are not those that this server expects. Its operator finds which in the log.",
        ),
    }
}

fn not_begun(error: BeginError) -> HttpError {
    match error {
        BeginError::TooLongAgo => HttpError::TokenRefused(
            "The log-in that the token rests on is older than a session may be. Sign in again at its issuer.",
        ),
        // A trusted claim: the configuration's own grants were checked at the start.
        BeginError::UnknownQuota => HttpError::TokenRefused(
            "The token grants a quota class that this server does not have.",
        ),
        // A trusted claim that names more than a cookie carries.
        BeginError::Mint(crate::auth::MintError::TooLong(_)) => HttpError::TokenRefused(
            "The token grants more than a session cookie can carry. Name fewer tilesets.",
        ),
        BeginError::Mint(_) | BeginError::Random(_) => HttpError::Internal,
    }
}
