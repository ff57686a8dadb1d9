//! What this node tells the others, in the order in which it happened.
//!
//! Who waits for a letter to be taken hears so after Redis has answered, or hears nothing when the connection
//! ends first.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::cmd;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::connection::{Connection, Trouble};
use super::endings::{self, ENDED, ENDINGS, count};
use super::purges::{self, PURGES};
use super::versions::{self, SWITCHES};
use super::{Ending, Letter, Shared, stream};
use crate::metrics::Message;

/// Endings in one message.
const MOST: usize = 256;
/// A Redis that is gone is noticed this soon, also when there is nothing to tell.
const PING: Duration = Duration::from_secs(5);
/// What is past is cleared away so often.
const TIDY: Duration = Duration::from_hours(1);
/// Clocks may differ: an ending is forgotten later than it could be.
const MARGIN: Duration = Duration::from_hours(1);

/// Sends what comes out of the queues. Ends with what ended it.
pub(super) async fn write(
    shared: &Shared,
    line: Connection,
    endings: &mut mpsc::Receiver<Letter<Ending>>,
    purges: &mut mpsc::Receiver<Letter<String>>,
    switches: &mut mpsc::Receiver<Letter<(String, String)>>,
) -> Trouble {
    match write_on(shared, line, endings, purges, switches).await {
        Ok(never) => match never {},
        Err(trouble) => trouble,
    }
}

async fn write_on(
    shared: &Shared,
    mut line: Connection,
    endings: &mut mpsc::Receiver<Letter<Ending>>,
    purges: &mut mpsc::Receiver<Letter<String>>,
    switches: &mut mpsc::Receiver<Letter<(String, String)>>,
) -> Result<Infallible, Trouble> {
    let (mut ping, mut tidying) = (interval(PING), interval(TIDY));
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tidying.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut letters = Vec::new();
    loop {
        tokio::select! {
            // Both handles live as long as this: the server has them.
            taken = endings.recv_many(&mut letters, MOST), if !endings.is_closed() => {
                if taken > 0 {
                    send(shared, &mut line, &letters).await?;
                }
                for letter in letters.drain(..) {
                    let _ = letter.taken.send(());
                }
            }
            Some(letter) = purges.recv() => {
                purge(shared, &mut line, &letter.what).await?;
                let _ = letter.taken.send(());
            }
            Some(letter) = switches.recv() => {
                let (tileset, switch) = &letter.what;
                line.tell(&versions::message(shared, tileset, switch)).await?;
                shared.sent(Message::Version, 1);
                let _ = letter.taken.send(());
            }
            _ = ping.tick() => {
                line.ask::<String>(&cmd("PING")).await?;
            }
            _ = tidying.tick() => tidy(shared, &mut line).await?,
        }
        if shared.owing.load(Ordering::Acquire) {
            return Err(Trouble::Overrun);
        }
    }
}

async fn send(
    shared: &Shared,
    line: &mut Connection,
    letters: &[Letter<Ending>],
) -> Result<(), Trouble> {
    let endings: Vec<Ending> = letters.iter().map(|letter| letter.what).collect();
    line.tell(&endings::message(shared, &endings, shared.clock.now()))
        .await?;
    shared.sent(Message::Ending, count(endings.len()));
    Ok(())
}

async fn purge(shared: &Shared, line: &mut Connection, request: &str) -> Result<(), Trouble> {
    let mut add = cmd("XADD");
    add.arg(shared.key(PURGES));
    add.arg("MAXLEN")
        .arg("~")
        .arg(purges::STREAM_LENGTH)
        .arg("*");
    add.arg(purges::NODE)
        .arg(format!("{:032x}", shared.settings.node));
    add.arg(purges::REQUEST).arg(request);
    line.ask::<String>(&add).await?;
    shared.sent(Message::Purge, 1);
    Ok(())
}

/// Whoever is there clears away what nobody needs any more.
async fn tidy(shared: &Shared, line: &mut Connection) -> Result<(), Trouble> {
    let millis = |ago: Duration| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    let now = stream::time(line).await?;
    let past = shared.clock.now().millis().saturating_sub(millis(MARGIN)) / 1000;
    let mut forget = cmd("ZREMRANGEBYSCORE");
    forget.arg(shared.key(ENDED)).arg("-inf").arg(past);
    let mut pipeline = redis::pipe();
    pipeline.add_command(forget).ignore();
    for (stream, kept) in [
        (ENDINGS, MARGIN),
        (PURGES, purges::KEPT),
        (SWITCHES, MARGIN),
    ] {
        let mut trim = cmd("XTRIM");
        trim.arg(shared.key(stream)).arg("MINID").arg("~");
        trim.arg(now.saturating_sub(millis(kept)));
        pipeline.add_command(trim).ignore();
    }
    line.tell(&pipeline).await
}
