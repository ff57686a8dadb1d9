//! What a test costs the machine: CPU of this process and of the server, and how late this one is.
//!
//! Invariant: figures that cannot be had are absent, never zero. Left out: machines without `/proc`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Clock;

/// `USER_HZ`: what `/proc` counts CPU in, on every architecture that Rust has Linux for.
const TICKS: u64 = 100;
/// How often the loop is looked at.
const BEAT: Duration = Duration::from_millis(20);
/// From here on the generator is what is slow.
pub const SATURATED: Duration = Duration::from_millis(20);

/// A process's CPU so far, user and system, of all its threads (`proc_pid_stat(5)`).
pub fn cpu_time(pid: Option<u32>) -> Option<Duration> {
    let path = pid.map_or("/proc/self/stat".to_owned(), |pid| {
        format!("/proc/{pid}/stat")
    });
    cpu_in(&std::fs::read_to_string(path).ok()?)
}

fn cpu_in(stat: &str) -> Option<Duration> {
    // The name is in parentheses and may hold anything, more parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    // `utime` and `stime` are fields 14 and 15; the state behind the name is the third.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// How late a task of this process is woken, in microseconds.
#[derive(Debug)]
pub struct LoopLag(Mutex<Histogram<u64>>);

impl Default for LoopLag {
    fn default() -> Self {
        let lag = Histogram::new_with_bounds(1, 60_000_000, 2);
        Self(Mutex::new(lag.expect("bounds that a histogram can have")))
    }
}

impl LoopLag {
    /// Looks at the clock at every beat, for ever.
    pub async fn watch(&self, clock: Clock) {
        loop {
            let due = clock.uptime() + BEAT;
            tokio::time::sleep(BEAT).await;
            let late = clock.uptime().since(due).as_micros();
            let late = u64::try_from(late).unwrap_or(u64::MAX).max(1);
            let mut lag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lag.saturating_record(late);
        }
    }

    /// What was seen.
    pub fn seen(&self) -> Histogram<u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_behind_any_name() {
        let stat = "42 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_in(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_in("nonsense"), None);
        assert_eq!(cpu_in("42 (a) R 1"), None);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_figure() {
        assert!(cpu_time(None).is_some());
        assert!(cpu_time(Some(u32::MAX)).is_none());
    }
}
