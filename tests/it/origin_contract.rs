//! What every origin keeps: the same sentences over S3, as it is spoken over HTTP by the embedded
//! endpoint, and over the twin in memory; `archive_origin` has them over archives.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Fault as WireFault, Operation,
    PutOptions,
};
use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{
    ContentEncoding, Origin, OriginError, OriginErrorKind, OriginReply, OriginRequest, OriginTile,
    OriginValidator, Urgency,
};
use tilekeep::tile::{
    Access, Bounds, BrowserCaching, Delivery, Scale, TileCoord, TileFormat, Tileset, TilesetSpec,
};

pub(crate) const BUCKET: &str = "private-tiles";

/// A tileset over the whole world, with a key template of the test's own.
pub(crate) fn tileset(name: &str, bucket: &str, key: &str) -> Arc<Tileset> {
    let tileset = Tileset::new(TilesetSpec {
        name: name.into(),
        bucket: bucket.into(),
        key: key.into(),
        format: TileFormat::Png,
        minzoom: 0,
        maxzoom: 20,
        bounds: Bounds::new([-180.0, -85.0511, 180.0, 85.0511]).unwrap(),
        attribution: String::new(),
        version: None,
        missing: None,
        delivery: Delivery::default(),
        browser: BrowserCaching::default(),
        access: Access::default(),
        tilejson: serde_json::Map::new(),
    });
    Arc::new(tileset.unwrap())
}

pub(crate) fn world() -> Arc<Tileset> {
    tileset("world", BUCKET, "world/{z}/{x}/{y}.png")
}

pub(crate) fn at(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

pub(crate) fn request(tileset: &Arc<Tileset>, coord: TileCoord) -> OriginRequest {
    OriginRequest {
        tileset: Arc::clone(tileset),
        coord,
        scale: Scale::One,
        validator: None,
        deadline: Duration::from_secs(10),
        urgency: Urgency::default(),
    }
}

pub(crate) fn found(reply: Result<OriginReply, OriginError>) -> OriginTile {
    match reply {
        Ok(OriginReply::Found(tile)) => tile,
        other => panic!("not found: {other:?}"),
    }
}

/// An endpoint with one private bucket, and an origin that reads it.
pub(crate) async fn endpoint() -> EmbeddedS3 {
    EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap()
}

pub(crate) fn settings(s3: &EmbeddedS3) -> AwsSettings {
    AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(s3.endpoint_url()),
        sts_endpoint_url: Some(s3.endpoint_url()),
        path_style: true,
        assume_role: None,
    }
}

pub(crate) async fn origin_with(s3: &EmbeddedS3, keys: AccessKeys) -> S3Origin {
    let aws = Aws::load(settings(s3), CredentialSource::Keys(keys)).await;
    S3Origin::new(&aws.unwrap().s3_client(None, &[]).unwrap())
}

/// What the sentences need of an origin, besides asking it.
pub(crate) trait Subject {
    fn origin(&self) -> &dyn Origin;
    fn put(&self, tileset: &Tileset, coord: TileCoord, body: &'static [u8]);
    fn remove(&self, tileset: &Tileset, coord: TileCoord);
    /// Every request meets this trouble until `heal`.
    fn trouble(&self, kind: OriginErrorKind);
    fn heal(&self);
}

struct OverHttp {
    s3: EmbeddedS3,
    origin: S3Origin,
}

impl OverHttp {
    async fn new() -> Self {
        let s3 = endpoint().await;
        let origin = origin_with(&s3, s3.keys().clone()).await;
        Self { s3, origin }
    }
}

impl Subject for OverHttp {
    fn origin(&self) -> &dyn Origin {
        &self.origin
    }

    fn put(&self, tileset: &Tileset, coord: TileCoord, body: &'static [u8]) {
        let key = tileset.place().key.key(coord, Scale::One);
        assert!(self.s3.put(BUCKET, &key, body, PutOptions::default()));
    }

    fn remove(&self, tileset: &Tileset, coord: TileCoord) {
        let key = tileset.place().key.key(coord, Scale::One);
        assert!(self.s3.delete(BUCKET, &key));
    }

