//! One tile: asked for, waited for, asked for again, until it has ended or the run has.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::export::MAX_TILE;
use super::outcome::{Done, Reason, Verdict, judge, judge_error};
use super::pace::Admission;
use super::plan::Job;
use super::pool::ANSWER;
use super::run::{Mode, Shared, Stop, lock, spoken};
use crate::client::{Answer, ClientError, Credential, CredentialError};
use crate::clock::Uptime;

/// A problem's sentence is short.
const MAX_PROBLEM: usize = 16 * 1024;
/// Where the server says 429 or 503 and not for how long.
const PAUSE: Duration = Duration::from_secs(2);
/// Between attempts at one tile: doubled up to the last.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often one tile may be told 'too much' while others are answered.
const MAX_THROTTLED: u32 = 20;

/// How a tile ended.
enum Ended {
    Done(Done, u64),
    Failed(Reason, String),
    /// The run ends before the tile does.
    Stopped,
}

/// What came of one request.
struct Attempt {
    verdict: Verdict,
    /// In words, for a failure.
    detail: String,
    bytes: u64,
    /// What an archive keeps: the body, and its `Content-Encoding`.
    body: Option<(Bytes, String)>,
}

impl Attempt {
    fn of(verdict: Verdict, detail: String) -> Self {
        Self {
            verdict,
            detail,
            bytes: 0,
            body: None,
        }
    }
}

impl Shared {
    /// Takes tiles until there are none.
    pub(super) async fn work(self: Arc<Self>, worker: usize) {
        while !self.is_stopping() {
            let Some(job) = self.next_job() else { return };
            match self.tile(worker, &job).await {
                Ended::Done(done, bytes) => self.note(&job, done, bytes),
                Ended::Failed(reason, detail) => {
                    self.note_failed(&job, reason, detail.clone());
                    self.check_patience(&detail);
                }
                Ended::Stopped => return,
            }
        }
    }

    async fn tile(&self, worker: usize, job: &Job) -> Ended {
        let (mut attempts, mut throttled) = (0, 0);
        loop {
            if !self.admitted().await {
                return Ended::Stopped;
            }
            let began = self.clock.uptime();
            let credential = self.pool.credential();
            let attempt = match self.attempt(worker, job, &credential).await {
                Ok(attempt) => attempt,
                Err(error) => {
                    self.away(began, &error);
                    continue;
                }
            };
            let (reason, wait) = match attempt.verdict {
                Verdict::Done(done) => {
                    self.answered();
                    return self.keep(job, done, attempt).await;
                }
                Verdict::Failed(reason) => {
                    self.answered();
                    return Ended::Failed(reason, attempt.detail);
                }
                Verdict::Unauthorized => {
                    self.ended();
                    if !self.signed_in_again(&credential).await {
                        return Ended::Stopped;
                    }
                    attempts += 1;
                    (Reason::Refused, None)
                }
                Verdict::Throttled(wait) => {
                    throttled += 1;
                    self.throttled(began, wait.unwrap_or(PAUSE));
                    self.check_patience(&attempt.detail);
                    if throttled >= MAX_THROTTLED {
                        return Ended::Failed(Reason::Overloaded, attempt.detail);
                    }
                    // The pause is everybody's.
                    self.count(|tally| tally.retries += 1);
                    continue;
                }
                Verdict::Again(reason, wait) => {
                    self.ended();
                    attempts += 1;
                    self.check_patience(&attempt.detail);
                    (reason, wait)
                }
            };
            if attempts >= self.settings.attempts {
                return Ended::Failed(reason, attempt.detail);
            }
            self.count(|tally| tally.retries += 1);
            if !self.waited(self.backoff(attempts, wait)).await {
                return Ended::Stopped;
            }
        }
    }

