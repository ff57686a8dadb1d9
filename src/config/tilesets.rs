//! `[tilesets.NAME]`: from keys to checked [`Tileset`]s.

use std::sync::Arc;
use std::time::Duration;

use crate::tile::{
    Access, Bounds, BrowserCaching, Delivery, KeySpace, MAX_ZOOM, MissingAnswer, TileFormat,
    Tileset, TilesetError, TilesetSpec, is_archive,
};

use super::aws::{AssumeRole, Aws};
use super::section::{Item, Section};

/// A tileset and how its bucket is reached.
#[derive(Debug, Clone)]
pub struct TilesetConfig {
    /// The tileset.
    pub tileset: Arc<Tileset>,
    /// The role that reads its bucket; none: as `[aws]` says.
    pub assume_role: Option<AssumeRole>,
}

const FORMATS: [(&str, TileFormat); 7] = [
    ("png", TileFormat::Png),
    ("jpg", TileFormat::Jpg),
    ("jpeg", TileFormat::Jpg),
    ("webp", TileFormat::Webp),
    ("avif", TileFormat::Avif),
    ("mvt", TileFormat::Mvt),
    ("pbf", TileFormat::Mvt),
];
const MISSING: [(&str, MissingAnswer); 4] = [
    ("404", MissingAnswer::NotFound),
    ("204", MissingAnswer::NoContent),
    ("410", MissingAnswer::Gone),
    ("blank", MissingAnswer::Blank),
];
const DELIVERY: [(&str, Delivery); 2] =
    [("proxy", Delivery::Proxy), ("redirect", Delivery::Redirect)];
const ACCESS: [(&str, Access); 2] = [("session", Access::Session), ("public", Access::Public)];

/// Reads all of them, in the order of the file.
pub(super) fn read(section: &mut Section<'_>, aws: &Aws) -> Vec<TilesetConfig> {
    let mut tilesets: Vec<TilesetConfig> = Vec::new();
    let sections = section.sections();
    if section.is_empty() {
        section.refuse_whole(
            "has no tileset in it",
            "add one: [tilesets.world] with `bucket` and `key`",
        );
    }
    for (name, section) in sections {
        let Some(tileset) = TilesetConfig::read(name, &section, aws) else {
            continue;
        };
        let spaces = tilesets.iter().map(|t| t.tileset.space());
        if clashes(tileset.tileset.space(), spaces) {
            section.refuse_whole(
                "would share its cache keys with another tileset",
                "rename it, or change its `version`",
            );
        } else {
            tilesets.push(tileset);
        }
    }
    tilesets
}

/// Whether two different tilesets have one number: about one in 2⁶⁴ pairs does.
fn clashes(space: KeySpace, mut others: impl Iterator<Item = KeySpace>) -> bool {
    others.any(|other| other == space)
}

impl TilesetConfig {
    fn read(name: String, section: &Section<'_>, aws: &Aws) -> Option<Self> {
        let spec = spec(name, section);
        let assume_role = section.read("assume_role", AssumeRole::read);
        if section.has("assume_role") {
            aws.check_role(section);
        }
        match Tileset::new(spec) {
            Ok(tileset) => Some(Self {
                tileset: Arc::new(tileset),
                assume_role,
            }),
            Err(errors) => {
                for error in errors {
                    refuse(section, &error);
                }
                None
            }
        }
    }
}

fn spec(name: String, section: &Section<'_>) -> TilesetSpec {
    let key = key_or_archive(section);
    let zoom = |item: &Item<'_>| u8::try_from(item.integer(0..=i64::from(MAX_ZOOM))?).ok();
    let ending = key.rsplit_once('.').map_or("", |(_, ending)| ending);
    let guess = FORMATS.iter().find(|(word, _)| *word == ending);
    let format = section.read("format", |item| item.choice(&FORMATS));
    if guess.is_none() && !section.has("format") && !key.is_empty() {
        section.refuse(
            "format",
            if section.has("archive") {
                "is missing, and an archive's name does not tell"
            } else {
                "is missing, and `key` does not end in a format's name"
            },
            "add it: png, jpg, webp, avif or mvt",
        );
    }
    let delivery: Delivery = section
        .read("delivery", |item| item.choice(&DELIVERY))
        .unwrap_or_default();
    if delivery == Delivery::Redirect && section.has("archive") {
        section.refuse(
            "delivery",
            "cannot be `redirect` with `archive`: its tiles have no URLs of their own",
            "leave it out",
        );
    }
    TilesetSpec {
        name,
        bucket: section.read("bucket", bucket).unwrap_or_default(),
        key,
        format: format.or(guess.map(|g| g.1)).unwrap_or(TileFormat::Png),
        minzoom: section.read("minzoom", zoom).unwrap_or(0),
        maxzoom: section.read("maxzoom", zoom).unwrap_or(22),
        bounds: section.read("bounds", bounds).unwrap_or(Bounds::WORLD),
        attribution: section
            .read("attribution", |item| Some(item.text()?.to_owned()))
            .unwrap_or_default(),
        version: section.read("version", Item::word),
        missing: section.read("missing", |item| item.choice(&MISSING)),
        delivery,
        browser: browser(&section.section("browser")),
        access: section
            .read("access", |item| item.choice(&ACCESS))
            .unwrap_or_default(),
        tilejson: section
            .read("tilejson", Item::json_object)
            .unwrap_or_default(),
    }
}

