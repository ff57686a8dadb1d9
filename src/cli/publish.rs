//! `tilekeep publish`: the tiles of an archive or a folder to a tileset's bucket, and servers told of it.

mod progress;
mod servers;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::servers::{Changed, Servers};
use super::{ConfigArg, Failure, block_on, print};
use crate::archive::{self, ArchiveReader};
use crate::config::{Config, TilesetConfig};
use crate::publish::{self, Job, Outcome, Tally};
use crate::shutdown::{self, Shutdown};
use crate::tile::Tileset;

/// Upload tiles to a tileset's bucket.
///
/// From a folder of z/x/y files, an .mbtiles or a .pmtiles, under the tileset's key template. What is there with the
/// same bytes is left alone, so that a run that was cut off is gone on with by running it again. The servers in
/// [publish] `admin_urls` drop what changed.
#[derive(Debug, Args)]
// Here `--version` is the tileset's.
#[command(disable_version_flag = true)]
#[command(after_help = "\
Examples:
  tilekeep publish tiles/ --tileset world --dry-run
  tilekeep publish world.pmtiles --tileset world --prune
  tilekeep publish world.mbtiles --tileset world --version 2026-12
  tilekeep publish --tileset world --switch-to 2026-11

With --version the tiles go beside the old ones ({version} in `key`). When all are there, `version` in the
configuration file is changed, and the servers are told; --switch-to goes back without uploading.
The credentials need more than the server's: `tilekeep iam-policy --publish` prints the policy.")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch on the command line"
)]
pub(super) struct PublishArgs {
    /// A folder of z/x/y files, an .mbtiles or a .pmtiles.
    #[arg(value_name = "SRC", required_unless_present = "switch_to")]
    source: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArg,

    /// The tileset.
    #[arg(long, value_name = "NAME")]
    tileset: String,

    /// Upload beside the old tiles, under this {version}, and switch to it at the end.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// With --version: leave the configuration file and the servers at the old version.
    #[arg(long, requires = "version")]
    no_switch: bool,

    /// Upload nothing: switch to a version that is there already.
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["source", "version", "prune", "force"])]
    switch_to: Option<String>,

    /// Remove tiles of this tileset and version that the source does not have.
    #[arg(long)]
    prune: bool,

    /// Do not ask before more than half of what is there is removed.
    #[arg(long, requires = "prune")]
    yes: bool,

    /// Upload what is there with the same bytes too, to set its Content-Type and Content-Encoding anew.
    #[arg(long)]
    force: bool,

    /// The folder counts rows from the south (TMS), as gdal2tiles writes it without --xyz.
    #[arg(long)]
    tms: bool,

    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,

    /// Uploads at once.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PublishArgs) -> Result<(), Failure> {
    let config = Config::load_without_secrets(&args.config.config)?;
    if std::env::var_os(crate::log::VARIABLE).is_some() {
        crate::log::init()?;
    }
    let known = config.tilesets.iter();
    let mut found = known.filter(|t| t.tileset.name() == args.tileset);
    let Some(tileset) = found.next() else {
        let names: Vec<&str> = config.tilesets.iter().map(|t| t.tileset.name()).collect();
        return Err(Failure::Usage(format!(
            "--tileset: no tileset `{}` in {}; there are: {}",
            args.tileset,
            args.config.config.display(),
            names.join(", ")
        )));
    };
    let key = tileset.tileset.place().key.source();
    if !key.contains("{z}") && !key.contains("{quadkey}") {
        return Err(Failure::Usage(format!(
            "--tileset: the tiles of `{}` lie in one archive: upload that as it is, like aws s3 cp FILE s3://{}/{key}",
            args.tileset,
            tileset.tileset.place().bucket
        )));
    }
    let servers = Servers::of(&config)?;
    let target = target(args, &tileset.tileset)?;
    let work = Work {
        args,
        config: &config,
        tileset,
        target,
        servers,
    };
    let Some(source) = &args.source else {
        return block_on(work.switch_back())?;
    };
    let reader = open(source, &work.target)?;
    block_on(work.publish(reader))?
}

