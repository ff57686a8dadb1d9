//! The doctor: finds out why a set-up on AWS does not work, before anybody's map is empty.
//!
//! Invariant: findings come in an order in which the first failure is the cause. What could only fail
//! because of another check is not tried: it is `skipped` and names that check. Every failure and
//! every warning says what was asked and answered, and what to change. Each call has a deadline and
//! so has the whole. Nothing is written but a probe file in the cache's folder, which is removed; no
//! secret is in a finding.
//! Left out on purpose: how findings are shown (`cli::doctor`), and policies written by hand.

mod ask;
mod bucket;
mod clock;
mod denial;
mod folder;
mod guess;
mod keys;
mod lookout;
mod missing;
mod privacy;
mod role;
mod tile;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::ask::Site;
use super::{AssumeRole, AwsSettings, CredentialSource};
use crate::clock::Clock;
use crate::tile::Tileset;

/// What can be found out. The order is that of the findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The configuration file.
    Config,
    /// Somebody answers where S3 should be.
    Endpoint,
    /// This machine's time against S3's.
    Clock,
    /// Somebody hands out AWS keys.
    Credentials,
    /// Whose keys these are, as STS says.
    Identity,
    /// The role can be assumed.
    Role,
    /// The bucket is there, in this region, for these keys.
    Bucket,
    /// The bucket answers nobody without keys.
    Private,
    /// And is kept from ever doing so.
    BlockPublicAccess,
    /// A tile can be read.
    Tile,
    /// A missing tile is called missing, not denied.
    MissingTile,
    /// The disk tier's folder.
    CacheFolder,
}

impl Check {
    /// All, in order.
    pub const ALL: [Self; 12] = [
        Self::Config,
        Self::Endpoint,
        Self::Clock,
        Self::Credentials,
        Self::Identity,
        Self::Role,
        Self::Bucket,
        Self::Private,
        Self::BlockPublicAccess,
        Self::Tile,
        Self::MissingTile,
        Self::CacheFolder,
    ];

    /// Its name in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Endpoint => "endpoint",
            Self::Clock => "clock",
            Self::Credentials => "credentials",
            Self::Identity => "identity",
            Self::Role => "role",
            Self::Bucket => "bucket",
            Self::Private => "private",
            Self::BlockPublicAccess => "block_public_access",
            Self::Tile => "tile",
            Self::MissingTile => "missing_tile",
            Self::CacheFolder => "cache_folder",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and something should be changed all the same.
    Warning,
    /// It does not work.
    Failed,
    /// Not tried, or not to be found out.
    Skipped,
}

impl Status {
    /// Its name in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How it is.
    pub status: Status,
    /// What was asked and answered; of which bucket, role or tileset.
    pub reason: String,
    /// What to change; always there with [`Status::Failed`] and [`Status::Warning`].
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: Check, reason: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, reason, None)
    }

    fn warning(check: Check, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Status::Warning, reason, Some(remedy.into()))
    }

    fn failed(check: Check, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Status::Failed, reason, Some(remedy.into()))
    }

    fn skipped(check: Check, reason: impl Into<String>) -> Self {
        Self::new(check, Status::Skipped, reason, None)
    }

    /// Not tried, since it could only fail because of another.
    fn waits(check: Check, about: &str, on: Check) -> Self {
        let space = if about.is_empty() { "" } else { ": " };
        let reason = format!("{about}{space}waits for `{}`", on.word());
        Self::skipped(check, reason)
    }

    fn new(
        check: Check,
        status: Status,
        reason: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            check,
            status,
            reason: reason.into(),
            remedy,
        }
    }

    fn has_failed(&self) -> bool {
        self.status == Status::Failed
    }
}

/// Whom the doctor examines.
#[derive(Debug, Clone)]
pub struct Patient {
    /// `[aws]`.
    pub settings: AwsSettings,
    /// Where the first credentials come from.
    pub credentials: CredentialSource,
    /// The tilesets, each with the role of its own, if any.
    pub tilesets: Vec<(Arc<Tileset>, Option<AssumeRole>)>,
    /// The disk tier's folder and capacity; none: it is off.
    pub disk: Option<(PathBuf, u64)>,
}

/// How long the doctor waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one call.
    pub call: Duration,
    /// For somebody who hands out keys, all steps together.
    pub credentials: Duration,
    /// For everything.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(6),
            credentials: Duration::from_secs(8),
            whole: Duration::from_mins(1),
        }
    }
}

