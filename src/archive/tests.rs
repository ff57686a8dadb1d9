#![allow(
    clippy::float_cmp,
    reason = "degrees that are written and read again are the same"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::tile::{Bounds, TileFormat};

fn at(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

fn export(format: TileFormat) -> Export {
    Export {
        format,
        label: "http://localhost/world".into(),
    }
}

fn begin(path: &Path, begin: Begin) -> Result<ArchiveWriter, ArchiveError> {
    ArchiveWriter::create(path, &export(TileFormat::Png), begin)
}

fn metadata(format: TileFormat) -> ArchiveMetadata {
    ArchiveMetadata {
        name: "World".into(),
        attribution: "<a href=\"https://example.com\">© us</a>".into(),
        ..ArchiveMetadata::new(format)
    }
}

fn read(path: &Path) -> BTreeMap<TileCoord, Bytes> {
    let archive = open(path).unwrap();
    let tiles: Vec<_> = archive.tiles().map(Result::unwrap).collect();
    if let Some(count) = archive.count() {
        assert_eq!(count, tiles.len() as u64);
    }
    let all: BTreeMap<_, _> = tiles.iter().cloned().collect();
    assert_eq!(all.len(), tiles.len(), "each tile once");
    all
}

const KINDS: [&str; 2] = ["a.pmtiles", "a.mbtiles"];

#[test]
fn what_is_put_is_read_and_identical_tiles_are_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let sea = Bytes::from(vec![b's'; 2000]);
    for name in KINDS {
        let path = folder.path().join(name);
        let mut writer = begin(&path, Begin::Anew).unwrap();
        let mut tiles = BTreeMap::new();
        for (x, y) in (0..64).flat_map(|x| (0..64).map(move |y| (x, y))) {
            // No land where x and y are even, and not all at once in order.
            let body = if x % 7 == 0 {
                Bytes::from(format!("land {x} {y}"))
            } else {
                sea.clone()
            };
            tiles.insert(at(6, x, y), body);
        }
        for (coord, body) in &tiles {
            assert!(!writer.contains(*coord));
            writer.put(*coord, body).unwrap();
            assert!(writer.contains(*coord));
        }
        writer.put_absent(at(7, 0, 0)).unwrap();
        writer.put(at(7, 0, 1), &Bytes::new()).unwrap();
        assert!(!path.exists(), "nothing under its name before it is whole");
        let summary = writer.finish(metadata(TileFormat::Png)).unwrap();
        assert_eq!(
            (summary.tiles, summary.distinct, summary.absent),
            (4096, 641, 2)
        );
        assert_eq!((summary.minzoom, summary.maxzoom), (6, 6));
        assert!(
            summary.bytes < 200_000,
            "{name}: {} bytes for 7 MB of sea",
            summary.bytes
        );
        assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());
        assert_eq!(read(&path), tiles, "{name}");
        let archive = open(&path).unwrap();
        let said = archive.metadata();
        assert_eq!(said.attribution, metadata(TileFormat::Png).attribution);
        assert_eq!(
            (said.name.as_str(), said.format),
            ("World", TileFormat::Png)
        );
        let [w, s, e, n] = said.bounds.unwrap().to_array();
        assert!(
            w == -180.0 && e == 180.0 && n > 85.0 && s < -85.0,
            "{:?}",
            said.bounds
        );
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn vector_tiles_are_compressed_once_and_their_layers_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let layers = json!([{"id": "roads", "fields": {"class": "String"}}]);
    for name in KINDS {
        let path = folder.path().join(name);
        let mut writer =
            ArchiveWriter::create(&path, &export(TileFormat::Mvt), Begin::Anew).unwrap();
        let plain = Bytes::from_static(b"\x1a\x05plain");
        writer.put(at(1, 0, 0), &plain).unwrap();
        writer
            .put(
                at(1, 1, 0),
                &Bytes::from(super::writer::gzip(&plain).unwrap()),
            )
            .unwrap();
        let mut said = metadata(TileFormat::Mvt);
        said.other.insert("vector_layers".into(), layers.clone());
        said.bounds = Some(Bounds::new([176.0, -20.0, -178.0, -15.0]).unwrap());
        let summary = writer.finish(said).unwrap();
        assert_eq!((summary.tiles, summary.distinct), (2, 1), "{name}");
        for body in read(&path).values() {
            let mut inflated = Vec::new();
            flate2::read::GzDecoder::new(&body[..])
                .read_to_end(&mut inflated)
                .unwrap();
            assert_eq!(inflated, plain);
        }
        let archive = open(&path).unwrap();
        assert_eq!(archive.metadata().encoding, Encoding::Gzip);
        assert_eq!(archive.metadata().other["vector_layers"], layers);
        let [w, s, e, n] = archive.metadata().bounds.unwrap().to_array();
        assert_eq!(
            [w, s, e, n],
            [-180.0, -20.0, 180.0, -15.0],
            "across the antimeridian"
        );
    }
}

