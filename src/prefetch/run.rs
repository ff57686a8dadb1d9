//! A run: workers that take tiles from the plan until there are none, or until something stops them all.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::export::Archive;
use super::outcome::{Done, Reason};
use super::pace::{Chance, Pace};
use super::plan::{Job, Plan, PlanWalk};
use super::pool::Pool;
use super::report::{FailedTile, Failures, Report, Tally};
use super::resume::ResumeFile;
use crate::archive::Begin;
use crate::clock::{Clock, Uptime};
use crate::shutdown::Shutdown;

/// Between two writes of the resume file.
const FLUSH: Duration = Duration::from_millis(500);

/// What is done with the tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They are asked for, so that the server has them.
    Seed,
    /// They are looked at, so that the server revalidates what is stale.
    StaleOnly {
        /// What is stale by then is counted.
        within: Duration,
    },
    /// They are written to an archive.
    Export {
        /// Its file.
        path: PathBuf,
        /// Whether an unfinished one is gone on with.
        resume: bool,
        /// Whether it is written although tiles failed.
        allow_missing: bool,
    },
}

/// How a run behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is done with the tiles.
    pub mode: Mode,
    /// Requests at a time, at most.
    pub concurrency: u32,
    /// Requests in a second, at most; 0: no limit.
    pub rate: f64,
    /// How often a tile is asked for that fails in a way that may pass.
    pub attempts: u32,
    /// How long nothing may succeed.
    pub patience: Duration,
    /// After how many failed tiles it ends.
    pub max_failures: u64,
    /// For the waits between attempts.
    pub seed: u64,
}

/// Why a run ended before its plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Somebody asked for the end.
    #[error("interrupted")]
    Asked,
    /// The session ended and there is no way to a new one.
    #[error(
        "the server no longer takes the session (401): mint a new token, or use --username to sign in again by itself{0}"
    )]
    Unauthorized(String),
    /// Nothing has succeeded for long.
    #[error("nothing has succeeded for {0}: {1}")]
    NoProgress(String, String),
    /// The server wants a longer pause than there is patience for.
    #[error("the server asks for a pause of {0}: go on then, or wait longer with --patience")]
    LongPause(String),
    /// Too many tiles failed.
    #[error("{0} tiles failed: is the plan right? --max-failures allows more")]
    TooManyFailures(u64),
    /// The resume file or the archive cannot be written.
    #[error("{0}")]
    Local(String),
}

/// A duration for people: to the second.
pub(super) fn spoken(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs().max(1))).to_string()
}

/// Where the next tile comes from.
struct Feed {
    walk: PlanWalk,
    /// What failed in earlier runs goes first: in order, with a walk of its own.
    again: Vec<u64>,
    again_walk: PlanWalk,
    next_again: usize,
}

/// What workers share.
pub(super) struct Shared {
    pub(super) pool: Arc<Pool>,
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) archive: Option<Archive>,
    pub(super) pace: Mutex<Pace>,
    pub(super) freed: Notify,
    pub(super) chance: Mutex<Chance>,
    feed: Mutex<Feed>,
    resume: Mutex<Option<ResumeFile>>,
    tally: Mutex<Tally>,
    failures: Mutex<Failures>,
    last_success: Mutex<Uptime>,
    stop: watch::Sender<Option<Stop>>,
}

/// A run that can be watched.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    resumed: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner {
    /// Prepares a run. An export's plan has one tileset.
    pub fn new(
        pool: Arc<Pool>,
        plan: Arc<Plan>,
        settings: Settings,
        resume: Option<ResumeFile>,
        server: &str,
        clock: Clock,
    ) -> Result<Self, crate::archive::ArchiveError> {
        let archive = match (&settings.mode, plan.legs().first()) {
            (Mode::Export { path, resume, .. }, Some(leg)) => {
                let begin = if *resume { Begin::Resume } else { Begin::Anew };
                Some(Archive::open(path, &leg.tileset, server, begin)?)
            }
            _ => None,
        };
        // An archive knows its own tiles, whatever another file says about it.
        let counts = archive.is_none();
        let (resumed, again) = resume.as_ref().filter(|_| counts).map_or_else(
            || (0, Vec::new()),
            |resume| (resume.done(), resume.failed()),
        );
        let feed = Feed {
            walk: plan.walk(),
            again,
            again_walk: plan.walk(),
            next_again: 0,
        };
        let shared = Shared {
            pool,
            archive,
            pace: Mutex::new(Pace::new(settings.concurrency, settings.rate)),
            freed: Notify::new(),
            chance: Mutex::new(Chance::new(settings.seed)),
            feed: Mutex::new(feed),
            resume: Mutex::new(resume),
            tally: Mutex::default(),
            failures: Mutex::default(),
            last_success: Mutex::new(clock.uptime()),
            stop: watch::Sender::new(None),
            settings,
            clock,
        };
        Ok(Self {
            shared: Arc::new(shared),
            plan,
            resumed,
        })
    }

    /// What has been done so far.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// How many tiles earlier runs had done.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Goes through the plan. An end that is asked for lets what is open finish.
    pub async fn run(&self, mut shutdown: Shutdown) -> Report {
        let shared = &self.shared;
        let began = shared.clock.uptime();
        let mut workers = JoinSet::new();
        for index in 0..shared.settings.concurrency.max(1) as usize {
            workers.spawn(Arc::clone(shared).work(index));
        }
        let mut ticks = tokio::time::interval(FLUSH);
        loop {
            tokio::select! {
                ended = workers.join_next() => if ended.is_none() { break },
                _ = ticks.tick() => shared.flush(),
                () = shutdown.asked(), if !shared.is_stopping() => shared.stop(Stop::Asked),
            }
        }
        shared.flush();
        let mut report = self.report(began);
        self.finish(&mut report).await;
        report
    }

    fn report(&self, began: Uptime) -> Report {
        let shared = &self.shared;
        let failures = lock(&shared.failures).clone();
        let tally = self.tally();
        let tiles = self.plan.total();
        let stopped = shared.stop.borrow().as_ref().map(Stop::to_string);
        let reasons = failures.reasons.iter();
        Report {
            complete: stopped.is_none() && tally.failed == 0,
            stopped,
            tiles,
            resumed: self.resumed,
            reasons: reasons
                .map(|(reason, count)| (reason.label(), *count))
                .collect(),
            failures: failures.first,
            seconds: shared.clock.uptime().since(began).as_secs_f64(),
            tally,
            archive: None,
        }
    }

    /// What is done when all workers have ended: an archive comes under its name, and a resume file that has nothing
    /// left to resume goes.
    async fn finish(&self, report: &mut Report) {
        let shared = &self.shared;
        let mut failed = |what: String| {
            report.complete = false;
            report.stopped.get_or_insert(what);
        };
        if let (Some(archive), Mode::Export { allow_missing, .. }) =
            (&shared.archive, &shared.settings.mode)
            && let Some(leg) = self.plan.legs().first()
        {
            let ended = shared.stop.borrow().is_none();
            let whole = ended && self.tally().failed == 0;
            if whole || (ended && *allow_missing) {
                match archive.finish(&leg.tileset, whole).await {
                    Ok(written) => report.archive = Some(written),
                    Err(error) => failed(error.to_string()),
                }
            }
        }
        if report.complete
            && let Some(resume) = lock(&shared.resume).take()
            && let Err(error) = resume.remove()
        {
            report.complete = false;
            report.stopped = Some(error.to_string());
        }
    }
}

