//! `tilekeep loadtest`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, block_on, print, prompt};
use crate::client::{Credential, CredentialError, Protocol, ServerUrl, ServerUrlError};
use crate::clock::Clock;
use crate::loadtest::{
    self, Glance, Load, LoadError, LogIn, Pace, Progress, Report, Screen, Settings,
};
use crate::{log, shutdown};

/// The environment variable with a token.
pub(super) const TOKEN: &str = "TILEKEEP_TOKEN";
/// People; each has six connections at most over HTTP/1.1.
const MAX_USERS: u32 = 10_000;
/// A file with a token a line.
const MAX_TOKENS: u64 = 64 << 20;
/// Without a terminal, a line of progress this often.
const LINE_EVERY: u64 = 10;

/// Load a running server as people with maps would.
///
/// Simulated people sign in, open a map at a place that many know, pan, zoom, go back, and look at what they see
/// for a while. Each has a browser of its own: what its view shows is asked for from the middle outwards, its
/// cache is honoured (max-age, stale-while-revalidate, `ETag`), and requests of a view that was left are given up, as
/// MapLibre does. Nobody waits for the server before moving on, so that a slow one is asked for as much as a fast
/// one. The same seed makes the same views at the same moments.
///
/// Reported are requests a second, latencies (from when a view wanted its tile), the time to fill a view, where the
/// answers came from, what the browsers' caches spared, failures, and what the generator itself cost.
///
/// Load only servers that are yours.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep loadtest --username demo --password demo        the demo on this machine
  tilekeep loadtest --url https://tiles.example.com --tileset world --users 200 --duration 5m --html report.html
  tilekeep loadtest --users 50 --protocol http2 --seed 7 --json > after.json
  tilekeep loadtest --replay access.log --speed 2

A token comes from TILEKEEP_TOKEN or --token-file, a password better from TILEKEEP_PASSWORD than from the command
line, where others on the machine see it. Neither goes to any other server than --url's; redirects are not followed.
Each of many log-ins costs the server a password hash: with hundreds of people, take --one-session or tokens.

Exit codes: 0 done, 1 some requests failed, 2 wrong usage.")]
pub(super) struct LoadtestArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// As whom each of the people signs in.
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    username: Option<String>,

    /// With which password; without it, it is asked for.
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "TILEKEEP_PASSWORD",
        hide_env_values = true
    )]
    password: Option<String>,

    /// Sign in once, and let all people share that session.
    #[arg(long, requires = "username")]
    one_session: bool,

    /// How many people; with --replay, how many browsers share the log.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_USERS)))]
    users: u32,

    /// How long; 1m without it. A replay without it ends with its log.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,

    /// People come one after another within this time.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = ramp)]
    ramp: Duration,

    /// How long a view is looked at, on average.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = think, conflicts_with = "rate")]
    think: Duration,

    /// Views a second of all people together, instead of --think; with --replay, requests a second.
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,

    /// HTTP/1.1 (six connections for each of the people, as browsers have) or HTTP/2 (one).
    #[arg(long, value_name = "PROTOCOL", value_enum, default_value = "http1")]
    protocol: ProtocolArg,

    /// Of all chance: the same one makes the same views.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// The map's size in CSS pixels.
    #[arg(long, value_name = "WxH", default_value = "1280x800")]
    screen: Screen,

    /// Room in each browser's cache, like 64MiB; 0 switches it off.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    browser_cache: bytesize::ByteSize,

    /// Send the requests of this access log instead (common or combined format, or lines of paths); - for standard
    /// input. Only the paths of GETs are taken, never hosts.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tileset", "ramp", "think", "seed", "screen", "browser_cache"])]
    replay: Option<PathBuf>,

    /// So many times faster than logged.
    #[arg(long, value_name = "TIMES", value_parser = positive, requires = "replay", conflicts_with = "rate")]
    speed: Option<f64>,

    /// The server's process on this machine, to report its CPU.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,

    /// Write the report as a page, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Which server, as whom, and what of it.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,

    /// A tileset; may be given several times. Without it: all that the session may see.
    #[arg(long, value_name = "NAME", value_parser = tileset)]
    pub(super) tileset: Vec<String>,

    /// A file with a token; with several, a line each, people take them in turn.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ServerArgs {
    /// The server's address. Not read by clap, which would repeat a password that somebody wrote into it.
    pub(super) fn url(&self) -> Result<ServerUrl, Failure> {
        let url = self.url.parse();
        url.map_err(|error: ServerUrlError| Failure::Usage(format!("--url: {error}")))
    }

    /// As whom its people go there, with a warning where others would see that.
    pub(super) fn tokens(&self, url: &ServerUrl) -> Result<Vec<Credential>, Failure> {
        let tokens = tokens(self.token_file.as_deref())?;
        if tokens.iter().any(Credential::is_secret) {
            super::warn_of(url);
        }
        Ok(tokens)
    }
}

