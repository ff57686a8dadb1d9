//! AWS credentials over their whole life: renewed ahead of their end, once for all, and never waited for.

mod chain;
pub mod imds;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sts::config::BehaviorVersion;
use http::{Method, StatusCode};
use tilekeep::app::Provided;
use tilekeep::aws::policy::ReadPlace;
use tilekeep::aws::{AccessKeys, AssumeRole, Aws, AwsSettings, CredentialSource, Timing};
use tilekeep::clock::Clock;
use tilekeep::config::{self, Config};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Fault, Operation, PutOptions,
    RoleSettings,
};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{Origin as _, OriginErrorKind, OriginReply};
use tilekeep::tile::TileFormat;
use tokio::time::sleep;

use self::imds::{Imds, Mode};
use crate::origin_contract::{at, request};
use crate::support::{self, Running, START, spec, tileset};

const BUCKET: &str = "bucket";
const ROLE: &str = "arn:aws:iam::000000000000:role/tiles";
/// What is waited for comes much sooner.
const PATIENCE: Duration = Duration::from_secs(20);
/// No request may take as long as this: a source that hangs takes longer.
const AT_ONCE: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_mins(1);

/// A server, and the S3 and STS that it reads from, on clocks that move together.
struct World {
    server: Running,
    s3: EmbeddedS3,
    clock: Clock,
}

/// An endpoint with two tilesets of 1024 tiles and a role, and its clock.
async fn endpoint() -> (EmbeddedS3, Clock) {
    let clock = Clock::manual(START);
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        roles: vec![RoleSettings {
            arn: ROLE.into(),
            external_id: None,
            policy: None,
            max_duration: Duration::from_hours(12),
        }],
        clock: clock.clone(),
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    for (x, y) in (0..32).flat_map(|x| (0..32).map(move |y| (x, y))) {
        for name in ["world", "values"] {
            let key = format!("{name}/5/{x}/{y}.png");
            assert!(s3.put(BUCKET, &key, key.clone(), PutOptions::default()));
        }
    }
    (s3, clock)
}

fn role() -> config::AssumeRole {
    config::AssumeRole {
        arn: ROLE.into(),
        external_id: None,
        session_name: "tilekeep".into(),
        duration: Duration::from_hours(1),
    }
}

fn configuration(s3: &EmbeddedS3, with_role: bool) -> Config {
    let tilesets = ["world", "values"].map(|name| spec(name, TileFormat::Png));
    let mut config = support::config(tilesets);
    // So that a hit is one however far the clock has moved.
    config.cache.fresh = Duration::from_hours(24);
    config.aws = config::Aws {
        region: Some("us-east-1".into()),
        endpoint_url: Some(s3.endpoint_url()),
        sts_endpoint_url: Some(s3.endpoint_url()),
        path_style: true,
        assume_role: with_role.then(role),
    };
    config
}

/// Quick for tests; by the clock, as long as ever.
fn timing() -> Timing {
    Timing {
        attempt: Duration::from_secs(2),
        tick: Duration::from_millis(10),
        ..Timing::default()
    }
}

impl World {
    async fn start(
        (s3, clock): (EmbeddedS3, Clock),
        config: Config,
        credentials: CredentialSource,
    ) -> Self {
        let provided = Provided {
            credentials,
            timing: timing(),
            ..Provided::default()
        };
        let server = support::start_with(config, provided).await;
        Self { server, s3, clock }.asked_once().await
    }

    /// One that assumes a role.
    async fn with_role() -> Self {
        let (s3, clock) = endpoint().await;
        let (config, keys) = (configuration(&s3, true), s3.keys().clone());
        Self::start((s3, clock), config, CredentialSource::Keys(keys)).await
    }

    /// One on an instance with a role.
    async fn on_instance(mode: Mode, timing: Timing) -> (Self, Imds) {
        let (s3, clock) = endpoint().await;
        let imds = Imds::start(mode).await;
        renew(&s3, &imds, &clock).await;
        let provided = Provided {
            credentials: CredentialSource::Imds(Some(imds.endpoint())),
            timing,
            ..Provided::default()
        };
        let config = configuration(&s3, false);
        let server = support::start_with(config, provided).await;
        (Self { server, s3, clock }.asked_once().await, imds)
    }