    fn trouble(&self, kind: OriginErrorKind) {
        let fault = match kind {
            OriginErrorKind::Denied => WireFault::access_denied(),
            OriginErrorKind::Throttled => WireFault::slow_down(None),
            OriginErrorKind::Server => WireFault::internal_error(),
            OriginErrorKind::Truncated => WireFault::Truncate(2),
            OriginErrorKind::Unreachable => WireFault::Reset(2),
            OriginErrorKind::Deadline => WireFault::NeverAnswer,
            OriginErrorKind::HeldBack => unreachable!("not an origin's own"),
        };
        self.s3
            .inject(Some(Operation::GetObject), usize::MAX, fault);
    }

    fn heal(&self) {
        self.s3.clear_faults();
    }
}

struct InMemory(FailingOrigin<MemoryOrigin>);

impl InMemory {
    fn new() -> Self {
        Self(FailingOrigin::new(MemoryOrigin::new()))
    }
}

impl Subject for InMemory {
    fn origin(&self) -> &dyn Origin {
        &self.0
    }

    fn put(&self, tileset: &Tileset, coord: TileCoord, body: &'static [u8]) {
        self.0
            .inner()
            .put(tileset, coord, Scale::One, body, Some(1_700_000_000));
    }

    fn remove(&self, tileset: &Tileset, coord: TileCoord) {
        self.0.inner().remove(tileset, coord, Scale::One);
    }

    fn trouble(&self, kind: OriginErrorKind) {
        self.0.fail_always(match kind {
            OriginErrorKind::Deadline => Fault::TimeOut,
            kind => Fault::error(kind),
        });
    }

    fn heal(&self) {
        self.0.heal();
    }
}

/// Each sentence, over each subject.
macro_rules! contract {
    ($($sentence:ident),+ $(,)?) => {
        mod over_http {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence(&super::OverHttp::new().await).await;
            })+
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence(&super::InMemory::new()).await;
            })+
        }
    };
}

/// Hands every sentence to a macro: whoever runs them over another subject leaves none out.
macro_rules! sentences {
    ($to:ident) => {
        $to!(
            a_tile_is_found_whole_with_its_validator_and_date,
            a_tile_that_is_not_there_is_not_found,
            a_held_tile_that_is_still_right_is_not_sent_again,
            a_held_tile_that_changed_is_sent_anew,
            a_held_tile_that_was_removed_is_not_found,
            an_empty_object_is_a_tile_of_no_bytes,
            compressed_tiles_are_known_by_their_first_bytes,
            tiles_of_two_tilesets_are_kept_apart,
            each_trouble_has_its_own_name_and_none_is_not_found,
            trouble_that_is_over_leaves_nothing_behind,
            a_deadline_is_kept,
        );
    };
}
pub(crate) use sentences;
sentences!(contract);

pub(crate) async fn a_tile_is_found_whole_with_its_validator_and_date(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(3, 4, 5), b"\x89PNG tile");
    let tile = found(subject.origin().fetch(request(&world, at(3, 4, 5))).await);
    assert_eq!(tile.body, Bytes::from_static(b"\x89PNG tile"));
    assert_eq!(tile.encoding, ContentEncoding::Identity);
    assert!(tile.validator.is_some());
    assert!(tile.last_modified.is_some_and(|at| at > 1_600_000_000));
}

pub(crate) async fn a_tile_that_is_not_there_is_not_found(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(3, 4, 5), b"tile");
    let reply = subject.origin().fetch(request(&world, at(3, 4, 6))).await;
    assert_eq!(reply.unwrap(), OriginReply::NotFound);
}

pub(crate) async fn a_held_tile_that_is_still_right_is_not_sent_again(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(1, 0, 0), b"tile");
    let held = found(subject.origin().fetch(request(&world, at(1, 0, 0))).await);
    let again = OriginRequest {
        validator: held.validator,
        ..request(&world, at(1, 0, 0))
    };
    let reply = subject.origin().fetch(again).await;
    assert_eq!(reply.unwrap(), OriginReply::NotModified);
}

