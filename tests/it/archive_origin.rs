//! Tiles out of a PMTiles archive in a private bucket: the origins' contract, and what only ranges can get
//! wrong, over the embedded endpoint and a server that nobody here wrote.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pmtiles::{Compression, PmTilesWriter, TileType};
use tilekeep::app::Provided;
use tilekeep::aws::{Aws, AwsSettings, CredentialSource};
use tilekeep::config;
use tilekeep::embedded_s3::{EmbeddedS3, Fault, Operation, PutOptions};
use tilekeep::origin::limits::{LimitSettings, Limited};
use tilekeep::origin::pmtiles::PmtilesOrigin;
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{
    ContentEncoding, Origin, OriginErrorKind, OriginFuture, OriginReply, OriginRequest,
};
use tilekeep::tile::pmtiles::tile_id;
use tilekeep::tile::{TileCoord, TileFormat, Tileset, TilesetSpec};

use crate::origin_contract::{
    self as contract, BUCKET, Subject, at, endpoint, found, origin_with, request, tileset,
};
use crate::peers::{Seaweed, python_says};
use crate::support::{self, spec};

type Tiles = BTreeMap<u64, Bytes>;

fn archive_of(tiles: &Tiles, kind: TileType) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = PmTilesWriter::new(kind)
        .precompressed(if kind == TileType::Mvt {
            Compression::Gzip
        } else {
            Compression::None
        })
        .min_zoom(0)
        .max_zoom(20)
        .create(&mut bytes)
        .unwrap();
    for (id, body) in tiles {
        let coord = pmtiles::TileId::new(*id).unwrap().into();
        writer.add_tile(coord, body).unwrap();
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

/// Every tile of a zoom, each with a text of its own.
fn zoom(z: u8, epoch: &str) -> Tiles {
    let side = 1u32 << z;
    (0..side)
        .flat_map(|x| (0..side).map(move |y| at(z, x, y)))
        .map(|coord| {
            (
                tile_id(coord),
                Bytes::from(format!("{coord} {epoch}").repeat(40)),
            )
        })
        .collect()
}

fn world() -> Arc<Tileset> {
    tileset("world", BUCKET, "world.pmtiles")
}

type Archives = Limited<PmtilesOrigin<Arc<S3Origin>>>;

async fn archives(s3: &EmbeddedS3) -> Archives {
    let origin = origin_with(s3, s3.keys().clone()).await;
    Limited::new(PmtilesOrigin::new(Arc::new(origin)), LimitSettings::new(64))
}

fn put(s3: &EmbeddedS3, archive: Vec<u8>) {
    assert!(s3.put(BUCKET, "world.pmtiles", archive, PutOptions::default()));
}

/// The contract's subject: each change of a tile writes the tileset's archive anew.
struct InArchives {
    s3: EmbeddedS3,
    origin: Translated,
    tiles: Mutex<BTreeMap<String, Tiles>>,
}

/// The sentences' tilesets have a key a tile; here, each has an archive.
struct Translated(PmtilesOrigin<Arc<S3Origin>>);

impl Origin for Translated {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        let name = request.tileset.name();
        let tileset = tileset(name, BUCKET, &format!("{name}.pmtiles"));
        self.0.fetch(OriginRequest { tileset, ..request })
    }
}

impl InArchives {
    async fn new() -> Self {
        let s3 = endpoint().await;
        let origin = origin_with(&s3, s3.keys().clone()).await;
        Self {
            s3,
            origin: Translated(PmtilesOrigin::new(Arc::new(origin))),
            tiles: Mutex::default(),
        }
    }

    fn change(&self, tileset: &Tileset, change: impl FnOnce(&mut Tiles)) {
        let mut all = self.tiles.lock().unwrap();
        let tiles = all.entry(tileset.name().to_owned()).or_default();
        change(tiles);
        let archive = archive_of(tiles, TileType::Png);
        let key = format!("{}.pmtiles", tileset.name());
        assert!(self.s3.put(BUCKET, &key, archive, PutOptions::default()));
    }
}

impl Subject for InArchives {
    fn origin(&self) -> &dyn Origin {
        &self.origin
    }

    fn put(&self, tileset: &Tileset, coord: TileCoord, body: &'static [u8]) {
        self.change(tileset, |tiles| {
            tiles.insert(tile_id(coord), Bytes::from_static(body));
        });
    }

    fn remove(&self, tileset: &Tileset, coord: TileCoord) {
        self.change(tileset, |tiles| {
            tiles.remove(&tile_id(coord));
        });
    }

    fn trouble(&self, kind: OriginErrorKind) {
        let fault = match kind {
            OriginErrorKind::Denied => Fault::access_denied(),
            OriginErrorKind::Throttled => Fault::slow_down(None),
            OriginErrorKind::Server => Fault::internal_error(),
            OriginErrorKind::Truncated => Fault::Truncate(2),
            OriginErrorKind::Unreachable => Fault::Reset(2),
            OriginErrorKind::Deadline => Fault::NeverAnswer,
            OriginErrorKind::HeldBack => unreachable!("not an origin's own"),
        };
        self.s3
            .inject(Some(Operation::GetObject), usize::MAX, fault);
    }

