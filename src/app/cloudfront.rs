//! The distribution in front, from its configuration.

use crate::auth::Secret;
use crate::aws::cloudfront::{Signer, SigningKey, SigningKeyError};
use crate::config::{Config, is_one_host};
use crate::http::cloudfront::{CloudFront, CloudFrontSettings};

/// The distribution, where there is one.
pub(super) fn cloudfront(config: &Config) -> Result<Option<CloudFront>, SigningKeyError> {
    let Some(cloudfront) = &config.cloudfront else {
        return Ok(None);
    };
    // A token without a class has the first one.
    if let Some(class) = config.quotas.first()
        && class.distinct_tiles_per_hour.is_some()
    {
        tracing::warn!(
            class = class.name,
            "sessions of the first quota class count their tiles, which CloudFront cannot: they get no cookies for it"
        );
    }
    let key = SigningKey::from_pem(cloudfront.private_key.expose())?;
    let url = config.server.public_url.as_ref();
    // Where the public side is the distribution, its cookies are for no other host.
    let one_host = url.is_some_and(|url| is_one_host(url, &cloudfront.domain));
    Ok(Some(CloudFront::new(CloudFrontSettings {
        domain: cloudfront.domain.clone(),
        cookie_domain: config.session.domain.clone().filter(|_| !one_host),
        tilesets: cloudfront.tilesets.clone(),
        signer: Signer::new(&*cloudfront.key_pair_id, key),
        origin_secrets: cloudfront
            .origin_secrets
            .iter()
            .map(|secret| Secret::new(secret.expose()))
            .collect(),
    })))
}
