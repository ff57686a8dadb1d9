//! `tilekeep loadtest`: simulated people at their maps, or an access log once more, against a running server.
//!
//! Invariant: a seed makes the same sequence of views at every run, on every server, fast or slow; a token goes
//! to the server that was named and nowhere else; memory is bounded by the number of people, not by the test's
//! length. Latency counts from when a tile was wanted.
//! Left out: finding the server's limit by itself (raise `--users` until the time to fill a view is not what
//! you would want), generators on several machines, and anything but GET.

mod browser;
pub(crate) mod browser_cache;
mod grounds;
mod html;
mod machine;
mod outcome;
mod people;
mod person;
mod random;
mod replay;
mod report;
mod rerun;
mod series;
mod stats;
mod summary;
mod urls;
mod view;
mod wire;

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::client::{Client, ClientError, Credential, CredentialError, Protocol, ServerUrl};
use crate::clock::{Clock, Timestamp, Uptime};
use crate::shutdown::{self, Shutdown};

pub use grounds::GroundError;
pub use replay::{Pace, ReplayError};
pub use report::Report;
pub use stats::Glance;
pub use urls::{UrlFormat, simulated};
pub use view::{Ground, Screen};

use machine::LoopLag;
use people::Crowd;
use person::World;
use rerun::Fleet;
use stats::Recorder;

/// For a connection and for a log-in: a busy server has a queue of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there was no test.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The server could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody was let in.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The tilesets are not known.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The log cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The thread that reads the log is gone.
    #[error("reading the log ended unexpectedly")]
    Reader,
    /// Ended before it began.
    #[error("interrupted before the first view")]
    Interrupted,
    /// No figures of the server's process.
    #[error(
        "--server-pid {0}: there is no such process on this machine; it is the server's, as `pidof tilekeep` tells"
    )]
    NoProcess(u32),
}

/// As whom people ask.
#[derive(Clone)]
pub enum LogIn {
    /// With these tokens in turn; as nobody where there is none.
    With(Vec<Credential>),
    /// Each logs in.
    Each {
        /// As whom.
        name: String,
        /// With which password.
        password: String,
    },
    /// One logs in, and all share the session.
    Once {
        /// As whom.
        name: String,
        /// With which password.
        password: String,
    },
}

/// What is done.
pub enum Load {
    /// People look at maps.
    People {
        /// The tilesets; all that the session may see where none is named.
        tilesets: Vec<String>,
        /// How long a view is looked at on average.
        pause: Duration,
        /// Until when all have come.
        ramp: Duration,
        /// Of all chance.
        seed: u64,
        /// The size of the map.
        screen: Screen,
        /// Bytes of each person's browser cache.
        cache: u64,
    },
    /// A log is sent once more.
    Replay {
        /// What it is called.
        name: String,
        /// The log.
        log: Box<dyn BufRead + Send>,
        /// How fast.
        pace: Pace,
    },
}

/// A test.
pub struct Settings {
    /// The server.
    pub url: ServerUrl,
    /// What is spoken.
    pub protocol: Protocol,
    /// As whom.
    pub log_in: LogIn,
    /// People, or browsers for a replay.
    pub users: u32,
    /// How long; a replay may do without and end with its log.
    pub duration: Option<Duration>,
    /// The server's process, where it is on this machine.
    pub server_pid: Option<u32>,
    /// What is done.
    pub load: Load,
}

/// Why a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its time was over.
    Duration,
    /// Its log was.
    EndOfLog,
    /// Somebody ended it.
    Interrupted,
}

/// How the test goes, for whoever watches.
#[derive(Debug)]
pub enum Progress<'a> {
    /// So many of so many have logged in.
    SigningIn(u32, u32),
    /// It runs, for so long by now.
    Running(Duration, &'a Glance),
}

/// What was measured, and under which circumstances: what a report is made of.
struct Measured {
    stats: stats::Stats,
    lag: hdrhistogram::Histogram<u64>,
    /// When it began.
    at: Timestamp,
    elapsed: Duration,
    ended: Ended,
    generator_cpu: Option<Duration>,
    server_cpu: Option<Duration>,
    log_ins: hdrhistogram::Histogram<u64>,
    skipped_lines: u64,
}