    fn heal(&self) {
        self.s3.clear_faults();
    }
}

macro_rules! over_archives {
    ($($sentence:ident),+ $(,)?) => {
        mod over_archives {
            $(#[tokio::test]
            async fn $sentence() {
                super::contract::$sentence(&super::InArchives::new().await).await;
            })+
        }
    };
}

// All but the one of an empty tile, which PMTiles cannot hold.
over_archives!(
    a_tile_is_found_whole_with_its_validator_and_date,
    a_tile_that_is_not_there_is_not_found,
    a_held_tile_that_is_still_right_is_not_sent_again,
    a_held_tile_that_changed_is_sent_anew,
    a_held_tile_that_was_removed_is_not_found,
    compressed_tiles_are_known_by_their_first_bytes,
    tiles_of_two_tilesets_are_kept_apart,
    each_trouble_has_its_own_name_and_none_is_not_found,
    trouble_that_is_over_leaves_nothing_behind,
    a_deadline_is_kept,
);

#[tokio::test]
async fn sixteen_neighbours_cost_fewer_requests_than_tiles() {
    let s3 = endpoint().await;
    let tiles = zoom(5, "a");
    put(&s3, archive_of(&tiles, TileType::Png));
    let origin = Arc::new(archives(&s3).await);
    let world = world();
    found(origin.fetch(request(&world, at(5, 0, 0))).await);
    let before = s3.requests(Operation::GetObject);
    let asking: tokio::task::JoinSet<_> = (0..16)
        .map(|n| {
            let (origin, world) = (Arc::clone(&origin), Arc::clone(&world));
            async move {
                let coord = at(5, 8 + n % 4, 8 + n / 4);
                (
                    coord,
                    found(origin.fetch(request(&world, coord)).await).body,
                )
            }
        })
        .collect();
    for (coord, body) in asking.join_all().await {
        assert_eq!(body, tiles[&tile_id(coord)], "{coord}");
    }
    let asked = s3.requests(Operation::GetObject) - before;
    assert!(asked <= 4, "{asked} requests for 16 tiles");
}

#[tokio::test]
async fn a_body_that_breaks_within_a_range_is_asked_for_again_and_never_a_tile() {
    let s3 = endpoint().await;
    let tiles = zoom(3, "a");
    put(&s3, archive_of(&tiles, TileType::Png));
    let origin = archives(&s3).await;
    let world = world();
    found(origin.fetch(request(&world, at(3, 0, 0))).await);
    for fault in [Fault::Truncate(5), Fault::Reset(5)] {
        s3.inject(Some(Operation::GetObject), 1, fault.clone());
        let tile = found(origin.fetch(request(&world, at(3, 4, 4))).await);
        assert_eq!(tile.body, tiles[&tile_id(at(3, 4, 4))], "{fault:?}");
        s3.inject(Some(Operation::GetObject), usize::MAX, fault.clone());
        let error = origin.fetch(request(&world, at(3, 4, 4))).await;
        assert!(error.is_err(), "{fault:?}");
        s3.clear_faults();
    }
}

/// A server that sends the whole object whatever range is asked for.
#[tokio::test]
async fn a_server_that_ignores_ranges_is_found_out() {
    let s3 = endpoint().await;
    put(&s3, archive_of(&zoom(3, "a"), TileType::Png));
    let origin = archives(&s3).await;
    let whole = Fault::Answer(tilekeep::embedded_s3::CannedAnswer {
        status: 200,
        headers: vec![("etag", "\"x\"".into())],
        body: archive_of(&zoom(3, "a"), TileType::Png).into(),
    });
    s3.inject(Some(Operation::GetObject), usize::MAX, whole);
    let error = origin
        .fetch(request(&world(), at(3, 0, 0)))
        .await
        .unwrap_err();
    assert!(error.detail.contains("answers ranges"), "{error}");
}

