//! Archives that we write, read by other people's software; and the other way round.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use tilekeep::archive::{self, ArchiveMetadata, ArchiveWriter, Begin, Export};
use tilekeep::tile::{TileCoord, TileFormat};

use crate::peers::{program, python_says};

fn at(z: u8, x: u32, y: u32) -> TileCoord {
    TileCoord::new(z, x, y).unwrap()
}

fn export(format: TileFormat) -> Export {
    Export {
        format,
        label: "http://localhost/world".into(),
    }
}

/// Every tile of zooms 0 to `zoom`; most are the sea's.
fn body(coord: TileCoord) -> Bytes {
    if (coord.x() + coord.y()).is_multiple_of(3) {
        Bytes::from(format!("land {coord}").repeat(9))
    } else {
        Bytes::from_static(b"the same sea everywhere")
    }
}

fn every(zoom: u8) -> impl Iterator<Item = TileCoord> {
    (0..=zoom)
        .flat_map(|z| (0..1u32 << z).flat_map(move |x| (0..1u32 << z).map(move |y| at(z, x, y))))
}

fn write(path: &Path, zoom: u8, format: TileFormat) {
    let mut writer = ArchiveWriter::create(path, &export(format), Begin::Anew).unwrap();
    for coord in every(zoom) {
        writer.put(coord, &body(coord)).unwrap();
    }
    let mut metadata = ArchiveMetadata::new(format);
    metadata.name = "World".into();
    metadata.attribution = "© us".into();
    writer.finish(metadata).unwrap();
}

/// Reads an archive as its format's own library does, and says each tile as `z/x/y sha256`.
const READ_PMTILES: &str = "
import sys, json, gzip, hashlib
from pmtiles.reader import Reader, MmapSource, all_tiles
with open(sys.argv[1], 'rb') as f:
    source = MmapSource(f)
    reader = Reader(source)
    h = reader.header()
    print(json.dumps([h['version'], h['clustered'], h['tile_type'].name, h['tile_compression'].name,
        h['min_zoom'], h['max_zoom'], h['addressed_tiles_count'], h['tile_entries_count'],
        h['tile_contents_count'], h['min_lon_e7'], h['max_lon_e7'], reader.metadata()['attribution']]))
    n = 0
    for (z, x, y), data in all_tiles(source):
        n += 1
        # It reads its directories anew each time.
        assert n % 97 or reader.get(z, x, y) == data
        if h['tile_compression'].name == 'GZIP':
            data = gzip.decompress(data)
        print(f'{z}/{x}/{y} {data.decode()}')
";

const READ_MBTILES: &str = "
import sys, json, gzip, sqlite3
db = sqlite3.connect(sys.argv[1])
meta = dict(db.execute('select name, value from metadata'))
print(json.dumps(meta))
assert db.execute('pragma integrity_check').fetchone() == ('ok',)
assert db.execute('pragma application_id').fetchone() == (0x4d504258,)
for z, x, y, data in db.execute('select zoom_level, tile_column, tile_row, tile_data from tiles'):
    if meta['format'] == 'pbf':
        data = gzip.decompress(data)
    print(f'{z}/{x}/{2 ** z - 1 - y} {bytes(data).decode()}')
";

/// The first line, and the others compared with what was written.
fn compared(said: &str, zoom: u8) -> serde_json::Value {
    let (first, lines) = said.split_once('\n').unwrap();
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    let text = |coord| String::from_utf8(body(coord).to_vec()).unwrap();
    let mut written: Vec<String> = every(zoom)
        .map(|coord| format!("{coord} {}", text(coord)))
        .collect();
    written.sort_unstable();
    assert_eq!(lines, written);
    serde_json::from_str(first).unwrap()
}

#[test]
fn pythons_pmtiles_reads_every_tile_and_the_header_that_we_write() {
    let folder = tempfile::tempdir().unwrap();
    for (format, kind, compression) in [
        (TileFormat::Png, "PNG", "NONE"),
        (TileFormat::Mvt, "MVT", "GZIP"),
    ] {
        let path = folder.path().join(format!("{kind}.pmtiles"));
        // Deep enough for leaf directories.
        write(&path, 7, format);
        let said = python_says(READ_PMTILES, &[path.to_str().unwrap()]);
        let header = compared(&said, 7);
        let tiles = every(7).count();
        let land = every(7).filter(|c| (c.x() + c.y()) % 3 == 0).count();
        assert_eq!(header[0], 3);
        assert_eq!(header[1], true, "clustered");
        assert_eq!(
            (&header[2], &header[3]),
            (&kind.into(), &compression.into())
        );
        assert_eq!((&header[4], &header[5]), (&0.into(), &7.into()));
        assert_eq!(header[6], tiles);
        assert_eq!(header[8], land + 1, "the sea is there once");
        assert_eq!(
            (&header[9], &header[10]),
            (&(-1_800_000_000).into(), &1_800_000_000.into())
        );
        assert_eq!(header[11], "© us");
        let show = Command::new(program("pmtiles-show"))
            .arg(&path)
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&show.stdout);
        assert!(
            show.status.success() && shown.contains("clustered"),
            "{shown}"
        );
    }
}

