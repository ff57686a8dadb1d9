//! The doctor: each of the usual mistakes is found, is the first failure, and its remedy names what to change.

mod keys;
mod peers;
mod places;
mod program;
mod roles;

use std::time::{Duration, Instant};

use tilekeep::app;
use tilekeep::aws::doctor::{Check, Finding, Patience, Patient, Status, examine};
use tilekeep::aws::{AccessKeys, CredentialSource};
use tilekeep::clock::Clock;
use tilekeep::config::{self, Config};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Fault, Operation, PutOptions,
    RoleSettings,
};
use tilekeep::tile::{TileFormat, TilesetSpec};

use crate::support::{self, spec};

const BUCKET: &str = "acme-tiles";
const ROLE: &str = "arn:aws:iam::000000000000:role/tiles";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\nand so on";
/// However much is broken: it ends.
const BOUND: Duration = Duration::from_secs(30);

fn role_settings() -> RoleSettings {
    RoleSettings {
        arn: ROLE.into(),
        external_id: None,
        policy: None,
        max_duration: Duration::from_hours(12),
    }
}

/// An endpoint with a private bucket, a few tiles in it, and a role.
async fn endpoint() -> EmbeddedS3 {
    endpoint_with(|_| {}).await
}

async fn endpoint_with(change: impl FnOnce(&mut EmbeddedS3Settings)) -> EmbeddedS3 {
    let mut settings = EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        roles: vec![role_settings()],
        ..EmbeddedS3Settings::default()
    };
    change(&mut settings);
    let s3 = EmbeddedS3::start(settings).await.unwrap();
    for key in ["world/0/0/0.png", "world/1/0/0.png", "world/1/1/1.png"] {
        s3.put(BUCKET, key, PNG, PutOptions::default());
    }
    s3
}

fn world() -> TilesetSpec {
    TilesetSpec {
        bucket: BUCKET.into(),
        ..spec("world", TileFormat::Png)
    }
}

/// One tileset in the endpoint's bucket; STS is asked there too.
fn configuration(s3: &EmbeddedS3) -> Config {
    configuration_of(s3, [world()])
}

fn configuration_of(s3: &EmbeddedS3, tilesets: impl IntoIterator<Item = TilesetSpec>) -> Config {
    let mut config = support::config(tilesets);
    config.aws = config::Aws {
        region: Some("us-east-1".into()),
        endpoint_url: Some(s3.endpoint_url()),
        sts_endpoint_url: Some(s3.endpoint_url()),
        path_style: true,
        assume_role: None,
    };
    config
}

fn patience() -> Patience {
    Patience {
        call: Duration::from_secs(4),
        credentials: Duration::from_secs(4),
        whole: Duration::from_secs(20),
    }
}

/// What the doctor says, and that it says it as it should.
async fn examined(config: &Config, keys: &AccessKeys) -> Vec<Finding> {
    let patient = app::patient(config, CredentialSource::Keys(keys.clone()));
    examined_by(patient, Clock::System).await
}

async fn examined_by(patient: Patient, clock: Clock) -> Vec<Finding> {
    let began = Instant::now();
    let mut heard = Vec::new();
    let findings = examine(patient, patience(), clock, |f| heard.push(f.clone())).await;
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    assert_eq!(heard, findings, "each is told once, in order");
    let order = |finding: &Finding| Check::ALL.iter().position(|check| *check == finding.check);
    assert!(findings.is_sorted_by_key(order), "{findings:#?}");
    for check in Check::ALL {
        let there = findings.iter().any(|finding| finding.check == check);
        assert!(there, "nothing is said of {}", check.word());
    }
    for finding in &findings {
        let wrong = matches!(finding.status, Status::Failed | Status::Warning);
        let remedy = finding.remedy.as_deref().unwrap_or_default();
        assert!(!finding.reason.is_empty(), "{finding:?}");
        assert!(!wrong || !remedy.is_empty(), "{finding:?}");
    }
    findings
}

/// The one finding of a check.
fn of(findings: &[Finding], check: Check) -> &Finding {
    findings
        .iter()
        .find(|finding| finding.check == check)
        .unwrap()
}

fn status(findings: &[Finding], check: Check) -> Status {
    of(findings, check).status
}

/// The first failure, which is this check's; its remedy.
fn cause(findings: &[Finding], check: Check) -> &str {
    let first = findings.iter().find(|f| f.status == Status::Failed);
    let first = first.unwrap_or_else(|| panic!("nothing failed: {findings:#?}"));
    assert_eq!(first.check, check, "{first:#?}");
    first.remedy.as_deref().unwrap()
}

/// That these are not tried, on account of another.
fn wait_for(findings: &[Finding], checks: &[Check], on: Check) {
    for check in checks {
        let finding = of(findings, *check);
        assert_eq!(finding.status, Status::Skipped, "{finding:?}");
        let waits = format!("waits for `{}`", on.word());
        assert!(finding.reason.contains(&waits), "{finding:?}");
    }
}