/// The tileset at the version to publish or to switch to.
fn target(args: &PublishArgs, tileset: &Arc<Tileset>) -> Result<Arc<Tileset>, Failure> {
    let (option, version) = match (&args.version, &args.switch_to) {
        (Some(version), _) => ("--version", version),
        (_, Some(version)) => ("--switch-to", version),
        (None, None) => {
            if args.prune && tileset.version().is_some() && !tileset.has_versions() {
                return Err(Failure::Usage(format!(
                    "--prune: tileset `{}` has a `version` and no {{version}} in its `key`, so that its versions share \
                     their objects: removing some would take them from the others",
                    tileset.name()
                )));
            }
            return Ok(tileset.clone());
        }
    };
    if !tileset.has_versions() {
        return Err(Failure::Usage(format!(
            "{option}: the `key` of tileset `{}` has no {{version}}, so that its versions share their objects; write it \
             like \"{}/{{version}}/{{z}}/{{x}}/{{y}}.{{ext}}\"",
            tileset.name(),
            tileset.name()
        )));
    }
    match tileset.at_version(version) {
        Ok(tileset) => Ok(Arc::new(tileset)),
        Err(errors) => {
            let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(Failure::Usage(format!("{option}: {}", words.join("; "))))
        }
    }
}

fn open(source: &Path, tileset: &Tileset) -> Result<Box<dyn ArchiveReader>, Failure> {
    let reader = archive::open(source).map_err(|error| Failure::Usage(error.to_string()))?;
    let (theirs, ours) = (reader.metadata().format, tileset.format());
    if theirs != ours {
        return Err(Failure::Usage(format!(
            "{}: its tiles are {}, and tileset `{}` is {}: publish to another tileset, or change its `format`",
            source.display(),
            theirs.extension(),
            tileset.name(),
            ours.extension()
        )));
    }
    Ok(reader)
}

/// All that one run is about.
struct Work<'a> {
    args: &'a PublishArgs,
    config: &'a Config,
    tileset: &'a TilesetConfig,
    /// At the version to publish.
    target: Arc<Tileset>,
    servers: Servers,
}

