//! A circuit breaker: stops asking an origin that fails, and finds out by itself when it is well.
//!
//! A pure state machine: the caller says what time it is. Closed, it counts failures in a row. Open,
//! it refuses for a pause that doubles each time. Then one request, the probe, is let through: if it
//! goes well the breaker closes, if not the next pause begins.

use std::time::{Duration, Instant};

/// When to open and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// This many failures in a row open it.
    pub failures: u32,
    /// The first pause.
    pub first_pause: Duration,
    /// The longest pause; each is twice the last.
    pub longest_pause: Duration,
}

impl Default for BreakerSettings {
    /// Ten in a row is no coincidence; half a second spares an origin that restarts, and a person
    /// who waits for a map hardly notices that it was there.
    fn default() -> Self {
        Self {
            failures: 10,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
        }
    }
}

/// What an answer says about the origin's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It is down, hangs or breaks.
    Sick,
    /// Nothing: the request was given up, throttled, or cut.
    Unknown,
}

/// Which state a breaker is in, for a gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything is let through.
    Closed,
    /// Nothing is.
    Open,
    /// The probe is.
    HalfOpen,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// Leave to ask once. Give it back with [`Breaker::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// The state machine.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Counts the changes of state: an answer to a question asked before the last one says nothing.
    epoch: u64,
    opened: u64,
}

impl Breaker {
    /// Closed.
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed { failures: 0 },
            epoch: 0,
            opened: 0,
        }
    }

    /// How long to stay away, if asking now would be refused. Changes nothing.
    pub fn refuses(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => until.checked_duration_since(now).filter(|d| !d.is_zero()),
            // The probe is on its way.
            State::HalfOpen { .. } => Some(self.settings.first_pause),
        }
    }

    /// Leave to ask, or how long to stay away.
    pub fn admit(&mut self, now: Instant) -> Result<Ticket, Duration> {
        if let Some(away) = self.refuses(now) {
            return Err(away);
        }
        if let State::Open { pause, .. } = self.state {
            self.enter(State::HalfOpen { pause });
        }
        Ok(Ticket(self.epoch))
    }

    /// What came of a request.
    pub fn record(&mut self, now: Instant, ticket: Ticket, health: Health) {
        if ticket.0 != self.epoch {
            return;
        }
        match (self.state, health) {
            (State::Closed { .. }, Health::Well) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, Health::Sick) => {
                let failures = failures + 1;
                if failures >= self.settings.failures {
                    self.open(now, self.settings.first_pause);
                } else {
                    self.state = State::Closed { failures };
                }
            }
            (State::HalfOpen { .. }, Health::Well) => self.enter(State::Closed { failures: 0 }),
            (State::HalfOpen { pause }, Health::Sick) => {
                self.open(now, (pause * 2).min(self.settings.longest_pause));
            }
            // The next may probe at once: this one found nothing out.
            (State::HalfOpen { pause }, Health::Unknown) => {
                self.enter(State::Open { until: now, pause });
            }
            (State::Closed { .. }, Health::Unknown) | (State::Open { .. }, _) => {}
        }
    }

    /// The state, for a gauge.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// How often it opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    fn open(&mut self, now: Instant, pause: Duration) {
        self.opened += 1;
        self.enter(State::Open {
            until: now + pause,
            pause,
        });
    }

    fn enter(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings {
            failures: 3,
            first_pause: 100 * MS,
            longest_pause: 300 * MS,
        })
    }

    fn fail(breaker: &mut Breaker, now: Instant, times: u32) {
        for _ in 0..times {
            let ticket = breaker.admit(now).unwrap();
            breaker.record(now, ticket, Health::Sick);
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_in_between_does_not() {
        let (mut b, now) = (breaker(), Instant::now());
        fail(&mut b, now, 2);
        let ticket = b.admit(now).unwrap();
        b.record(now, ticket, Health::Well);
        fail(&mut b, now, 2);
        assert_eq!(b.state(), BreakerState::Closed);
        fail(&mut b, now, 1);
        assert_eq!(b.admit(now), Err(100 * MS));
        assert_eq!(b.opened(), 1);
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let (mut b, start) = (breaker(), Instant::now());
        fail(&mut b, start, 3);
        assert_eq!(b.admit(start + 40 * MS), Err(60 * MS));
        let then = start + 100 * MS;
        let probe = b.admit(then).unwrap();
        assert_eq!(b.state(), BreakerState::HalfOpen);
        assert!(b.admit(then).is_err(), "one probe, not two");
        b.record(then, probe, Health::Well);
        assert_eq!(b.state(), BreakerState::Closed);
        assert!(b.admit(then).is_ok());
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_recovery() {
        let (mut b, mut now) = (breaker(), Instant::now());
        fail(&mut b, now, 3);
        for pause in [200, 300, 300] {
            now += 300 * MS;
            let probe = b.admit(now).unwrap();
            b.record(now, probe, Health::Sick);
            assert_eq!(b.refuses(now), Some(pause * MS));
        }
        now += 300 * MS;
        let probe = b.admit(now).unwrap();
        b.record(now, probe, Health::Well);
        fail(&mut b, now, 3);
        assert_eq!(b.refuses(now), Some(100 * MS));
    }

    #[test]
    fn a_probe_that_is_given_up_does_not_wedge_it() {
        let (mut b, start) = (breaker(), Instant::now());
        fail(&mut b, start, 3);
        let then = start + 100 * MS;
        let probe = b.admit(then).unwrap();
        b.record(then, probe, Health::Unknown);
        assert!(b.admit(then).is_ok(), "the next one probes");
    }

    #[test]
    fn answers_to_old_questions_say_nothing() {
        let (mut b, start) = (breaker(), Instant::now());
        let old = b.admit(start).unwrap();
        fail(&mut b, start, 3);
        b.record(start, old, Health::Well);
        assert_eq!(b.state(), BreakerState::Open);
        let then = start + 100 * MS;
        let probe = b.admit(then).unwrap();
        b.record(then, old, Health::Sick);
        b.record(then, probe, Health::Well);
        assert_eq!(b.state(), BreakerState::Closed);
        b.record(then, old, Health::Sick);
        fail(&mut b, then, 2);
        assert_eq!(b.state(), BreakerState::Closed);
    }
}