impl Shared {
    /// The next tile that is not done; `None`: there is none.
    pub(super) fn next_job(&self) -> Option<Job> {
        let mut feed = lock(&self.feed);
        let feed = &mut *feed;
        while let Some(&number) = feed.again.get(feed.next_again) {
            feed.next_again += 1;
            feed.again_walk.seek(number);
            if let Some(job) = feed.again_walk.next() {
                return Some(job);
            }
        }
        if let Some(archive) = &self.archive {
            return feed.walk.find(|job| {
                let there = archive.contains(job.coord);
                if there {
                    self.note(job, Done::InArchive, 0);
                }
                !there
            });
        }
        loop {
            let number = feed.walk.number();
            if let Some(last) = lock(&self.resume)
                .as_ref()
                .and_then(|r| r.done_from(number))
            {
                feed.walk.seek(last.saturating_add(1));
                if feed.walk.number() == number {
                    return None;
                }
                continue;
            }
            let job = feed.walk.next()?;
            if feed.again.binary_search(&job.number).is_err() {
                return Some(job);
            }
        }
    }

    /// A tile ended well.
    pub(super) fn note(&self, job: &Job, done: Done, bytes: u64) {
        let within = match self.settings.mode {
            Mode::StaleOnly { within } => i64::try_from(within.as_secs()).ok(),
            Mode::Seed | Mode::Export { .. } => None,
        };
        let mut tally = lock(&self.tally);
        tally.note(done, within);
        tally.bytes += bytes;
        drop(tally);
        if done != Done::InArchive {
            self.succeeded();
        }
        if let Some(resume) = lock(&self.resume).as_mut() {
            resume.note_done(job.number);
        }
    }

    /// A tile was given up.
    pub(super) fn note_failed(&self, job: &Job, reason: Reason, detail: String) {
        let failed = {
            let mut tally = lock(&self.tally);
            tally.failed += 1;
            tally.failed
        };
        let tile = FailedTile {
            tileset: job.leg.tileset.name.clone(),
            tile: job.coord.to_string(),
            reason: reason.label(),
            detail,
        };
        lock(&self.failures).note(tile, reason);
        if let Some(resume) = lock(&self.resume).as_mut() {
            resume.note_failed(job.number, reason);
        }
        if failed >= self.settings.max_failures {
            self.stop(Stop::TooManyFailures(failed));
        }
    }

    /// Counts what is no tile's end.
    pub(super) fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut lock(&self.tally));
    }

    /// The server answers and its origin does.
    fn succeeded(&self) {
        *lock(&self.last_success) = self.clock.uptime();
    }

    /// Ends the run if nothing has succeeded for too long.
    pub(super) fn check_patience(&self, detail: &str) {
        let since = self.clock.uptime().since(*lock(&self.last_success));
        if since > self.settings.patience {
            self.stop(Stop::NoProgress(spoken(since), detail.to_owned()));
        }
    }

    /// Lets all workers end; the first reason counts.
    pub(super) fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                *stop = Some(why);
            }
            first
        });
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Ends when the run is to end.
    pub(super) async fn stopped(&self) {
        // The sender lives as long as we do.
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }

    fn flush(&self) {
        // A few hundred bytes to the page cache: not worth another thread.
        let flushed = lock(&self.resume).as_mut().map(ResumeFile::flush);
        if let Some(Err(error)) = flushed {
            self.stop(Stop::Local(error.to_string()));
        }
    }
}