    /// Waits for a place; false: the run ends.
    async fn admitted(&self) -> bool {
        loop {
            if self.is_stopping() {
                return false;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on nothing is missed.
            freed.as_mut().enable();
            let now = self.clock.uptime();
            let admission = lock(&self.pace).admit(now);
            match admission {
                Admission::Go => return true,
                Admission::At(then) => {
                    if !self.waited(then.since(now)).await {
                        return false;
                    }
                }
                Admission::Full => tokio::select! {
                    () = freed => {}
                    () = self.stopped() => return false,
                },
            }
        }
    }

    /// Waits; false: the run ends.
    async fn waited(&self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.stopped() => false,
        }
    }

    fn answered(&self) {
        lock(&self.pace).answered();
        self.freed.notify_waiters();
    }

    fn ended(&self) {
        lock(&self.pace).ended();
        self.freed.notify_waiters();
    }

    fn throttled(&self, began: Uptime, wait: Duration) {
        if wait > self.settings.patience {
            self.stop(Stop::LongPause(spoken(wait)));
        }
        // Those who waited must not all come back in the same instant.
        let spread = wait.min(Duration::from_secs(2)).mul_f64(self.share() / 4.0);
        let now = self.clock.uptime();
        lock(&self.pace).throttled(began, now, wait + spread);
        self.freed.notify_waiters();
        self.count(|tally| tally.throttled += 1);
    }

    /// The server was not reached: no tile's fault.
    fn away(&self, began: Uptime, error: &ClientError) {
        let share = self.share();
        lock(&self.pace).unreachable(began, self.clock.uptime(), share);
        self.freed.notify_waiters();
        self.count(|tally| tally.retries += 1);
        self.check_patience(&error.detail);
    }

    fn share(&self) -> f64 {
        lock(&self.chance).share()
    }

    fn backoff(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doubled = BACKOFF
            .0
            .saturating_mul(1 << attempt.min(10).saturating_sub(1));
        let wait = doubled.min(BACKOFF.1).mul_f64(0.5 + self.share() / 2.0);
        wait.max(asked.unwrap_or_default().min(self.settings.patience))
    }

    /// Signs in anew after a 401; false: it ends the run.
    async fn signed_in_again(&self, refused: &Arc<Credential>) -> bool {
        let more = match self.pool.sign_in(Some(refused)).await {
            // Or it is away, which the next attempt finds out and waits for.
            Ok(true) | Err(CredentialError::Client(_)) => return true,
            Ok(false) => String::new(),
            Err(error) => format!("; {error}"),
        };
        self.stop(Stop::Unauthorized(more));
        false
    }

