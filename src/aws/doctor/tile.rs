//! Tiles: whether one of each tileset can be read, and if not, what is there instead.

use std::sync::Arc;

use aws_sdk_s3::Client;

use super::ask::{Site, Trouble};
use super::bucket::Seen;
use super::denial::{common, is_explicit, kms_key, kms_remedy, list_bucket, read_objects};
use super::guess::{Proposal, propose, tile_of};
use super::lookout::{Around, list, look_around};
use super::role::Reader;
use super::{Check, Finding, all, cut_off};
use crate::origin::s3::MAX_OBJECT_BYTES;
use crate::tile::{Bounds, KeyTemplate, Scale, TileCoord, Tileset};

/// Tiles that are asked for one by one, where a listing names none.
const CANDIDATES: u8 = 8;

/// What looking at one tileset brought.
#[derive(Debug)]
pub(super) struct TileLook {
    pub(super) finding: Finding,
    /// A tile that is there, readable or not.
    pub(super) there: Option<String>,
}

/// Each tileset, in order.
pub(super) async fn look(site: &Site, readers: &[Reader], seen: &[Seen]) -> Vec<TileLook> {
    let ready: Vec<_> = (0..site.tilesets.len())
        .map(|number| ready(site, readers, seen, number))
        .collect();
    let questions = site
        .tilesets
        .iter()
        .zip(&ready)
        .filter_map(|((tileset, _), ready)| {
            let question = Question {
                tileset: tileset.clone(),
                client: ready.as_ref().ok()?.1.clone(),
            };
            Some(question.ask())
        });
    let mut answers = all(site.until, questions.collect()).await.into_iter();
    let looks = site
        .tilesets
        .iter()
        .zip(ready)
        .map(|((tileset, _), ready)| {
            let name = tileset.name();
            let finding = match ready {
                Err(on) => Finding::waits(Check::Tile, name, on),
                Ok((reader, _)) => match answers.next().flatten() {
                    Some(outcome) => return outcome.judge(site, reader, tileset),
                    None => cut_off(Check::Tile, name),
                },
            };
            TileLook {
                finding,
                there: None,
            }
        });
    looks.collect()
}

/// Who reads a tileset, or what that waits for.
fn ready<'a>(
    site: &Site,
    readers: &'a [Reader],
    seen: &[Seen],
    number: usize,
) -> Result<(&'a Reader, &'a Client), Check> {
    let bucket = &site.tilesets[number].0.place().bucket;
    let of =
        |seen: &&Seen| seen.bucket == *bucket && readers[seen.reader].tilesets.contains(&number);
    let seen = seen.iter().find(of).ok_or(Check::Bucket)?;
    seen.listing.as_ref().map_err(|on| *on)?;
    let reader = &readers[seen.reader];
    let client = reader.s3.as_ref().map_err(|on| *on)?;
    Ok((reader, client))
}

/// A PMTiles header (PMTiles 3, "Header").
const ARCHIVE_HEADER: u64 = 127;

/// What one tileset is asked.
struct Question {
    tileset: Arc<Tileset>,
    client: Client,
}

/// What came of it.
enum Outcome {
    Read {
        key: String,
        bytes: u64,
        looks_like: Option<&'static str>,
    },
    TooLarge {
        key: String,
    },
    /// A PMTiles archive of so many bytes.
    Archive {
        key: String,
        bytes: u64,
    },
    /// Something else under an archive's name.
    NoArchive {
        key: String,
    },
    /// `listed`: the tile is known to be there.
    Refused {
        trouble: Trouble,
        listed: Option<String>,
    },
    /// Tiles are there, and none within the tileset's zooms and area.
    Outside {
        zooms: (u8, u8),
    },
    NothingMatches(Around),
    /// So many were asked for, and listing is not possible.
    NoneOf(usize),
}

