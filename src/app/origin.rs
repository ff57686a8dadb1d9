//! Where tiles come from: S3, by the configuration's roles.

use std::sync::Arc;
use std::time::Duration;

use super::aws_helpers::helpers;
use super::{AppError, events};
use crate::aws::events::Events;
use crate::aws::policy::ReadPlace;
use crate::aws::presign::Helpers;
use crate::aws::{AssumeRole, Aws, AwsSettings, CredentialSource, Identities, Timing};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::origin::limits::{LimitSettings, Limited};
use crate::origin::pmtiles::PmtilesOrigin;
use crate::origin::s3::S3Origin;
use crate::origin::{Origin, OriginFuture, OriginRequest};
use crate::tile::Place;

/// How long the first AWS credentials may take before that is told.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(3);

/// What asks AWS, or a server like it.
pub(super) struct FromAws {
    /// Where tiles come from.
    pub(super) origin: Arc<dyn Origin>,
    /// What reads the queue of events, where there is one.
    pub(super) events: Option<Events>,
    /// Who signs.
    pub(super) identities: Identities,
    /// What hands out AWS's own access.
    pub(super) helpers: Helpers,
}

/// What the configuration says, unless there is an origin already.
pub(super) async fn open(
    config: &Config,
    given: Option<Arc<dyn Origin>>,
    (credentials, timing): (CredentialSource, Timing),
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> Result<FromAws, AppError> {
    if let Some(origin) = given {
        return Ok(FromAws {
            origin,
            events: None,
            identities: Identities::default(),
            helpers: Helpers::default(),
        });
    }
    // On the heap: the SDK's futures are large, and everything that waits for this one holds it.
    Box::pin(s3_origin(
        config,
        credentials,
        clock.clone(),
        timing,
        metrics,
    ))
    .await
}

/// The origin of a configuration's tilesets, its events, and who signs.
async fn s3_origin(
    config: &Config,
    credentials: CredentialSource,
    clock: Clock,
    timing: Timing,
    metrics: &Arc<Metrics>,
) -> Result<FromAws, AppError> {
    let for_all = config.aws.assume_role.as_ref();
    let settings = aws_settings(config);
    // Each role is narrowed to what the tilesets that it reads need, whoever asks for one of them.
    let reads = |with: Option<&config::AssumeRole>| -> Vec<ReadPlace> {
        let those = config.tilesets.iter();
        let those = those.filter(|t| t.assume_role.as_ref().or(for_all) == with);
        those.map(|t| t.tileset.place()).map(read_place).collect()
    };
    let aws = Aws::load_with(settings, credentials, clock.clone(), timing).await?;
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
    let events = events::open(config, &aws, &clock, metrics)?;
    let signer = |own: Option<&config::AssumeRole>| {
        aws.signer(own.map(role).as_ref(), &reads(own.or(for_all)))
    };
    let helpers = helpers(config, &aws, signer, role).await?;
    let identities = aws.identities();
    tokio::spawn(tell_if_late(identities.clone()));
    let limits = LimitSettings {
        speculative: config.origin.speculative,
        ..LimitSettings::new(config.origin.concurrency)
    };
    Ok(FromAws {
        origin: Arc::new(Limited::new(Routed::new(origin), limits)),
        events,
        identities,
        helpers,
    })
}

/// Nothing waits for credentials but what is fetched with them: a hit needs none, and a source that does not
/// answer (IMDS, on a machine that has none) takes seconds to say so.
async fn tell_if_late(identities: Identities) {
    if !identities.first_answers(CREDENTIALS_PATIENCE).await {
        tracing::warn!(
            "no AWS credentials after {CREDENTIALS_PATIENCE:?}: serving without; what is cached can be answered"
        );
    }
}

/// Each tileset's own: a key a tile, or an archive. Both are read with the same clients and within the
/// same limits.
#[derive(Debug)]
struct Routed {
    objects: Arc<S3Origin>,
    archives: PmtilesOrigin<Arc<S3Origin>>,
}

impl Routed {
    fn new(objects: S3Origin) -> Self {
        let objects = Arc::new(objects);
        Self {
            archives: PmtilesOrigin::new(Arc::clone(&objects)),
            objects,
        }
    }
}

impl Origin for Routed {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        match request.tileset.place().key.archive() {
            Some(_) => self.archives.fetch(request),
            None => self.objects.fetch(request),
        }
    }
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

pub(super) fn read_place(place: &Place) -> ReadPlace {
    ReadPlace {
        bucket: place.bucket.clone(),
        prefix: place.key.fixed_prefix().to_owned(),
    }
}