/// Runs a test to its end, or until `stop`; then reports.
pub async fn run(
    settings: Settings,
    clock: Clock,
    mut stop: Shutdown,
    mut watch: impl FnMut(Progress<'_>),
) -> Result<Report, LoadError> {
    if let Some(pid) = settings.server_pid {
        machine::cpu_time(Some(pid)).ok_or(LoadError::NoProcess(pid))?;
    }
    let client = Client::new(settings.url.clone(), settings.protocol);
    let mut log_ins = stats::times();
    let signing_in = sign_in(&client, &settings, &clock, &mut log_ins, &mut watch);
    let credentials = tokio::select! {
        credentials = signing_in => credentials?,
        () = stop.asked() => return Err(LoadError::Interrupted),
    };
    let about = report::About::new(&settings);
    let Settings {
        users,
        duration,
        server_pid,
        load,
        ..
    } = settings;
    let prepared = prepare(&client, &clock, users, credentials, load).await?;
    let (recorder, tilesets) = (prepared.recorder(), prepared.tilesets());

    let (trigger, inner) = shutdown::channel();
    let lag = Arc::new(LoopLag::default());
    let (watched, beat) = (Arc::clone(&lag), clock.clone());
    let lag_task = tokio::spawn(async move { watched.watch(beat).await });
    let cpu = || {
        (
            machine::cpu_time(None),
            server_pid.and_then(|pid| machine::cpu_time(Some(pid))),
        )
    };
    let (at, start, cpu_before) = (clock.now(), clock.uptime(), cpu());
    recorder.begin(start);
    let mut work = tokio::spawn(prepared.work(start, inner));
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut ended = None;
    let worked = loop {
        tokio::select! {
            worked = &mut work => break worked,
            () = &mut end, if ended.is_none() => {
                ended = Some((Ended::Duration, clock.uptime()));
                trigger.fire();
            }
            () = stop.asked(), if ended.is_none() => {
                ended = Some((Ended::Interrupted, clock.uptime()));
                trigger.fire();
            }
            _ = ticks.tick() => {
                let elapsed = clock.uptime().since(start);
                watch(Progress::Running(elapsed, &recorder.glance()));
            }
        }
    };
    let (ended, end) = ended.unwrap_or((Ended::EndOfLog, clock.uptime()));
    let cpu_after = cpu();
    lag_task.abort();
    let spent = |before: Option<Duration>, after: Option<Duration>| {
        after
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before))
    };
    let mut stats = recorder.sum();
    stats.series.end(end.since(start));
    let measured = Measured {
        stats,
        lag: lag.seen(),
        at,
        elapsed: end.since(start),
        ended,
        generator_cpu: spent(cpu_before.0, cpu_after.0),
        server_cpu: spent(cpu_before.1, cpu_after.1),
        log_ins,
        skipped_lines: worked.map_err(|_| LoadError::Reader)??,
    };
    Ok(Report::new(about, &tilesets, &measured))
}

/// Everybody's sessions.
async fn sign_in(
    client: &Client,
    settings: &Settings,
    clock: &Clock,
    took: &mut hdrhistogram::Histogram<u64>,
    watch: &mut impl FnMut(Progress<'_>),
) -> Result<Vec<Credential>, LoadError> {
    let (name, password, many) = match &settings.log_in {
        LogIn::With(credentials) => return Ok(credentials.clone()),
        LogIn::Each { name, password } => (name, password, settings.users),
        LogIn::Once { name, password } => (name, password, 1),
    };
    let mut connection = client.connect(PATIENCE).await?;
    let mut sessions = Vec::new();
    for number in 0..many {
        watch(Progress::SigningIn(number, many));
        if !connection.is_open() {
            connection = client.connect(PATIENCE).await?;
        }
        let began = clock.uptime();
        let session = Credential::log_in(&mut connection, name, password, PATIENCE).await?;
        took.saturating_record(stats::micros(clock.uptime().since(began)));
        sessions.push(session);
    }
    Ok(sessions)
}

/// A test that is ready to begin.
enum Prepared {
    People(Crowd),
    Replay(Fleet, rerun::Log),
}

async fn prepare(
    client: &Client,
    clock: &Clock,
    users: u32,
    credentials: Vec<Credential>,
    load: Load,
) -> Result<Prepared, LoadError> {
    let recorder = Arc::new(Recorder::new(clock.uptime()));
    match load {
        Load::People {
            tilesets,
            pause,
            ramp,
            seed,
            screen,
            cache,
        } => {
            let grounds = grounds(client, credentials.first(), &tilesets).await?;
            Ok(Prepared::People(Crowd {
                client: client.clone(),
                clock: clock.clone(),
                world: Arc::new(World::new(seed, grounds, screen, pause)),
                recorder,
                credentials,
                users,
                ramp,
                cache,
            }))
        }
        Load::Replay { log, pace, .. } => {
            // A server that is not there is said now, not a thousand times.
            client.connect(PATIENCE).await?;
            let fleet = Fleet {
                client: client.clone(),
                clock: clock.clone(),
                recorder,
                credentials: Arc::new(credentials),
                users,
            };
            Ok(Prepared::Replay(fleet, replay::Replay::new(log, pace)))
        }
    }
}

/// The tilesets of these names, or all that may be seen, as a running server describes them.
pub async fn grounds(
    client: &Client,
    credential: Option<&Credential>,
    tilesets: &[String],
) -> Result<Vec<Ground>, LoadError> {
    let mut connection = client.connect(PATIENCE).await?;
    let nobody = Credential::Nobody;
    let credential = credential.unwrap_or(&nobody);
    Ok(grounds::find(&mut connection, credential, tilesets).await?)
}

impl Prepared {
    fn recorder(&self) -> Arc<Recorder> {
        match self {
            Self::People(crowd) => Arc::clone(&crowd.recorder),
            Self::Replay(fleet, _) => Arc::clone(&fleet.recorder),
        }
    }

    fn tilesets(&self) -> Vec<String> {
        match self {
            Self::People(crowd) => {
                let grounds = crowd.world.grounds().iter();
                grounds.map(|ground| ground.name.clone()).collect()
            }
            Self::Replay(..) => Vec::new(),
        }
    }

    async fn work(self, start: Uptime, stop: Shutdown) -> Result<u64, LoadError> {
        match self {
            Self::People(crowd) => {
                people::live(crowd, start, stop).await;
                Ok(0)
            }
            Self::Replay(fleet, log) => rerun::run(fleet, log, start, stop).await,
        }
    }
}
