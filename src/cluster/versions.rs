//! Switches of a tileset's version, between nodes: comparing all of them, and following those that come.
//!
//! A hash holds the newest switch of each tileset, for nodes that start or were away; a stream tells those that are
//! there. Nodes keep the newest that they know and hand it over to a Redis that has an older one or none: so a switch
//! outlives a Redis that forgets as long as one node runs, and one that was made while Redis was away is followed
//! afterwards. Which of two is newer, and what it means, is the [`Node`]'s to say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{Connection, Trouble};
use super::endings::count;
use super::stream::{self, pairs};
use super::{Node, Shared, VersionSaid, blocking};
use crate::metrics::{ClusterEvent, Message};

/// The hash.
const VERSIONS: &str = "versions";
/// The stream.
pub(super) const SWITCHES: &str = "switches";
/// Messages that the stream keeps; who is further behind compares.
const STREAM_LENGTH: usize = 1_000;
/// Entries of the stream in one answer.
const PAGE: usize = 16;
/// Everything is compared so often, whether or not anything seems to be missing.
const COMPARE_EVERY: Duration = Duration::from_hours(1);

/// Compares, and then follows. Ends with what ended it.
pub(super) async fn follow(
    shared: &Shared,
    mut line: Connection,
    node: &Arc<dyn Node>,
    known: &watch::Sender<bool>,
) -> Trouble {
    match follow_on(shared, &mut line, node, known).await {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

async fn follow_on(
    shared: &Shared,
    line: &mut Connection,
    node: &Arc<dyn Node>,
    known: &watch::Sender<bool>,
) -> Result<Infallible, Trouble> {
    let key = shared.key(SWITCHES);
    loop {
        let mut after = stream::end(line, &key, true).await?.unwrap_or_default();
        compare(shared, line, node).await?;
        known.send_replace(true);
        let compared = Instant::now();
        while compared.elapsed() < COMPARE_EVERY {
            let entries = stream::news(line, &key, after, PAGE).await?;
            let Some(last) = entries.last() else {
                continue;
            };
            after = last.id;
            let told = entries.into_iter().flat_map(|entry| entry.fields).collect();
            if !take(shared, node, told).await?.is_empty() {
                // It has overwritten a newer one: handed over at once.
                break;
            }
        }
    }
}

/// Takes all that Redis has, and gives what it has not.
async fn compare(
    shared: &Shared,
    line: &mut Connection,
    node: &Arc<dyn Node>,
) -> Result<(), Trouble> {
    let flat: Vec<Value> = line.ask(cmd("HGETALL").arg(shared.key(VERSIONS))).await?;
    let theirs = pairs(flat);
    let named = |name: &str| theirs.iter().any(|(known, _)| known == name.as_bytes());
    let ours = {
        let node = node.clone();
        let ours = blocking(move || node.versions()).await;
        ours.ok_or(Trouble::Stopping)?
    };
    let mut newer: Vec<_> = ours.into_iter().filter(|(name, _)| !named(name)).collect();
    newer.extend(take(shared, node, theirs).await?);
    for (name, switch) in newer {
        line.tell(&message(shared, &name, &switch)).await?;
        shared.sent(Message::Version, 1);
    }
    Ok(())
}

/// Has the node look at them, and gives what it knows better.
async fn take(
    shared: &Shared,
    node: &Arc<dyn Node>,
    told: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<Vec<(String, String)>, Trouble> {
    let node = node.clone();
    let said = blocking(move || {
        let each = told.into_iter().map(|(name, switch)| {
            let name = String::from_utf8(name).unwrap_or_default();
            let said = node.version(&name, &switch);
            (name, said)
        });
        each.collect::<Vec<_>>()
    });
    let (mut newer, mut taken, mut malformed) = (Vec::new(), 0, 0);
    for (name, said) in said.await.ok_or(Trouble::Stopping)? {
        match said {
            VersionSaid::Taken => taken += 1,
            VersionSaid::Nothing => {}
            VersionSaid::Outdated(ours) => newer.push((name, ours)),
            VersionSaid::Malformed => malformed += 1,
        }
    }
    shared.received(Message::Version, count(taken));
    shared.event(ClusterEvent::Ignored, count(malformed));
    Ok(newer)
}

/// Both in one go: the hash for those who come later, the stream for those who are there.
pub(super) fn message(shared: &Shared, name: &str, switch: &str) -> Pipeline {
    let (mut set, mut add) = (cmd("HSET"), Cmd::new());
    set.arg(shared.key(VERSIONS)).arg(name).arg(switch);
    add.arg("XADD").arg(shared.key(SWITCHES));
    add.arg("MAXLEN").arg("~").arg(STREAM_LENGTH).arg("*");
    add.arg(name).arg(switch);
    let mut pipeline = redis::pipe();
    pipeline.add_command(set).ignore();
    pipeline.add_command(add).ignore();
    pipeline
}