#[test]
fn a_torn_spool_loses_its_torn_end_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pmtiles");
    let spool = folder.path().join("a.pmtiles.partial");
    let mut writer = begin(&path, Begin::Anew).unwrap();
    let mut ends = Vec::new();
    for x in 0..8 {
        let body = Bytes::from(format!("tile {}", x % 3));
        writer.put(at(3, x, 0), &body).unwrap();
        ends.push(fs::metadata(&spool).unwrap().len());
    }
    drop(writer);
    let whole = fs::read(&spool).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&spool, &whole[..cut]).unwrap();
        let mut writer = begin(&path, Begin::Resume).unwrap();
        for (x, end) in (0..8).zip(&ends) {
            let there = cut as u64 >= *end;
            assert_eq!(
                writer.contains(at(3, x, 0)),
                there,
                "cut at {cut}, tile {x}"
            );
            if !there {
                writer
                    .put(at(3, x, 0), &Bytes::from(format!("tile {}", x % 3)))
                    .unwrap();
            }
        }
        assert_eq!(
            fs::read(&spool).unwrap(),
            whole,
            "cut at {cut}: as if nothing had happened"
        );
    }
    for flipped in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[flipped] ^= 1;
        fs::write(&spool, &bytes).unwrap();
        let Ok(writer) = begin(&path, Begin::Resume) else {
            assert!(flipped < 40, "the first line is another's");
            continue;
        };
        for (coord, body) in finished(writer, &path) {
            assert_eq!(body, format!("tile {}", coord.x() % 3));
        }
    }
}

/// The tiles of an archive that may turn out to have none.
fn finished(writer: ArchiveWriter, path: &Path) -> BTreeMap<TileCoord, Bytes> {
    match writer.finish(metadata(TileFormat::Png)) {
        Ok(_) => read(path),
        Err(ArchiveError::Empty { .. }) => BTreeMap::new(),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_export_goes_on_only_with_its_own_and_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mbtiles");
    let mut writer = begin(&path, Begin::Anew).unwrap();
    writer.put(at(0, 0, 0), &Bytes::from_static(b"x")).unwrap();
    let busy = begin(&path, Begin::Resume).err().unwrap().to_string();
    assert!(busy.contains("another process"), "{busy}");
    drop(writer);
    let begun = begin(&path, Begin::Anew).err().unwrap().to_string();
    assert!(
        begun.contains("a.mbtiles.partial") && begun.contains("--resume"),
        "{begun}"
    );
    let other = Export {
        label: "http://localhost/other".into(),
        ..export(TileFormat::Png)
    };
    let other = ArchiveWriter::create(&path, &other, Begin::Resume);
    let other = other.err().unwrap().to_string();
    assert!(
        other.contains("localhost/world") && other.contains("localhost/other"),
        "{other}"
    );
    let writer = begin(&path, Begin::Resume).unwrap();
    assert!(writer.contains(at(0, 0, 0)));
}

#[test]
fn what_cannot_be_written_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("a.zip");
    let refused = begin(&name, Begin::Anew).err().unwrap().to_string();
    assert!(refused.contains(".pmtiles or .mbtiles"), "{refused}");
    let nowhere = folder.path().join("no/a.pmtiles");
    let refused = begin(&nowhere, Begin::Anew).err().unwrap().to_string();
    assert!(refused.contains("check the path"), "{refused}");
    let path = folder.path().join("a.pmtiles");
    let mut writer = begin(&path, Begin::Anew).unwrap();
    writer.put_absent(at(0, 0, 0)).unwrap();
    assert!(matches!(
        writer.finish(metadata(TileFormat::Png)),
        Err(ArchiveError::Empty { .. })
    ));
    // A folder of its name: it can be made, and not be put there.
    let mut writer = begin(&path, Begin::Resume).unwrap();
    writer.put(at(0, 0, 0), &Bytes::from_static(b"x")).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(writer.finish(metadata(TileFormat::Png)).is_err());
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "the folder and what was fetched: {left:?}");
}

