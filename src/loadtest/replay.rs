//! An access log as a sequence of requests: which path, and when.
//!
//! Invariant: only paths are taken, never hosts, and only of GETs; one line and one second of the log are all
//! that is in memory. Left out: what each browser had in its cache (a log has only what was sent).

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};

/// The longest line; a longer one is skipped.
const MAX_LINE: usize = 16 * 1024;
/// Lines of one second that are spread over it; further ones come at its end.
const MAX_SECOND: usize = 65_536;

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It could not be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It does not say when.
    #[error(
        "line {0} has no time, so nothing says how fast to go: give --rate, like --rate 100 for a hundred requests a second"
    )]
    NoTime(u64),
    /// Nothing in it is a request.
    #[error(
        "none of its {0} lines is a GET: it takes common or combined log format, and lines of paths, with a time before them or not"
    )]
    Nothing(u64),
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As logged, so many times faster.
    Logged(f64),
    /// So many a second, whatever the log says.
    Rate(f64),
}

/// A request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// When, after the first one.
    pub after: Duration,
    /// Path and query.
    pub path: PathAndQuery,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
enum Line {
    Request {
        /// Seconds since 1970.
        at: Option<f64>,
        /// Whether that is a whole second, so that a second's lines are to be spread.
        whole: bool,
        path: PathAndQuery,
    },
    /// Empty, or a comment.
    Nothing,
    /// Another method, or nothing that can be read.
    Other,
}

/// Reads a log as it goes.
#[derive(Debug)]
pub struct Replay<R> {
    log: R,
    pace: Pace,
    first: Option<f64>,
    /// Of the second that is being sent.
    ready: VecDeque<Planned>,
    /// The line that began the next one.
    ahead: Option<(f64, PathAndQuery)>,
    lines: u64,
    taken: u64,
    skipped: u64,
    ended: bool,
    buffer: Vec<u8>,
}

impl<R: BufRead> Replay<R> {
    /// Starts at the log's first line.
    pub fn new(log: R, pace: Pace) -> Self {
        Self {
            log,
            pace,
            first: None,
            ready: VecDeque::new(),
            ahead: None,
            lines: 0,
            taken: 0,
            skipped: 0,
            ended: false,
            buffer: Vec::new(),
        }
    }

