//! Key templates: how a tile's coordinates become an object's key, `world/{z}/{x}/{y}.png`; or the one key
//! of an archive that holds them all, `world.pmtiles`.

mod inverse;

use std::fmt::Write as _;

use super::{Scale, TileCoord, TileFormat};

pub use inverse::KeyedTile;

/// Why a key template was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name between braces that means nothing here.
    #[error(
        "`{{{0}}}` is not a placeholder: use {{z}}, {{x}}, {{y}}, {{-y}}, {{quadkey}}, {{ext}}, {{r}} or {{version}}"
    )]
    UnknownPlaceholder(String),
    /// A brace without its partner.
    #[error("a brace is not closed or not opened: placeholders look like {{z}}")]
    UnbalancedBrace,
    /// Two tiles would share a key.
    #[error(
        "every tile needs a key of its own: use {{z}}, {{x}} and {{y}} (or {{-y}}), or {{quadkey}}"
    )]
    Ambiguous,
    /// `{version}` where the tileset has none.
    #[error(
        "{{version}} is used, but the tileset has no `version`; name the one that is there, like version = \"2026-11\""
    )]
    NoVersion,
    /// S3 refuses keys over 1,024 bytes.
    #[error("the key would be longer than the 1024 bytes that S3 allows")]
    TooLong,
}

/// Whether a key without coordinates names an archive: it ends in `.pmtiles`.
pub fn is_archive(key: &str) -> bool {
    let at = key.len().saturating_sub(".pmtiles".len());
    at > 0
        && key
            .get(at..)
            .is_some_and(|e| e.eq_ignore_ascii_case(".pmtiles"))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Version(String),
    Z,
    X,
    Y,
    TmsY,
    Quadkey,
    Density,
}

/// A checked key template. `{ext}` and `{version}` are filled in when it is made, the rest per tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate {
    source: String,
    parts: Vec<Part>,
    /// The archive's key.
    archive: Option<String>,
}

impl KeyTemplate {
    /// Reads a template for a tileset of this format and version.
    pub fn new(
        source: &str,
        format: TileFormat,
        version: Option<&str>,
    ) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(at) = rest.find(['{', '}']) {
            push_text(&mut parts, &rest[..at]);
            let inside = rest[at..]
                .strip_prefix('{')
                .ok_or(TemplateError::UnbalancedBrace)?;
            let end = inside
                .find(['{', '}'])
                .ok_or(TemplateError::UnbalancedBrace)?;
            if inside.as_bytes()[end] != b'}' {
                return Err(TemplateError::UnbalancedBrace);
            }
            match &inside[..end] {
                "z" => parts.push(Part::Z),
                "x" => parts.push(Part::X),
                "y" => parts.push(Part::Y),
                "-y" => parts.push(Part::TmsY),
                "quadkey" => parts.push(Part::Quadkey),
                "r" => parts.push(Part::Density),
                "ext" => push_text(&mut parts, format.extension()),
                "version" => {
                    let version = version.ok_or(TemplateError::NoVersion)?;
                    parts.push(Part::Version(version.to_owned()));
                }
                other => return Err(TemplateError::UnknownPlaceholder(other.to_owned())),
            }
            rest = &inside[end + 1..];
        }
        push_text(&mut parts, rest);

