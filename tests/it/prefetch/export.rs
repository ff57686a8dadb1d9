//! Archives: read by other people's programs, resumed, and not written with holes.

use std::sync::Arc;

use serde_json::json;
use tilekeep::origin::failing::Fault;
use tilekeep::origin::{Origin, OriginErrorKind};
use tilekeep::tile::{TileFormat, TilesetSpec};

use super::{
    ABSENT, TILES, WORLD, begin, counts, ended, origin_of, prefetch, server, until, world,
};
use crate::peers::python_says;
use crate::support::{self, claims, config, spec, token};

const PMTILES: &str = r"
import sys, json, gzip
from pmtiles.reader import Reader, MmapSource, all_tiles
with open(sys.argv[1], 'rb') as file:
    reader = Reader(MmapSource(file))
    header, about = reader.header(), reader.metadata()
    tiles = list(all_tiles(reader.get_bytes))
    one = reader.get(4, 3, 5)
    if one[:2] == b'\x1f\x8b': one = gzip.decompress(one)
    print(json.dumps({'tiles': len(tiles), 'one': one.decode(), 'attribution': about.get('attribution'),
        'layers': about.get('vector_layers'), 'minzoom': header['min_zoom'], 'maxzoom': header['max_zoom'],
        'type': header['tile_type'].name}))
";

const MBTILES: &str = r"
import sys, json, sqlite3
db = sqlite3.connect(sys.argv[1])
print(json.dumps({'tiles': db.execute('select count(*) from tiles').fetchone()[0],
    'one': db.execute('select tile_data from tiles where zoom_level=4 and tile_column=3 and tile_row=10').fetchone()[0].decode(),
    'about': dict(db.execute('select name, value from metadata'))}))
";

#[tokio::test]
async fn an_exported_archive_is_read_by_other_peoples_programs() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let pmtiles = file("world.pmtiles");
    let said = prefetch(&server, &format!("{WORLD} --output {pmtiles}")).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    counts(&said, &[("absent", ABSENT)]);
    assert_eq!(said.json["archive"]["tiles"], TILES - ABSENT);
    let read: serde_json::Value = serde_json::from_str(&python_says(PMTILES, &[&pmtiles])).unwrap();
    assert_eq!(read["tiles"], TILES - ABSENT);
    assert_eq!(
        (&read["one"], &read["type"]),
        (&json!("tile 4/3/5"), &json!("PNG"))
    );
    assert_eq!(read["attribution"], "© everybody");
    assert_eq!((&read["minzoom"], &read["maxzoom"]), (&json!(0), &json!(4)));

    if cfg!(feature = "mbtiles") {
        let mbtiles = file("world.mbtiles");
        let said = prefetch(&server, &format!("{WORLD} --output {mbtiles}")).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let read: serde_json::Value =
            serde_json::from_str(&python_says(MBTILES, &[&mbtiles])).unwrap();
        assert_eq!(read["tiles"], TILES - ABSENT);
        assert_eq!(read["one"], "tile 4/3/5");
        assert_eq!(read["about"]["attribution"], "© everybody");
        assert_eq!(read["about"]["format"], "png");
    }
    server.stop().await;
}

#[tokio::test]
async fn vector_tiles_keep_their_layers_and_their_gzip() {
    let mut tilejson = serde_json::Map::new();
    tilejson.insert(
        "vector_layers".into(),
        json!([{"id": "land", "fields": {}}]),
    );
    let vector = TilesetSpec {
        maxzoom: 4,
        tilejson,
        ..spec("world", TileFormat::Mvt)
    };
    let origin: Arc<dyn Origin> = origin_of(vector.clone());
    let server = support::start(config([vector]), origin).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("world.pmtiles").display().to_string();
    let said = prefetch(&server, &format!("{WORLD} --output {output}")).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let read: serde_json::Value = serde_json::from_str(&python_says(PMTILES, &[&output])).unwrap();
    assert_eq!(
        (&read["one"], &read["type"]),
        (&json!("tile 4/3/5"), &json!("MVT"))
    );
    assert_eq!(read["layers"][0]["id"], "land");
    server.stop().await;
}

#[tokio::test]
async fn an_export_with_holes_is_not_written_unless_that_is_asked_for() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("world.pmtiles");
    origin.fail_next(1, Fault::error(OriginErrorKind::Denied));
    let args = format!(
        "--bbox -180,-90,180,90 --zoom 0-2 --attempts 1 --concurrency 1 --output {}",
        output.display()
    );
    let failed = prefetch(&server, &args).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    counts(&failed, &[("failed", 1)]);
    assert!(
        failed.stderr.contains("--allow-missing") && !output.exists(),
        "{failed:?}"
    );
    let begun = prefetch(&server, &args).await;
    assert_eq!(begun.code, Some(2));
    assert!(begun.stderr.contains("--resume"), "{begun:?}");
    origin.fail_always(Fault::error(OriginErrorKind::Denied));
    let holes = prefetch(&server, &format!("{args} --resume --allow-missing")).await;
    assert_eq!(holes.code, Some(1), "{holes:?}");
    counts(&holes, &[("failed", 1), ("in_archive", 20)]);
    assert_eq!(holes.json["archive"]["complete"], false);
    assert_eq!(holes.json["archive"]["tiles"], 20);
    assert!(output.exists());
    server.stop().await;
}

#[tokio::test]
async fn an_export_that_is_killed_goes_on_with_what_it_has() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("world.pmtiles").display().to_string();
    let args = format!("{WORLD} --resume --output {output}");
    for more in [20, 80, 200] {
        let mut child = begin(&server, &token(&claims()), &format!("{args} --rate 300"));
        until(|| origin.calls() > more).await;
        child.kill().unwrap();
        ended(child).await;
    }
    let said = prefetch(&server, &args).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.json["in_archive"].as_u64().unwrap() > 150, "{said:?}");
    assert_eq!(said.json["archive"]["tiles"], TILES - ABSENT);
    let read: serde_json::Value = serde_json::from_str(&python_says(PMTILES, &[&output])).unwrap();
    assert_eq!(
        (&read["tiles"], &read["one"]),
        (&json!(TILES - ABSENT), &json!("tile 4/3/5"))
    );
    server.stop().await;
}