    /// Lines that were no GET or could not be read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next request; `None` at the end.
    pub fn next_request(&mut self) -> Result<Option<Planned>, ReplayError> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        match self.pace {
            Pace::Rate(rate) => self.at_rate(rate),
            Pace::Logged(speed) => self.as_logged(speed),
        }
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "a log of 2^53 lines has not been written yet"
    )]
    fn at_rate(&mut self, rate: f64) -> Result<Option<Planned>, ReplayError> {
        let Some((_, _, path)) = self.request()? else {
            return Ok(None);
        };
        let after = Duration::from_secs_f64((self.taken - 1) as f64 / rate);
        Ok(Some(Planned { after, path }))
    }

    fn as_logged(&mut self, speed: f64) -> Result<Option<Planned>, ReplayError> {
        let (at, path, whole) = match self.ahead.take() {
            Some((at, path)) => (at, path, true),
            None => match self.request()? {
                None => return Ok(None),
                Some((at, whole, path)) => {
                    (at.ok_or(ReplayError::NoTime(self.lines))?, path, whole)
                }
            },
        };
        if !whole {
            let after = self.after(at, speed);
            return Ok(Some(Planned { after, path }));
        }
        // Servers log whole seconds. Sent as they stand, a second's requests would come all at once.
        let mut second = vec![path];
        while second.len() < MAX_SECOND {
            let Some((next, whole, path)) = self.request()? else {
                break;
            };
            let next = next.ok_or(ReplayError::NoTime(self.lines))?;
            // A line is written when its answer is over: times go back a little in any log.
            if next > at || !whole {
                self.ahead = Some((next, path));
                break;
            }
            second.push(path);
        }
        let many = u32::try_from(second.len()).unwrap_or(u32::MAX);
        for (n, path) in (0_u32..).zip(second) {
            let after = self.after(at + f64::from(n) / f64::from(many), speed);
            self.ready.push_back(Planned { after, path });
        }
        Ok(self.ready.pop_front())
    }

    /// How long after the log's first request, at this speed.
    fn after(&mut self, at: f64, speed: f64) -> Duration {
        let first = *self.first.get_or_insert(at);
        let seconds = ((at - first) / speed).max(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The next line that is a GET.
    fn request(&mut self) -> Result<Option<(Option<f64>, bool, PathAndQuery)>, ReplayError> {
        while !self.ended {
            if !self.read_line()? {
                self.ended = true;
                break;
            }
            self.lines += 1;
            let line = std::str::from_utf8(&self.buffer).map_or(Line::Other, read);
            match line {
                Line::Request { at, whole, path } => {
                    self.taken += 1;
                    return Ok(Some((at, whole, path)));
                }
                Line::Nothing => {}
                Line::Other => self.skipped += 1,
            }
        }
        if self.taken == 0 {
            return Err(ReplayError::Nothing(self.lines));
        }
        Ok(None)
    }

    /// Reads a line into the buffer; one that is too long is left empty and its rest passed over.
    fn read_line(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
        let read = (&mut self.log)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?;
        if read == MAX_LINE && self.buffer.last() != Some(&b'\n') {
            self.buffer.clear();
            // No request: it is counted as skipped.
            self.buffer.push(b'"');
            self.log.skip_until(b'\n')?;
        }
        Ok(read > 0)
    }
}

/// Reads a line of a log in common or combined format, or `[time] path`.
fn read(line: &str) -> Line {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Nothing;
    }
    if let Some((head, rest)) = line.split_once('"') {
        let mut words = rest
            .split('"')
            .next()
            .unwrap_or("")
            .split_ascii_whitespace();
        let (Some("GET"), Some(target)) = (words.next(), words.next()) else {
            return Line::Other;
        };
        let at = head
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
            .and_then(|(text, _)| logged_time(text));
        return request(at, true, target);
    }
    let mut words = line.split_ascii_whitespace().filter(|word| *word != "GET");
    match (words.next(), words.next(), words.next()) {
        (Some(target), None, None) => request(None, false, target),
        (Some(time), Some(target), None) => match plain_time(time) {
            Some(at) => request(Some(at), !time.contains('.'), target),
            None => Line::Other,
        },
        _ => Line::Other,
    }
}

/// The path of a request's target, in whatever form it was logged.
fn request(at: Option<f64>, whole: bool, target: &str) -> Line {
    let path = if target.starts_with('/') {
        PathAndQuery::try_from(target).ok()
    } else {
        Uri::try_from(target)
            .ok()
            .filter(|uri| uri.scheme().is_some())
            .and_then(|uri| uri.path_and_query().cloned())
    };
    path.map_or(Line::Other, |path| Line::Request { at, whole, path })
}

/// `10/Oct/2000:13:55:36 -0700`.
fn logged_time(text: &str) -> Option<f64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (date, zone) = text.split_once(' ').unwrap_or((text, "+0000"));
    let mut parts = date.split(['/', ':']);
    let day: i32 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = (1_i32..).zip(MONTHS).find(|(_, name)| *name == month)?.0;
    let mut number = || parts.next()?.parse::<i32>().ok();
    let (year, hour, minute, second) = (number()?, number()?, number()?, number()?);
    let (sign, zone) = match zone.strip_prefix('-') {
        Some(zone) => (-1, zone),
        None => (1, zone.strip_prefix('+')?),
    };
    let zone: i32 = zone.parse().ok()?;
    let zone = sign * (zone / 100 * 3600 + zone % 100 * 60);
    let of_day = f64::from(hour * 3600 + minute * 60 + second - zone);
    Some(f64::from(days(year.clamp(0, 9999), month, day)) * 86_400.0 + of_day)
}