/// The protocol by its name, or by what comes behind `HTTP/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ProtocolArg {
    #[value(alias = "1.1")]
    Http1,
    #[value(alias = "2")]
    Http2,
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Http1 => Self::Http1,
            ProtocolArg::Http2 => Self::Http2,
        }
    }
}

pub(super) fn run(args: LoadtestArgs) -> Result<(), Failure> {
    log::init()?;
    // Said now, not after an hour: a page that cannot be written.
    if let Some(file) = &args.html {
        writable(file)?;
    }
    let (json, html) = (args.json, args.html.clone());
    let settings = settings(args)?;
    let people = matches!(settings.load, Load::People { .. });
    let shows = Shows::new(settings.duration, people, json);
    let report = block_on(async {
        let (trigger, stop) = shutdown::channel();
        trigger
            .on_signals(|| {})
            .map_err(|error| Failure::Failed(format!("signals: {error}")))?;
        let mut shows = shows;
        let report = loadtest::run(settings, Clock::System, stop, |progress| {
            shows.show(&progress);
        });
        report.await.map_err(failure)
    })??;
    if json {
        print(&report.to_json())?;
    } else {
        print(&report.to_string())?;
    }
    if let Some(file) = html {
        write_page(&file, &report)?;
    }
    if report.has_failures() {
        let (failed, total) = (report.requests.failed, report.requests.total);
        return Err(Failure::Failed(format!(
            "{failed} of {total} requests failed"
        )));
    }
    Ok(())
}

fn settings(args: LoadtestArgs) -> Result<Settings, Failure> {
    let url = args.server.url()?;
    let log_in = match args.username {
        Some(name) => {
            let password = prompt::password_of(&name, args.password)?;
            super::warn_of(&url);
            if args.one_session {
                LogIn::Once { name, password }
            } else {
                LogIn::Each { name, password }
            }
        }
        None => LogIn::With(args.server.tokens(&url)?),
    };
    let (load, duration) = if let Some(file) = args.replay {
        let pace = match args.rate {
            Some(rate) => Pace::Rate(rate),
            None => Pace::Logged(args.speed.unwrap_or(1.0)),
        };
        let load = Load::Replay {
            name: file.display().to_string(),
            log: open(&file)?,
            pace,
        };
        (load, args.duration)
    } else {
        let pause = match args.rate {
            Some(rate) => Duration::from_secs_f64(f64::from(args.users) / rate),
            None => args.think,
        };
        let duration = args.duration.unwrap_or(Duration::from_mins(1));
        if args.ramp > duration {
            return Err(Failure::Usage(
                "--ramp is longer than --duration: not everybody would come; give --ramp 0s, for all at once, or \
                 a longer --duration"
                    .to_owned(),
            ));
        }
        let load = Load::People {
            tilesets: args.server.tileset,
            pause,
            ramp: args.ramp,
            seed: args.seed,
            screen: args.screen,
            cache: args.browser_cache.as_u64(),
        };
        (load, Some(duration))
    };
    Ok(Settings {
        url,
        protocol: args.protocol.into(),
        log_in,
        users: args.users,
        duration,
        server_pid: args.server_pid,
        load,
    })
}

fn open(file: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file)
        .map_err(|error| Failure::Usage(format!("--replay {}: {error}", file.display())))?;
    Ok(Box::new(BufReader::new(opened)))
}

/// The tokens of a file, a line each; else the one of the environment; else none.
fn tokens(file: Option<&Path>) -> Result<Vec<Credential>, Failure> {
    let wrong = |error: CredentialError| Failure::Usage(error.to_string());
    let Some(file) = file else {
        let variable = std::env::var(TOKEN).ok();
        let one = Credential::find(None, variable.as_deref()).map_err(wrong)?;
        return Ok(vec![one]);
    };
    let name = file.display();
    let unreadable = |error: io::Error| Failure::Usage(format!("--token-file {name}: {error}"));
    let length = file.metadata().map_err(unreadable)?.len();
    if length > MAX_TOKENS {
        return Err(Failure::Usage(format!(
            "--token-file {name}: {length} bytes; it takes {MAX_TOKENS}, a token a line"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let lines = (1_u32..).zip(text.lines());
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let tokens: Result<Vec<Credential>, Failure> = lines
        .map(|(number, line)| {
            // The line itself may be a secret that is only misspelt.
            Credential::token(line).ok_or_else(|| {
                wrong(CredentialError::NoToken(format!(
                    "--token-file {name}, line {number}"
                )))
            })
        })
        .collect();
    match tokens? {
        tokens if tokens.is_empty() => Err(Failure::Usage(format!(
            "--token-file {name}: it has no token"
        ))),
        tokens => Ok(tokens),
    }
}

fn failure(error: LoadError) -> Failure {
    match error {
        LoadError::NoProcess(_) | LoadError::Replay(_) => Failure::Usage(error.to_string()),
        error => Failure::failed(&error),
    }
}

fn writable(file: &Path) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--html {}: name a file in a folder that there is",
        file.display()
    )))
}