/// Finds out how the patient is. `tell` hears each finding as soon as it is known, in order.
pub async fn examine(
    patient: Patient,
    patience: Patience,
    clock: Clock,
    tell: impl FnMut(&Finding),
) -> Vec<Finding> {
    let mut report = Report {
        findings: Vec::new(),
        tell,
    };
    report
        .add(Finding::ok(Check::Config, summary(&patient)))
        .ok();
    let disk = patient.disk.clone();
    outside(patient, patience, clock, &mut report).await;
    let disk = disk.as_ref().map(|(path, size)| (path.as_path(), *size));
    report.add(folder::finding(disk)).ok();
    report.findings
}

/// Everything that is asked over the network.
async fn outside(
    patient: Patient,
    patience: Patience,
    clock: Clock,
    report: &mut Report<impl FnMut(&Finding)>,
) {
    let until = Instant::now() + patience.whole;
    let site = match Site::new(&patient, patience, clock.clone(), until).await {
        Ok(site) => site,
        Err(finding) => {
            report.add(finding).ok();
            for check in Check::ALL.into_iter().skip(2).take(9) {
                report.add(Finding::waits(check, "", Check::Endpoint)).ok();
            }
            return;
        }
    };
    // Neither needs the other; a dead IMDS takes seconds.
    let (unsigned, brought) = tokio::join!(bucket::ask_unsigned(&site), keys::find(&site));
    let reached = report.add(bucket::endpoint(&site, &unsigned));
    let in_time = match reached {
        Ok(()) => report.add(clock::finding(&unsigned)),
        Err(endpoint) => {
            report.add(Finding::waits(Check::Clock, "", endpoint)).ok();
            Err(endpoint)
        }
    };
    let (finding, keys) = keys::credentials(&site, brought);
    let found = report.add(finding);
    let who = match found.and(in_time) {
        Ok(()) => {
            let (finding, who) = keys::identity(&site, &keys).await;
            report.add(finding).map(|()| who)
        }
        Err(on) => {
            report.add(Finding::waits(Check::Identity, "", on)).ok();
            Err(on)
        }
    };
    let readers = role::readers(&site, &keys, who, report).await;
    bucket::findings(&site, &readers, &unsigned, report).await;
}

/// The configuration in a line.
fn summary(patient: &Patient) -> String {
    let tilesets = patient.tilesets.len();
    let plural = if tilesets == 1 { "" } else { "s" };
    let region = patient.settings.region.as_deref();
    let region = region.map_or_else(String::new, |region| format!(", region {region}"));
    let endpoint = patient.settings.endpoint_url.as_deref().unwrap_or("AWS");
    format!("{tilesets} tileset{plural}, S3 at {endpoint}{region}")
}

/// What was found so far, and who hears of it.
struct Report<T> {
    findings: Vec<Finding>,
    tell: T,
}

impl<T: FnMut(&Finding)> Report<T> {
    /// Adds a finding. `Err`: what depends on it waits for it.
    fn add(&mut self, finding: Finding) -> Result<(), Check> {
        (self.tell)(&finding);
        let failed = finding.has_failed().then_some(finding.check);
        self.findings.push(finding);
        failed.map_or(Ok(()), Err)
    }
}

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// Runs what does not depend on each other, and gives the results in order; `None` for what the end
/// of the whole cut off.
async fn all<F, T>(until: Instant, tasks: Vec<F>) -> Vec<Option<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut results: Vec<Option<T>> = tasks.iter().map(|_| None).collect();
    let mut running = JoinSet::new();
    for (index, task) in tasks.into_iter().enumerate() {
        let places = places.clone();
        running.spawn(async move {
            let in_time = async {
                // The semaphore is never closed.
                let _place = places.acquire().await;
                task.await
            };
            (index, timeout_at(until, in_time).await.ok())
        });
    }
    while let Some(done) = running.join_next().await {
        if let Ok((index, result)) = done {
            results[index] = result;
        }
    }
    results
}

/// Of what there was no time left for.
fn cut_off(check: Check, about: &str) -> Finding {
    Finding::failed(
        check,
        format!("{about}: there was no time left: answers came too slowly"),
        "run this again; if it stays so, look at the way to S3: routes, proxies, a VPC endpoint",
    )
}

/// The client's part of an ARN: `aws`, `aws-cn`, `aws-us-gov`.
fn partition(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    }
}

/// The ARN of a bucket, or of what lies in it under a prefix with `*` behind.
fn arn(region: &str, bucket: &str, objects: Option<&str>) -> String {
    let (partition, objects) = (
        partition(region),
        objects.map_or_else(String::new, |prefix| format!("/{prefix}*")),
    );
    format!("arn:{partition}:s3:::{bucket}{objects}")
}
