//! Exports of the demo's maps, read by GDAL: Debian's (`gdal-bin`), and for PMTiles the one of `PyPI`'s pyogrio,
//! since Debian 12's is older than GDAL's driver for that (3.8).

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tilekeep::archive;
use tilekeep::origin::Origin;
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileFormat, TilesetSpec};

use super::{Running, begin, ended};
use crate::peers::python_says;
use crate::support::{self, claims, config, spec, tileset, token};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tiles-sample");
const ALL: &str = "--bbox -180,-90,180,90 --zoom 0-5";
/// Half of the map's width in metres (EPSG:3857).
const HALF: f64 = 20_037_508.342_789_244;

/// The demo's maps, `world` being this one.
async fn server(folder: &str, format: TileFormat) -> Running {
    let mut tilejson = serde_json::Map::new();
    if format == TileFormat::Mvt {
        let layers = ["countries", "borders", "labels"]
            .map(|id| serde_json::json!({"id": id, "fields": {"name": "String"}}));
        tilejson.insert("vector_layers".into(), layers.to_vec().into());
    }
    let of = TilesetSpec {
        maxzoom: 5,
        attribution: "Made with Natural Earth".into(),
        tilejson,
        ..spec("world", format)
    };
    let origin = MemoryOrigin::new();
    let place = tileset(of.clone());
    let samples = archive::open(&Path::new(SAMPLES).join(folder)).unwrap();
    for tile in samples.tiles() {
        let (coord, body) = tile.unwrap();
        origin.put(&place, coord, Scale::One, body, None);
    }
    let origin: Arc<dyn Origin> = Arc::new(origin);
    support::start(config([of]), origin).await
}

async fn export(server: &Running, output: &Path) -> Value {
    let arguments = format!("{ALL} --concurrency 32 --output {}", output.display());
    let said = ended(begin(server, &token(&claims()), &arguments)).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    said.json["archive"].clone()
}

/// What one of GDAL's programs says.
fn gdal(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    let done = done.expect("GDAL is needed: apt-get install gdal-bin");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// Red, green and blue of a window of 256 pixels, band by band, as GDAL decodes them.
fn pixels(source: &Path, left: u32, top: u32, more: &[&str]) -> Vec<u8> {
    let raw = source.with_extension("raw");
    let (left, top) = (left.to_string(), top.to_string());
    let raw_bands = ["-q", "-of", "ENVI", "-co", "INTERLEAVE=BSQ"];
    let window = ["-srcwin", &left, &top, "256", "256"];
    let files = [source.to_str().unwrap(), raw.to_str().unwrap()];
    gdal(
        "gdal_translate",
        &[&raw_bands, &window, more, &files].concat(),
    );
    std::fs::read(raw).unwrap()
}

#[tokio::test]
async fn gdal_reads_a_raster_mbtiles_pixel_for_pixel() {
    let server = server("world", TileFormat::Png).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("world.mbtiles");
    let written = export(&server, &file).await;
    assert_eq!(written["tiles"], 1365);
    server.stop().await;

    let said = gdal("gdalinfo", &["-json", file.to_str().unwrap()]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["driverShortName"], "MBTiles");
    assert_eq!(said["size"], serde_json::json!([8192, 8192]));
    let corner = said["cornerCoordinates"]["upperLeft"].as_array().unwrap();
    let edges: Vec<f64> = corner.iter().filter_map(Value::as_f64).collect();
    assert!(
        (edges[0] + HALF).abs() < 1.0 && (edges[1] - HALF).abs() < 1.0,
        "{edges:?}"
    );
    let bands = said["bands"].as_array().unwrap();
    let colours: Vec<&str> = bands
        .iter()
        .filter_map(|band| band["colorInterpretation"].as_str())
        .collect();
    assert_eq!(colours, ["Red", "Green", "Blue", "Alpha"]);
    assert_eq!(
        bands[0]["overviews"].as_array().map(Vec::len),
        Some(5),
        "the zooms above the last"
    );
    let about = &said["metadata"][""];
    assert_eq!(about["attribution"], "Made with Natural Earth");
    assert_eq!(
        (&about["minzoom"], &about["maxzoom"]),
        (&"0".into(), &"5".into())
    );
    assert!(about["bounds"].as_str().unwrap().starts_with("-180,-85.05"));

    // Each tile in its place, and not one row off: the rows of MBTiles go up, GDAL's and ours go down.
    let bands = ["-b", "1", "-b", "2", "-b", "3"];
    for (x, y) in [(16, 11), (5, 12), (27, 20)] {
        let there = pixels(&file, x * 256, y * 256, &bands);
        let alone = folder.path().join("tile.png");
        let sample = format!("{SAMPLES}/world/5/{x}/{y}.png");
        std::fs::copy(sample, &alone).unwrap();
        let alone = pixels(&alone, 0, 0, &["-expand", "rgb"]);
        assert_eq!(there.len(), 3 * 256 * 256);
        assert!(there == alone, "5/{x}/{y}");
    }
}

/// Layers, how many features each has, what country Zürich is in, and how far the whole reaches.
const FEATURES: &str = r"
import sys, json, pyogrio
file = sys.argv[1]
layers = [str(name) for name, _ in pyogrio.list_layers(file)]
about = pyogrio.read_info(file, layer='countries')
x, y = 8.55 / 180 * 20037508.342789244, 6003000
meta, _, geometry, values = pyogrio.raw.read(file, layer='countries', bbox=(x, y, x + 1, y + 1), columns=['name'])
print(json.dumps({'driver': about['driver'], 'layers': layers, 'features': about['features'],
    'bounds': list(about['total_bounds']), 'about': about['dataset_metadata'],
    'here': sorted(set(str(name) for name in values[0]))}))
";

#[tokio::test]
async fn gdal_reads_the_layers_and_features_of_vector_exports() {
    let server = server("countries", TileFormat::Mvt).await;
    let folder = tempfile::tempdir().unwrap();
    let mut read = Vec::new();
    for (name, driver) in [("world.mbtiles", "MBTiles"), ("world.pmtiles", "PMTiles")] {
        let file = folder.path().join(name);
        export(&server, &file).await;
        let file = file.to_str().unwrap();
        let said: Value = serde_json::from_str(&python_says(FEATURES, &[file])).unwrap();
        assert_eq!(said["driver"], driver);
        let layers: Vec<&str> = said["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(layers, ["countries", "borders", "labels"]);
        assert_eq!(said["about"]["attribution"], "Made with Natural Earth");
        assert_eq!(said["here"], serde_json::json!(["Switzerland"]), "{said}");
        let east = said["bounds"][2].as_f64().unwrap();
        assert!((east - HALF).abs() < 1.0, "{said}");
        read.push(said["features"].as_u64().unwrap());
    }
    server.stop().await;
    assert!(read[0] > 1000 && read[0] == read[1], "{read:?}");

    // And Debian's own, which most people have.
    let file = folder.path().join("world.mbtiles");
    let said = gdal(
        "ogrinfo",
        &["-ro", "-so", file.to_str().unwrap(), "countries"],
    );
    assert!(
        said.contains(&format!("Feature Count: {}", read[0])) && said.contains("name: String"),
        "{said}"
    );
}
