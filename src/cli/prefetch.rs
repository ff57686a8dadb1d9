//! `tilekeep prefetch`: seeds a running server's caches, or writes an archive.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::loadtest::{ProtocolArg, TOKEN};
use super::purge::zooms;
use super::{Failure, block_on, print, prompt, tile_list};
use crate::archive;
use crate::client::{Client, Credential, ServerUrl};
use crate::clock::Clock;
use crate::prefetch::{
    LogIn, Mode, Plan, Pool, ResumeFile, Runner, Settings, TilesetFacts, estimate, learn,
    may_explain,
};
use crate::shutdown;
use crate::tile::{Bounds, Coverage, MAX_AREA_BYTES, MAX_LISTED, MAX_ZOOM};

mod progress;
mod said;

/// Where `--resume` without a name keeps its place.
const RESUME: &str = "tilekeep-prefetch.resume";

/// Seed a running server with the tiles of an area, or export them to a file for offline use.
///
/// Seeding asks for every tile once, so that the server has it before anybody looks: over the same URLs as a map,
/// with a session of its own. It goes no faster than the server says it can take. An absent tile is a success.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep prefetch --url https://tiles.example.com --tileset world --bbox 5.9,45.8,10.5,47.8 --zoom 0-12
  tilekeep prefetch … --dry-run                      how many tiles, bytes, and what S3 asks for them
  tilekeep prefetch … --resume alps.resume           the same again goes on where it ended
  tilekeep prefetch … --area alps.geojson --output alps.pmtiles

The session's token comes from TILEKEEP_TOKEN or --token-file; --username signs in by name, with the password from
TILEKEEP_PASSWORD or typed: on a command line, others on the machine see it. Exit codes: 0 done, 1 finished with failures (listed), 2 wrong usage.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct PrefetchArgs {
    /// The server's public address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    // Not read by clap, whose error would repeat a password in it.
    url: String,

    /// The tileset; again for more than one.
    #[arg(long, value_name = "NAME", required = true)]
    tileset: Vec<String>,

    /// The area: west, south, east, north in degrees; west above east crosses the antimeridian. Again for more.
    #[arg(long, value_name = "W,S,E,N", value_parser = super::bounds, allow_hyphen_values = true,
          required_unless_present_any = ["area", "tiles"], conflicts_with_all = ["area", "tiles"])]
    bbox: Vec<Bounds>,

    /// The area: the polygons of a GeoJSON file, without their holes.
    #[arg(long, value_name = "FILE", conflicts_with = "tiles")]
    area: Option<PathBuf>,

    /// The tiles in this file, a z/x/y on each line; - for standard input.
    #[arg(long, value_name = "FILE")]
    tiles: Option<PathBuf>,

    /// A zoom or a range of zooms, like 12 or 0-12.
    #[arg(long, value_name = "ZOOMS", value_parser = zooms, required_unless_present = "tiles")]
    zoom: Option<(u8, u8)>,

    /// Write the tiles to this archive, .pmtiles or .mbtiles.
    #[arg(long, value_name = "FILE", conflicts_with = "stale_only")]
    output: Option<PathBuf>,

    /// Write the archive even if tiles failed and are missing in it.
    #[arg(long, requires = "output")]
    allow_missing: bool,

    /// Only what the server has: what is stale or soon will be is revalidated, what it does not have stays unfetched.
    #[arg(long)]
    stale_only: bool,

    /// With --stale-only: what counts as soon. It is refreshed for a session of a background class, or else counted.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    stale_within: Duration,

    /// Count the tiles, estimate bytes and cost from a sample, and end.
    #[arg(long, conflicts_with = "stale_only")]
    dry_run: bool,

    /// With --dry-run: how many tiles to ask for; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    sample: u32,

    /// With --dry-run: what 1000 GET requests to S3 cost, in US dollars.
    #[arg(long, value_name = "USD", default_value_t = 0.0004)]
    get_price: f64,

    /// Keep the place in this file, and go on from there when it is there.
    ///
    /// Without a name it is tilekeep-prefetch.resume; an archive keeps its place itself, in FILE.partial.
    #[arg(long, value_name = "FILE")]
    #[allow(clippy::option_option, reason = "the argument, and its value")]
    resume: Option<Option<PathBuf>>,

    /// Requests at a time, at most.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: u32,

    /// Requests in a second, at most; 0 for as many as the server answers.
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = rate)]
    rate: f64,

    /// HTTP/1.1 (a connection for each request at a time) or HTTP/2.
    // `--http 1.1` and `--http 2` is how it was once called.
    #[arg(
        long,
        value_name = "PROTOCOL",
        alias = "http",
        value_enum,
        default_value = "http1"
    )]
    protocol: ProtocolArg,

    /// How often a tile is asked for that fails in a way that may pass.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,

    /// End when nothing has succeeded for this long, or the server asks for a longer pause.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    patience: Duration,

    /// End when so many tiles have failed.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_failures: u64,

    /// A file with the session's token, instead of `TILEKEEP_TOKEN`.
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    token_file: Option<PathBuf>,

    /// Sign in by this name, and again when the session ends.
    #[arg(long, value_name = "NAME", alias = "user")]
    username: Option<String>,

    /// With which password; without it, it is asked for.
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "TILEKEEP_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: PrefetchArgs) -> Result<(), Failure> {
    if args.output.is_some() && args.tileset.len() > 1 {
        return Err(Failure::Usage(
            "--output: an archive holds one tileset: run it once for each --tileset".to_owned(),
        ));
    }
    if let Some(path) = args
        .output
        .as_deref()
        .filter(|path| archive::Kind::of(path).is_none())
    {
        return Err(Failure::Usage(format!(
            "--output {}: an archive's name ends in .pmtiles or .mbtiles",
            path.display()
        )));
    }
    let url: ServerUrl = args
        .url
        .parse()
        .map_err(|error| Failure::Usage(format!("--url: {error}")))?;
    let zooms = args.zoom.unwrap_or((0, MAX_ZOOM));
    let coverage = coverage(&args)?;
    let pool = Arc::new(pool(&args, &url)?);
    block_on(prefetch(args, &url, coverage, zooms, pool))?
}

