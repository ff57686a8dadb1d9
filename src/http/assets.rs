//! The files that the pages load, embedded by `build.rs`.
//!
//! Invariant: an asset's path carries a hash of its content, so an answer under that path never
//! changes and may be kept for a year. Text is embedded compressed and decompressed only for the rare
//! client that does not take gzip.
//!
//! Left out on purpose: requests and responses. [`Asset`] says what the answer holds; who asks, and how
//! a conditional request is met, is the business of the code that serves it.

use std::io::Read as _;
use std::sync::OnceLock;

use bytes::Bytes;

include!(concat!(env!("OUT_DIR"), "/assets/assets.rs"));

/// `Cache-Control` of every asset: the address changes with the content. Assets are the program's
/// own files and no secret, so shared caches may keep them too.
pub const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// The script that front ends include: also served under [`SCRIPT_PATH`], which never changes.
pub const SCRIPT: &str = "tilekeep.js";

/// Where other pages load [`SCRIPT`] from.
pub const SCRIPT_PATH: &str = "/tilekeep.js";

/// `Cache-Control` of [`SCRIPT_PATH`]: the content behind it changes with the program's version, and a
/// page must not wait for a revalidation.
pub const SCRIPT_CACHE_CONTROL: &str = "public, max-age=3600, stale-while-revalidate=86400";

/// `Content-Security-Policy` of every asset.
///
/// `MapLibre`'s worker is a script with an address of its own, so this header, and not the page's,
/// governs what it may do: it fetches tiles from this origin and nothing else.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; connect-src 'self'; frame-ancestors 'none'";

/// One embedded file.
#[derive(Debug)]
pub struct Asset {
    name: &'static str,
    path: &'static str,
    content_type: &'static str,
    hash: &'static str,
    gzipped: bool,
    bytes: &'static [u8],
}

/// What to send for an [`Asset`], once it is known whether the client takes gzip.
#[derive(Debug)]
pub struct AssetBody {
    /// The bytes of the body.
    pub bytes: Bytes,
    /// The value for `Content-Encoding`, when the bytes are encoded.
    pub content_encoding: Option<&'static str>,
    /// The value for `ETag`, quotes included. The encoded and the decoded form have different ones.
    pub etag: String,
}

impl Asset {
    /// The name in `web/static`, or the name a library's file is known by.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The path under which it is served, hash included: `/assets/<name>-<hash>.<ext>`.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The value for `Content-Type`.
    pub fn content_type(&self) -> &'static str {
        self.content_type
    }

    /// Whether the answer depends on `Accept-Encoding`, so that it needs `Vary: Accept-Encoding`.
    pub fn varies_on_encoding(&self) -> bool {
        self.gzipped
    }

    /// The body, in the form that suits the client.
    pub fn body(&self, accepts_gzip: bool) -> AssetBody {
        if !self.gzipped {
            return AssetBody {
                bytes: Bytes::from_static(self.bytes),
                content_encoding: None,
                etag: format!("\"{}\"", self.hash),
            };
        }
        if accepts_gzip {
            return AssetBody {
                bytes: Bytes::from_static(self.bytes),
                content_encoding: Some("gzip"),
                etag: format!("\"{}-gzip\"", self.hash),
            };
        }
        AssetBody {
            bytes: Bytes::clone(self.plain()),
            content_encoding: None,
            etag: format!("\"{}\"", self.hash),
        }
    }

    /// The plain form of compressed text, worked out once for the rare client that needs it.
    fn plain(&self) -> &'static Bytes {
        static PLAIN: [OnceLock<Bytes>; ASSETS.len()] = [const { OnceLock::new() }; ASSETS.len()];
        static NOTHING: Bytes = Bytes::new();
        let place = ASSETS.iter().position(|asset| asset.name == self.name);
        let Some(slot) = place.and_then(|place| PLAIN.get(place)) else {
            return &NOTHING;
        };
        slot.get_or_init(|| {
            let mut plain = Vec::new();
            // What build.rs compressed in this very build decompresses; a test reads every asset.
            let outcome = flate2::read::GzDecoder::new(self.bytes).read_to_end(&mut plain);
            debug_assert!(outcome.is_ok(), "{} does not decompress", self.name);
            plain.into()
        })
    }
}

/// A library's file at the CDN.
#[derive(Debug)]
struct CdnFile {
    name: &'static str,
    url: &'static str,
    integrity: &'static str,
}

/// How a page loads a library's file: from this server, or from the CDN under an integrity hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibraryFile {
    /// The address for `src` or `href`.
    pub url: &'static str,
    /// The value for `integrity`; with it goes `crossorigin="anonymous"`. `None` for an embedded file.
    pub integrity: Option<&'static str>,
}

