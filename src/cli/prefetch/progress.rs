//! How far it is: a bar on a terminal, a line every few seconds elsewhere.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::said::bytes;
use crate::prefetch::{Report, Runner, Tally};
use crate::shutdown::Shutdown;

/// Between two looks at a bar.
const FRAME: Duration = Duration::from_millis(200);
/// Between two plain lines.
const LINE: Duration = Duration::from_secs(5);

/// Shows a run until it has ended.
pub(super) async fn shown(
    runner: &Runner,
    total: u64,
    run: impl Future<Output = Report>,
    mut end: Shutdown,
) -> Report {
    let began = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let bar = terminal.then(|| {
        let bar = ProgressBar::new(total);
        let template = "{bar:24} {percent}% {human_pos}/{human_len}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    });
    let mut looks = tokio::time::interval(if terminal { FRAME } else { LINE });
    // The first is at once, and there is nothing to see.
    looks.tick().await;
    tokio::pin!(run);
    let mut told = false;
    let report = loop {
        tokio::select! {
            report = &mut run => break report,
            () = end.asked(), if !told => {
                told = true;
                tell(bar.as_ref(), "finishing what is open; Ctrl-C again leaves at once");
            }
            _ = looks.tick() => {
                let tally = runner.tally();
                let done = runner.resumed() + tally.ended();
                let text = words(&tally, done, total, began.elapsed());
                if let Some(bar) = &bar {
                    bar.set_position(done);
                    bar.set_message(text);
                } else {
                    tell(None, &format!("{done}/{total} tiles, {text}"));
                }
            }
        }
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    report
}

fn tell(bar: Option<&ProgressBar>, text: &str) {
    match bar {
        Some(bar) => bar.println(text),
        None => {
            // Where stderr is gone, the report still comes.
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn words(tally: &Tally, done: u64, total: u64, elapsed: Duration) -> String {
    let rate = tally.ended() as f64 / elapsed.as_secs_f64().max(0.001);
    let mut text = format!(
        "{rate:.0} tiles/s, {}, {} hits",
        bytes(tally.bytes as f64),
        tally.stored
    );
    if tally.failed > 0 {
        text = format!("{text}, {} failed", tally.failed);
    }
    if tally.throttled > 0 {
        text = format!("{text}, {} pauses", tally.throttled);
    }
    if rate > 0.0 {
        let left = total.saturating_sub(done) as f64 / rate;
        // Longer than a year is no news.
        let left = Duration::from_secs_f64(left.min(3.2e7));
        text = format!("{text}, {} left", HumanDuration(left));
    }
    text
}