async fn prefetch(
    args: PrefetchArgs,
    url: &ServerUrl,
    coverage: Coverage,
    zooms: (u8, u8),
    pool: Arc<Pool>,
) -> Result<(), Failure> {
    pool.sign_in(None)
        .await
        .map_err(|error| Failure::failed(&error))?;
    if args.stale_only && !may_explain(&pool).await.map_err(|e| Failure::failed(&e))? {
        return Err(Failure::Usage(
            "--stale-only: the session lacks the scope `explain`, without which looking at a tile would fetch it: mint \
             a token with it (--scope tiles,explain), or sign in as somebody who has it"
                .to_owned(),
        ));
    }
    let mut tilesets = Vec::new();
    for name in &args.tileset {
        tilesets.push(
            learn(&pool, name)
                .await
                .map_err(|error| Failure::failed(&error))?,
        );
    }
    let plan = Arc::new(plan(&args, url, tilesets, &coverage, zooms)?);
    if args.dry_run {
        return dry_run(&args, &pool, &plan).await;
    }
    let runner = runner(&args, url, &pool, &plan)?;
    let (trigger, end) = shutdown::channel();
    let watched = end.clone();
    trigger
        .on_signals(|| {})
        .map_err(|error| Failure::Failed(format!("signals: {error}")))?;
    let run = runner.run(end);
    let report = progress::shown(&runner, plan.total(), run, watched).await;
    if args.json {
        print(&serde_json::to_string_pretty(&report).unwrap_or_default())?;
    } else {
        print(&said::report(&report))?;
    }
    if report.complete {
        return Ok(());
    }
    Err(Failure::Failed(said::ending(&report, &args)))
}

fn coverage(args: &PrefetchArgs) -> Result<Coverage, Failure> {
    if let Some(path) = &args.area {
        return outline(path);
    }
    if let Some(path) = &args.tiles {
        let tiles = tile_list::tiles(path, MAX_LISTED)?;
        if tiles.is_empty() {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "--tiles {path}: there is no tile in it"
            )));
        }
        return Ok(Coverage::tiles(tiles));
    }
    Ok(Coverage::boxes(&args.bbox))
}

/// The polygons of a GeoJSON file.
pub(super) fn outline(path: &Path) -> Result<Coverage, Failure> {
    let text = tile_list::read(path, "--area", MAX_AREA_BYTES)?;
    Coverage::geojson(&text)
        .map_err(|error| Failure::Usage(format!("--area {}: {error}", path.display())))
}