    /// Puts a tile where it belongs.
    async fn keep(&self, job: &Job, done: Done, attempt: Attempt) -> Ended {
        if let Some(archive) = &self.archive {
            let body = match done {
                Done::Absent => None,
                _ => attempt.body,
            };
            match archive.put(job.coord, body).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => {
                    let detail = "its bytes are not what its Content-Encoding says".to_owned();
                    return Ended::Failed(reason, detail);
                }
                Err(error) => {
                    self.stop(Stop::Local(error.to_string()));
                    return Ended::Stopped;
                }
            }
        }
        Ended::Done(done, attempt.bytes)
    }

    /// One request, or two with `--stale-only`. The error: the server was not reached.
    async fn attempt(
        &self,
        worker: usize,
        job: &Job,
        credential: &Credential,
    ) -> Result<Attempt, ClientError> {
        let mut headers = HeaderMap::new();
        let method = match self.settings.mode {
            Mode::Seed => {
                // Whatever is stored: nothing has to be unpacked for us.
                let any = HeaderValue::from_static("gzip, br, zstd");
                headers.insert(ACCEPT_ENCODING, any);
                Method::GET
            }
            Mode::Export { .. } => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
                Method::GET
            }
            Mode::StaleOnly { within } => {
                if let Some(attempt) = self.unstored(worker, job, credential).await? {
                    return Ok(attempt);
                }
                // RFC 9111 §5.2.1.3: what we want, for a server that lets jobs say so.
                let wish = HeaderValue::try_from(format!("min-fresh={}", within.as_secs()));
                headers.extend(wish.ok().map(|wish| (CACHE_CONTROL, wish)));
                Method::HEAD
            }
        };
        let path = job.leg.tileset.path(job.coord);
        self.request(worker, method, &path, headers, credential)
            .await
    }

    async fn request(
        &self,
        worker: usize,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        credential: &Credential,
    ) -> Result<Attempt, ClientError> {
        let mut connection = self.pool.take(worker).await?;
        credential.put(&mut headers);
        let sent = connection
            .send(method, path, headers, Bytes::new(), ANSWER)
            .await;
        let read = match sent {
            Ok(answer) => {
                self.pool.absorb(&answer.headers);
                self.read(answer).await
            }
            Err(error) => Err(error),
        };
        match read {
            Ok(attempt) => {
                self.pool.give_back(worker, connection).await;
                Ok(attempt)
            }
            Err(error) => match judge_error(&error) {
                Some(verdict) => Ok(Attempt::of(verdict, error.detail)),
                None => Err(error),
            },
        }
    }

    /// Reads an answer to its end.
    async fn read(&self, answer: Answer) -> Result<Attempt, ClientError> {
        let status = answer.status;
        let verdict = judge(status, &answer.headers);
        let mut attempt = Attempt::of(verdict, String::new());
        if !matches!(verdict, Verdict::Done(_)) {
            attempt.detail = problem(answer).await?;
            return Ok(attempt);
        }
        if self.archive.is_some() && status == StatusCode::OK {
            let encoding = answer.header(CONTENT_ENCODING.as_str()).to_owned();
            let body = answer.collect(MAX_TILE).await?;
            attempt.bytes = body.len() as u64;
            attempt.body = Some((body, encoding));
        } else {
            attempt.bytes = answer.discard().await?;
        }
        Ok(attempt)
    }

    /// Looks whether the server has a tile, without making it fetch the tile. `None`: it has. What the answer does not
    /// tell is no reason to ask for the tile, which might fetch it: the look is tried again, or has failed.
    async fn unstored(
        &self,
        worker: usize,
        job: &Job,
        credential: &Credential,
    ) -> Result<Option<Attempt>, ClientError> {
        let mut connection = self.pool.take(worker).await?;
        let path = job.leg.tileset.explain_path(job.coord);
        let plain = HeaderMap::new();
        let asked = connection.get(&path, credential, &plain, ANSWER).await;
        let read = match asked {
            Ok(answer) => looked(answer).await,
            Err(error) => Err(error),
        };
        match read {
            Ok(found) => {
                self.pool.give_back(worker, connection).await;
                Ok(found)
            }
            Err(error) => match judge_error(&error) {
                Some(verdict) => Ok(Some(Attempt::of(verdict, error.detail))),
                None => Err(error),
            },
        }
    }
}

/// What the server says of a tile that it was asked to explain; `None`: that it has it.
async fn looked(answer: Answer) -> Result<Option<Attempt>, ClientError> {
    let verdict = judge(answer.status, &answer.headers);
    if answer.status != StatusCode::OK {
        return Ok(Some(Attempt::of(verdict, problem(answer).await?)));
    }
    let body = answer.collect(MAX_PROBLEM).await?;
    let explained: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(match (explained.get("memory"), explained.get("disk")) {
        (Some(memory), Some(disk)) if memory.is_null() && disk.is_null() => {
            Some(Attempt::of(Verdict::Done(Done::NotStored), String::new()))
        }
        (Some(_), Some(_)) => None,
        _ => {
            let detail = "its explanation is none: is something else in front of the server?";
            let failed = Verdict::Failed(Reason::Refused);
            Some(Attempt::of(failed, detail.to_owned()))
        }
    })
}

/// What the server says about a failure: its status, and the problem's sentence (RFC 9457).
async fn problem(answer: Answer) -> Result<String, ClientError> {
    let status = answer.status;
    let body = answer.collect(MAX_PROBLEM).await?;
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(match problem["detail"].as_str() {
        Some(detail) => format!("{status}: {detail}"),
        None => status.to_string(),
    })
}