impl Work<'_> {
    async fn job(&self) -> Result<Job, Failure> {
        let uploader = crate::app::publish::uploader(self.config, self.tileset).await;
        Ok(Job {
            uploader: uploader.map_err(|error| Failure::failed(&error))?,
            tileset: self.target.clone(),
            concurrency: self.args.concurrency.into(),
            dry_run: self.args.dry_run,
            force: self.args.force,
            tms: self.args.tms,
        })
    }

    async fn publish(&self, reader: Box<dyn ArchiveReader>) -> Result<(), Failure> {
        let started = Instant::now();
        let job = self.job().await?;
        let (trigger, ending) = shutdown::channel();
        let listening = trigger.on_signals(|| {});
        listening.map_err(|error| Failure::Failed(format!("signals: {error}")))?;
        let tally = Arc::new(Tally::default());
        let marker = self.marker();
        let interrupted_before = marker.as_deref().is_some_and(Path::exists);
        if let Some(marker) = &marker
            && let Err(error) = std::fs::write(marker, MARKER)
        {
            note(&format!(
                "{}: {error}; should this run be cut off, purge the tileset by hand",
                marker.display()
            ));
        }
        if let Some(folder) = self.args.source.clone().filter(|source| source.is_dir()) {
            let tally = tally.clone();
            tokio::task::spawn_blocking(move || progress::count(&folder, &tally));
        }
        let shown = Shown::begin(&tally);
        let mut outcome = publish::upload(&job, reader, &tally, ending.clone()).await;
        shown.end().await;
        let mut failures = self.prune(&job, &mut outcome, &tally, ending).await;
        if !self.args.dry_run {
            let changed = if interrupted_before {
                Changed::Any
            } else {
                Changed::Tiles(&outcome.changed)
            };
            let purged = self.purge(&changed).await;
            // A write that failed here may have come to be there: then the next run purges everything.
            if purged.is_empty()
                && tally.failed.load(Ordering::Relaxed) == 0
                && outcome.stopped.is_none()
                && let Some(marker) = &marker
            {
                // Should it stay, the next run would only purge more than it must.
                let _ = std::fs::remove_file(marker);
            }
            failures.extend(purged);
        }
        let failed = tally.failed.load(Ordering::Relaxed);
        let whole = failed == 0 && outcome.stopped.is_none();
        let switched = if whole && failures.is_empty() && self.switches() {
            let (switched, more) = self.switch().await;
            failures.extend(more);
            switched
        } else {
            false
        };
        self.report(&outcome, &tally, &failures, switched, started)?;
        self.verdict(&outcome, failed, &failures)
    }

    /// Removes what the source no longer has, where that was asked for and is safe; else, why not.
    async fn prune(
        &self,
        job: &Job,
        outcome: &mut Outcome,
        tally: &Arc<Tally>,
        ending: Shutdown,
    ) -> Vec<String> {
        let unwanted = outcome.unwanted.len();
        if !self.args.prune || outcome.stopped.is_some() {
            return Vec::new();
        }
        if tally.failed.load(Ordering::Relaxed) > 0 {
            return vec!["nothing was removed, since not all tiles were uploaded".to_owned()];
        }
        if tally.done.load(Ordering::Relaxed) == 0 {
            return vec!["nothing was removed: the source has no tiles at all".to_owned()];
        }
        let sure = unwanted * 2 <= outcome.there || self.args.yes || self.args.dry_run;
        if !sure && !confirmed(unwanted, outcome.there) {
            return vec![format!(
                "nothing was removed: {unwanted} of the {} tiles there would go, more than half; if that is meant, add \
                 --yes",
                outcome.there
            )];
        }
        let shown = Shown::begin(tally);
        publish::prune(job, outcome, tally, ending).await;
        shown.end().await;
        Vec::new()
    }

    /// Has the servers drop what changed. What failed, in words.
    async fn purge(&self, changed: &Changed<'_>) -> Vec<String> {
        if matches!(changed, Changed::Tiles([])) {
            return Vec::new();
        }
        let (name, version) = (self.target.name(), self.target.version());
        self.servers.purge(name, version, changed).await
    }

    fn switches(&self) -> bool {
        self.args.version.is_some() && !self.args.no_switch && !self.args.dry_run
    }

    /// Sets the version in the file, then in the servers. Whether the file has it now, and what failed.
    async fn switch(&self) -> (bool, Vec<String>) {
        let (name, version) = (
            self.target.name(),
            self.target.version().unwrap_or_default(),
        );
        let file = &self.args.config.config;
        if let Err(error) = publish::rewrite(file, name, version) {
            return (false, vec![error.to_string()]);
        }
        let failures = self.servers.switch(name, version).await;
        let failures = failures.into_iter().map(|failure| {
            format!(
                "{failure}; the file says `{version}` now: restart that server, or publish again"
            )
        });
        (true, failures.collect())
    }

    /// `--switch-to`: nothing but the switch, once it is certain that there is something to switch to.
    async fn switch_back(&self) -> Result<(), Failure> {
        let version = self.target.version().unwrap_or_default();
        let job = self.job().await?;
        let there = publish::is_there(&job.uploader, &self.target).await;
        if !there.map_err(|error| Failure::failed(&error))? {
            let example = self.target.place();
            return Err(Failure::Failed(format!(
                "--switch-to: there is no tile of version `{version}` in s3://{}, by the `key` {}",
                example.bucket,
                example.key.source()
            )));
        }
        let before = self.tileset.tileset.version().unwrap_or_default();
        if self.args.dry_run {
            return print(&format!(
                "{}: version {before} would become {version}",
                self.target.name()
            ));
        }
        let (switched, failures) = self.switch().await;
        if self.args.json {
            let report = json!({
                "tileset": self.target.name(), "version": version, "previous": before,
                "switched": switched, "failures": failures,
            });
            print(&report.to_string())?;
        } else if switched {
            print(&format!(
                "{}: version {version}, was {before}",
                self.target.name()
            ))?;
        }
        told(&failures)
    }

    fn report(
        &self,
        outcome: &Outcome,
        tally: &Tally,
        failures: &[String],
        switched: bool,
        started: Instant,
    ) -> Result<(), Failure> {
        let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (uploaded, bytes) = (of(&tally.uploaded), of(&tally.bytes));
        let (unchanged, removed) = (of(&tally.unchanged), of(&tally.removed));
        let (failed, unwanted) = (of(&tally.failed), outcome.unwanted.len());
        let (name, version) = (self.target.name(), self.target.version());
        let took = started.elapsed();
        if self.args.json {
            let problems: Vec<&String> = outcome.failures.iter().chain(failures).collect();
            let report = json!({
                "tileset": name, "version": version, "dry_run": self.args.dry_run,
                "uploaded": uploaded, "bytes": bytes, "unchanged": unchanged, "removed": removed,
                "not_in_source": unwanted, "outside": outcome.outside, "failed": failed,
                "failures": problems, "stopped": outcome.stopped.as_ref().map(ToString::to_string),
                "switched": switched, "seconds": took.as_secs_f64(),
            });
            return print(&report.to_string());
        }
        let would = if self.args.dry_run { "would be " } else { "" };
        let version = version.map_or(String::new(), |version| format!(" {version}"));
        let size = bytesize::ByteSize(bytes);
        let took = humantime::format_duration(std::time::Duration::from_secs(took.as_secs()));
        let mut line = format!(
            "{name}{version}: {uploaded} {would}uploaded ({size}), {unchanged} unchanged, {removed} {would}removed, \
             {failed} failed, in {took}"
        );
        if switched {
            let before = self.tileset.tileset.version().unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = write!(line, "; version was {before}");
        }
        print(&line)?;
        if unwanted > 0 && !self.args.prune {
            note(&format!(
                "{unwanted} tiles there are not in the source; --prune removes them"
            ));
        }
        if outcome.outside > 0 {
            note(&format!(
                "{} tiles lie outside of the tileset's zooms or bounds, where nobody can ask for them",
                outcome.outside
            ));
        }
        Ok(())
    }

    fn verdict(&self, outcome: &Outcome, failed: u64, failures: &[String]) -> Result<(), Failure> {
        for failure in &outcome.failures {
            eprintln!("{failure}");
        }
        let mut last = failures.to_vec();
        if let Some(stopped) = &outcome.stopped {
            last.push(stopped.to_string());
        } else if failed > 0 {
            last.push(format!("{failed} tiles failed: run it again to go on"));
        }
        if self.switches() && !last.is_empty() {
            last.push("the version was not switched everywhere".to_owned());
        }
        told(&last)
    }

    /// A file beside the configuration that is there while servers may have to be told of changes. One that is
    /// there at the start was left by a run that did not come to that.
    fn marker(&self) -> Option<PathBuf> {
        if self.servers.is_empty() || self.args.dry_run {
            return None;
        }
        let file = &self.args.config.config;
        let name = format!(".tilekeep-publishing-{}", self.target.name());
        Some(file.parent().unwrap_or(Path::new("")).join(name))
    }
}

/// In the marker, for who finds it.
const MARKER: &str =
    "tilekeep publish is at work here, or was cut off: the next run purges the whole tileset\n";

/// Lists failures; the last one becomes the command's own.
fn told(failures: &[String]) -> Result<(), Failure> {
    let Some((last, before)) = failures.split_last() else {
        return Ok(());
    };
    for failure in before {
        eprintln!("{failure}");
    }
    Err(Failure::Failed(last.clone()))
}

fn note(text: &str) {
    eprintln!("note: {text}");
}

/// Asks on a terminal; elsewhere nobody is there to say yes.
fn confirmed(unwanted: usize, there: usize) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let mut err = io::stderr();
    // Without an answer it is a no.
    let _ = write!(err, "Remove {unwanted} of the {there} tiles there? [y/N] ");
    let _ = err.flush();
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

/// Progress, shown until its end.
struct Shown {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shown {
    fn begin(tally: &Arc<Tally>) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(progress::show(tally.clone(), ended));
        Self { end, task }
    }

    /// Clears it away, so that nothing is printed over it.
    async fn end(self) {
        drop(self.end);
        // A bar that could not be drawn is no reason to fail.
        let _ = self.task.await;
    }
}
