//! Where tiles come from: S3, by the configuration's roles.

use std::sync::Arc;
use std::time::Duration;

use super::AppError;
use crate::aws::policy::ReadPlace;
use crate::aws::{AssumeRole, Aws, AwsSettings, CredentialSource, Identities, Timing};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::origin::Origin;
use crate::origin::limits::{LimitSettings, Limited};
use crate::origin::s3::S3Origin;
use crate::tile::Place;

/// How long the start waits for the first AWS credentials; it goes on without them.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(3);

/// The origin of a configuration's tilesets, and who signs for it. Waits a moment for the first
/// credentials, so that the first request finds them and a wrong set-up is told early.
pub(super) async fn s3_origin(
    config: &Config,
    credentials: CredentialSource,
    clock: Clock,
    timing: Timing,
) -> Result<(Arc<dyn Origin>, Identities), AppError> {
    let for_all = config.aws.assume_role.as_ref();
    let settings = aws_settings(config);
    // Each role is narrowed to what the tilesets that it reads need, whoever asks for one of them.
    let reads = |with: Option<&config::AssumeRole>| -> Vec<ReadPlace> {
        let those = config.tilesets.iter();
        let those = those.filter(|t| t.assume_role.as_ref().or(for_all) == with);
        those.map(|t| t.tileset.place()).map(read_place).collect()
    };
    let aws = Aws::load_with(settings, credentials, clock, timing).await?;
    let client = |own: Option<&config::AssumeRole>| {
        aws.s3_client(own.map(role).as_ref(), &reads(own.or(for_all)))
    };
    // A role that no tileset uses is not asked for.
    let roles = config.tilesets.iter().map(|t| t.assume_role.as_ref());
    let first = roles.min_by_key(Option::is_some).flatten();
    let mut origin = S3Origin::new(&client(first)?);
    for tileset in &config.tilesets {
        if let Some(own) = &tileset.assume_role {
            origin = origin.with_tileset_client(tileset.tileset.name(), &client(Some(own))?);
        }
    }
    let identities = aws.identities();
    if !identities.first_answers(CREDENTIALS_PATIENCE).await {
        tracing::warn!(
            "no AWS credentials after {CREDENTIALS_PATIENCE:?}: starting without; what is cached can be answered"
        );
    }
    let limits = LimitSettings::new(config.origin.concurrency);
    Ok((Arc::new(Limited::new(origin, limits)), identities))
}

/// `[aws]`, as [`Aws::load`] takes it.
pub(super) fn aws_settings(config: &Config) -> AwsSettings {
    AwsSettings {
        region: config.aws.region.clone(),
        endpoint_url: config.aws.endpoint_url.clone(),
        sts_endpoint_url: config.aws.sts_endpoint_url.clone(),
        path_style: config.aws.path_style,
        assume_role: config.aws.assume_role.as_ref().map(role),
    }
}

/// A configured role, as [`Aws`] takes it.
pub(super) fn role(role: &config::AssumeRole) -> AssumeRole {
    AssumeRole {
        arn: role.arn.clone(),
        external_id: role.external_id.clone(),
        session_name: role.session_name.clone(),
        duration: role.duration,
    }
}

fn read_place(place: &Place) -> ReadPlace {
    ReadPlace {
        bucket: place.bucket.clone(),
        prefix: place.key.fixed_prefix().to_owned(),
    }
}
