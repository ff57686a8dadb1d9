//! This machine's time against the server's `Date`.

use std::time::Duration;

use super::bucket::Unsigned;
use super::denial::SET_THE_CLOCK;
use super::{Check, Finding};
use crate::clock::Timestamp;

/// What tokens allow for.
const UNNOTICED: Duration = Duration::from_secs(30);
/// What STS takes; S3 takes 15 minutes.
const REFUSED: Duration = Duration::from_mins(5);

/// From the first answer that has a date.
pub(super) fn finding(unsigned: &[Unsigned]) -> Finding {
    let dated = unsigned.iter().find_map(|answer| {
        let date = httpdate::parse_http_date(answer.heard.date.as_deref()?).ok()?;
        let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((Timestamp::from_secs(since.as_secs()), answer.heard.at))
    });
    match dated {
        Some((theirs, ours)) => judge(theirs, ours),
        None => Finding::skipped(Check::Clock, "S3's answers have no date"),
    }
}

/// A `Date` is cut to whole seconds.
fn judge(theirs: Timestamp, ours: Timestamp) -> Finding {
    let (off, word) = if ours > theirs {
        (ours.since(theirs), "ahead of")
    } else {
        (theirs.since(ours), "behind")
    };
    let off_by = Duration::from_secs(off.as_secs());
    let reason = format!(
        "this machine's clock is {} {word} S3's",
        humantime::format_duration(off_by)
    );
    if off <= UNNOTICED {
        let most = off_by.as_secs().max(1);
        return Finding::ok(Check::Clock, format!("within {most} s of S3's"));
    }
    if off < REFUSED {
        let reason =
            format!("{reason}: AWS still takes signatures, sessions end at the wrong time");
        return Finding::warning(Check::Clock, reason, SET_THE_CLOCK);
    }
    let reason =
        format!("{reason}: AWS refuses signatures that are 5 (STS) or 15 (S3) minutes off");
    Finding::failed(Check::Clock, reason, SET_THE_CLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::doctor::Status;

    #[test]
    fn minutes_matter_and_seconds_do_not() {
        let at = |secs: u64| Timestamp::from_secs(1_800_000_000 + secs);
        for (theirs, ours, expected) in [
            (0, 1, Status::Ok),
            (20, 0, Status::Ok),
            (0, 90, Status::Warning),
            (299, 0, Status::Warning),
            (0, 301, Status::Failed),
            (3600, 0, Status::Failed),
        ] {
            let finding = judge(at(theirs), at(ours));
            assert_eq!(finding.status, expected, "{finding:?}");
        }
        let finding = judge(at(0), at(7 * 60));
        assert!(finding.reason.contains("7m ahead of S3's"), "{finding:?}");
    }
}