/// A bucket's name; its rules are S3's to enforce, and other servers have others.
fn bucket(item: &Item<'_>) -> Option<String> {
    let name = item.word()?;
    if name.contains("://") || name.contains('/') && !name.starts_with("arn:") {
        return item.refuse(
            "is not a bucket's name alone",
            "leave out s3:// and put the folder into `key`",
        );
    }
    if name.bytes().all(|b| b.is_ascii_graphic()) {
        return Some(name);
    }
    item.refuse("cannot be a bucket's name", "check it for spaces")
}

/// Where the tiles lie: each under a key of its own, or all in an archive.
fn key_or_archive(section: &Section<'_>) -> String {
    let archive = section.read("archive", archive);
    if section.has("archive") && section.has("key") {
        section.refuse(
            "archive",
            "excludes `key`: tiles lie in one archive, or each under a key",
            "remove one of them",
        );
    }
    let key = section.read("key", |item| {
        let template = key(item)?;
        if is_archive(&template) && !template.contains(['{', '}']) {
            return item.refuse("names an archive", "write `archive` instead of `key`");
        }
        Some(template)
    });
    archive.or(key).unwrap_or_default()
}

fn archive(item: &Item<'_>) -> Option<String> {
    let template = key(item)?;
    if !is_archive(&template) {
        return item.refuse(
            "does not end in `.pmtiles`",
            "name a PMTiles archive in the bucket; `tilekeep prefetch --output` and `pmtiles convert` make them",
        );
    }
    let filled = template.replace("{version}", "").replace("{ext}", "");
    if filled.contains(['{', '}']) {
        return item.refuse(
            "has placeholders, and there is one archive for all tiles",
            "use no other than {version}",
        );
    }
    Some(template)
}

fn key(item: &Item<'_>) -> Option<String> {
    let template = item.word()?;
    if template.starts_with('/') {
        return item.refuse(
            "starts with `/`, which S3 takes as part of the key",
            "leave it out",
        );
    }
    if template.contains("://") {
        return item.refuse(
            "is a URL",
            "name the bucket in `bucket`, and here only what follows it",
        );
    }
    Some(template)
}

fn bounds(item: &Item<'_>) -> Option<Bounds> {
    const REMEDY: &str = "write [west, south, east, north] in degrees";
    let elements = item.elements()?;
    let Ok(four) = <[Item<'_>; 4]>::try_from(elements) else {
        return item.refuse("is not four numbers", REMEDY);
    };
    let [west, south, east, north] = four.map(|number| number.number());
    match Bounds::new([west?, south?, east?, north?]) {
        Ok(bounds) => Some(bounds),
        Err(error) => item.refuse(format!("is no area: {error}"), REMEDY),
    }
}

fn browser(section: &Section<'_>) -> BrowserCaching {
    let default = BrowserCaching::default();
    let seconds = |key, default: Duration| section.lifetime(key, default);
    BrowserCaching {
        max_age: seconds("max_age", default.max_age),
        stale_while_revalidate: seconds("stale_while_revalidate", default.stale_while_revalidate),
        stale_if_error: seconds("stale_if_error", default.stale_if_error),
    }
}

/// Puts what [`Tileset::new`] says to the key that it is about.
fn refuse(section: &Section<'_>, error: &TilesetError) {
    let missing = |key: &str| !section.has(key);
    match error {
        TilesetError::Name => section.refuse_whole("cannot be a tileset's name", error.to_string()),
        TilesetError::Key(error) if section.has("archive") => {
            section.refuse("archive", "is refused", error.to_string());
        }
        TilesetError::Key(_) if missing("key") => section.refuse(
            "key",
            "is missing",
            "say where the tiles lie, like key = \"world/{z}/{x}/{y}.png\" or archive = \"world.pmtiles\"",
        ),
        TilesetError::Key(error) => section.refuse("key", "is refused", error.to_string()),
        TilesetError::Zooms => section.refuse(
            if missing("minzoom") {
                "maxzoom"
            } else {
                "minzoom"
            },
            "makes `minzoom` more than `maxzoom`",
            "tiles lie from minzoom (default 0) to maxzoom (default 22)",
        ),
        TilesetError::Version => section.refuse(
            "version",
            "cannot stand in a URL",
            "use letters, digits, `.`, `_` and `-`, 1 to 64 of them",
        ),
        TilesetError::Bucket => section.refuse(
            "bucket",
            "is missing",
            "name the bucket that holds the tiles",
        ),
        TilesetError::TilejsonMember(member) => section.refuse(
            "tilejson",
            format!("sets `{member}`, which is the server's own to say"),
            "leave it out",
        ),
    }
}