/// Days since 1970 (Howard Hinnant, "`chrono`-Compatible Low-Level Date Algorithms").
fn days(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Seconds since 1970 with or without a fraction, or `2026-11-22T18:05:14Z`.
fn plain_time(text: &str) -> Option<f64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.is_finite() && seconds >= 0.0).then_some(seconds);
    }
    let time = humantime::parse_rfc3339(text).ok()?;
    let since = time
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(log: &str, pace: Pace) -> Vec<(u128, String)> {
        let mut replay = Replay::new(log.as_bytes(), pace);
        let mut planned = Vec::new();
        while let Some(next) = replay.next_request().unwrap() {
            planned.push((next.after.as_millis(), next.path.to_string()));
        }
        planned
    }

    fn plan(rows: &[(u128, &str)]) -> Vec<(u128, String)> {
        rows.iter()
            .map(|(at, path)| (*at, (*path).to_owned()))
            .collect()
    }

    #[test]
    fn a_combined_log_is_paced_as_logged_and_a_second_is_spread() {
        let log = r#"
10.0.0.1 - anna [22/Nov/2026:18:05:14 +0000] "GET /world/3/4/2.png HTTP/1.1" 200 18107 "https://app.example.com/" "Mozilla/5.0 [x] (\"y\")"
10.0.0.2 - - [22/Nov/2026:18:05:14 +0000] "GET http://evil.example.net/world/3/4/3.png?v=2 HTTP/1.1" 200 1 "-" "-"
10.0.0.2 - - [22/Nov/2026:18:05:15 +0000] "POST /session HTTP/1.1" 200 1 "-" "-"
10.0.0.2 - - [22/Nov/2026:19:05:16 +0100] "GET /world/3/4/4.png HTTP/2.0" 304 0 "-" "-"
"#;
        let rows = [
            (0, "/world/3/4/2.png"),
            (500, "/world/3/4/3.png?v=2"),
            (2000, "/world/3/4/4.png"),
        ];
        assert_eq!(all(log, Pace::Logged(1.0)), plan(&rows));
        let twice = rows.map(|(at, path)| (at / 2, path));
        assert_eq!(all(log, Pace::Logged(2.0)), plan(&twice));
        let mut replay = Replay::new(log.as_bytes(), Pace::Rate(1.0));
        while replay.next_request().unwrap().is_some() {}
        assert_eq!(replay.skipped(), 1);
    }

    #[test]
    fn lines_of_paths_need_a_rate_or_times() {
        let log = "# views\n/a/1/0/0.png\nhttps://tiles.example.com/a/1/1/0.png\n\n";
        assert_eq!(
            all(log, Pace::Rate(4.0)),
            plan(&[(0, "/a/1/0/0.png"), (250, "/a/1/1/0.png")])
        );
        let mut replay = Replay::new(log.as_bytes(), Pace::Logged(1.0));
        let error = replay.next_request().unwrap_err().to_string();
        assert!(error.starts_with("line 2 has no time"), "{error}");
        let timed = "1795351817.250 /a\n1795351817.5 /b\n2026-11-22T12:50:18.5Z /c\n";
        assert_eq!(
            all(timed, Pace::Logged(1.0)),
            plan(&[(0, "/a"), (250, "/b"), (1250, "/c")])
        );
    }

    #[test]
    fn a_time_that_goes_back_waits_for_nothing() {
        let log = "100 /a\n105 /b\n103 /c\n105 /d\n";
        let times: Vec<u128> = all(log, Pace::Logged(1.0))
            .iter()
            .map(|row| row.0)
            .collect();
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
        assert_eq!(times[1], 5000);
    }

    #[test]
    fn what_is_no_request_is_skipped_and_a_log_without_any_is_refused() {
        let long = format!("/{}\n", "x".repeat(3 * MAX_LINE));
        let log = format!("{long}nonsense here it is\n/ok\n*\n\"\u{0}\n");
        assert_eq!(all(&log, Pace::Rate(1.0)), plan(&[(0, "/ok")]));
        let mut replay = Replay::new("PUT\nx y z\n".as_bytes(), Pace::Rate(1.0));
        assert!(matches!(
            replay.next_request(),
            Err(ReplayError::Nothing(2))
        ));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(logged_time("01/Jan/1970:00:00:00 +0000"), Some(0.0));
        assert_eq!(
            logged_time("10/Oct/2000:13:55:36 -0700"),
            Some(971_211_336.0)
        );
        assert_eq!(
            logged_time("29/Feb/2024:23:59:59 +0000"),
            Some(1_709_251_199.0)
        );
        for text in ["", "32", "a/b/c", "10/Okt/2000:13:55:36 +0000"] {
            assert_eq!(logged_time(text), None, "{text}");
        }
    }
}
