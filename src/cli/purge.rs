//! `tilekeep purge`: drops tiles from a running server's caches.

use std::path::PathBuf;

use clap::Args;
use http::Uri;

use super::admin::Admin;
use super::{Failure, block_on, print, tile_list};
use crate::cluster::Handed;
use crate::http::purge::{MAX_TILES, PurgeReport, PurgeRequest};

/// Drop tiles from a running server's caches.
///
/// By tileset, and within it by zoom, area or list: everything that fits all that is said. In effect on that
/// server when the command ends. Browsers keep what they have until its `max-age` is over.
#[derive(Debug, Args)]
// Here `--version` is the tileset's.
#[command(disable_version_flag = true)]
#[command(after_help = "\
Examples:
  tilekeep purge --tileset world
  tilekeep purge --tileset world --zoom 10-14 --bbox 5.9,45.8,10.5,47.8
  tilekeep purge --tileset world --tiles changed.txt --soft
  TILEKEEP_ADMIN_TOKEN=… tilekeep purge --admin http://10.0.0.5:9090 --tileset world

A list has a z/x/y on each line; lines that begin with # are skipped.")]
pub(super) struct PurgeArgs {
    /// The server's admin side.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: Uri,

    /// The tileset.
    #[arg(long, value_name = "NAME")]
    tileset: String,

    /// Of this version instead of the current one.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// A zoom or a range of zooms, like 12 or 0-12.
    #[arg(long, value_name = "ZOOMS", value_parser = zooms)]
    zoom: Option<(u8, u8)>,

    /// Tiles that touch this area: west, south, east, north in degrees.
    #[arg(long, value_name = "W,S,E,N", value_parser = bbox, allow_hyphen_values = true)]
    bbox: Option<[f64; 4]>,

    /// The tiles in this file, a z/x/y on each line; - for standard input.
    #[arg(long, value_name = "FILE")]
    tiles: Option<PathBuf>,

    /// Mark stale instead of dropping: tiles stay usable until they are revalidated.
    #[arg(long)]
    soft: bool,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: PurgeArgs) -> Result<(), Failure> {
    let tiles = args.tiles.as_deref().map(read_tiles).transpose()?;
    let request = PurgeRequest {
        tileset: args.tileset,
        version: args.version,
        minzoom: args.zoom.map(|(min, _)| min),
        maxzoom: args.zoom.map(|(_, max)| max),
        bbox: args.bbox,
        tiles,
        soft: args.soft,
    };
    let admin = Admin::from_environment(&args.admin)?;
    let report: PurgeReport = block_on(admin.post("/purge", &request))??;
    if args.json {
        print(&serde_json::to_string(&report).unwrap_or_default())?;
    } else {
        let done = if request.soft {
            "marked stale"
        } else {
            "dropped"
        };
        let others = match report.cluster {
            Some(Handed::Sent) => "; the other nodes were told",
            Some(Handed::Unreachable) | None => "",
        };
        print(&format!(
            "{done}: {} in memory, {} on disk{others}",
            report.memory, report.disk
        ))?;
    }
    match report.cluster {
        Some(Handed::Unreachable) => Err(Failure::Failed(
            "the other nodes were not told: this node does not reach its Redis. Purge again when it is back, or \
             purge each node by its own --admin"
                .to_owned(),
        )),
        Some(Handed::Sent) | None => Ok(()),
    }
}

/// As the server takes them. A list may be empty: then nothing is dropped.
fn read_tiles(path: &std::path::Path) -> Result<Vec<String>, Failure> {
    let tiles = tile_list::tiles(path, MAX_TILES)?;
    Ok(tiles.iter().map(ToString::to_string).collect())
}

pub(super) fn zooms(text: &str) -> Result<(u8, u8), String> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let zoom = |text: &str| {
        text.parse::<u8>()
            .map_err(|_| "a zoom like 12, or a range like 0-12".to_owned())
    };
    let (min, max) = (zoom(min)?, zoom(max)?);
    if min > max {
        return Err("the first zoom is above the second".to_owned());
    }
    Ok((min, max))
}

fn bbox(text: &str) -> Result<[f64; 4], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    let numbers: Option<[f64; 4]> = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    let bbox = numbers.ok_or("four numbers: west,south,east,north")?;
    crate::tile::Bounds::new(bbox).map_err(|error| error.to_string())?;
    Ok(bbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zooms_and_areas_are_read() {
        assert_eq!(zooms("7"), Ok((7, 7)));
        assert_eq!(zooms("0-12"), Ok((0, 12)));
        assert!(zooms("12-0").is_err() && zooms("a").is_err() && zooms("-3").is_err());
        assert_eq!(bbox("-10, -5,10,5.5"), Ok([-10.0, -5.0, 10.0, 5.5]));
        assert!(bbox("1,2,3").is_err() && bbox("0,9,1,1").is_err());
    }
}
