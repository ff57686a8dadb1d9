//! Delivery by S3 itself: signed URLs, redirects to them, and credentials that are lent.

mod lent;
mod peers;
mod redirects;
mod urls;

use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::app::Provided;
use tilekeep::auth::Claims;
use tilekeep::aws::{AccessKeys, CredentialSource, Timing};
use tilekeep::clock::{Clock, Timestamp};
use tilekeep::config::{self, Config, QuotaConfig};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, PutOptions, RoleSettings,
};
use tilekeep::tile::{Access, Bounds, Delivery, TileFormat, TilesetSpec};
use tokio::time::{Instant, sleep};

use crate::support::{self, Answer, Running, claims, spec, token};

const BUCKET: &str = "bucket";
const ROLE: &str = "arn:aws:iam::000000000000:role/tiles";

/// A server, and the S3 and STS that it reads from, on clocks that start at the true time: signatures are
/// checked by that.
struct World {
    server: Running,
    s3: EmbeddedS3,
    clock: Clock,
}

/// `world` (with @2x), `north` (bounds), `moved` (by redirect) and `open` (by redirect, public).
fn tilesets() -> Vec<TilesetSpec> {
    let moved = |name| TilesetSpec {
        delivery: Delivery::Redirect,
        ..spec(name, TileFormat::Png)
    };
    vec![
        TilesetSpec {
            key: "world/{z}/{x}/{y}{r}.png".into(),
            ..spec("world", TileFormat::Png)
        },
        TilesetSpec {
            bounds: Bounds::new([0.0, 10.0, 90.0, 80.0]).unwrap(),
            ..spec("north", TileFormat::Png)
        },
        moved("moved"),
        TilesetSpec {
            access: Access::Public,
            ..moved("open")
        },
    ]
}

fn role() -> config::AssumeRole {
    config::AssumeRole {
        arn: ROLE.into(),
        external_id: None,
        session_name: "tilekeep".into(),
        duration: Duration::from_hours(1),
    }
}

impl World {
    /// With the owner's own keys and a role to assume, which `change` may take away.
    async fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(Duration::from_hours(12), None, change).await
    }

    /// With a role of at most that duration, and other first keys.
    async fn start_with(
        most: Duration,
        keys: Option<AccessKeys>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let clock = Clock::manual(Timestamp::from_secs(Clock::System.now().secs()));
        let s3 = EmbeddedS3::start(EmbeddedS3Settings {
            buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
            roles: vec![RoleSettings {
                arn: ROLE.into(),
                external_id: None,
                policy: None,
                max_duration: most,
            }],
            clock: clock.clone(),
            keys: keys.clone(),
            ..EmbeddedS3Settings::default()
        })
        .await
        .unwrap();
        for name in ["world", "north", "moved", "open"] {
            for key in ["0/0/0", "1/1/0", "1/0/0", "1/0/0@2x"] {
                let key = format!("{name}/{key}.png");
                assert!(s3.put(BUCKET, &key, key.clone(), PutOptions::default()));
            }
        }
        let credentials = CredentialSource::Keys(s3.keys().clone());
        Self::over(s3, clock, credentials, change).await
    }

    async fn over(
        s3: EmbeddedS3,
        clock: Clock,
        credentials: CredentialSource,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = support::config(tilesets());
        config.aws = config::Aws {
            region: Some("eu-west-1".into()),
            endpoint_url: Some(s3.endpoint_url()),
            sts_endpoint_url: Some(s3.endpoint_url()),
            path_style: true,
            assume_role: None,
        };
        change(&mut config);
        let provided = Provided {
            credentials,
            keys: Some(support::keys()),
            clock: clock.clone(),
            timing: Timing {
                tick: Duration::from_millis(10),
                ..Timing::default()
            },
            ..Provided::default()
        };
        let server = support::launch(config, provided).await;
        let world = Self { server, s3, clock };
        world.asked_once().await;
        world
    }

    /// Waits a moment for the first keys, which the start itself does not wait for: these tests count STS's calls.
    async fn asked_once(&self) {
        let admin = self.server.addresses.admin;
        let patience = Instant::now() + Duration::from_secs(3);
        while Instant::now() < patience {
            let ready = self.server.send_to(admin, Method::GET, "/readyz", &[], "");
            if ready.await.status == StatusCode::OK {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn post(&self, who: &Claims, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {}", token(who));
        let headers = [("authorization", bearer.as_str())];
        self.server
            .send(Method::POST, path, &headers, body.to_owned())
            .await
    }

    /// Follows a URL to S3, as somebody without keys.
    async fn fetch(&self, method: Method, url: &str) -> Answer {
        let path = url.strip_prefix(&self.s3.endpoint_url()).unwrap();
        self.server
            .send_to(self.s3.addr(), method, path, &[], "")
            .await
    }

    async fn metric(&self, series: &str) -> u64 {
        let to = self.server.addresses.admin;
        let answer = self
            .server
            .send_to(to, Method::GET, "/metrics", &[], "")
            .await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("{series}"))
            .trim()
            .parse()
            .unwrap()
    }
}

/// Somebody with every scope, for a year by any clock.
fn anna() -> Claims {
    Claims {
        exp: Clock::System.now().secs() + 365 * 86_400,
        scope: Some("tiles sign credentials".into()),
        ..claims()
    }
}

fn class(name: &str, tiles: u32) -> QuotaConfig {
    QuotaConfig {
        background: false,
        name: name.into(),
        requests_per_second: None,
        burst: None,
        distinct_tiles_per_hour: std::num::NonZeroU32::new(tiles),
    }
}

/// A query parameter of a URL, as it is written.
fn parameter<'a>(url: &'a str, name: &str) -> &'a str {
    let query = url.split_once('?').unwrap().1;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).unwrap().1
}

fn seconds(time: &str) -> u64 {
    let time = humantime::parse_rfc3339(time).unwrap();
    time.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn detail(answer: &Answer) -> String {
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{answer:?}"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

fn is(answer: &Answer, status: StatusCode) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    detail(answer)
}