    /// Waits a moment for the first attempt's end, which the start itself does not wait for.
    async fn asked_once(self) -> Self {
        let patience = Instant::now() + Duration::from_secs(3);
        while self.refreshes("refreshed").await + self.failures().await == 0
            && Instant::now() < patience
        {
            sleep(Duration::from_millis(20)).await;
        }
        self
    }

    fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.server.clock.advance(by);
    }

    /// The status of a tile's answer, which comes at once.
    async fn tile(&self, x: u32, y: u32) -> StatusCode {
        let asked = Instant::now();
        let answer = self.server.get(&format!("/world/5/{x}/{y}.png")).await;
        assert!(asked.elapsed() < AT_ONCE, "it took {:?}", asked.elapsed());
        answer.status
    }

    async fn admin(&self, path: &str) -> (StatusCode, String) {
        let to = self.server.addresses.admin;
        let answer = self.server.send_to(to, Method::GET, path, &[], "").await;
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        (answer.status, body)
    }

    /// A metric's value.
    async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(f64::NAN, |value| value.trim().parse().unwrap())
    }

    /// How many attempts failed.
    async fn failures(&self) -> u64 {
        let mut sum = 0;
        for outcome in ["not_found", "denied", "unavailable", "deadline"] {
            sum += self.refreshes(outcome).await;
        }
        sum
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter"
    )]
    async fn refreshes(&self, outcome: &str) -> u64 {
        let name = "tilekeep_aws_credentials_refreshes_total";
        self.metric(&format!("{name}{{outcome=\"{outcome}\"}}"))
            .await as u64
    }

    async fn left(&self, identity: &str) -> f64 {
        let name = "tilekeep_aws_credentials_expires_in_seconds";
        self.metric(&format!("{name}{{identity=\"{identity}\"}}"))
            .await
    }

    /// What a load balancer hears.
    async fn ready(&self) -> (StatusCode, bool) {
        let (status, body) = self.admin("/readyz").await;
        (status, body.contains("aws_credentials"))
    }
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < patience, "in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Keys for an hour from the endpoint's STS, for the instance's metadata to hand out.
async fn renew(s3: &EmbeddedS3, imds: &Imds, clock: &Clock) {
    let (id, secret) = (&s3.keys().access_key_id, &s3.keys().secret_access_key);
    let owner = aws_sdk_sts::config::Credentials::new(id, secret, None, None, "test");
    let config = aws_sdk_sts::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(aws_sdk_sts::config::Region::new("us-east-1"))
        .endpoint_url(s3.endpoint_url())
        .credentials_provider(owner)
        .build();
    let sts = aws_sdk_sts::Client::from_conf(config);
    let call = sts.assume_role().role_arn(ROLE).role_session_name("i-0");
    let keys = call.send().await.unwrap().credentials.unwrap();
    let keys = AccessKeys {
        access_key_id: keys.access_key_id,
        secret_access_key: keys.secret_access_key,
        session_token: Some(keys.session_token),
    };
    imds.hand_out(&keys, clock.now() + Duration::from_hours(1));
}

#[tokio::test]
async fn sts_is_asked_once_in_a_credentials_life_however_many_tiles_there_are() {
    let world = Arc::new(World::with_role().await);
    let all_at_once = |x: u32| {
        let world = world.clone();
        async move {
            let tiles = (0..32).map(|y| {
                let world = world.clone();
                tokio::spawn(async move { world.tile(x, y).await })
            });
            for tile in tiles.collect::<Vec<_>>() {
                assert_eq!(tile.await.unwrap(), StatusCode::OK);
            }
        }
    };
    for x in 0..4 {
        all_at_once(x).await;
    }
    assert_eq!(world.s3.requests(Operation::GetObject), 128);
    assert_eq!(world.s3.requests(Operation::Sts), 1);
    world.advance(40 * MINUTE);
    all_at_once(4).await;
    assert_eq!(world.s3.requests(Operation::Sts), 1);
    // Less than a quarter of its life is left.
    world.advance(7 * MINUTE);
    until("the second life", async || world.s3.sts_calls() == 2).await;
    all_at_once(5).await;
    // The first keys would have ended.
    world.advance(20 * MINUTE);
    all_at_once(6).await;
    assert_eq!(world.s3.requests(Operation::Sts), 2);
    assert_eq!(world.failures().await, 0);
    let left = world.left("tiles").await;
    assert!((1.0..=3600.0).contains(&left), "{left}");
    assert!(world.left("default").await.is_infinite());
}