fn write_page(file: &Path, report: &Report) -> Result<(), Failure> {
    let page = report.to_html().map_err(|error| Failure::failed(&error))?;
    std::fs::write(file, page)
        .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))
}

/// What is seen while it runs: a bar on a terminal, a line now and then elsewhere.
struct Shows {
    bar: Option<ProgressBar>,
    people: bool,
    next_line: u64,
}

impl Shows {
    fn new(duration: Option<Duration>, people: bool, json: bool) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(duration.map_or(0, |duration| duration.as_secs()));
            let template = if duration.is_some() {
                "{bar:24} {pos}/{len} s  {wide_msg}"
            } else {
                "{spinner} {elapsed}  {wide_msg}"
            };
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        // Who reads JSON wants nothing else; errors are told all the same.
        let next_line = if json { u64::MAX } else { LINE_EVERY };
        Self {
            bar,
            people,
            next_line,
        }
    }

    fn show(&mut self, progress: &Progress<'_>) {
        match (progress, &self.bar) {
            (Progress::SigningIn(done, all), Some(bar)) => {
                bar.set_message(format!("signing in: {done} of {all}"));
                bar.tick();
            }
            (Progress::SigningIn(..), None) => {}
            (Progress::Running(elapsed, glance), Some(bar)) => {
                bar.set_position(elapsed.as_secs());
                bar.set_message(line(*elapsed, glance, self.people));
            }
            (Progress::Running(elapsed, glance), None) => {
                if elapsed.as_secs() >= self.next_line {
                    self.next_line = elapsed.as_secs() + LINE_EVERY;
                    let seconds = elapsed.as_secs();
                    eprintln!("{seconds} s  {}", line(*elapsed, glance, self.people));
                }
            }
        }
    }
}

impl Drop for Shows {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "counts far below 2^53, for people to read"
)]
fn line(elapsed: Duration, glance: &Glance, people: bool) -> String {
    use std::fmt::Write as _;

    let rate = glance.requests as f64 / elapsed.as_secs_f64().max(0.001);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (p50, p99) = (ms(glance.p50), ms(glance.p99));
    let mut text = format!("{rate:.0} requests/s  p50 {p50:.1} ms  p99 {p99:.1} ms");
    if people {
        let cached = glance.cached as f64 * 100.0 / (glance.wanted.max(1)) as f64;
        let _ = write!(
            text,
            "  {} views  browser cache {cached:.0} %",
            glance.views
        );
    }
    if glance.failed > 0 {
        let _ = write!(text, "  {} FAILED", glance.failed);
    }
    text
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_secs(1) && time <= Duration::from_hours(24 * 7) => {
            Ok(time)
        }
        _ => Err("write a time from 1s to 7days, like 30s or 5m".to_owned()),
    }
}

fn ramp(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= Duration::from_hours(24) => Ok(time),
        _ => Err("write a time, like 0s, 10s or 2m".to_owned()),
    }
}

pub(super) fn think(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= Duration::from_millis(10) && time <= Duration::from_hours(1) => {
            Ok(time)
        }
        _ => Err("write a time from 10ms to 1h, like 4s".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("write a number above 0, like 2 or 0.5".to_owned()),
    }
}

pub(super) fn tileset(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    if !text.is_empty() && text.len() <= 64 && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a tileset's name has letters a-z, digits, - and _".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silly_input_is_refused() {
        for text in ["0s", "9years", "", "-5s", "5"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "nan", "inf", "x", "1e9"] {
            assert!(positive(text).is_err(), "{text}");
        }
        for text in ["", "../x", "World", "a/b"] {
            assert!(tileset(text).is_err(), "{text}");
        }
        assert!(think("1ms").is_err() && ramp("0s").is_ok());
        assert!(writable(Path::new("/nowhere/at/all.html")).is_err());
    }

    #[test]
    fn a_file_has_a_token_a_line_and_a_wrong_one_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, "# people\na.b.c\n\nd.e.f\n").unwrap();
        assert_eq!(tokens(Some(&file)).unwrap().len(), 2);
        for (text, says) in [("", "no token"), ("a.b.c\nhun ter2\n", "line 2")] {
            std::fs::write(&file, text).unwrap();
            let Err(Failure::Usage(error)) = tokens(Some(&file)) else {
                panic!("wrong usage");
            };
            assert!(error.contains(says) && !error.contains("ter2"), "{error}");
        }
    }
}