#[test]
fn a_folder_is_read_and_what_is_no_tile_is_named() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiles-sample");
    let archive = open(&samples.join("countries")).unwrap();
    assert_eq!(archive.metadata().format, TileFormat::Mvt);
    assert_eq!(archive.metadata().minzoom, 0);
    assert!(archive.tiles().all(|tile| tile.is_ok()));
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"\x89PNG").unwrap();
    };
    let failure = || {
        let archive = open(folder.path()).unwrap();
        let failure = archive.tiles().find_map(Result::err);
        failure.map(|error| error.to_string())
    };
    let empty = open(folder.path()).err().unwrap().to_string();
    assert!(empty.contains("z/x/y.png"), "{empty}");
    put("2/1/3.png");
    put("2/1/.DS_Store");
    put("README.md");
    fs::write(
        folder.path().join("metadata.json"),
        r#"{"name":"W","bounds":"0,0,9,9","json":"{\"a\":1}"}"#,
    )
    .unwrap();
    assert_eq!(failure(), None);
    let archive = open(folder.path()).unwrap();
    assert_eq!(archive.metadata().name, "W");
    assert_eq!(archive.metadata().other["a"], 1);
    assert_eq!(
        archive.metadata().bounds.unwrap().to_array(),
        [0.0, 0.0, 9.0, 9.0]
    );
    for (wrong, said) in [
        ("2/1/3@2x.png", "no tile"),
        ("2/1/4.png", "below 2^2"),
        ("2/1/2.jpg", "one folder holds one format"),
    ] {
        put(wrong);
        let failure = failure().unwrap();
        assert!(
            failure.contains(wrong) && failure.contains(said),
            "{failure}"
        );
        fs::remove_file(folder.path().join(wrong)).unwrap();
    }
}

#[test]
fn a_file_that_is_no_archive_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in KINDS {
        let path = folder.path().join(name);
        fs::write(&path, b"<html>not found</html>, and this is more than a header's length, which is 127 bytes: so there is more and more of it here.").unwrap();
        let said = open(&path).err().unwrap().to_string();
        assert!(said.contains(name), "{said}");
        fs::write(&path, b"").unwrap();
        assert!(open(&path).is_err());
    }
}

#[test]
fn an_archive_that_is_cut_or_altered_is_an_error_or_the_same_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pmtiles");
    let mut writer = begin(&path, Begin::Anew).unwrap();
    for x in 0..16 {
        writer
            .put(at(4, x, 3), &Bytes::from(format!("tile {x}")))
            .unwrap();
    }
    writer.finish(metadata(TileFormat::Png)).unwrap();
    let whole = fs::read(&path).unwrap();
    let used: Vec<usize> = (0..whole.len())
        .filter(|at| *at < 300 || *at > 16_384)
        .collect();
    for &cut in &used {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(open(&path).is_err(), "cut at {cut}");
    }
    for &flipped in &used {
        let mut bytes = whole.clone();
        bytes[flipped] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        if let Ok(archive) = open(&path) {
            assert!(archive.tiles().count() < 10_000);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tiles_come_back_from_either_format(
        tiles in proptest::collection::btree_map(
            (0u8..=30, any::<u32>(), any::<u32>()),
            proptest::collection::vec(0u8..4, 1..6),
            1..60,
        ),
        killed in 0usize..60,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let tiles: BTreeMap<TileCoord, Bytes> = tiles
            .into_iter()
            .map(|((z, x, y), body)| {
                let mask = (1u32 << z) - 1;
                (at(z, x & mask, y & mask), body.into())
            })
            .collect();
        for name in KINDS {
            let path = folder.path().join(name);
            let mut writer = begin(&path, Begin::Anew).unwrap();
            for (nth, (coord, body)) in tiles.iter().enumerate() {
                if nth == killed {
                    drop(writer);
                    writer = begin(&path, Begin::Resume).unwrap();
                }
                writer.put(*coord, body).unwrap();
            }
            writer.finish(metadata(TileFormat::Png)).unwrap();
            prop_assert_eq!(&read(&path), &tiles);
        }
    }
}
