//! Buckets: a source that is only read, and an overlay in memory over it that is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use bytes::Bytes;
use s3s::crypto::{Checksum, Crc64Nvme, Md5};

use super::samples::{self, Pack};
use super::{BucketSettings, BucketSource, PutOptions};
use crate::clock::Timestamp;

/// What the overlays of all buckets may hold together.
const OVERLAY_BYTES: usize = 512 << 20;
/// When the embedded samples were written: a fixed moment, so that builds are reproducible.
const SAMPLES_WRITTEN: Timestamp = Timestamp::from_secs(1_760_000_000);

/// An object, whole.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) body: Bytes,
    /// MD5 in hex, without quotes.
    pub(super) etag: String,
    /// As `x-amz-checksum-crc64nvme` carries it, before base64.
    pub(super) crc64: [u8; 8],
    pub(super) last_modified: SystemTime,
    pub(super) options: PutOptions,
}

impl Object {
    fn new(body: Bytes, last_modified: SystemTime, options: PutOptions) -> Self {
        use std::fmt::Write;
        let mut etag = String::with_capacity(32);
        for byte in Md5::checksum(&body) {
            // Writing to a String cannot fail.
            let _ = write!(etag, "{byte:02x}");
        }
        Self {
            etag,
            crc64: Crc64Nvme::checksum(&body),
            body,
            last_modified,
            options,
        }
    }
}

#[derive(Debug)]
enum Source {
    Empty,
    Folder(PathBuf),
    Pack(&'static Pack),
}

/// One bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    source: Source,
    pub(super) public_read: bool,
    pub(super) block_public_access: bool,
    /// `None` is a deleted object.
    overlay: RwLock<BTreeMap<String, Option<Arc<Object>>>>,
}

/// Every bucket.
#[derive(Debug)]
pub(super) struct Store(HashMap<String, Bucket>);

impl Store {
    pub(super) fn new(buckets: Vec<BucketSettings>) -> Self {
        Self(
            buckets
                .into_iter()
                .map(|settings| {
                    let source = match settings.source {
                        BucketSource::Empty => Source::Empty,
                        BucketSource::Folder(folder) => Source::Folder(folder),
                        BucketSource::Samples => match samples::embedded() {
                            Some(pack) => Source::Pack(pack),
                            None => samples::folder().map_or(Source::Empty, Source::Folder),
                        },
                    };
                    let bucket = Bucket {
                        source,
                        public_read: settings.public_read,
                        block_public_access: settings.block_public_access,
                        overlay: RwLock::default(),
                    };
                    (settings.name, bucket)
                })
                .collect(),
        )
    }

    pub(super) fn bucket(&self, name: &str) -> Option<&Bucket> {
        self.0.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether this much more may be written.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let held: usize = self.0.values().map(Bucket::overlay_bytes).sum();
        held.saturating_add(bytes) <= OVERLAY_BYTES
    }
}

