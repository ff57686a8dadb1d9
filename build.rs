//! Turns `web/` into the table of assets that `src/http/assets.rs` serves.
//!
//! The map page's libraries come from npm by lock file. When npm is on the machine and
//! `web/node_modules` is not in step with `web/package-lock.json`, `npm ci` is run there; when it is
//! in step, the files are embedded as they are. Without npm, with `TILEKEEP_NO_NPM` set, or when
//! `npm ci` fails, the build still works: one warning says so, and the pages load the libraries from
//! a CDN under the integrity hashes of `web/cdn.json`.
//!
//! Everything that is embedded is first copied to `OUT_DIR`, so that removing `node_modules` later
//! breaks nothing. Nothing that cargo watches is written here, but for a first `npm ci`.

mod build_samples;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

const FORBID_NPM: &str = "TILEKEEP_NO_NPM";

/// Library files that are embedded: the name they are known by, and where npm puts them.
///
/// `MapLibre`'s CSP build keeps its worker in a file of its own, so that no `blob:` worker is needed.
const LIBRARY_FILES: &[(&str, &str)] = &[
    ("leaflet.css", "leaflet/dist/leaflet.css"),
    ("leaflet.js", "leaflet/dist/leaflet.js"),
    ("maplibre-gl.css", "maplibre-gl/dist/maplibre-gl.css"),
    ("maplibre-gl.js", "maplibre-gl/dist/maplibre-gl-csp.js"),
    (
        "maplibre-gl-worker.js",
        "maplibre-gl/dist/maplibre-gl-csp-worker.js",
    ),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    build_samples::pack()?;
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?).join("assets");
    let web = root.join("web");
    fs::create_dir_all(&out)?;

    println!("cargo::rerun-if-env-changed={FORBID_NPM}");
    for watched in [
        "build.rs",
        "web/static",
        "web/cdn.json",
        "web/package.json",
        "web/package-lock.json",
    ] {
        println!("cargo::rerun-if-changed={watched}");
    }

    let embedded = match install(&web) {
        Ok(()) => true,
        Err(why) => {
            println!(
                "cargo::warning={why}: the map page will load its libraries from a CDN, with integrity hashes"
            );
            false
        }
    };

    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for entry in fs::read_dir(web.join("static"))? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path.is_file()
            && !name.starts_with('.')
        {
            files.push((name.to_owned(), path));
        }
    }
    if embedded {
        for (name, place) in LIBRARY_FILES {
            files.push(((*name).to_owned(), web.join("node_modules").join(place)));
        }
    }
    // Directory order differs between machines; the binary should not.
    files.sort();

    let mut table = String::from("static ASSETS: &[Asset] = &[\n");
    for (name, path) in &files {
        embed(name, path, &out, &mut table)?;
    }
    table.push_str("];\n");
    cdn(&web.join("cdn.json"), embedded, &mut table)?;
    write_if_changed(&out.join("assets.rs"), table.as_bytes())?;
    Ok(())
}

/// Sees to it that `node_modules` holds what the lock file says, or tells why it does not.
fn install(web: &Path) -> Result<(), String> {
    if in_step(web) {
        return Ok(());
    }
    if env::var_os(FORBID_NPM).is_some() {
        // A later `npm ci` by hand should be noticed. (Watching the folder only while there is
        // nothing in it: cargo would walk all of node_modules at every build.)
        println!("cargo::rerun-if-changed=web");
        return Err(format!("{FORBID_NPM} forbids npm"));
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let ran = Command::new(npm)
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefer-offline",
            "--fetch-retries=1",
        ])
        .current_dir(web)
        .stdin(Stdio::null())
        .output();
    match ran {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("cargo::rerun-if-changed=web");
            Err("npm was not found".to_owned())
        }
        Err(error) => Err(format!("npm could not be started ({error})")),
        Ok(output) if !output.status.success() => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text
                .lines()
                .find(|line| line.starts_with("npm error") && line.len() > "npm error code ".len())
                .unwrap_or("no reason given");
            Err(format!("`npm ci` in web/ failed ({line})"))
        }
        Ok(_) if in_step(web) => Ok(()),
        Ok(_) => Err("`npm ci` in web/ left out files that the map page needs".to_owned()),
    }
}

/// Whether `node_modules` already holds the packages of the lock file, by npm's own record of them.
fn in_step(web: &Path) -> bool {
    let (Some(wanted), Some(installed)) = (
        read_json(&web.join("package-lock.json")),
        read_json(&web.join("node_modules/.package-lock.json")),
    ) else {
        return false;
    };
    let (Some(wanted), Some(installed)) = (
        wanted["packages"].as_object(),
        installed["packages"].as_object(),
    ) else {
        return false;
    };
    wanted
        .iter()
        .filter(|(path, package)| !path.is_empty() && package["optional"] != true)
        .all(|(path, package)| {
            installed.get(path).is_some_and(|there| {
                there["version"] == package["version"] && there["integrity"] == package["integrity"]
            })
        })
        && LIBRARY_FILES
            .iter()
            .all(|(_, place)| web.join("node_modules").join(place).is_file())
}

/// Copies one file to `OUT_DIR` (compressed, when it is text) and adds its line to the table.
fn embed(name: &str, path: &Path, out: &Path, table: &mut String) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let (content_type, is_text) = match extension {
        "css" => ("text/css; charset=utf-8", true),
        "js" => ("text/javascript; charset=utf-8", true),
        "svg" => ("image/svg+xml", true),
        "png" => ("image/png", false),
        "ico" => ("image/x-icon", false),
        _ => ("application/octet-stream", false),
    };
    // The hash only tells one version from the next; nobody gains by forging it.
    let hash = format!("{:016x}", twox_hash::XxHash3_64::oneshot(&bytes));
    let (stored_as, stored) = if is_text {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        io::Write::write_all(&mut encoder, &bytes)?;
        (format!("{name}.gz"), encoder.finish()?)
    } else {
        (name.to_owned(), bytes)
    };
    write_if_changed(&out.join(&stored_as), &stored)?;
    writeln!(
        table,
        "    Asset {{ name: {name:?}, path: \"/assets/{stem}-{hash}.{extension}\", content_type: {content_type:?}, hash: {hash:?}, gzipped: {is_text}, bytes: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/assets/{stored_as}\")) }},"
    )
    .map_err(io::Error::other)
}

/// Adds the CDN's addresses, for snippets and for pages that have nothing embedded.
fn cdn(path: &Path, embedded: bool, table: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let cdn: Value = serde_json::from_slice(&fs::read(path)?)?;
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or("web/cdn.json: a text is missing")
    };
    writeln!(table, "const LIBRARIES_EMBEDDED: bool = {embedded};")?;
    writeln!(
        table,
        "const CDN_ORIGIN: &str = {:?};",
        text(&cdn["origin"])?
    )?;
    table.push_str("static CDN: &[CdnFile] = &[\n");
    for file in cdn["files"].as_array().into_iter().flatten() {
        writeln!(
            table,
            "    CdnFile {{ name: {:?}, url: {:?}, integrity: {:?} }},",
            text(&file["name"])?,
            text(&file["url"])?,
            text(&file["integrity"])?
        )?;
    }
    table.push_str("];\n");
    Ok(())
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::write(path, bytes)
}