/// What every kind of trouble around an expiry has in common. Tells when it is over.
async fn lives_through_an_expiry(
    world: &World,
    identity: &str,
    trouble: impl AsyncFnOnce(),
    healed: impl AsyncFnOnce(),
) {
    assert_eq!(world.tile(0, 0).await, StatusCode::OK);
    assert_eq!(world.ready().await, (StatusCode::OK, false));
    trouble().await;

    // The refresh is due, and fails: the old keys go on.
    world.advance(50 * MINUTE);
    until("a failure", async || world.failures().await >= 1).await;
    assert_eq!(world.tile(0, 0).await, StatusCode::OK, "a hit");
    for y in 1..8 {
        assert_eq!(world.tile(0, y).await, StatusCode::OK, "a miss");
    }
    assert!(world.left(identity).await > 0.0);
    assert_eq!(world.ready().await, (StatusCode::OK, false));

    // They end: misses fail at once, hits are untouched.
    world.advance(11 * MINUTE);
    for y in 0..4 {
        assert_eq!(world.tile(1, y).await, StatusCode::BAD_GATEWAY, "a miss");
        assert_eq!(world.tile(0, y).await, StatusCode::OK, "a hit");
    }
    assert!(world.left(identity).await < 1.0);
    assert_eq!(world.ready().await, (StatusCode::OK, true));

    // It recovers by itself.
    healed().await;
    until("keys", async || {
        // An attempt may still be on its way to fail: the next comes a pause after that.
        world.advance(Duration::from_secs(10));
        world.left(identity).await > 0.0
    })
    .await;
    for y in 0..4 {
        assert_eq!(world.tile(2, y).await, StatusCode::OK, "a miss");
    }
    assert_eq!(world.ready().await, (StatusCode::OK, false));
}

/// With the instance's metadata in trouble.
async fn lives_without_imds(mode: Mode) {
    let (world, imds) = World::on_instance(Mode::Well, timing()).await;
    let healed = async || {
        renew(&world.s3, &imds, &world.clock).await;
        imds.set(Mode::Well).await;
    };
    lives_through_an_expiry(&world, "default", async || imds.set(mode).await, healed).await;
}

#[tokio::test]
async fn an_imds_that_is_dead_at_the_expiry_blocks_nobody() {
    lives_without_imds(Mode::Dead).await;
}

#[tokio::test]
async fn an_imds_that_refuses_connections_at_the_expiry_blocks_nobody() {
    lives_without_imds(Mode::Refusing).await;
}

#[tokio::test]
async fn an_imds_that_never_answers_at_the_expiry_blocks_nobody() {
    lives_without_imds(Mode::Slow).await;
}

#[tokio::test]
async fn an_imds_that_answers_500_at_the_expiry_blocks_nobody() {
    lives_without_imds(Mode::Broken).await;
}

/// With STS in trouble.
async fn lives_without_sts(fault: Fault) {
    let world = World::with_role().await;
    let trouble = async || world.s3.inject(Some(Operation::Sts), usize::MAX, fault);
    let healed = async || world.s3.clear_faults();
    lives_through_an_expiry(&world, "tiles", trouble, healed).await;
}

#[tokio::test]
async fn an_sts_that_is_dead_at_the_expiry_blocks_nobody() {
    lives_without_sts(Fault::Reset(0)).await;
}

