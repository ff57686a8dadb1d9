//! People at their maps, all of them at a time.
//!
//! Invariant: who looks at what, and when, follows from the seed and not from the server (an open loop): who is
//! not served in time moves on all the same. Log-ins are over before the first view: each costs the server a
//! password hash, which would be taken for what tiles cost.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::browser::Browser;
use super::person::{Walk, World};
use super::stats::Recorder;
use super::wire::Wire;
use crate::client::{Client, Credential};
use crate::clock::{Clock, Uptime};
use crate::shutdown::Shutdown;

/// Timers are exact to a millisecond. Within this a view begins when it does; beyond, its delay is counted.
const TIMER: Duration = Duration::from_millis(2);

/// What all of them share.
pub(super) struct Crowd {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) world: Arc<World>,
    pub(super) recorder: Arc<Recorder>,
    /// A session each, or shared ones in turn.
    pub(super) credentials: Vec<Credential>,
    pub(super) users: u32,
    pub(super) ramp: Duration,
    pub(super) cache: u64,
}

/// Lets everybody live until the end is asked for.
pub(super) async fn live(crowd: Crowd, start: Uptime, stop: Shutdown) {
    let crowd = Arc::new(crowd);
    let mut people = JoinSet::new();
    for person in 0..crowd.users {
        let begins = start
            + crowd
                .ramp
                .mul_f64(f64::from(person) / f64::from(crowd.users));
        people.spawn(one(Arc::clone(&crowd), person, begins, stop.clone()));
    }
    while people.join_next().await.is_some() {}
}

async fn one(crowd: Arc<Crowd>, person: u32, begins: Uptime, mut stop: Shutdown) {
    let clock = &crowd.clock;
    tokio::select! {
        () = tokio::time::sleep(begins.since(clock.uptime())) => {}
        () = stop.asked() => return,
    }
    let wire = Wire::new(crowd.client.clone(), clock.clone());
    let (world, recorder) = (Arc::clone(&crowd.world), Arc::clone(&crowd.recorder));
    let mut browser = Browser::new(person, world, recorder, clock.clone(), wire, crowd.cache);
    let own = person as usize % crowd.credentials.len().max(1);
    browser.sign_in(crowd.credentials.get(own).cloned().unwrap_or_default());
    let mut due = begins;
    for step in Walk::new(Arc::clone(&crowd.world), person) {
        let now = clock.uptime();
        let late = now.since(due);
        crowd.recorder.with(person, |stats| stats.late(late));
        browser.show(&step.view, if late < TIMER { now } else { due });
        due = due + step.pause;
        let pause = tokio::time::sleep(due.since(clock.uptime()));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = stop.asked() => {
                    browser.close(clock.uptime());
                    return;
                }
                () = &mut pause => break,
                () = browser.turn() => {}
            }
        }
    }
}