impl Question {
    async fn ask(self) -> Outcome {
        let (tileset, client) = (&self.tileset, &self.client);
        let place = tileset.place();
        if let Some(key) = place.key.archive() {
            return self.read_archive(key).await;
        }
        let prefix = place.key.fixed_prefix();
        let page = match list(client, &place.bucket, prefix, false).await {
            Ok(page) => Some(page),
            Err(trouble) if trouble.refusal().is_some() => None,
            Err(trouble) => {
                return Outcome::Refused {
                    trouble,
                    listed: None,
                };
            }
        };
        let keys = page.iter().flat_map(|page| &page.keys);
        let tiles: Vec<_> = keys
            .filter_map(|key| Some((key.clone(), tile_of(tileset, key)?)))
            .collect();
        let inside = |tile: TileCoord| {
            (tileset.minzoom()..=tileset.maxzoom()).contains(&tile.z())
                && tileset.bounds().touches(tile)
        };
        if let Some((key, _)) = tiles.iter().find(|(_, tile)| inside(*tile)) {
            return self.read(key, true).await;
        }
        if page.as_ref().is_none_or(|page| page.more)
            && let Some(outcome) = self.try_some(page.is_some()).await
        {
            return outcome;
        }
        let Some(page) = page else {
            return Outcome::NoneOf(candidates(tileset).count());
        };
        let proposal = propose(tileset, page.keys.iter().map(String::as_str));
        let other = proposal.is_some_and(|proposal| !is_configured(tileset, &proposal));
        if !tiles.is_empty() && !other {
            let zooms = tiles.iter().map(|(_, tile)| tile.z());
            let least = zooms.clone().min().unwrap_or(0);
            let zooms = (least, zooms.max().unwrap_or(least));
            return Outcome::Outside { zooms };
        }
        match look_around(client, tileset, &page).await {
            Ok(around) => Outcome::NothingMatches(around),
            Err(trouble) => Outcome::Refused {
                trouble,
                listed: None,
            },
        }
    }

    /// Asks for likely tiles. `None`: none of them is there.
    async fn try_some(&self, may_list: bool) -> Option<Outcome> {
        let mut denied = None;
        for tile in candidates(&self.tileset) {
            let key = self.tileset.place().key.key(tile, Scale::One);
            match self.read(&key, false).await {
                Outcome::Refused { trouble, .. } if trouble.code() == "NoSuchKey" => {}
                Outcome::Refused { trouble, listed }
                    if trouble.is_denied()
                        && trouble.refusal().is_none_or(|r| kms_key(r).is_none()) =>
                {
                    denied.get_or_insert(Outcome::Refused { trouble, listed });
                    // Who may list hears of missing tiles: this one is forbidden.
                    if may_list {
                        break;
                    }
                }
                outcome => return Some(outcome),
            }
        }
        denied
    }

    /// Reads an archive's header, by which it is known.
    async fn read_archive(&self, key: &str) -> Outcome {
        let bucket = &self.tileset.place().bucket;
        let listed = None;
        let call = format!("GetObject s3://{bucket}/{key} (its first {ARCHIVE_HEADER} bytes)");
        let range = format!("bytes=0-{}", ARCHIVE_HEADER - 1);
        let get = self
            .client
            .get_object()
            .bucket(bucket)
            .key(key)
            .range(range);
        let answer = match get.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let trouble = Trouble::of(call, &error);
                return Outcome::Refused { trouble, listed };
            }
        };
        let size = answer
            .content_range()
            .and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let Ok(head) = answer.body.collect().await else {
            let trouble = Trouble::broken(&call);
            return Outcome::Refused { trouble, listed };
        };
        let key = key.to_owned();
        if head.into_bytes().starts_with(b"PMTiles\x03") {
            let bytes = size.unwrap_or(ARCHIVE_HEADER);
            Outcome::Archive { key, bytes }
        } else {
            Outcome::NoArchive { key }
        }
    }

    async fn read(&self, key: &str, listed: bool) -> Outcome {
        let bucket = &self.tileset.place().bucket;
        let refused = |trouble| Outcome::Refused {
            trouble,
            listed: listed.then(|| key.to_owned()),
        };
        let call = format!("GetObject s3://{bucket}/{key}");
        let get = self.client.get_object().bucket(bucket).key(key);
        let answer = match get.send().await {
            Ok(answer) => answer,
            Err(error) => return refused(Trouble::of(call, &error)),
        };
        let promised = answer.content_length().and_then(|n| u64::try_from(n).ok());
        if promised.is_some_and(|bytes| bytes > MAX_OBJECT_BYTES) {
            return Outcome::TooLarge {
                key: key.to_owned(),
            };
        }
        let Ok(body) = answer.body.collect().await else {
            return refused(Trouble::broken(&call));
        };
        let body = body.into_bytes();
        Outcome::Read {
            key: key.to_owned(),
            bytes: body.len() as u64,
            looks_like: looks_like(&body),
        }
    }
}

