//! A tileset's `version` in the configuration file.
//!
//! Invariant: nothing else in the file changes, comments and order included, and the file is there whole at
//! any moment: a new one takes its place.

use std::io::Write as _;
use std::path::Path;

use toml_edit::{DocumentMut, Item, TableLike, value};

/// Why the file was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// It cannot be read or written.
    #[error("{file}: {source}; set `version = \"{version}\"` in [tilesets.{tileset}] by hand")]
    Io {
        /// Its name.
        file: String,
        /// The tileset.
        tileset: String,
        /// The version to be set.
        version: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not what it was when it was read.
    #[error(
        "{file}: no [tilesets.{tileset}] in it any more; set `version = \"{version}\"` by hand"
    )]
    NotThere {
        /// Its name.
        file: String,
        /// The tileset.
        tileset: String,
        /// The version to be set.
        version: String,
    },
}

/// Sets a tileset's version in a file. False: it had that version already.
pub fn rewrite(path: &Path, tileset: &str, version: &str) -> Result<bool, SwitchError> {
    let file = path.display().to_string();
    let io = |source| SwitchError::Io {
        file: file.clone(),
        tileset: tileset.to_owned(),
        version: version.to_owned(),
        source,
    };
    // A link stays one.
    let path = path.canonicalize().map_err(io)?;
    let text = std::fs::read_to_string(&path).map_err(io)?;
    let changed = with_version(&text, tileset, version).ok_or_else(|| SwitchError::NotThere {
        file: file.clone(),
        tileset: tileset.to_owned(),
        version: version.to_owned(),
    })?;
    if changed == text {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    new.write_all(changed.as_bytes()).map_err(io)?;
    let mode = std::fs::metadata(&path).map_err(io)?.permissions();
    new.as_file().set_permissions(mode).map_err(io)?;
    new.as_file().sync_all().map_err(io)?;
    new.persist(&path).map_err(|error| io(error.error))?;
    Ok(true)
}

/// The text with this version; `None` where it has no such tileset.
fn with_version(text: &str, tileset: &str, version: &str) -> Option<String> {
    let mut document: DocumentMut = text.parse().ok()?;
    let tilesets = document.get_mut("tilesets")?.as_table_like_mut()?;
    let table: &mut dyn TableLike = tilesets.get_mut(tileset)?.as_table_like_mut()?;
    match table.get_mut("version") {
        Some(Item::Value(old)) => {
            if old.as_str() == Some(version) {
                return Some(text.to_owned());
            }
            let decor = old.decor().clone();
            *old = version.into();
            *old.decor_mut() = decor;
        }
        _ => {
            table.insert("version", value(version));
        }
    }
    Some(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# ours\n[server]\nlisten = '127.0.0.1:1'   # here\n\n[tilesets.world]   # the map\nkey = 'w/{version}/{z}/{x}/{y}.png'\nversion = \"2026-10\"   # switched by publish\n# the end\n";

    #[test]
    fn only_the_version_changes() {
        let changed = with_version(FILE, "world", "2026-11").unwrap();
        assert_eq!(changed, FILE.replace("2026-10", "2026-11"));
        assert_eq!(with_version(FILE, "sea", "2026-11"), None);
        let inline = "tilesets = { world = { version = 'a', key = 'k' } }\n";
        let changed = with_version(inline, "world", "b").unwrap();
        assert_eq!(changed, inline.replace("'a'", "\"b\""));
        let none = with_version("[tilesets.w]\nkey = 'k'\n", "w", "b").unwrap();
        assert_eq!(none, "[tilesets.w]\nkey = 'k'\nversion = \"b\"\n");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_keeps_its_mode_and_a_link_stays_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("real.toml");
        std::fs::write(&file, FILE).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("tilekeep.toml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(rewrite(&link, "world", "2026-11").unwrap());
        assert!(!rewrite(&link, "world", "2026-11").unwrap());
        assert!(link.is_symlink());
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(std::fs::read_to_string(&file).unwrap().contains("2026-11"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
