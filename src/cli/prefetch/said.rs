//! Plans and reports in words.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::{PrefetchArgs, RESUME};
use crate::prefetch::{Estimate, Plan, Report};

/// Bytes for people.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded for people, never negative"
)]
pub(super) fn bytes(count: f64) -> String {
    bytesize::ByteSize(count.max(0.0) as u64)
        .display()
        .iec()
        .to_string()
}

/// Whole numbers in groups of three.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A plan and what it comes to.
pub(super) fn plan(plan: &Plan, estimated: Option<&Estimate>, price: f64) -> String {
    let mut text = String::new();
    for leg in plan.legs() {
        let _ = writeln!(text, "{}: {} tiles", leg.tileset.name, number(leg.count));
        for (zoom, count) in leg.counts.iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(text, "  zoom {zoom:>2}  {:>18}", number(*count));
        }
    }
    let _ = write!(text, "in all: {} tiles", number(plan.total()));
    if let Some(estimate) = estimated {
        let _ = write!(
            text,
            "\n\nestimated from {} of them ({} stored by the server, {} absent, {} failed):\n  bytes      {} ± {}\n  \
             S3 GETs    {:.0}\n  S3 cost    {:.4} USD, at {price} USD for 1000 GETs (--get-price)",
            estimate.sampled,
            estimate.stored,
            estimate.absent,
            estimate.failed,
            bytes(estimate.bytes),
            bytes(estimate.bytes_error),
            estimate.s3_requests,
            estimate.s3_cost_usd,
        );
    }
    text
}

/// The same as JSON.
pub(super) fn plan_json(plan: &Plan, estimated: Option<&Estimate>, price: f64) -> String {
    let tilesets: Vec<_> = plan
        .legs()
        .iter()
        .map(|leg| {
            let counts = leg.counts.iter();
            let zooms: Vec<_> = counts
                .map(|(zoom, tiles)| json!({"zoom": zoom, "tiles": tiles}))
                .collect();
            json!({"tileset": leg.tileset.name, "tiles": leg.count, "zooms": zooms})
        })
        .collect();
    let plan = json!({
        "tiles": plan.total(),
        "tilesets": tilesets,
        "estimate": estimated,
        "usd_per_1000_gets": price,
    });
    serde_json::to_string_pretty(&plan).unwrap_or_default()
}

/// What was done.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn report(report: &Report) -> String {
    let tally = &report.tally;
    let mut text = String::new();
    let mut row = |count: u64, words: &str| {
        if count > 0 {
            let _ = writeln!(text, "{:>14}  {words}", number(count));
        }
    };
    row(report.tiles, "tiles in the plan");
    row(report.resumed, "done by an earlier run");
    row(tally.in_archive, "in the archive already");
    row(tally.fetched, "fetched by the server from its origin");
    row(tally.stored, "stored there already");
    row(tally.stale, "  of these stale: the server revalidates them");
    row(
        tally.expiring,
        "  of these stale before long: run it again then",
    );
    row(tally.revalidated, "revalidated");
    row(tally.not_stored, "not stored, and left at that");
    row(tally.absent, "absent: there is no such tile");
    row(tally.failed, "failed");
    for (reason, count) in &report.reasons {
        row(*count, &format!("  {reason}"));
    }
    for failed in &report.failures {
        let _ = writeln!(
            text,
            "  {}/{}: {}: {}",
            failed.tileset, failed.tile, failed.reason, failed.detail
        );
    }
    let listed = report.failures.len() as u64;
    if tally.failed > listed {
        let _ = writeln!(text, "  … and {} more", number(tally.failed - listed));
    }
    let _ = write!(
        text,
        "{} in {:.1} s; {} retries, {} pauses asked for",
        bytes(tally.bytes as f64),
        report.seconds,
        number(tally.retries),
        number(tally.throttled)
    );
    if let Some(archive) = &report.archive {
        let _ = write!(
            text,
            "\n{}: {} tiles ({} different), {}",
            archive.file,
            number(archive.tiles),
            number(archive.distinct),
            bytes(archive.bytes as f64)
        );
        if !archive.complete {
            text.push_str("; tiles that failed are missing in it");
        }
    }
    text
}

/// Why it is not done, and how to go on.
pub(super) fn ending(report: &Report, args: &PrefetchArgs) -> String {
    let why = report
        .stopped
        .clone()
        .unwrap_or_else(|| format!("{} tiles failed", number(report.tally.failed)));
    let go_on = match (&args.output, &args.resume) {
        (Some(path), _) if report.archive.is_none() => format!(
            "{} is not written; what there is stays in {}.partial: the same command with --resume goes on{}",
            path.display(),
            path.display(),
            if report.stopped.is_none() {
                ", --allow-missing writes it without them"
            } else {
                ""
            }
        ),
        (Some(_), _) => "the archive is written without them".to_owned(),
        (None, Some(file)) => {
            let file = file.as_deref().unwrap_or(Path::new(RESUME)).display();
            format!("the same command with --resume {file} goes on where it ended")
        }
        (None, None) => {
            "the same command again asks for all of it; --resume FILE keeps the place".to_owned()
        }
    };
    format!("{why}; {go_on}")
}
