use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::AtomicBool;

use pmtiles::{PmTilesWriter, TileType};
use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::tile::{Bounds, TileCoord, TileFormat, TilesetSpec};

/// An object in memory, which can be replaced, and which counts what it is asked.
#[derive(Default)]
struct Memory {
    object: Mutex<Option<Bytes>>,
    asked: Mutex<Vec<RangeRequest>>,
    replace_after: Mutex<Option<(usize, Bytes)>>,
    stuck: AtomicBool,
}

impl Memory {
    fn put(&self, object: impl Into<Bytes>) {
        *lock(&self.object) = Some(object.into());
    }

    fn asked(&self) -> usize {
        lock(&self.asked).len()
    }

    fn reply(&self, request: &RangeRequest) -> RangeReply {
        let Some(object) = lock(&self.object).clone() else {
            return RangeReply::NotFound;
        };
        let etag = format!("\"{:016x}\"", twox_hash::XxHash3_64::oneshot(&object));
        let validator = OriginValidator::new(&etag).unwrap();
        if request.only.as_ref().is_some_and(|only| *only != validator) {
            return RangeReply::Changed;
        }
        if request.unless.as_ref() == Some(&validator) {
            return RangeReply::NotModified;
        }
        let at = |offset: u64| usize::try_from(offset).unwrap().min(object.len());
        RangeReply::Part(Part {
            body: object.slice(at(request.range.start)..at(request.range.end)),
            validator,
            last_modified: Some(1_700_000_000),
            size: object.len() as u64,
        })
    }
}

impl RangeSource for Memory {
    fn read(&self, request: RangeRequest) -> RangeFuture<'_> {
        Box::pin(async move {
            let nth = {
                let mut asked = lock(&self.asked);
                asked.push(request.clone());
                asked.len()
            };
            // As over a network, others come while one waits.
            tokio::task::yield_now().await;
            if self.stuck.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let replace = lock(&self.replace_after).take_if(|(after, _)| nth > *after);
            if let Some((_, object)) = replace {
                self.put(object);
            }
            Ok(self.reply(&request))
        })
    }
}

fn tileset(format: TileFormat) -> Arc<Tileset> {
    let spec = TilesetSpec {
        name: "world".into(),
        bucket: "bucket".into(),
        key: "world.pmtiles".into(),
        format,
        minzoom: 0,
        maxzoom: 9,
        bounds: Bounds::WORLD,
        attribution: String::new(),
        version: None,
        missing: None,
        delivery: crate::tile::Delivery::default(),
        browser: crate::tile::BrowserCaching::default(),
        access: crate::tile::Access::default(),
        tilejson: serde_json::Map::new(),
    };
    Arc::new(Tileset::new(spec).unwrap())
}