        let has = |part: &Part| parts.contains(part);
        let by_row = has(&Part::Z) && has(&Part::X) && (has(&Part::Y) || has(&Part::TmsY));
        let fixed: Option<String> = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) | Part::Version(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        let archive = fixed.filter(|key| is_archive(key));
        if !by_row && !has(&Part::Quadkey) && archive.is_none() {
            return Err(TemplateError::Ambiguous);
        }
        let template = Self {
            source: source.to_owned(),
            parts,
            archive,
        };
        let longest = TileCoord::new(super::MAX_ZOOM, (1 << 30) - 1, 1 << 29);
        match longest {
            Some(tile) if template.key(tile, Scale::Two).len() > 1024 => {
                Err(TemplateError::TooLong)
            }
            _ => Ok(template),
        }
    }

    /// The key of the archive that holds all the tiles; `None`: each tile is an object of its own.
    pub fn archive(&self) -> Option<&str> {
        self.archive.as_deref()
    }

    /// The object's key for one tile. Of an archive it is the archive's.
    pub fn key(&self, tile: TileCoord, scale: Scale) -> String {
        self.key_of(tile, scale, None)
    }

    /// The same, of another version.
    fn key_of(&self, tile: TileCoord, scale: Scale, version: Option<&str>) -> String {
        let mut key = String::with_capacity(self.source.len() + 24);
        for part in &self.parts {
            // Writing to a String cannot fail.
            let _ = match part {
                Part::Text(text) => key.write_str(text),
                Part::Version(own) => key.write_str(version.unwrap_or(own)),
                Part::Z => write!(key, "{}", tile.z()),
                Part::X => write!(key, "{}", tile.x()),
                Part::Y => write!(key, "{}", tile.y()),
                Part::TmsY => write!(key, "{}", tile.tms_y()),
                Part::Quadkey => key.write_str(&tile.quadkey()),
                Part::Density => key.write_str(scale.suffix()),
            };
        }
        key
    }

    /// Whether `@2x` tiles have keys of their own (`{r}` is used).
    pub fn has_density(&self) -> bool {
        self.parts.contains(&Part::Density)
    }

    /// Whether another version has other keys (`{version}` is used).
    pub fn has_version(&self) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part, Part::Version(_)))
    }

    /// The text before the first placeholder that differs from tile to tile or from version to version: what a
    /// policy can name. One that named the version would refuse the tiles of the next.
    pub fn fixed_prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Neighbouring texts become one part, so that templates with `{ext}` compare and print alike.
fn push_text(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Some(Part::Text(last)) = parts.last_mut() {
        last.push_str(text);
    } else {
        parts.push(Part::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(source: &str) -> Result<String, TemplateError> {
        let tile = TileCoord::new(3, 3, 5).unwrap();
        KeyTemplate::new(source, TileFormat::Png, Some("v7")).map(|t| t.key(tile, Scale::Two))
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        assert_eq!(key("a/{z}/{x}/{y}.{ext}").unwrap(), "a/3/3/5.png");
        assert_eq!(key("a/{z}/{x}/{-y}{r}.png").unwrap(), "a/3/3/2@2x.png");
        assert_eq!(key("{version}/{quadkey}").unwrap(), "v7/213");
    }

    #[test]
    fn a_template_that_gives_two_tiles_one_key_is_refused() {
        assert_eq!(key("a/{z}/{x}.png"), Err(TemplateError::Ambiguous));
        assert_eq!(key("a/{x}/{y}.png"), Err(TemplateError::Ambiguous));
        assert_eq!(key("fixed"), Err(TemplateError::Ambiguous));
    }

    #[test]
    fn an_archive_has_one_key_for_all_its_tiles() {
        let archive = KeyTemplate::new("w/{version}.pmtiles", TileFormat::Png, Some("v7")).unwrap();
        assert_eq!(archive.archive(), Some("w/v7.pmtiles"));
        // What a role may read: after a switch too.
        assert_eq!(archive.fixed_prefix(), "w/");
        let plain = KeyTemplate::new("w.pmtiles", TileFormat::Png, None).unwrap();
        assert_eq!(plain.fixed_prefix(), "w.pmtiles");
        assert!(!archive.has_density());
        let tiles = KeyTemplate::new("w.pmtiles/{z}/{x}/{y}.pmtiles", TileFormat::Png, None);
        assert_eq!(tiles.unwrap().archive(), None);
        assert_eq!(key(".pmtiles"), Err(TemplateError::Ambiguous));
    }

    #[test]
    fn a_mistyped_placeholder_is_named() {
        assert_eq!(
            key("{z}/{x}/{Y}"),
            Err(TemplateError::UnknownPlaceholder("Y".into()))
        );
        assert_eq!(key("{z}/{x}/{y"), Err(TemplateError::UnbalancedBrace));
        assert_eq!(key("{z}/{x}}/{y}"), Err(TemplateError::UnbalancedBrace));
        let none = KeyTemplate::new("{version}/{quadkey}", TileFormat::Png, None);
        assert_eq!(none, Err(TemplateError::NoVersion));
    }

    #[test]
    fn the_fixed_prefix_ends_at_the_first_coordinate_or_version() {
        let prefix = |source| {
            let template = KeyTemplate::new(source, TileFormat::Png, Some("v7")).unwrap();
            template.fixed_prefix().to_owned()
        };
        assert_eq!(prefix("a/{ext}/b-{z}/{x}/{y}"), "a/png/b-");
        assert_eq!(prefix("a/{version}/{z}/{x}/{y}"), "a/");
    }
}