/// The asset served under a request path such as `/assets/map-0123456789abcdef.js`.
pub fn find(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// The asset of that name, such as `tilekeep.css`.
pub fn named(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

/// The request path of an asset by its name.
///
/// Empty when there is no asset of that name; a test renders every page and looks for that.
pub fn url(name: &str) -> &'static str {
    named(name).map_or("", |asset| asset.path)
}

/// How to load a library's file, by its name: `leaflet.css`, `leaflet.js`, `maplibre-gl.css`,
/// `maplibre-gl.js`.
pub fn library(name: &str) -> LibraryFile {
    if LIBRARIES_EMBEDDED {
        return LibraryFile {
            url: url(name),
            integrity: None,
        };
    }
    cdn(name)
}

/// A library's file at the CDN, whether or not it is embedded too: for snippets, which have to work
/// on any page.
pub fn cdn(name: &str) -> LibraryFile {
    CDN.iter().find(|file| file.name == name).map_or(
        LibraryFile {
            url: "",
            integrity: None,
        },
        |file| LibraryFile {
            url: file.url,
            integrity: Some(file.integrity),
        },
    )
}

/// The address of `MapLibre`'s worker. Empty in CDN mode, where `MapLibre` makes a `blob:` worker itself:
/// a worker cannot be loaded from another origin.
pub fn maplibre_worker() -> &'static str {
    url("maplibre-gl-worker.js")
}

/// The CDN's origin, for a page's content security policy; `None` when the libraries are embedded.
pub fn cdn_origin() -> Option<&'static str> {
    (!LIBRARIES_EMBEDDED).then_some(CDN_ORIGIN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use std::path::Path;

    #[test]
    fn every_asset_is_found_under_its_path_and_decompresses() {
        assert!(
            ASSETS.len() >= 5,
            "the pages' own files are always embedded"
        );
        for asset in ASSETS {
            assert_eq!(find(asset.path()).map(Asset::name), Some(asset.name()));
            assert!(
                asset.path().contains(asset.hash),
                "{}: the path carries the hash",
                asset.name
            );
            let plain = asset.body(false);
            assert!(plain.content_encoding.is_none() && !plain.bytes.is_empty());
            let sent = asset.body(true);
            if asset.varies_on_encoding() {
                assert_eq!(sent.content_encoding, Some("gzip"));
                assert_ne!(sent.etag, plain.etag);
                assert!(sent.bytes.len() < plain.bytes.len() || plain.bytes.len() < 200);
            } else {
                assert_eq!(sent.etag, plain.etag);
            }
        }
        assert!(named(SCRIPT).is_some_and(Asset::varies_on_encoding));
        assert!(find("/assets/map.js").is_none(), "only the hashed path");
        assert!(find("/assets/../Cargo.toml").is_none());
    }

    #[test]
    fn a_library_comes_from_here_or_from_the_cdn_under_a_hash() {
        for name in [
            "leaflet.css",
            "leaflet.js",
            "maplibre-gl.css",
            "maplibre-gl.js",
        ] {
            let file = library(name);
            if let Some(origin) = cdn_origin() {
                let hash = file.integrity.unwrap();
                assert!(file.url.starts_with(origin) && hash.starts_with("sha384-"));
            } else {
                assert!(find(file.url).is_some());
                assert_eq!(file.integrity, None);
            }
        }
        assert_eq!(maplibre_worker().is_empty(), cdn_origin().is_some());
    }

    #[test]
    fn the_cdn_list_agrees_with_the_lock_file_and_with_the_files_from_npm() {
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let read = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        let lock = read(&web.join("package-lock.json"));
        let cdn = read(&web.join("cdn.json"));
        let files = cdn["files"].as_array().unwrap();
        assert_eq!(files.len(), CDN.len());
        for file in files {
            let package = file["package"].as_str().unwrap();
            let path = file["path"].as_str().unwrap();
            let version = lock["packages"][format!("node_modules/{package}")]["version"]
                .as_str()
                .unwrap();
            assert_eq!(
                file["url"].as_str().unwrap(),
                format!(
                    "{}/npm/{package}@{version}/{path}",
                    cdn["origin"].as_str().unwrap()
                )
            );
            let here = web.join("node_modules").join(package).join(path);
            let Ok(bytes) = std::fs::read(&here) else {
                eprintln!(
                    "SKIPPED: the integrity hash of {package}/{path}: it is not in web/node_modules"
                );
                continue;
            };
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, &bytes);
            let hash = base64::engine::general_purpose::STANDARD.encode(digest.as_ref());
            assert_eq!(
                file["integrity"].as_str().unwrap(),
                format!("sha384-{hash}")
            );
        }
    }
}
