//! Packs `tiles-sample/` into one file that `embedded_s3::samples` embeds, so that `tilekeep demo`
//! works from anywhere. A module of the build script, with nothing but the standard library.
//!
//! Format, integers little-endian: `TKPACK1\n`, u32 count, then for each object, sorted by key:
//! u16 length of the key, key, u64 offset from the start of the bodies, u32 length of the body; then
//! the bodies. Equal bodies (open sea) are kept once.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::{env, fs, io};

const EXTENSIONS: [&str; 7] = ["png", "jpg", "webp", "avif", "mvt", "pbf", "json"];

/// Writes `OUT_DIR/samples.pack` and sets `cfg(tilekeep_samples)`, if the demo is to be built.
pub fn pack() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build_samples.rs");
    println!("cargo:rerun-if-changed=tiles-sample");
    let (Some(root), Some(out)) = (env::var_os("CARGO_MANIFEST_DIR"), env::var_os("OUT_DIR"))
    else {
        return Ok(());
    };
    let folder = Path::new(&root).join("tiles-sample");
    if env::var_os("CARGO_FEATURE_DEMO").is_none() || !folder.is_dir() {
        return Ok(());
    }
    let mut objects = BTreeMap::new();
    collect(&folder, "", &mut objects)?;

    let (mut index, mut bodies) = (Vec::new(), Vec::new());
    let mut kept: HashMap<&[u8], u64> = HashMap::new();
    for (key, body) in &objects {
        let offset = *kept.entry(body.as_slice()).or_insert_with(|| {
            let offset = bodies.len() as u64;
            bodies.extend_from_slice(body);
            offset
        });
        index.extend_from_slice(&number::<u16>(key.len())?.to_le_bytes());
        index.extend_from_slice(key.as_bytes());
        index.extend_from_slice(&offset.to_le_bytes());
        index.extend_from_slice(&number::<u32>(body.len())?.to_le_bytes());
    }
    let mut pack = b"TKPACK1\n".to_vec();
    pack.extend_from_slice(&number::<u32>(objects.len())?.to_le_bytes());
    pack.extend_from_slice(&index);
    pack.extend_from_slice(&bodies);
    fs::write(Path::new(&out).join("samples.pack"), pack)?;
    println!("cargo:rustc-cfg=tilekeep_samples");
    Ok(())
}

fn collect(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let key = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{key}/"), objects)?;
        } else if EXTENSIONS
            .iter()
            .any(|ext| key.ends_with(&format!(".{ext}")))
        {
            objects.insert(key, fs::read(entry.path())?);
        }
    }
    Ok(())
}

fn number<N: TryFrom<usize>>(value: usize) -> io::Result<N> {
    N::try_from(value).map_err(|_| io::Error::other("too large for the pack of sample tiles"))
}
