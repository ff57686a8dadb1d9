//! What a key template should be, given keys that are there.
//!
//! Every key is read in each way that tiles are laid out in; the way that most keys agree on, inside of
//! the tileset's area, is the proposal.

use std::collections::HashMap;

use crate::tile::{MAX_ZOOM, Scale, TileCoord, Tileset};

/// How coordinates stand in a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Layout {
    /// `{z}`, `{x}`, `{y}`.
    Xyz,
    /// `{z}`, `{x}`, `{-y}`.
    Tms,
    /// `{quadkey}`.
    Quadkey,
    /// `{z}`, `{y}`, `{x}`: rows before columns.
    RowFirst,
    /// `{z}`, `{-y}`, `{x}`.
    TmsRowFirst,
}

/// What lies there, and how to name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proposal {
    /// A key template that fits.
    pub(super) template: String,
    /// The version that the configured template would need instead.
    pub(super) version: Option<String>,
    /// The zooms that were seen.
    pub(super) zooms: (u8, u8),
}

/// The tile that a key is of, if the tileset's template makes that key.
pub(super) fn tile_of(tileset: &Tileset, key: &str) -> Option<TileCoord> {
    let template = &tileset.place().key;
    readings(key)
        .into_iter()
        .map(|reading| reading.tile)
        .find(|tile| template.key(*tile, Scale::One) == key)
}

/// The template that most of the keys fit, if there is one that says something.
pub(super) fn propose<'a>(
    tileset: &Tileset,
    keys: impl Iterator<Item = &'a str>,
) -> Option<Proposal> {
    struct Fit {
        layout: Layout,
        inside: usize,
        zooms: (u8, u8),
    }
    let mut fits: HashMap<String, Fit> = HashMap::new();
    let mut seen = 0_usize;
    for key in keys {
        seen += 1;
        for reading in readings(key) {
            let z = reading.tile.z();
            let fit = fits.entry(reading.template).or_insert(Fit {
                layout: reading.layout,
                inside: 0,
                zooms: (z, z),
            });
            fit.zooms = (fit.zooms.0.min(z), fit.zooms.1.max(z));
            fit.inside += usize::from(tileset.bounds().touches(reading.tile));
        }
    }
    let configured = tileset.place().key.source();
    let like_configured = |layout: Layout| {
        let tms = matches!(layout, Layout::Tms | Layout::TmsRowFirst);
        let quadkey = layout == Layout::Quadkey;
        tms == configured.contains("{-y}") && quadkey == configured.contains("{quadkey}")
    };
    let best = fits.into_iter().max_by_key(|(template, fit)| {
        let rank = std::cmp::Reverse(fit.layout as u8);
        let name = std::cmp::Reverse(template.clone());
        (fit.inside, like_configured(fit.layout), rank, name)
    });
    let (template, fit) = best?;
    // A handful among many is chance: three numbers stand in many names.
    if fit.inside == 0 || fit.inside * 10 < seen {
        return None;
    }
    let version = version(tileset, &template);
    Some(Proposal {
        template,
        version,
        zooms: fit.zooms,
    })
}

/// The version that would make the configured template this one.
fn version(tileset: &Tileset, template: &str) -> Option<String> {
    let configured = tileset.place().key.source();
    let configured = configured.replace("{ext}", tileset.format().extension());
    let (before, after) = configured.split_once("{version}")?;
    let version = template.strip_prefix(before)?.strip_suffix(after)?;
    let plain = !version.is_empty() && !version.contains(['/', '{', '}']);
    plain.then(|| version.to_owned())
}

/// A key, read in one way.
struct Reading {
    layout: Layout,
    template: String,
    tile: TileCoord,
}

/// How names of tiles end. What ends otherwise has numbers in its name for another reason.
const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "avif", "mvt", "pbf", "gz"];

