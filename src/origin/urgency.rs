//! How urgently a tile is wanted: whether somebody looks at a map, a job works through a list, or nobody
//! has asked yet.
//!
//! Invariant: urgency is only ever raised. Whoever looks at a map and joins a job's fetch does not wait as
//! the job would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::label_enum;

label_enum! {
    /// Who a fetch is for. In the order of precedence.
    pub enum Lane {
        /// Somebody who looks at a map.
        Interactive = "interactive",
        /// A job: it may wait, and takes what the others leave.
        Background = "background",
        /// Nobody yet: a guess at what will be wanted next.
        Speculative = "speculative",
    }
}

/// The lane of one fetch, which those who join it can raise.
#[derive(Debug, Clone, Default)]
pub struct Urgency(Option<Arc<Raisable>>);

#[derive(Debug)]
struct Raisable {
    lane: Lane,
    raised: AtomicBool,
    told: Notify,
}

impl Urgency {
    /// A fetch for this lane.
    pub fn new(lane: Lane) -> Self {
        // There is nothing above it, so nothing to keep: most fetches are of this kind.
        Self((lane != Lane::Interactive).then(|| {
            Arc::new(Raisable {
                lane,
                raised: AtomicBool::new(false),
                told: Notify::new(),
            })
        }))
    }

    /// Its lane now.
    pub fn lane(&self) -> Lane {
        match &self.0 {
            Some(below) if !below.raised.load(Ordering::Acquire) => below.lane,
            _ => Lane::Interactive,
        }
    }

    /// Somebody of this lane waits for it too. Who comes from the highest, or joins a guess, raises it to the
    /// highest: a guess that turns out right is not worth a step between.
    pub fn join(&self, lane: Lane) {
        if let Some(below) = &self.0
            && (lane as u8) < (below.lane as u8)
        {
            below.raised.store(true, Ordering::Release);
            // One waits at most: the fetch itself. A permit is kept for it if it does not wait yet.
            below.told.notify_one();
        }
    }

    /// Waits until it is raised; for ever where nothing is above it.
    pub async fn raised(&self) {
        match &self.0 {
            Some(below) => {
                while !below.raised.load(Ordering::Acquire) {
                    below.told.notified().await;
                }
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urgency_is_raised_by_those_above_and_by_nobody_else() {
        let job = Urgency::new(Lane::Background);
        job.join(Lane::Background);
        job.join(Lane::Speculative);
        assert_eq!(job.lane(), Lane::Background);
        job.clone().join(Lane::Interactive);
        assert_eq!(job.lane(), Lane::Interactive);
        job.raised().await;
        let guess = Urgency::new(Lane::Speculative);
        guess.join(Lane::Background);
        assert_eq!(guess.lane(), Lane::Interactive);
        assert_eq!(Urgency::default().lane(), Lane::Interactive);
    }
}