#[tokio::test]
async fn an_archive_that_is_not_there_is_no_missing_tile() {
    let s3 = endpoint().await;
    let origin = archives(&s3).await;
    let error = origin
        .fetch(request(&world(), at(0, 0, 0)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
    assert!(
        error.detail.contains("private-tiles/world.pmtiles"),
        "{error}"
    );
}

/// Python's writer: leaf directories, runs, and tiles that are there once.
const WRITE: &str = "
import sys, gzip
from pmtiles.writer import Writer
from pmtiles.tile import zxy_to_tileid, tileid_to_zxy, TileType, Compression
with open(sys.argv[1], 'wb') as f:
    w = Writer(f)
    for i in range(zxy_to_tileid(8, 0, 0)):
        z, x, y = tileid_to_zxy(i)
        # In runs, and in none.
        text = 'sea' if (i // 7) % 3 == 0 else f'{z}/{x}/{y}'
        w.write_tile(i, gzip.compress(text.encode(), mtime=0))
    w.finalize({'tile_type': TileType.MVT, 'tile_compression': Compression.GZIP,
        'min_zoom': 0, 'max_zoom': 7, 'min_lon_e7': -1800000000, 'min_lat_e7': -850000000,
        'max_lon_e7': 1800000000, 'max_lat_e7': 850000000, 'center_zoom': 0,
        'center_lon_e7': 0, 'center_lat_e7': 0}, {'attribution': 'them'})
";

fn pythons_archive() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs.pmtiles");
    python_says(WRITE, &[path.to_str().unwrap()]);
    std::fs::read(path).unwrap()
}

fn gunzipped(body: &[u8]) -> String {
    std::io::read_to_string(flate2::read::GzDecoder::new(body)).unwrap()
}

fn vector(name: &str) -> TilesetSpec {
    TilesetSpec {
        bucket: BUCKET.into(),
        key: "world.pmtiles".into(),
        maxzoom: 7,
        ..spec(name, TileFormat::Mvt)
    }
}

#[tokio::test]
async fn a_real_servers_ranges_of_somebody_elses_archive() {
    let seaweed = Seaweed::start().await;
    let theirs = pythons_archive();
    seaweed.bucket(BUCKET, &[("world.pmtiles", &theirs)]).await;
    let settings = AwsSettings {
        region: Some("us-east-1".into()),
        endpoint_url: Some(seaweed.endpoint()),
        path_style: true,
        ..AwsSettings::default()
    };
    let aws = Aws::load(settings, CredentialSource::Keys(seaweed.keys()));
    let s3 = S3Origin::new(&aws.await.unwrap().s3_client(None, &[]).unwrap());
    let origin = PmtilesOrigin::new(Arc::new(s3));
    let world = support::tileset(vector("world"));
    let ask = |coord| origin.fetch(request(&world, coord));
    for coord in [at(0, 0, 0), at(5, 17, 11), at(7, 127, 127), at(7, 3, 99)] {
        let tile = found(ask(coord).await);
        assert_eq!(tile.encoding, ContentEncoding::Gzip);
        let run = (tile_id(coord) / 7).is_multiple_of(3);
        let expected = if run {
            "sea".to_owned()
        } else {
            coord.to_string()
        };
        assert_eq!(gunzipped(&tile.body), expected, "{coord}");
    }
    assert_eq!(ask(at(9, 0, 0)).await.unwrap(), OriginReply::NotFound);
    let held = found(ask(at(5, 17, 11)).await);
    let again = OriginRequest {
        validator: held.validator,
        ..request(&world, at(5, 17, 11))
    };
    let reply = origin.fetch(again.clone()).await.unwrap();
    assert_eq!(reply, OriginReply::NotModified);
    // Replaced: its own 412 is what tells.
    let gzipped = |text: &str| {
        let mut encoder =
            flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast());
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut encoder, &mut bytes).unwrap();
        Bytes::from(bytes)
    };
    let new: Tiles = [(tile_id(at(5, 17, 11)), gzipped("new"))].into();
    let put = seaweed
        .s3()
        .put_object()
        .bucket(BUCKET)
        .key("world.pmtiles");
    let put = put.body(archive_of(&new, TileType::Mvt).into());
    put.send().await.unwrap();
    assert_eq!(gunzipped(&found(origin.fetch(again).await).body), "new");
    assert_eq!(ask(at(0, 0, 0)).await.unwrap(), OriginReply::NotFound);
    assert_eq!(origin.stats().opened, 2);
}

#[tokio::test]
async fn a_whole_server_answers_from_an_archive_as_from_keys() {
    let s3 = endpoint().await;
    put(&s3, pythons_archive());
    let mut configuration = support::config([vector("world")]);
    configuration.aws = config::Aws {
        region: Some("us-east-1".into()),
        endpoint_url: Some(s3.endpoint_url()),
        path_style: true,
        ..config::Aws::default()
    };
    let server = support::start_with(
        configuration,
        Provided {
            credentials: CredentialSource::Keys(s3.keys().clone()),
            ..Provided::default()
        },
    )
    .await;
    let first = server.get("/world/6/33/22.mvt").await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(
        first.header("content-type"),
        "application/vnd.mapbox-vector-tile"
    );
    assert!(first.header("cache-status").contains("detail=origin"));
    let again = server.get("/world/6/33/22.mvt").await;
    assert!(again.header("cache-status").contains("hit"));
    assert_eq!(again.header("etag"), first.header("etag"));
    assert_eq!(
        server.get("/world/8/0/0.mvt").await.status,
        StatusCode::NOT_FOUND
    );
    // The same tiles in another archive: revalidated by what they are, not by where they lie.
    let mut other = pythons_archive();
    other.extend_from_slice(b"longer");
    put(&s3, other);
    server.clock.advance(Duration::from_hours(2));
    let stale = server.get("/world/6/33/22.mvt").await;
    assert_eq!(stale.status, StatusCode::OK);
    assert_eq!(stale.header("etag"), first.header("etag"));
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let fresh = server.get("/world/6/33/22.mvt").await;
        assert_eq!(fresh.header("etag"), first.header("etag"));
        if fresh.header("cache-status").contains("hit; ttl=3") {
            break;
        }
        assert!(
            std::time::Instant::now() < until,
            "{}",
            fresh.header("cache-status")
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.stop().await;
}