/// Every way in which a key can be a tile's.
fn readings(key: &str) -> Vec<Reading> {
    let name = key.rsplit('/').next().unwrap_or(key);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    if ending.is_some_and(|ending| !ENDINGS.contains(&ending.to_ascii_lowercase().as_str())) {
        return Vec::new();
    }
    // A sign of density says nothing about where a tile lies.
    let (plain, density) = match key.rsplit_once("@2x") {
        Some((before, after)) => (format!("{before}{after}"), before.len()),
        None => (key.to_owned(), usize::MAX),
    };
    let runs = numbers(&plain);
    let mut readings = Vec::new();
    let with_density = |template: String, tail: usize| {
        if density == usize::MAX {
            return template;
        }
        let at = template.len() - tail;
        format!("{}{{r}}{}", &template[..at], &template[at..])
    };
    if let [.., a, b, c] = runs.as_slice() {
        let (pre, s1, s2) = (&plain[..a.0], &plain[a.1..b.0], &plain[b.1..c.0]);
        let post = &plain[c.1..];
        let number = |run: &(usize, usize)| canonical(&plain[run.0..run.1]);
        if let (Some(z), Some(second), Some(third)) = (number(a), number(b), number(c)) {
            for layout in [
                Layout::Xyz,
                Layout::Tms,
                Layout::RowFirst,
                Layout::TmsRowFirst,
            ] {
                let Some((tile, [first, last])) = layout.place(z, second, third) else {
                    continue;
                };
                let template = format!("{pre}{{z}}{s1}{first}{s2}{last}{post}");
                readings.push(Reading {
                    layout,
                    template: with_density(template, post.len()),
                    tile,
                });
            }
        }
    }
    // The whole of a name: a date's last digits are no quadkey.
    if let Some((start, end)) = runs.last().copied()
        && (start == 0 || plain[..start].ends_with('/'))
        && let Some(tile) = quadkey(&plain[start..end])
    {
        let post = &plain[end..];
        let template = format!("{}{{quadkey}}{post}", &plain[..start]);
        readings.push(Reading {
            layout: Layout::Quadkey,
            template: with_density(template, post.len()),
            tile,
        });
    }
    readings
}

impl Layout {
    /// The tile, and the placeholders of the second and the third number.
    fn place(self, z: u32, second: u32, third: u32) -> Option<(TileCoord, [&'static str; 2])> {
        let z = u8::try_from(z).ok().filter(|z| *z <= MAX_ZOOM)?;
        let turned = |y: u32| ((1_u32 << z) - 1).checked_sub(y);
        let (x, y, placeholders) = match self {
            Self::Xyz => (second, third, ["{x}", "{y}"]),
            Self::Tms => (second, turned(third)?, ["{x}", "{-y}"]),
            Self::RowFirst => (third, second, ["{y}", "{x}"]),
            Self::TmsRowFirst => (third, turned(second)?, ["{-y}", "{x}"]),
            Self::Quadkey => return None,
        };
        Some((TileCoord::new(z, x, y)?, placeholders))
    }
}

/// Where the runs of digits begin and end.
fn numbers(text: &str) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, byte) in text.bytes().enumerate() {
        if !byte.is_ascii_digit() {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.1 == at => last.1 = at + 1,
            _ => runs.push((at, at + 1)),
        }
    }
    runs
}