#[test]
fn sqlite_and_mbutil_read_every_tile_that_we_write() {
    let folder = tempfile::tempdir().unwrap();
    for (format, word) in [(TileFormat::Png, "png"), (TileFormat::Mvt, "pbf")] {
        let path = folder.path().join(format!("{word}.mbtiles"));
        write(&path, 5, format);
        let metadata = compared(&python_says(READ_MBTILES, &[path.to_str().unwrap()]), 5);
        assert_eq!(metadata["format"], word);
        assert_eq!(
            (&metadata["minzoom"], &metadata["maxzoom"]),
            (&"0".into(), &"5".into())
        );
        assert_eq!(metadata["name"], "World");
        assert_eq!(metadata["attribution"], "© us");
        assert_eq!(metadata.get("json").is_some(), word == "pbf", "{metadata}");
    }
    // And into a folder, which is read here again.
    let out = folder.path().join("out");
    let done = Command::new(program("mb-util"))
        .args(["--image_format=png", "--scheme=xyz", "--silent"])
        .arg(folder.path().join("png.mbtiles"))
        .arg(&out)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let archive = archive::open(&out).unwrap();
    assert_eq!(archive.metadata().attribution, "© us");
    assert_eq!(
        (archive.metadata().minzoom, archive.metadata().maxzoom),
        (0, 5)
    );
    same_tiles(&out, 5);
}

fn same_tiles(path: &Path, zoom: u8) {
    let mut tiles: Vec<_> = archive::open(path)
        .unwrap()
        .tiles()
        .map(Result::unwrap)
        .collect();
    tiles.sort();
    let mut written: Vec<_> = every(zoom).map(|coord| (coord, body(coord))).collect();
    written.sort();
    assert!(tiles == written);
}

#[test]
fn what_others_write_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.mbtiles");
    write(&source, 6, TileFormat::Png);
    let converted = folder.path().join("theirs.pmtiles");
    python_says(
        "import sys\nfrom pmtiles.convert import mbtiles_to_pmtiles\n\
         mbtiles_to_pmtiles(sys.argv[1], sys.argv[2], None)",
        &[source.to_str().unwrap(), converted.to_str().unwrap()],
    );
    same_tiles(&converted, 6);
    let archive = archive::open(&converted).unwrap();
    assert_eq!(archive.metadata().format, TileFormat::Png);
    assert_eq!(archive.metadata().attribution, "© us");
    let back = folder.path().join("back.mbtiles");
    python_says(
        "import sys\nfrom pmtiles.convert import pmtiles_to_mbtiles\n\
         pmtiles_to_mbtiles(sys.argv[1], sys.argv[2])",
        &[converted.to_str().unwrap(), back.to_str().unwrap()],
    );
    same_tiles(&back, 6);
}

const FOLDER: &str = "TILEKEEP_TEST_ARCHIVE_FOLDER";

/// Not a test of its own: the role of the child, which is killed. Each tile whose `put` has returned is
/// told on stdout, one byte each.
#[test]
fn a_child_that_exports_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let path = PathBuf::from(folder).join("a.pmtiles");
    let mut writer = ArchiveWriter::create(&path, &export(TileFormat::Png), Begin::Resume).unwrap();
    let mut out = std::io::stdout().lock();
    for coord in every(6) {
        if !writer.contains(coord) {
            writer.put(coord, &body(coord)).unwrap();
            out.write_all(b"+").unwrap();
            out.flush().unwrap();
        }
    }
    writer
        .finish(ArchiveMetadata::new(TileFormat::Png))
        .unwrap();
}

#[test]
fn after_every_kill_nine_an_export_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pmtiles");
    let (mut told, mut kills) = (0, 0);
    while !path.exists() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "archives::a_child_that_exports_until_it_is_killed",
            ])
            .args(["--nocapture", "--quiet"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut some = [0; 777];
        let alive = out.read_exact(&mut some).is_ok();
        let _ = child.kill();
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        child.wait().unwrap();
        let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).matches('+').count();
        told += if alive { count(&some) } else { 0 } + count(&rest);
        kills += usize::from(alive);
        assert!(kills < 50, "it gets nowhere");
    }
    assert!(kills >= 4, "{kills} kills");
    // Each kill may lose what was told of one tile, never the tile.
    let tiles = every(6).count();
    assert!(told <= tiles, "{told} fetched for {tiles} tiles");
    same_tiles(&path, 6);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "the archive alone");
}

#[test]
fn a_disk_that_is_full_is_said_and_what_was_fetched_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pmtiles");
    // A bound on the size of files stands in for the disk's: the same calls fail in the same places.
    let run = |limit: &str| {
        let done = Command::new("sh")
            .arg("-c")
            .arg(format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\""))
            .arg("sh")
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "archives::a_child_that_exports_until_it_is_killed",
            ])
            .args(["--nocapture", "--quiet"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        (
            done.status.success(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    for limit in ["16", "200"] {
        let (worked, said) = run(limit);
        assert!(
            !worked && said.contains("a.pmtiles.partial") && said.contains("File too large"),
            "{said}"
        );
        assert!(!path.exists());
    }
    assert!(run("unlimited").0);
    same_tiles(&path, 6);
}
