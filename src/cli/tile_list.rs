//! Lists of tiles and other texts that commands are given, in a file or on standard input.
//!
//! Invariant: what is wrong is wrong usage, named by argument, file and line; no file is read beyond its bound.

use std::io::Read as _;
use std::path::Path;

use super::Failure;
use crate::tile::TileCoord;

/// A file's text, or standard input's for `-`: so many bytes at most.
pub(super) fn read(path: &Path, argument: &str, most: u64) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(most + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_string(&mut text))
    };
    let refused = |what: &dyn std::fmt::Display| {
        Failure::Usage(format!("{argument} {}: {what}", path.display()))
    };
    read.map_err(|error| refused(&error))?;
    if text.len() as u64 > most {
        return Err(refused(&format!("more than {} MiB", most >> 20)));
    }
    Ok(text)
}

/// The tiles of a file, so many at most: a z/x/y on each line; empty lines and those that begin with # are skipped.
pub(super) fn tiles(path: &Path, most: usize) -> Result<Vec<TileCoord>, Failure> {
    // "30/1073741823/1073741823" and its end: a tile is never longer; comments get a MiB.
    let text = read(path, "--tiles", (most as u64 * 26) + (1 << 20))?;
    listed(&text, most)
        .map_err(|error| Failure::Usage(format!("--tiles {}: {error}", path.display())))
}

fn listed(text: &str, most: usize) -> Result<Vec<TileCoord>, String> {
    let mut tiles = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let numbers: Option<Vec<u32>> = line.split('/').map(|part| part.parse().ok()).collect();
        let tile = match numbers.as_deref() {
            Some(&[z, x, y]) => u8::try_from(z).ok().and_then(|z| TileCoord::new(z, x, y)),
            _ => None,
        };
        tiles.push(tile.ok_or_else(|| {
            let shown: String = line.chars().take(40).collect();
            format!("line {number}: {shown:?} is no tile: write z/x/y, like 5/16/10")
        })?);
        if tiles.len() > most {
            return Err(format!(
                "more than {most} tiles: split the file, or name an area"
            ));
        }
    }
    Ok(tiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tiles_is_read_and_its_faults_are_named_with_their_line() {
        let tiles = listed("# from the log\n5/16/10\n\n 0/0/0 \r\n", 2).unwrap();
        assert_eq!(
            tiles,
            [
                TileCoord::new(5, 16, 10).unwrap(),
                TileCoord::new(0, 0, 0).unwrap()
            ]
        );
        for (text, words) in [
            ("0/0/0\n1/2/0", "line 2: \"1/2/0\" is no tile"),
            ("5/16", "line 1"),
            ("world/5/16/10.png", "line 1"),
            ("0/0/0\n1/0/0\n1/0/1\n", "more than 2 tiles"),
        ] {
            let error = listed(text, 2).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(listed("\n#\n", 2), Ok(Vec::new()));
    }

    #[test]
    fn a_file_that_is_not_there_or_too_long_is_wrong_usage() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        assert!(matches!(tiles(&file, 1), Err(Failure::Usage(_))));
        std::fs::write(&file, " ".repeat((1 << 20) + 27)).unwrap();
        let Err(Failure::Usage(error)) = tiles(&file, 1) else {
            panic!("wrong usage");
        };
        assert!(error.contains("list: more than 1 MiB"), "{error}");
    }
}
