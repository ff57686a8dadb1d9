//! The ways in, from their configuration.

use std::sync::Arc;

use super::AppError;
use crate::auth::{
    Fetch, Grants, IssuerKeys, IssuerSettings, Issuers, KeyRing, Oidc, OidcSettings, Rights,
    Secret, Throttle, Users,
};
use crate::clock::Clock;
use crate::config::{Config, IssuerKeySource, LoginGrants};
use crate::http::oidc::OidcLogin;
use crate::http::outbound::Outbound;
use crate::http::public::PublicParts;
use crate::http::site::Site;
use crate::metrics::Metrics;

/// The pages, with every way in.
pub(super) fn site(
    config: &Config,
    parts: Arc<PublicParts>,
    users: Option<Users>,
    demo: bool,
) -> Result<Site, AppError> {
    let (issuers, oidc) = other_ways(config, parts.sessions.keys(), &parts.metrics, &parts.clock)?;
    let throttle = match &users {
        Some(users) => users.throttle(),
        None => Arc::new(Throttle::new()?),
    };
    Ok(Site {
        parts,
        users,
        issuers,
        oidc,
        throttle,
        demo,
    })
}

/// Whose tokens are exchanged, and the identity provider. Issuers' keys are on their way, and whether they
/// arrive or not, the server starts: an identity provider's trouble is not ours.
fn other_ways(
    config: &Config,
    keys: &KeyRing,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<(Issuers, Option<OidcLogin>), AppError> {
    let login = &config.login;
    if login.issuers.is_empty() && login.oidc.is_none() {
        return Ok((Issuers::default(), None));
    }
    let fetch: Arc<dyn Fetch> = Arc::new(Outbound::new(metrics.clone()));
    let issuer = |issuer: &crate::config::LoginIssuer| IssuerSettings {
        issuer: issuer.issuer.clone(),
        audience: issuer.audience.clone(),
        keys: match &issuer.keys {
            IssuerKeySource::Secret(secret) => IssuerKeys::Secret(Secret::new(secret.expose())),
            IssuerKeySource::JwksUrl(url) => IssuerKeys::Published(url.clone()),
        },
        rights: Rights {
            grants: grants(&issuer.grants),
            trusted: issuer.trust_claims.clone(),
        },
    };
    let issuers = Issuers::new(login.issuers.iter().map(issuer).collect(), &fetch);
    let (warming, now) = (issuers.clone(), clock.now());
    tokio::spawn(async move { warming.warm_up(now).await });
    let Some(provider) = &login.oidc else {
        return Ok((issuers, None));
    };
    let settings = OidcSettings {
        issuer: provider.issuer.clone(),
        client_id: provider.client_id.clone(),
        client_secret: provider
            .client_secret
            .as_ref()
            .map(|secret| Secret::new(secret.expose())),
        scopes: provider.scopes.clone(),
        rights: Rights {
            grants: grants(&provider.grants),
            trusted: provider.trust_claims.clone(),
        },
        max_age: config.session.max_ttl,
    };
    let oidc = Oidc::new(settings, keys, &fetch)?;
    let oidc = OidcLogin::new(oidc, provider.name.clone())?;
    Ok((issuers, Some(oidc)))
}

fn grants(grants: &LoginGrants) -> Grants {
    Grants {
        tilesets: grants.tilesets.clone(),
        scope: grants.scope.clone(),
        maxzoom: grants.maxzoom,
        bounds: grants.bounds,
        quota: grants.quota.clone(),
    }
}
