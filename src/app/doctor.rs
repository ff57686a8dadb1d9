//! `tilekeep doctor`: a configuration, as the doctor examines it.

use crate::aws::doctor::{Finding, Patience, Patient, examine};
use crate::aws::{AssumeRole, AwsSettings, CredentialSource};
use crate::clock::Clock;
use crate::config::{self, Config};

/// Finds out how the set-up around a configuration is; `tell` hears each finding as soon as it is known.
pub async fn doctor(
    config: &Config,
    credentials: CredentialSource,
    tell: impl FnMut(&Finding),
) -> Vec<Finding> {
    let patient = patient(config, credentials);
    examine(patient, Patience::default(), Clock::System, tell).await
}

/// What the doctor looks at of a configuration.
pub fn patient(config: &Config, credentials: CredentialSource) -> Patient {
    let tilesets = config.tilesets.iter().map(|tileset| {
        let own = tileset.assume_role.as_ref();
        (tileset.tileset.clone(), own.map(role))
    });
    let cache = &config.cache;
    let folder = cache.disk_path.clone().filter(|_| cache.disk > 0);
    Patient {
        settings: AwsSettings {
            region: config.aws.region.clone(),
            endpoint_url: config.aws.endpoint_url.clone(),
            sts_endpoint_url: config.aws.sts_endpoint_url.clone(),
            path_style: config.aws.path_style,
            assume_role: config.aws.assume_role.as_ref().map(role),
        },
        credentials,
        tilesets: tilesets.collect(),
        disk: folder.map(|folder| (folder, cache.disk)),
    }
}

fn role(role: &config::AssumeRole) -> AssumeRole {
    AssumeRole {
        arn: role.arn.clone(),
        external_id: role.external_id.clone(),
        session_name: role.session_name.clone(),
        duration: role.duration,
    }
}