fn pool(args: &PrefetchArgs, url: &ServerUrl) -> Result<Pool, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let log_in = match &args.username {
        None => None,
        Some(user) => Some(LogIn {
            user: user.clone(),
            password: prompt::password_of(user, args.password.clone())?,
        }),
    };
    let credential = if log_in.is_some() {
        Credential::Nobody
    } else {
        let variable = std::env::var(TOKEN).ok();
        Credential::find(args.token_file.as_deref(), variable.as_deref())
            .map_err(|error| usage(&error))?
    };
    if log_in.is_some() || credential.is_secret() {
        super::warn_of(url);
    }
    let client = Client::new(url.clone(), args.protocol.into());
    Ok(Pool::new(
        client,
        credential,
        log_in,
        args.concurrency as usize,
    ))
}

fn plan(
    args: &PrefetchArgs,
    url: &ServerUrl,
    tilesets: Vec<TilesetFacts>,
    coverage: &Coverage,
    zooms: (u8, u8),
) -> Result<Plan, Failure> {
    let url = url.to_string();
    let output = args.output.as_ref().map(|path| path.display().to_string());
    let doing = if args.stale_only { "stale" } else { "tiles" };
    let words = [url.as_str(), doing, output.as_deref().unwrap_or("")];
    let plan = Plan::new(tilesets, coverage, zooms, &words);
    for leg in plan.legs() {
        let (name, has) = (
            &leg.tileset.name,
            (leg.tileset.minzoom, leg.tileset.maxzoom),
        );
        if args.zoom.is_some() && leg.zooms != zooms {
            eprintln!(
                "{name}: it has zooms {}-{}, what lies outside is not asked for",
                has.0, has.1
            );
        }
    }
    if plan.total() == 0 {
        let facts: Vec<String> = plan
            .legs()
            .iter()
            .map(|leg| {
                let [w, s, e, n] = leg.tileset.bounds.to_array();
                let (name, min, max) =
                    (&leg.tileset.name, leg.tileset.minzoom, leg.tileset.maxzoom);
                format!("{name} has zooms {min}-{max} within {w},{s},{e},{n}")
            })
            .collect();
        return Err(Failure::Usage(format!(
            "there is no tile to ask for: {}",
            facts.join("; ")
        )));
    }
    Ok(plan)
}

async fn dry_run(args: &PrefetchArgs, pool: &Pool, plan: &Plan) -> Result<(), Failure> {
    let seed = seed()?;
    let estimated = if args.sample == 0 {
        None
    } else {
        let estimated = estimate(pool, plan, args.sample, args.get_price, seed).await;
        Some(estimated.map_err(|error| Failure::failed(&error))?)
    };
    if args.json {
        return print(&said::plan_json(plan, estimated.as_ref(), args.get_price));
    }
    print(&said::plan(plan, estimated.as_ref(), args.get_price))
}

fn runner(
    args: &PrefetchArgs,
    url: &ServerUrl,
    pool: &Arc<Pool>,
    plan: &Arc<Plan>,
) -> Result<Runner, Failure> {
    let mode = match &args.output {
        Some(path) => Mode::Export {
            path: path.clone(),
            resume: args.resume.is_some(),
            allow_missing: args.allow_missing,
        },
        None if args.stale_only => Mode::StaleOnly {
            within: args.stale_within,
        },
        None => Mode::Seed,
    };
    let resume = resume_file(args)
        .map(|path| ResumeFile::open(&path, plan.digest(), plan.total()))
        .transpose()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let settings = Settings {
        mode,
        concurrency: args.concurrency,
        rate: args.rate,
        attempts: args.attempts,
        patience: args.patience,
        max_failures: args.max_failures,
        seed: seed()?,
    };
    let (pool, plan) = (Arc::clone(pool), Arc::clone(plan));
    let server = url.to_string();
    Runner::new(pool, plan, settings, resume, &server, Clock::System)
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// Where the place is kept. An archive keeps its own, beside it.
fn resume_file(args: &PrefetchArgs) -> Option<PathBuf> {
    match args.resume.as_ref()? {
        Some(named) => Some(named.clone()),
        None => args.output.is_none().then(|| PathBuf::from(RESUME)),
    }
}

fn seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| Failure::Failed(format!("no random numbers: {error}")))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    rate.filter(|rate| (0.0..=1e6).contains(rate))
        .ok_or_else(|| "a number of requests in a second, like 50 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_that_can_be_kept() {
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("-1").is_err() && rate("fast").is_err() && rate("inf").is_err());
        assert!(rate("NaN").is_err());
    }
}