#[tokio::test]
async fn an_sts_that_never_answers_at_the_expiry_blocks_nobody() {
    lives_without_sts(Fault::NeverAnswer).await;
}

#[tokio::test]
async fn an_sts_that_answers_500_at_the_expiry_blocks_nobody() {
    lives_without_sts(Fault::internal_error()).await;
}

#[tokio::test]
async fn an_sts_that_denies_at_the_expiry_blocks_nobody() {
    lives_without_sts(Fault::access_denied()).await;
}

#[tokio::test]
async fn misses_do_not_wait_for_a_refresh_that_is_under_way() {
    let patient = Timing {
        attempt: Duration::from_secs(80),
        ..timing()
    };
    let (world, imds) = World::on_instance(Mode::Well, patient).await;
    let world = Arc::new(world);
    assert_eq!(world.tile(0, 0).await, StatusCode::OK);
    imds.set(Mode::Slow).await;
    let asked = imds.asked();
    world.advance(50 * MINUTE);
    until("the refresh", async || imds.asked() > asked).await;
    let tiles = (1..32).map(|y| {
        let world = world.clone();
        tokio::spawn(async move { world.tile(0, y).await })
    });
    for tile in tiles.collect::<Vec<_>>() {
        assert_eq!(tile.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(imds.asked(), asked + 1, "one refresh for all");
    assert_eq!(world.failures().await, 0, "it is still under way");
}

#[tokio::test]
async fn a_server_without_credentials_starts_says_so_and_recovers() {
    let (world, imds) = World::on_instance(Mode::Refusing, timing()).await;
    assert_eq!(world.ready().await, (StatusCode::SERVICE_UNAVAILABLE, true));
    assert!(world.left("default").await < 1.0);
    assert_eq!(world.tile(0, 0).await, StatusCode::BAD_GATEWAY);
    imds.set(Mode::Well).await;
    until("keys", async || {
        world.advance(Duration::from_secs(10));
        world.left("default").await > 0.0
    })
    .await;
    assert_eq!(world.tile(0, 1).await, StatusCode::OK);
    assert_eq!(world.ready().await, (StatusCode::OK, false));
}

#[tokio::test]
async fn imds_that_has_no_newer_keys_yet_is_asked_again_and_is_no_failure() {
    let (world, imds) = World::on_instance(Mode::Well, timing()).await;
    world.advance(50 * MINUTE);
    until("the same keys", async || {
        world.refreshes("unchanged").await >= 1
    })
    .await;
    let asked = imds.asked();
    renew(&world.s3, &imds, &world.clock).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        imds.asked(),
        asked,
        "an eighth of ten minutes is left alone"
    );
    world.advance(2 * MINUTE);
    until("newer keys", async || {
        world.refreshes("refreshed").await >= 2
    })
    .await;
    assert_eq!(world.failures().await, 0);
    assert!(world.left("default").await > 3000.0);
}

#[tokio::test]
async fn keys_that_s3_no_longer_takes_are_replaced_once_a_minute_at_most() {
    let world = World::with_role().await;
    let expired = || {
        let fault = Fault::s3_error(400, "ExpiredToken", "The provided token has expired.");
        world.s3.inject(Some(Operation::GetObject), 1, fault);
    };
    world.advance(2 * MINUTE);
    assert_eq!(world.s3.sts_calls(), 1);
    expired();
    assert_eq!(world.tile(0, 0).await, StatusCode::BAD_GATEWAY);
    until("other keys", async || world.s3.sts_calls() == 2).await;
    assert_eq!(world.tile(0, 1).await, StatusCode::OK);
    expired();
    assert_eq!(world.tile(0, 2).await, StatusCode::BAD_GATEWAY);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.s3.sts_calls(), 2, "not so soon");
    world.advance(MINUTE);
    until("other keys", async || world.s3.sts_calls() == 3).await;
    // A denial that is not about the keys says nothing about them.
    let fault = Fault::access_denied();
    world.s3.inject(Some(Operation::GetObject), 1, fault);
    world.advance(2 * MINUTE);
    assert_eq!(world.tile(0, 3).await, StatusCode::BAD_GATEWAY);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.s3.sts_calls(), 3);
}