fn at(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

fn request(coord: TileCoord) -> OriginRequest {
    OriginRequest {
        tileset: tileset(TileFormat::Png),
        coord,
        scale: Scale::One,
        validator: None,
        deadline: Duration::from_secs(10),
        urgency: crate::origin::Urgency::default(),
    }
}

type Tiles = BTreeMap<u64, Vec<u8>>;

/// All tiles of a zoom, each with its own content of about this length.
fn tiles(zoom: u8, length: usize, epoch: &str) -> Tiles {
    let side = 1u32 << zoom;
    (0..side)
        .flat_map(|x| (0..side).map(move |y| at(zoom, x, y)))
        .map(|coord| {
            let mut body = format!("{coord} {epoch} ").into_bytes();
            body.resize(length.max(body.len()), b'.');
            (tile_id(coord), body)
        })
        .collect()
}

fn archive(tiles: &Tiles) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = PmTilesWriter::new(TileType::Png)
        .max_zoom(9)
        .create(&mut bytes)
        .unwrap();
    for (id, body) in tiles {
        let coord = pmtiles::TileId::new(*id).unwrap().into();
        writer.add_tile(coord, body).unwrap();
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn over(tiles: &Tiles) -> Arc<PmtilesOrigin<Memory>> {
    let origin = PmtilesOrigin::new(Memory::default());
    origin.source.put(archive(tiles));
    Arc::new(origin)
}

async fn body(origin: &PmtilesOrigin<Memory>, coord: TileCoord) -> Bytes {
    match origin.fetch(request(coord)).await.unwrap() {
        OriginReply::Found(tile) => tile.body,
        other => panic!("{coord}: {other:?}"),
    }
}

#[tokio::test]
async fn sixteen_neighbours_cost_one_range_instead_of_sixteen() {
    let tiles = tiles(5, 3000, "a");
    let origin = over(&tiles);
    body(&origin, at(5, 20, 20)).await;
    let before = origin.stats();
    let mut asking = JoinSet::new();
    for (x, y) in (0..4).flat_map(|x| (0..4).map(move |y| (8 + x, 12 + y))) {
        let origin = Arc::clone(&origin);
        asking.spawn(async move { (at(5, x, y), body(&origin, at(5, x, y)).await) });
    }
    for (coord, body) in asking.join_all().await {
        assert_eq!(body, tiles[&tile_id(coord)], "{coord}");
    }
    let stats = origin.stats();
    assert_eq!(
        (stats.reads - before.reads, stats.joined - before.joined),
        (1, 15)
    );
    let asked = lock(&origin.source.asked);
    let last = &asked.last().unwrap().range;
    assert_eq!(last.end - last.start, 16 * 3000, "and nothing else is read");
}

#[tokio::test]
async fn leaves_are_read_once_and_a_tile_costs_one_range() {
    // Enough for leaf directories, in no order that a run could shorten.
    let tiles = tiles(8, 20, "a");
    let origin = over(&tiles);
    for (x, y) in [(0, 0), (1, 0), (0, 1), (255, 255)] {
        assert_eq!(
            body(&origin, at(8, x, y)).await,
            tiles[&tile_id(at(8, x, y))]
        );
    }
    let warm = origin.source.asked();
    assert!(warm > 5, "header, leaves and tiles: {warm}");
    body(&origin, at(8, 1, 1)).await;
    assert_eq!(origin.source.asked() - warm, 1);
    assert_eq!(origin.stats().opened, 1);
    let asked = lock(&origin.source.asked);
    assert!(
        asked[1..].iter().all(|r| r.only.is_some()),
        "If-Match on every range"
    );
}

#[tokio::test]
async fn an_archive_replaced_at_any_moment_is_never_mixed() {
    let (old, new) = (tiles(8, 24, "old"), tiles(8, 31, "new"));
    for after in 0..4 {
        let origin = over(&old);
        *lock(&origin.source.replace_after) = Some((after, archive(&new).into()));
        for (x, y) in [(0, 0), (200, 100), (9, 9)] {
            let id = tile_id(at(8, x, y));
            let body = body(&origin, at(8, x, y)).await;
            assert!(
                body == old[&id] || body == new[&id],
                "after {after}: {body:?}"
            );
        }
        assert_eq!(body(&origin, at(8, 7, 7)).await, new[&tile_id(at(8, 7, 7))]);
        assert!(origin.stats().opened <= 2);
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_only_of_the_archive_that_is_there() {
    let origin = over(&tiles(2, 10, "a"));
    assert_eq!(
        origin.fetch(request(at(3, 0, 0))).await.unwrap(),
        OriginReply::NotFound
    );
    origin.source.put(archive(&tiles(3, 10, "b")));
    assert_eq!(
        body(&origin, at(3, 0, 0)).await,
        tiles(3, 10, "b")[&tile_id(at(3, 0, 0))]
    );
    *lock(&origin.source.object) = None;
    let error = origin.fetch(request(at(3, 0, 0))).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Denied);
    assert!(
        error.detail.contains("correct the tileset's `archive`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_held_tile_is_confirmed_without_a_byte_of_it() {
    let origin = over(&tiles(3, 10, "a"));
    let OriginReply::Found(held) = origin.fetch(request(at(3, 1, 1))).await.unwrap() else {
        panic!("not found");
    };
    let again = OriginRequest {
        validator: held.validator,
        ..request(at(3, 1, 1))
    };
    assert_eq!(
        origin.fetch(again.clone()).await.unwrap(),
        OriginReply::NotModified
    );
    let last = lock(&origin.source.asked).last().cloned().unwrap();
    assert!(last.unless.is_some() && last.range == (0..1));
    origin.source.put(archive(&tiles(3, 10, "b")));
    assert!(matches!(
        origin.fetch(again).await.unwrap(),
        OriginReply::Found(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_that_hangs_up_asks_anew() {
    let tiles = tiles(4, 100, "a");
    let origin = over(&tiles);
    body(&origin, at(4, 0, 0)).await;
    origin.source.stuck.store(true, Ordering::Relaxed);
    let asks = |deadline: u64, coord| {
        let origin = Arc::clone(&origin);
        let deadline = Duration::from_millis(deadline);
        tokio::spawn(async move {
            origin
                .fetch(OriginRequest {
                    deadline,
                    ..request(coord)
                })
                .await
        })
    };
    // The first along the curve is the one that asks.
    let hasty = asks(100, at(4, 0, 0));
    tokio::task::yield_now().await;
    let patient = asks(60_000, at(4, 1, 0));
    tokio::time::sleep(Duration::from_millis(50)).await;
    origin.source.stuck.store(false, Ordering::Relaxed);
    let error = hasty.await.unwrap().unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Deadline);
    assert!(matches!(
        patient.await.unwrap().unwrap(),
        OriginReply::Found(_)
    ));
}

#[tokio::test]
async fn an_archive_of_another_format_or_cut_off_is_an_error_in_words() {
    let origin = over(&tiles(2, 10, "a"));
    let wrong = OriginRequest {
        tileset: tileset(TileFormat::Mvt),
        ..request(at(2, 0, 0))
    };
    let error = origin.fetch(wrong).await.unwrap_err();
    assert!(error.detail.contains("`format` says mvt"), "{error}");
    let whole = archive(&tiles(2, 10, "a"));
    origin.source.put(whole[..whole.len() - 1].to_vec());
    let error = origin.fetch(request(at(2, 0, 0))).await.unwrap_err();
    assert_eq!(error.kind, OriginErrorKind::Truncated);
    assert!(error.detail.contains("cut off"), "{error}");
    origin.source.put("<html>");
    let error = origin.fetch(request(at(2, 0, 0))).await.unwrap_err();
    assert!(error.detail.contains("PMTiles version 3"), "{error}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let level = flate2::Compression::best();
    std::io::Read::read_to_end(&mut flate2::read::GzEncoder::new(bytes, level), &mut out).unwrap();
    out
}

/// An archive whose root has one entry, this leaf for all tiles.
fn with_leaf(leaf: &[u8]) -> Vec<u8> {
    let mut bytes = archive(&tiles(2, 10, "a"));
    let length = u16::try_from(leaf.len()).unwrap();
    let low = u8::try_from(length & 0x7f).unwrap() | 0x80;
    let root = gzip(&[1, 0, 0, low, u8::try_from(length >> 7).unwrap(), 1]);
    bytes[127..127 + root.len()].copy_from_slice(&root);
    let end = bytes.len() as u64;
    for (at, value) in [(16, root.len() as u64), (40, end), (48, leaf.len() as u64)] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(leaf);
    bytes
}

#[tokio::test]
async fn directories_without_end_are_errors_of_the_archive() {
    let origin = PmtilesOrigin::new(Memory::default());
    // Of a length that its own gzip has: it points at itself.
    let itself = (20u8..40)
        .map(|length| (length, gzip(&[1, 0, 0, length | 0x80, 0, 1])))
        .find(|(length, leaf)| leaf.len() == usize::from(*length));
    let (_, itself) = itself.unwrap();
    let bomb = gzip(&vec![0; crate::tile::pmtiles::MAX_DIRECTORY_BYTES + 1]);
    for (leaf, said) in [(itself, "too deep"), (bomb, "is not read: at most")] {
        origin.source.put(with_leaf(&leaf));
        let error = origin.fetch(request(at(2, 0, 0))).await.unwrap_err();
        assert_eq!(error.kind, OriginErrorKind::Server);
        assert_eq!(error.scope, crate::origin::ErrorScope::Object);
        assert!(error.detail.contains(said), "{error}");
    }
    let right = tiles(2, 10, "a");
    origin.source.put(archive(&right));
    let healed = body(&origin, at(2, 0, 0)).await;
    assert_eq!(healed, right[&tile_id(at(2, 0, 0))]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn an_altered_archive_never_panics_and_answers_or_fails_in_time(
        flips in proptest::collection::vec((0usize..400, any::<u8>()), 1..6),
        far in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let tiles = tiles(2, 10, "a");
            let mut bytes = archive(&tiles);
            let end = bytes.len();
            for (at, value) in flips {
                // The header and the root, or the data behind.
                let at = if far { end - 1 - at % 200 } else { at };
                bytes[at] ^= value;
            }
            let origin = PmtilesOrigin::new(Memory::default());
            origin.source.put(bytes);
            for x in 0..4 {
                if let Err(error) = origin.fetch(request(at(2, x, 1))).await {
                    let known = matches!(error.kind, OriginErrorKind::Server | OriginErrorKind::Truncated);
                    assert!(known, "{error}");
                }
            }
        });
    }
}

#[tokio::test]
async fn who_waits_for_an_archive_that_cannot_be_opened_has_the_same_outcome() {
    let origin = over(&tiles(2, 10, "a"));
    origin.source.put("<html>");
    let ask = |x| origin.fetch(request(at(2, x, 0)));
    let (a, b, c, d) = tokio::join!(ask(0), ask(1), ask(2), ask(3));
    for result in [a, b, c, d] {
        let error = result.unwrap_err();
        assert!(error.detail.contains("PMTiles version 3"), "{error}");
    }
    assert_eq!(origin.stats().opened, 1);
    origin.fetch(request(at(2, 0, 0))).await.unwrap_err();
    assert_eq!(origin.stats().opened, 2, "who comes later asks anew");
}