impl Bucket {
    /// The object at a key. Blocks for a file's read.
    pub(super) fn get(&self, key: &str) -> io::Result<Option<Arc<Object>>> {
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = overlay.get(key) {
            return Ok(entry.clone());
        }
        drop(overlay);
        let (body, written) = match &self.source {
            Source::Empty => return Ok(None),
            Source::Pack(pack) => match pack.get(key) {
                Some(body) => (body.clone(), SAMPLES_WRITTEN.to_system_time()),
                None => return Ok(None),
            },
            Source::Folder(folder) => match read_file(folder, key)? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let options = PutOptions {
            content_type: content_type(key).map(str::to_owned),
            ..PutOptions::default()
        };
        Ok(Some(Arc::new(Object::new(body, written, options))))
    }

    pub(super) fn put(
        &self,
        key: &str,
        body: Bytes,
        written: SystemTime,
        options: PutOptions,
    ) -> Arc<Object> {
        let object = Arc::new(Object::new(body, written, options));
        self.write(key, Some(Arc::clone(&object)));
        object
    }

    pub(super) fn delete(&self, key: &str) {
        self.write(key, None);
    }

    fn write(&self, key: &str, entry: Option<Arc<Object>>) {
        let mut overlay = self.overlay.write().unwrap_or_else(PoisonError::into_inner);
        overlay.insert(key.to_owned(), entry);
    }

    /// The keys that start so, in S3's order (by bytes). Blocks for a folder's walk.
    pub(super) fn keys(&self, prefix: &str) -> io::Result<BTreeSet<String>> {
        let mut keys = BTreeSet::new();
        match &self.source {
            Source::Empty => {}
            Source::Pack(pack) => keys.extend(
                pack.range(prefix..)
                    .map(|(key, _)| *key)
                    .take_while(|key| key.starts_with(prefix))
                    .map(str::to_owned),
            ),
            Source::Folder(folder) => {
                walk(folder, "", &mut keys)?;
                keys.retain(|key| key.starts_with(prefix));
            }
        }
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        for (key, entry) in overlay.range(prefix.to_owned()..) {
            if !key.starts_with(prefix) {
                break;
            }
            if entry.is_some() {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        Ok(keys)
    }

    fn overlay_bytes(&self) -> usize {
        let overlay = self.overlay.read().unwrap_or_else(PoisonError::into_inner);
        overlay
            .values()
            .flatten()
            .map(|object| object.body.len())
            .sum()
    }
}

/// A file's bytes and time; `None` where there is no such file, or the key names no file at all.
fn read_file(folder: &Path, key: &str) -> io::Result<Option<(Bytes, SystemTime)>> {
    // A key is a path only if each of its parts is a plain name: `..` stays a key without an object.
    let plain = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '\0'])
    };
    if !key.split('/').all(plain) {
        return Ok(None);
    }
    let path = folder.join(key);
    let none = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
        _ => Err(error),
    };
    let metadata = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) => return none(error),
    };
    match fs::read(&path) {
        Ok(body) => Ok(Some((body.into(), metadata.modified()?))),
        Err(error) => none(error),
    }
}

fn walk(folder: &Path, prefix: &str, keys: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let key = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{key}/"), keys)?;
        } else {
            keys.insert(key);
        }
    }
    Ok(())
}

/// What `aws s3 sync` would have guessed from the name. No `Content-Encoding`: it guesses none.
fn content_type(key: &str) -> Option<&'static str> {
    match key.rsplit_once('.')?.1 {
        "png" => Some("image/png"),
        "jpg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "avif" => Some("image/avif"),
        "json" => Some("application/json"),
        "mvt" | "pbf" => Some("application/vnd.mapbox-vector-tile"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(source: Source) -> Bucket {
        Bucket {
            source,
            public_read: false,
            block_public_access: true,
            overlay: RwLock::default(),
        }
    }

    #[test]
    fn the_overlay_hides_the_folder_and_the_folder_is_never_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/1.png"), "one").unwrap();
        fs::write(folder.path().join("a/2.png"), "two").unwrap();
        let bucket = bucket(Source::Folder(folder.path().to_owned()));
        assert_eq!(bucket.get("a/1.png").unwrap().unwrap().body, "one");
        bucket.put(
            "a/1.png",
            "changed".into(),
            SystemTime::UNIX_EPOCH,
            PutOptions::default(),
        );
        bucket.put(
            "a/0.png",
            "new".into(),
            SystemTime::UNIX_EPOCH,
            PutOptions::default(),
        );
        bucket.delete("a/2.png");
        assert_eq!(bucket.get("a/1.png").unwrap().unwrap().body, "changed");
        assert!(bucket.get("a/2.png").unwrap().is_none());
        let keys: Vec<_> = bucket.keys("a/").unwrap().into_iter().collect();
        assert_eq!(keys, ["a/0.png", "a/1.png"]);
        assert_eq!(fs::read(folder.path().join("a/1.png")).unwrap(), b"one");
    }

    #[test]
    fn a_key_never_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        let bucket = bucket(Source::Folder(folder.path().join("in")));
        for key in ["../secret", "a/../../secret", "/etc/passwd", "", "..", "."] {
            assert!(bucket.get(key).unwrap().is_none(), "{key}");
        }
    }
}