impl Outcome {
    fn judge(self, site: &Site, reader: &Reader, tileset: &Tileset) -> TileLook {
        let name = tileset.name();
        let there = match &self {
            Self::Read { key, .. } | Self::TooLarge { key } | Self::Archive { key, .. } => {
                Some(key.clone())
            }
            Self::Refused { listed, .. } => listed.clone(),
            _ => None,
        };
        let place = format!("s3://{}", tileset.place().bucket);
        let finding = match self {
            Self::Read {
                key,
                bytes,
                looks_like,
            } => {
                let reason = format!("{name}: {place}/{key} read, {bytes} bytes");
                body_finding(tileset, reason, bytes, looks_like)
            }
            Self::Archive { key, bytes } => Finding::ok(
                Check::Tile,
                format!("{name}: {place}/{key} read, a PMTiles archive of {bytes} bytes"),
            ),
            Self::NoArchive { key } => Finding::failed(
                Check::Tile,
                format!("{name}: {place}/{key} is no PMTiles archive of version 3"),
                "upload the archive again, or convert it: `pmtiles convert OLD NEW`",
            ),
            Self::TooLarge { key } => Finding::failed(
                Check::Tile,
                format!("{name}: {place}/{key} is larger than {MAX_OBJECT_BYTES} bytes"),
                "a tile has some kilobytes: is `key` the template of single tiles?",
            ),
            Self::Refused { trouble, listed } => {
                let remedy = refusal_remedy(site, reader, tileset, &trouble, listed.is_some());
                Finding::failed(Check::Tile, format!("{name}: {trouble}"), remedy)
            }
            Self::Outside {
                zooms: (least, most),
            } => Finding::failed(
                Check::Tile,
                format!(
                    "{name}: the key template fits, but no tile within `minzoom`, `maxzoom` and `bounds` is there: those \
                     found are of zoom {least} to {most}"
                ),
                format!(
                    "in [tilesets.{name}], set minzoom = {least}, maxzoom = {most}, and look at `bounds`"
                ),
            ),
            Self::NoneOf(tried) => Finding::warning(
                Check::Tile,
                format!(
                    "{name}: none of {tried} likely tiles is there, and the bucket cannot be listed to see what is"
                ),
                format!(
                    "compare `key` in [tilesets.{name}] with a key in the bucket, and set `bounds` and `minzoom` to where \
                     the tiles are"
                ),
            ),
            Self::NothingMatches(around) => nothing_matches(tileset, &around),
        };
        TileLook { finding, there }
    }
}

/// Of a tile that was read.
fn body_finding(
    tileset: &Tileset,
    reason: String,
    bytes: u64,
    looks_like: Option<&'static str>,
) -> Finding {
    let (name, format) = (tileset.name(), tileset.format());
    if bytes == 0 {
        let remedy = "upload it again: browsers show an empty tile as a broken one";
        return Finding::warning(Check::Tile, reason, remedy);
    }
    match looks_like {
        Some(seen) if seen != format.extension() => Finding::warning(
            Check::Tile,
            format!(
                "{reason}: it looks like {seen}, and is served as {}",
                format.content_type()
            ),
            if seen == "html" {
                "something else than tiles was uploaded there".to_owned()
            } else {
                format!("in [tilesets.{name}], set format = \"{seen}\"")
            },
        ),
        _ => Finding::ok(Check::Tile, reason),
    }
}

fn refusal_remedy(
    site: &Site,
    reader: &Reader,
    tileset: &Tileset,
    trouble: &Trouble,
    is_there: bool,
) -> String {
    let place = tileset.place();
    let refusal = trouble.refusal();
    if let Some(refusal) = refusal.filter(|refusal| kms_key(refusal).is_some()) {
        return kms_remedy(refusal, &reader.who);
    }
    if !trouble.is_denied() {
        return common(site, trouble, reader.from);
    }
    let message = refusal.map_or("", |refusal| refusal.message.as_str());
    let prefix = place.key.fixed_prefix();
    let read = read_objects(site, &place.bucket, prefix, &reader.who, message);
    if is_there || is_explicit(message) {
        return read;
    }
    // The tile may be missing: without ListBucket, S3 says the same of both.
    let list = list_bucket(site, &place.bucket, &reader.who, "");
    format!("{read}; and {list}: without it S3 says 403 of a missing tile too, so this may be one")
}