/// A user who may do what these statements say.
fn user(s3: &EmbeddedS3, statements: &[(&str, &str)]) -> AccessKeys {
    let statements: Vec<_> = statements
        .iter()
        .map(|(action, resource)| {
            serde_json::json!({"Effect": "Allow", "Action": action, "Resource": resource})
        })
        .collect();
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": statements});
    s3.add_user("server", &policy.to_string()).unwrap()
}

const OBJECTS: &str = "arn:aws:s3:::acme-tiles/*";
const ALONE: &str = "arn:aws:s3:::acme-tiles";

#[tokio::test]
async fn a_set_up_that_is_right_is_found_to_be() {
    let s3 = endpoint().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = configuration(&s3);
    config.cache.disk = 64 << 20;
    config.cache.disk_path = Some(folder.path().join("cache"));
    let puts = s3.requests(Operation::PutObject);
    let findings = examined(&config, s3.keys()).await;
    for finding in &findings {
        let expected = match finding.check {
            Check::Role => Status::Skipped,
            _ => Status::Ok,
        };
        assert_eq!(finding.status, expected, "{finding:?}");
    }
    let text = format!("{findings:?}");
    assert!(!text.contains(&s3.keys().secret_access_key));
    assert!(!text.contains(&s3.keys().access_key_id), "its end does");
    assert_eq!(
        s3.requests(Operation::PutObject),
        puts,
        "nothing is written"
    );
    assert!(!folder.path().join("cache").exists());
}

#[tokio::test]
async fn it_runs_beside_a_server_that_holds_the_folder() {
    let s3 = endpoint().await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = configuration(&s3);
    config.cache.disk = 64 << 20;
    config.cache.disk_path = Some(folder.path().to_owned());
    let provided = app::Provided {
        credentials: CredentialSource::Keys(s3.keys().clone()),
        ..app::Provided::default()
    };
    let server = support::start_with(config.clone(), provided).await;
    let findings = examined(&config, s3.keys()).await;
    assert_eq!(status(&findings, Check::CacheFolder), Status::Ok);
    let left = folder.path().read_dir().unwrap().flatten();
    let probes = left.filter(|f| f.file_name().to_string_lossy().contains("doctor"));
    assert_eq!(probes.count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_minutes_off_is_the_cause() {
    let s3 = endpoint().await;
    let now = Clock::System.now();
    for (millis, expected) in [
        (now.millis() - 10 * 60_000, Status::Failed),
        (now.millis() + 2 * 60_000, Status::Warning),
    ] {
        let clock = Clock::manual(tilekeep::clock::Timestamp::from_millis(millis));
        let keys = CredentialSource::Keys(s3.keys().clone());
        let findings = examined_by(app::patient(&configuration(&s3), keys), clock).await;
        assert_eq!(status(&findings, Check::Clock), expected);
        let remedy = of(&findings, Check::Clock).remedy.as_deref().unwrap();
        assert!(remedy.contains("NTP"), "{remedy}");
        if expected == Status::Failed {
            cause(&findings, Check::Clock);
            let signed = [Check::Identity, Check::Role, Check::Bucket, Check::Tile];
            wait_for(&findings, &signed[..1], Check::Clock);
            wait_for(&findings, &signed[2..], Check::Clock);
            assert_eq!(
                status(&findings, Check::Private),
                Status::Ok,
                "asked unsigned"
            );
        }
    }
    // And where only S3 finds it out.
    let skewed = "The difference between the request time and the current time is too large.";
    let fault = Fault::s3_error(403, "RequestTimeTooSkewed", skewed);
    s3.inject(Some(Operation::ListObjectsV2), usize::MAX, fault);
    let findings = examined(&configuration(&s3), s3.keys()).await;
    assert!(cause(&findings, Check::Bucket).contains("NTP"));
}

#[tokio::test]
async fn a_dead_endpoint_holds_nothing_up() {
    let s3 = endpoint().await;
    let config = configuration(&s3);
    s3.inject(None, usize::MAX, Fault::NeverAnswer);
    let findings = examined(&config, s3.keys()).await;
    let remedy = cause(&findings, Check::Endpoint);
    assert!(remedy.contains("endpoint_url"), "{remedy}");
    let waiting = [
        Check::Clock,
        Check::Identity,
        Check::Bucket,
        Check::Private,
        Check::BlockPublicAccess,
        Check::Tile,
        Check::MissingTile,
    ];
    wait_for(&findings, &waiting, Check::Endpoint);
    assert_eq!(status(&findings, Check::Credentials), Status::Ok);

    let mut nobody = config;
    nobody.aws.endpoint_url = Some("http://127.0.0.1:1".into());
    let findings = examined(&nobody, s3.keys()).await;
    let remedy = cause(&findings, Check::Endpoint);
    assert!(remedy.contains("nobody listens there"), "{remedy}");
}

#[tokio::test]
async fn a_page_in_between_is_not_taken_for_s3() {
    let s3 = endpoint().await;
    let page = Fault::page(200, "<html>Please log in to the hotel's network</html>");
    s3.inject(None, usize::MAX, page);
    let findings = examined(&configuration(&s3), s3.keys()).await;
    let remedy = cause(&findings, Check::Bucket);
    assert!(remedy.contains("no answer of S3's"), "{remedy}");
}
