//! Lists of URLs for other people's generators.
//!
//! Invariant: no list holds a credential: each tool is given one by its own option or the environment.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::person::{Walk, World};
use super::view::{Ground, Screen};

/// Which generator reads the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UrlFormat {
    /// A URL a line.
    Plain,
    /// A path a line, for `benches/load/wrk.lua`.
    Wrk,
    /// A URL a line, for `oha --urls-from-file`.
    Oha,
    /// A JSON array of URLs, for `benches/load/k6.js`.
    K6,
    /// `GET URL` a line, for `vegeta attack -targets`.
    Vegeta,
}

impl UrlFormat {
    /// Writes the URLs of paths on a server, as they come.
    pub fn write(
        self,
        out: &mut impl std::io::Write,
        server: &dyn fmt::Display,
        paths: impl Iterator<Item = String>,
    ) -> std::io::Result<u64> {
        let mut count = 0;
        for path in paths {
            match self {
                Self::Plain | Self::Oha => writeln!(out, "{server}{path}")?,
                Self::Wrk => writeln!(out, "{path}")?,
                Self::Vegeta => writeln!(out, "GET {server}{path}")?,
                Self::K6 => {
                    let before = if count == 0 { "[\n" } else { ",\n" };
                    let url = serde_json::Value::from(format!("{server}{path}"));
                    write!(out, "{before}{url}")?;
                }
            }
            count += 1;
        }
        if self == Self::K6 {
            out.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        Ok(count)
    }

    /// How the list is used.
    pub fn hint(self, server: &dyn fmt::Display) -> String {
        let token = "Authorization: Bearer $TILEKEEP_TOKEN";
        match self {
            Self::Plain => format!("curl -H \"{token}\" URL"),
            Self::Wrk => format!("wrk -s benches/load/wrk.lua {server} -- LIST"),
            Self::Oha => format!("oha --urls-from-file -H \"{token}\" LIST"),
            Self::K6 => "k6 run -e URLS=$PWD/LIST benches/load/k6.js".to_owned(),
            Self::Vegeta => {
                format!("vegeta attack -targets=LIST -header \"{token}\" -rate=100 -duration=30s")
            }
        }
    }
}

/// The paths that the simulated people of a seed ask for, in the order of their wishes, if every browser keeps
/// what it has seen. Without an end, and it keeps what they have seen: take as many as are needed.
pub fn simulated(
    seed: u64,
    users: u32,
    grounds: Vec<Ground>,
    screen: Screen,
    pause: Duration,
) -> impl Iterator<Item = String> {
    let world = Arc::new(World::new(seed, grounds, screen, pause));
    let mut people: Vec<(Walk, HashSet<(usize, u64)>)> = (0..users)
        .map(|person| (Walk::new(Arc::clone(&world), person), HashSet::new()))
        .collect();
    let mut next: BinaryHeap<Reverse<(Duration, usize)>> = (0..people.len())
        .map(|person| Reverse((Duration::ZERO, person)))
        .collect();
    std::iter::from_fn(move || {
        // A view that asks for nothing has an empty list: the next view comes at once.
        let Reverse((at, person)) = next.pop()?;
        let (walk, shown) = &mut people[person];
        let step = walk.next()?;
        next.push(Reverse((at + step.pause, person)));
        let ground = &world.grounds()[step.view.ground];
        let tiles = step.view.tiles(ground, world.screen());
        let new = tiles
            .into_iter()
            .filter(|tile| shown.insert((step.view.ground, tile.number())));
        Some(new.map(|tile| ground.path(tile)).collect::<Vec<_>>())
    })
    // A small pyramid is seen in whole: then there is nothing left to ask for.
    .scan(0_u32, |idle, paths| {
        *idle = if paths.is_empty() { *idle + 1 } else { 0 };
        (*idle < 10_000).then_some(paths)
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::ground;
    use super::*;
    use crate::tile::Bounds;

    fn list(format: UrlFormat, paths: &[&str]) -> String {
        let mut out = Vec::new();
        let paths = paths.iter().map(|path| (*path).to_owned());
        format
            .write(&mut out, &"http://127.0.0.1:8080", paths)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_tool_gets_what_it_reads() {
        let paths = ["/a/0/0/0.png", "/b/1/0/0.png?v=1"];
        assert_eq!(
            list(UrlFormat::Wrk, &paths),
            "/a/0/0/0.png\n/b/1/0/0.png?v=1\n"
        );
        let plain = "http://127.0.0.1:8080/a/0/0/0.png\nhttp://127.0.0.1:8080/b/1/0/0.png?v=1\n";
        assert_eq!(list(UrlFormat::Plain, &paths), plain);
        assert_eq!(list(UrlFormat::Oha, &paths), plain);
        assert!(list(UrlFormat::Vegeta, &paths).starts_with("GET http://127.0.0.1:8080/a"));
        for paths in [&paths[..], &paths[..1], &[]] {
            let json = list(UrlFormat::K6, paths);
            let urls: Vec<String> = serde_json::from_str(&json).unwrap();
            assert_eq!(urls.len(), paths.len());
        }
    }

    fn people(seed: u64, maxzoom: u8) -> impl Iterator<Item = String> {
        let grounds = vec![ground(0, maxzoom, Bounds::WORLD)];
        simulated(seed, 5, grounds, Screen::default(), Duration::from_secs(5))
    }

    #[test]
    fn a_seeds_list_is_the_same_again() {
        let take = |seed| people(seed, 12).take(500).collect::<Vec<_>>();
        assert_eq!(take(3), take(3));
        assert_ne!(take(3), take(4));
    }

    #[test]
    fn a_pyramid_that_everybody_has_seen_ends_the_list() {
        // 21 tiles, for each of five browsers.
        assert_eq!(people(1, 2).count(), 5 * 21);
    }
}