fn nothing_matches(tileset: &Tileset, around: &Around) -> Finding {
    let (name, place) = (tileset.name(), tileset.place());
    let bucket = &place.bucket;
    if around.empty {
        return Finding::failed(
            Check::Tile,
            format!("{name}: bucket {bucket} is empty"),
            "upload the tiles, or correct `bucket`",
        );
    }
    let reason = format!(
        "{name}: no key in {bucket} is one that \"{}\" makes; {}",
        place.key.source(),
        around.shown
    );
    let section = format!("in [tilesets.{name}]");
    let remedy = match (&around.proposal, &around.archive) {
        (
            Some(Proposal {
                version: Some(version),
                ..
            }),
            _,
        ) => format!("{section}, set version = \"{version}\""),
        (Some(proposal), _) => {
            let template = &proposal.template;
            let (least, most) = proposal.zooms;
            let ending = template.rsplit_once('.').map_or("", |(_, ending)| ending);
            let format = if tileset.format().answers_to(ending) {
                ""
            } else {
                " (and `format`, if it is set, to what they are)"
            };
            format!("{section}, set key = \"{template}\"{format}; seen are zooms {least} to {most}")
        }
        (None, Some(archive)) if archive.ends_with(".pmtiles") => {
            format!("{section}, put archive = \"{archive}\" in the place of `key`")
        }
        (None, Some(archive)) => {
            format!("{archive} is one file, and no server of tiles: upload its tiles one by one")
        }
        (None, None) => format!(
            "compare `key` {section} with the keys in the bucket (aws s3 ls --recursive s3://{bucket}/ | head)"
        ),
    };
    Finding::failed(Check::Tile, reason, remedy)
}

/// Whether a proposal makes the keys that the tileset's own template makes.
fn is_configured(tileset: &Tileset, proposal: &Proposal) -> bool {
    let proposed = KeyTemplate::new(&proposal.template, tileset.format(), tileset.version());
    let tile = TileCoord::new(5, 7, 3);
    let key = |template: &KeyTemplate| tile.map(|tile| template.key(tile, Scale::One));
    proposed.is_ok_and(|proposed| key(&proposed) == key(&tileset.place().key))
}

/// In the middle of the tileset's area, from its first zoom on.
fn candidates(tileset: &Tileset) -> impl Iterator<Item = TileCoord> + use<> {
    let [west, _, east, _] = tileset.bounds().to_array();
    let middle = if west <= east {
        f64::midpoint(west, east)
    } else {
        // Across the antimeridian.
        (f64::midpoint(west, east + 360.0) + 180.0).rem_euclid(360.0) - 180.0
    };
    let bounds = tileset.bounds();
    let zooms = tileset.minzoom()..=tileset.maxzoom();
    let zooms = zooms.take(usize::from(CANDIDATES));
    zooms.filter_map(move |z| in_the_middle(z, middle, bounds))
}

/// The tile at this longitude and in the middle of the area's rows.
fn in_the_middle(z: u8, longitude: f64, bounds: Bounds) -> Option<TileCoord> {
    let size = 1_u32.checked_shl(u32::from(z))?;
    let share = (longitude + 180.0) / 360.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the map's width, cut to its columns"
    )]
    let x = ((share * f64::from(size)) as u32).min(size - 1);
    let [_, south, _, north] = bounds.to_array();
    let row = |latitude: f64| {
        let sin = latitude.clamp(-85.05, 85.05).to_radians().sin();
        let share = 0.5 - ((1.0 + sin) / (1.0 - sin)).ln() / (4.0 * std::f64::consts::PI);
        share * f64::from(size)
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the map's height, cut to its rows"
    )]
    let y = (f64::midpoint(row(north), row(south)).max(0.0) as u32).min(size - 1);
    TileCoord::new(z, x, y)
}

/// By the first bytes; the name is a format's extension.
fn looks_like(body: &[u8]) -> Option<&'static str> {
    let brand = body.get(4..12);
    match body {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => Some("webp"),
        _ if brand == Some(b"ftypavif") || brand == Some(b"ftypavis") => Some("avif"),
        [b'<', ..] => Some("html"),
        _ => None,
    }
}