pub(crate) async fn a_held_tile_that_changed_is_sent_anew(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(1, 0, 0), b"old");
    let held = found(subject.origin().fetch(request(&world, at(1, 0, 0))).await);
    subject.put(&world, at(1, 0, 0), b"new");
    let again = OriginRequest {
        validator: held.validator.clone(),
        ..request(&world, at(1, 0, 0))
    };
    let tile = found(subject.origin().fetch(again).await);
    assert_eq!(tile.body, Bytes::from_static(b"new"));
    assert_ne!(tile.validator, held.validator);
}

pub(crate) async fn a_held_tile_that_was_removed_is_not_found(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(1, 0, 0), b"tile");
    let held = found(subject.origin().fetch(request(&world, at(1, 0, 0))).await);
    subject.remove(&world, at(1, 0, 0));
    let again = OriginRequest {
        validator: held.validator,
        ..request(&world, at(1, 0, 0))
    };
    let reply = subject.origin().fetch(again).await;
    assert_eq!(reply.unwrap(), OriginReply::NotFound);
}

pub(crate) async fn an_empty_object_is_a_tile_of_no_bytes(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(0, 0, 0), b"");
    let tile = found(subject.origin().fetch(request(&world, at(0, 0, 0))).await);
    assert!(tile.body.is_empty());
    assert_eq!(tile.encoding, ContentEncoding::Identity);
}

pub(crate) async fn compressed_tiles_are_known_by_their_first_bytes(subject: &impl Subject) {
    let world = world();
    let bodies: [(&'static [u8], ContentEncoding); 3] = [
        (b"\x1f\x8b\x08gz", ContentEncoding::Gzip),
        (b"\x28\xb5\x2f\xfdzstd", ContentEncoding::Zstd),
        (b"\x1a\x03mvt", ContentEncoding::Identity),
    ];
    for (body, encoding) in bodies {
        subject.put(&world, at(0, 0, 0), body);
        let tile = found(subject.origin().fetch(request(&world, at(0, 0, 0))).await);
        assert_eq!((tile.encoding, tile.body), (encoding, Bytes::from(body)));
    }
}

pub(crate) async fn tiles_of_two_tilesets_are_kept_apart(subject: &impl Subject) {
    let (world, values) = (world(), tileset("values", BUCKET, "v/{z}/{x}/{y}"));
    subject.put(&world, at(2, 1, 1), b"world");
    subject.put(&values, at(2, 1, 1), b"values");
    let tile = found(subject.origin().fetch(request(&values, at(2, 1, 1))).await);
    assert_eq!(tile.body, Bytes::from_static(b"values"));
}

pub(crate) async fn each_trouble_has_its_own_name_and_none_is_not_found(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(0, 0, 0), b"a tile of some bytes");
    for kind in OriginErrorKind::ALL {
        if kind == OriginErrorKind::HeldBack {
            continue;
        }
        subject.heal();
        subject.trouble(kind);
        let asked = OriginRequest {
            deadline: Duration::from_secs(2),
            ..request(&world, at(0, 0, 0))
        };
        let error = subject.origin().fetch(asked).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}

pub(crate) async fn trouble_that_is_over_leaves_nothing_behind(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(0, 0, 0), b"a tile of some bytes");
    for kind in [
        OriginErrorKind::Truncated,
        OriginErrorKind::Unreachable,
        OriginErrorKind::Server,
    ] {
        subject.trouble(kind);
        assert!(
            subject
                .origin()
                .fetch(request(&world, at(0, 0, 0)))
                .await
                .is_err()
        );
        subject.heal();
        let tile = found(subject.origin().fetch(request(&world, at(0, 0, 0))).await);
        assert_eq!(tile.body, Bytes::from_static(b"a tile of some bytes"));
    }
}

pub(crate) async fn a_deadline_is_kept(subject: &impl Subject) {
    let world = world();
    subject.put(&world, at(0, 0, 0), b"tile");
    subject.trouble(OriginErrorKind::Deadline);
    let asked = OriginRequest {
        deadline: Duration::from_millis(200),
        ..request(&world, at(0, 0, 0))
    };
    let started = std::time::Instant::now();
    let error = subject.origin().fetch(asked).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Deadline);
    let took = started.elapsed();
    assert!((200..1500).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_validator_that_cannot_be_sent_is_as_good_as_none() {
    assert!(OriginValidator::new("\"a\nb\"").is_none());
}
