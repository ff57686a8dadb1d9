//! `tilekeep urls`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::loadtest::{ServerArgs, think};
use super::purge::zooms;
use super::{Failure, block_on, bounds};
use crate::client::{Client, Protocol};
use crate::loadtest::{self, Ground, Screen, UrlFormat, simulated};
use crate::tile::{Bounds, Cover, Coverage};

/// Print lists of tile URLs for wrk, oha, k6 and vegeta.
///
/// Without --zoom: what the simulated people of `tilekeep loadtest` ask for, in their order, each browser keeping
/// what it has seen. With --zoom: all tiles of these zooms, in an area or in the tileset's bounds.
///
/// The server tells the tilesets' zooms and bounds. No list holds a token. Load only servers that are yours.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep urls --tileset world --format wrk --limit 20000 > urls.txt
  wrk -t2 -c64 -d30s -s benches/load/wrk.lua http://127.0.0.1:8080 -- urls.txt

  tilekeep urls --tileset world --zoom 0-6 --bbox 5.9,45.8,10.5,47.8 --format k6 > urls.json
  k6 run -e URLS=$PWD/urls.json benches/load/k6.js

A token comes from TILEKEEP_TOKEN or --token-file; the scripts in benches/load take it from TILEKEEP_TOKEN too.")]
pub(super) struct UrlsArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Who reads the list.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "plain")]
    format: UrlFormat,

    /// The most URLs.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,

    /// All tiles of a zoom or a range of zooms, like 12 or 0-6, instead of people's views.
    #[arg(long, value_name = "ZOOMS", value_parser = zooms)]
    zoom: Option<(u8, u8)>,

    /// Of these, those of this area: west, south, east, north in degrees. Again for more.
    #[arg(long, value_name = "W,S,E,N", value_parser = bounds, allow_hyphen_values = true, requires = "zoom")]
    bbox: Vec<Bounds>,

    /// Of these, those of the polygons of a GeoJSON file.
    #[arg(long, value_name = "FILE", requires = "zoom", conflicts_with = "bbox")]
    area: Option<PathBuf>,

    /// Of the simulated people's chance.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "zoom")]
    seed: u64,

    /// How many simulated people.
    #[arg(long, value_name = "N", default_value_t = 20, conflicts_with = "zoom", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    users: u32,

    /// The simulated people's maps in CSS pixels.
    #[arg(
        long,
        value_name = "WxH",
        default_value = "1280x800",
        conflicts_with = "zoom"
    )]
    screen: Screen,

    /// How long a view is looked at, on average: it decides in which order people come.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = think, conflicts_with = "zoom")]
    think: std::time::Duration,
}

#[expect(clippy::needless_pass_by_value, reason = "as every command is called")]
pub(super) fn run(args: UrlsArgs) -> Result<(), Failure> {
    let coverage = coverage(&args.bbox, args.area.as_deref())?;
    let url = args.server.url()?;
    let tokens = args.server.tokens(&url)?;
    let client = Client::new(url, Protocol::Http1);
    let grounds = loadtest::grounds(&client, tokens.first(), &args.server.tileset);
    let grounds = block_on(grounds)?.map_err(|error| Failure::failed(&error))?;
    let paths: Box<dyn Iterator<Item = String>> = match args.zoom {
        Some(zooms) => Box::new(area(grounds, zooms, coverage)),
        None => Box::new(simulated(
            args.seed,
            args.users,
            grounds,
            args.screen,
            args.think,
        )),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = args
        .format
        .write(&mut out, client.url(), paths.take(args.limit))
        .and_then(|count| out.flush().map(|()| count));
    match written {
        Ok(0) => Err(Failure::Failed(
            "no tile of these tilesets is in that area and those zooms".to_owned(),
        )),
        Ok(count) => {
            let hint = args.format.hint(client.url());
            eprintln!("{count} URLs; use them like: {hint}");
            Ok(())
        }
        // `| head` has what it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::Failed(format!("stdout: {error}"))),
    }
}

/// The area that is asked for; none: all of each tileset.
fn coverage(bbox: &[Bounds], area: Option<&Path>) -> Result<Option<Coverage>, Failure> {
    let Some(path) = area else {
        return Ok((!bbox.is_empty()).then(|| Coverage::boxes(bbox)));
    };
    super::prefetch::outline(path).map(Some)
}

/// All tiles of some zooms in an area and the tileset's own bounds, each place with all that is below it before
/// the next. Nothing is listed beforehand.
fn area(
    grounds: Vec<Ground>,
    (min, max): (u8, u8),
    coverage: Option<Coverage>,
) -> impl Iterator<Item = String> {
    grounds.into_iter().flat_map(move |ground| {
        let zooms = (min.max(ground.minzoom), max.min(ground.maxzoom));
        let cover = match &coverage {
            Some(coverage) => Cover::new(coverage, zooms, ground.bounds),
            None => Cover::new(&Coverage::boxes(&[ground.bounds]), zooms, ground.bounds),
        };
        cover.walk().map(move |tile| ground.path(tile))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(minzoom: u8, maxzoom: u8) -> Ground {
        Ground {
            name: "a".into(),
            minzoom,
            maxzoom,
            bounds: Bounds::WORLD,
            tile_size: 256,
            template: "/a/{z}/{x}/{y}.png".into(),
        }
    }

    #[test]
    fn an_area_has_the_tiles_that_touch_it_within_the_tilesets_zooms() {
        let all = |zooms, coverage| area(vec![ground(1, 3)], zooms, coverage).collect::<Vec<_>>();
        assert_eq!(all((0, 30), None).len(), 4 + 16 + 64);
        assert_eq!(all((0, 1), None).len(), 4);
        assert!(all((4, 9), None).is_empty());
        let alps = Bounds::new([5.9, 45.8, 10.5, 47.8]).unwrap();
        let alps = coverage(&[alps], None).unwrap();
        assert_eq!(all((3, 3), alps), ["/a/3/4/2.png"]);
    }

    #[test]
    fn a_small_area_of_a_deep_zoom_is_found_at_once() {
        let alps = Bounds::new([5.9, 45.8, 5.9001, 45.8001]).unwrap();
        let alps = Some(Coverage::boxes(&[alps]));
        let deep = area(vec![ground(0, 22)], (22, 22), alps).count();
        assert!((1..20).contains(&deep), "{deep}");
    }
}
