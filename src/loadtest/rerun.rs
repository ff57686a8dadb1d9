//! A log's requests, sent again at their times.
//!
//! Invariant: an open loop with bounded memory: a request is wanted at its time, whatever came of those before;
//! when all browsers' queues are full, reading waits, and the delay is counted. Left out: browser caches (a log
//! has what was sent in spite of them).

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;

use super::LoadError;
use super::outcome::{self, Outcome};
use super::replay::{Planned, Replay, ReplayError};
use super::stats::{Recorder, Sample};
use super::wire::{Done, Next, Order, Wire};
use crate::client::{Client, Credential};
use crate::clock::{Clock, Uptime};
use crate::shutdown::Shutdown;

/// Lines read ahead.
const AHEAD: usize = 1024;
/// Requests that a browser has waiting.
const QUEUE: usize = 128;

/// What all browsers share.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) recorder: Arc<Recorder>,
    pub(super) credentials: Arc<Vec<Credential>>,
    pub(super) users: u32,
}

/// A request, and when it was due.
struct Due {
    planned: Planned,
    at: Uptime,
}

/// A log that is read.
pub(super) type Log = Replay<Box<dyn std::io::BufRead + Send>>;

/// Sends all of the log, or until the end is asked for. How many lines were no GET.
pub(super) async fn run(
    fleet: Fleet,
    log: Log,
    start: Uptime,
    mut stop: Shutdown,
) -> Result<u64, LoadError> {
    let (lines, mut planned) = mpsc::channel(AHEAD);
    let reader = tokio::task::spawn_blocking(move || read(log, &lines));
    let mut browsers = JoinSet::new();
    let mut queues = Vec::new();
    for person in 0..fleet.users {
        let (queue, orders) = mpsc::channel(QUEUE);
        queues.push(queue);
        browsers.spawn(browse(fleet.clone(), person, orders, stop.clone()));
    }
    let mut turn = 0;
    loop {
        let next = tokio::select! {
            next = planned.recv() => next,
            () = stop.asked() => break,
        };
        let Some(planned) = next else { break };
        let at = start + planned.after;
        tokio::select! {
            () = tokio::time::sleep(at.since(fleet.clock.uptime())) => {}
            () = stop.asked() => break,
        }
        let late = fleet.clock.uptime().since(at);
        fleet.recorder.with(0, |stats| stats.late(late));
        // The next browser that has room; where none has, the one whose turn it is.
        let mut waiting = Some(Due { planned, at });
        for _ in 0..queues.len() {
            turn = (turn + 1) % queues.len();
            let Some(due) = waiting.take() else { break };
            waiting = queues[turn]
                .try_send(due)
                .err()
                .map(TrySendError::into_inner);
        }
        if let Some(due) = waiting {
            tokio::select! {
                _ = queues[turn].send(due) => {}
                () = stop.asked() => break,
            }
        }
    }
    drop((planned, queues));
    while browsers.join_next().await.is_some() {}
    Ok(reader.await.map_err(|_| LoadError::Reader)??)
}

fn read(mut log: Log, lines: &mpsc::Sender<Planned>) -> Result<u64, ReplayError> {
    while let Some(planned) = log.next_request()? {
        // The test was ended: nobody listens.
        if lines.blocking_send(planned).is_err() {
            break;
        }
    }
    Ok(log.skipped())
}

/// One browser: sends what it is given, as its connections allow.
async fn browse(fleet: Fleet, person: u32, mut orders: mpsc::Receiver<Due>, mut stop: Shutdown) {
    let mut wire = Wire::new(fleet.client.clone(), fleet.clock.clone());
    let own = person as usize % fleet.credentials.len().max(1);
    let credential = fleet.credentials.get(own).cloned().unwrap_or_default();
    let mut flights: HashMap<u64, (Due, Uptime)> = HashMap::new();
    let (mut id, mut more) = (0, true);
    while more || !wire.is_idle() {
        tokio::select! {
            () = stop.asked() => break,
            due = orders.recv(), if more && wire.has_room() => match due {
                None => more = false,
                Some(due) => {
                    id += 1;
                    let path = due.planned.path.to_string();
                    wire.send(Order { id, path, etag: None }, &credential);
                    flights.insert(id, (due, fleet.clock.uptime()));
                }
            },
            next = wire.next(), if !wire.is_idle() => if let Next::Done(done) = next
                && let Some((due, _)) = flights.remove(&done.id)
            {
                count(&fleet.recorder, person, &due, &done);
            },
        }
    }
    let now = fleet.clock.uptime();
    let lost = |due: &Due, sent| Sample {
        wanted: due.at,
        sent,
        done: now,
        outcome: Outcome::Unfinished,
        source: None,
        bytes: 0,
    };
    for (due, sent) in flights.into_values() {
        let sample = lost(&due, Some(sent));
        fleet.recorder.with(person, |stats| stats.request(&sample));
    }
    orders.close();
    while let Ok(due) = orders.try_recv() {
        let sample = lost(&due, None);
        fleet.recorder.with(person, |stats| stats.request(&sample));
    }
}

fn count(recorder: &Recorder, person: u32, due: &Due, done: &Done) {
    let (outcome, source, bytes) = match &done.answer {
        Ok(answered) => (
            Outcome::of_status(answered.status),
            outcome::source(&answered.headers),
            answered.bytes,
        ),
        Err(outcome) => (*outcome, None, 0),
    };
    let sample = Sample {
        wanted: due.at,
        sent: done.sent,
        done: done.ended,
        outcome,
        source,
        bytes,
    };
    recorder.with(person, |stats| {
        stats.request(&sample);
        stats.connections += done.opened;
        if outcome.is_failure() {
            stats.example(outcome, || due.planned.path.path().to_owned());
        }
    });
}