#[tokio::test]
async fn a_roles_session_reads_its_tilesets_prefixes_and_no_other() {
    let (s3, _) = endpoint().await;
    let settings = AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(s3.endpoint_url()),
        sts_endpoint_url: Some(s3.endpoint_url()),
        path_style: true,
        assume_role: Some(AssumeRole {
            arn: ROLE.into(),
            external_id: None,
            session_name: "tilekeep".into(),
            duration: Duration::from_hours(1),
        }),
    };
    let keys = CredentialSource::Keys(s3.keys().clone());
    let clock = Clock::manual(START);
    let aws = Aws::load_with(settings, keys, clock, timing())
        .await
        .unwrap();
    let place = ReadPlace {
        bucket: BUCKET.into(),
        prefix: "world/".into(),
    };
    let origin = S3Origin::new(&aws.s3_client(None, &[place]).unwrap());
    let ask = async |name: &str, x| {
        let tileset = tileset(spec(name, TileFormat::Png));
        origin.fetch(request(&tileset, at(5, x, 0))).await
    };
    assert!(matches!(ask("world", 0).await, Ok(OriginReply::Found(_))));
    let denied = ask("values", 0).await.unwrap_err();
    assert_eq!(denied.kind, OriginErrorKind::Denied);
    // 404, not 403: it may ask whether there is such an object.
    assert!(s3.delete(BUCKET, "world/5/1/0.png"));
    assert!(matches!(ask("world", 1).await, Ok(OriginReply::NotFound)));
}

#[tokio::test]
async fn tilesets_that_share_a_role_share_its_session_and_others_have_their_own() {
    let (s3, clock) = endpoint().await;
    let mut config = configuration(&s3, true);
    let (keys, own) = (
        s3.keys().clone(),
        config::AssumeRole {
            session_name: "values".into(),
            ..role()
        },
    );
    config.tilesets.push(config::TilesetConfig {
        tileset: tileset(tilekeep::tile::TilesetSpec {
            key: "values/{z}/{x}/{y}.png".into(),
            ..spec("own", TileFormat::Png)
        }),
        assume_role: Some(own),
    });
    let world = World::start((s3, clock), config, CredentialSource::Keys(keys)).await;
    for path in ["/world/5/0/0.png", "/values/5/0/0.png", "/own/5/0/0.png"] {
        assert_eq!(
            world.server.get(path).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
    assert_eq!(world.s3.sts_calls(), 2);
    assert!(world.left("tiles").await > 0.0 && world.left("tiles-2").await > 0.0);
}

/// What the log and the operator hear of an instance's metadata in this mode.
async fn words(mode: Mode) -> String {
    let imds = Imds::start(mode).await;
    let settings = AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some("http://127.0.0.1:1".into()),
        ..AwsSettings::default()
    };
    let source = CredentialSource::Imds(Some(imds.endpoint()));
    let aws = Aws::load_with(settings, source, Clock::manual(START), timing());
    let client = aws.await.unwrap().s3_client(None, &[]).unwrap();
    let tileset = tileset(spec("world", TileFormat::Png));
    let error = S3Origin::new(&client)
        .fetch(request(&tileset, at(5, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied, "{error}");
    error.detail.to_string()
}

#[tokio::test]
async fn what_is_wrong_with_the_instances_metadata_is_told_in_words() {
    let hidden = words(Mode::Slow).await;
    assert!(
        hidden.contains("--http-put-response-hop-limit 2"),
        "{hidden}"
    );
    let elsewhere = words(Mode::Refusing).await;
    assert!(elsewhere.contains("no EC2 instance"), "{elsewhere}");
    let roleless = words(Mode::Roleless).await;
    assert!(
        roleless.contains("attach an instance profile"),
        "{roleless}"
    );
    let off = words(Mode::Off).await;
    assert!(off.contains("metadata is switched off"), "{off}");
    let broken = words(Mode::Broken).await;
    assert!(broken.contains("500"), "{broken}");
}