/// A number as templates write it: without zeros in front.
fn canonical(digits: &str) -> Option<u32> {
    let number: u32 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

fn quadkey(digits: &str) -> Option<TileCoord> {
    let z = u8::try_from(digits.len()).ok().filter(|z| *z <= MAX_ZOOM)?;
    let (mut x, mut y) = (0, 0);
    for digit in digits.bytes() {
        let quarter = u32::from(digit.checked_sub(b'0').filter(|quarter| *quarter < 4)?);
        x = x << 1 | quarter & 1;
        y = y << 1 | quarter >> 1;
    }
    TileCoord::new(z, x, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::{
        Access, Bounds, BrowserCaching, Delivery, KeyTemplate, TileFormat, TilesetSpec,
    };

    fn tileset(key: &str, bounds: Bounds, version: Option<&str>) -> Tileset {
        Tileset::new(TilesetSpec {
            name: "world".into(),
            bucket: "b".into(),
            key: key.into(),
            format: TileFormat::Png,
            minzoom: 0,
            maxzoom: 12,
            bounds,
            attribution: String::new(),
            version: version.map(Into::into),
            missing: None,
            delivery: Delivery::Proxy,
            browser: BrowserCaching::default(),
            access: Access::Session,
            tilejson: serde_json::Map::new(),
        })
        .unwrap()
    }

    /// The template for the keys that another template would make, over Switzerland.
    fn proposed(configured: &str, there: &str) -> String {
        let swiss = Bounds::new([5.9, 45.8, 10.5, 47.8]).unwrap();
        let wanted = tileset(configured, swiss, Some("2026-11"));
        let there = there.replace("{version}", "2026-12");
        let there = KeyTemplate::new(&there, TileFormat::Png, None).unwrap();
        let keys: Vec<String> = (6..9)
            .flat_map(|z| (0..1 << z).flat_map(move |x| (0..1 << z).map(move |y| (z, x, y))))
            .filter_map(|(z, x, y)| TileCoord::new(z, x, y))
            .filter(|tile| swiss.touches(*tile))
            .map(|tile| there.key(tile, Scale::One))
            .collect();
        assert!(keys.len() > 10);
        let proposal = propose(&wanted, keys.iter().map(String::as_str)).unwrap();
        match proposal.version {
            Some(version) => format!("version {version}"),
            None => proposal.template,
        }
    }

    #[test]
    fn the_template_is_read_off_the_keys() {
        let configured = "world/{z}/{x}/{y}.png";
        for there in [
            "world/{z}/{x}/{y}.jpg",
            "tiles/world/{z}/{x}/{y}.png",
            "world/{z}/{x}/{-y}.png",
            "world/{quadkey}.png",
            "world/{z}/{y}/{x}.png",
            "world/{z}-{x}-{y}",
            "v2/world_{z}_{x}_{y}.webp",
            "World/{z}/{x}/{y}.png",
        ] {
            assert_eq!(proposed(configured, there), there);
        }
        assert_eq!(
            proposed("w/{z}/{x}/{-y}.png", "world/{z}/{x}/{y}.png"),
            "world/{z}/{x}/{y}.png"
        );
        let versioned = "world/{version}/{z}/{x}/{y}.png";
        assert_eq!(proposed(versioned, versioned), "version 2026-12");
    }

    #[test]
    fn a_whole_pyramid_fits_both_ways_and_is_left_as_configured() {
        let keys = ["t/1/0/0.png", "t/1/0/1.png", "t/1/1/0.png", "t/1/1/1.png"];
        for (configured, expected) in [
            ("w/{z}/{x}/{y}.png", "t/{z}/{x}/{y}.png"),
            ("w/{z}/{x}/{-y}.png", "t/{z}/{x}/{-y}.png"),
        ] {
            let wanted = tileset(configured, Bounds::WORLD, None);
            let proposal = propose(&wanted, keys.into_iter()).unwrap();
            assert_eq!(proposal.template, expected);
            assert_eq!(proposal.zooms, (1, 1));
        }
    }

    #[test]
    fn other_files_are_no_tiles() {
        let wanted = tileset("w/{z}/{x}/{y}.png", Bounds::WORLD, None);
        for keys in [
            &["readme.txt", "logs/access.log"][..],
            &["backup/2026-11-22.tar", "backup/2026-11-23.tar"],
            &["img_0094321.jpg"],
        ] {
            assert_eq!(propose(&wanted, keys.iter().copied()), None, "{keys:?}");
        }
    }

    #[test]
    fn a_key_is_traced_back_to_its_tile() {
        let wanted = tileset("w/{z}/{x}/{-y}.png", Bounds::WORLD, None);
        let tile = TileCoord::new(3, 1, 7);
        assert_eq!(tile_of(&wanted, "w/3/1/0.png"), tile);
        assert_eq!(tile_of(&wanted, "w/3/1/0.jpg"), None);
        assert_eq!(tile_of(&wanted, "w/3/9/0.png"), None);
        let wanted = tileset("{quadkey}", Bounds::WORLD, None);
        assert_eq!(tile_of(&wanted, "023"), TileCoord::new(3, 1, 3));
    }

    #[test]
    fn density_is_part_of_the_template() {
        let wanted = tileset("w/{z}/{x}/{y}.png", Bounds::WORLD, None);
        let keys = ["t/1/0/0@2x.png", "t/1/0/1@2x.png"];
        let proposal = propose(&wanted, keys.into_iter()).unwrap();
        assert_eq!(proposal.template, "t/{z}/{x}/{y}{r}.png");
    }
}
