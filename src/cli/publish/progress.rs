//! How far a publication has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::publish::{Phase, Tally};

const BAR: &str = "{msg} [{bar:30}] {human_pos}/{human_len}, {per_sec}, {eta} left";
const NO_BAR: &str = "{spinner} {msg} {human_pos}, {per_sec}";
/// Between two looks, and between two lines.
const LOOK: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);

/// Shows it until the sender is gone.
pub(super) async fn show(tally: Arc<Tally>, mut end: oneshot::Receiver<()>) {
    let terminal = io::stderr().is_terminal();
    let bar = if terminal {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    let mut shown = None;
    let mut next_line = Instant::now() + LINE;
    loop {
        tokio::select! {
            _ = &mut end => break,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (words, position, total) = state(&tally);
        if shown != Some((words, total)) {
            shown = Some((words, total));
            let style = ProgressStyle::with_template(if total > 0 { BAR } else { NO_BAR });
            if let Ok(style) = style {
                bar.set_style(style);
            }
            if total > 0 {
                bar.set_length(total);
            }
            bar.set_message(words);
            bar.reset();
        }
        bar.set_position(position);
        if !terminal && Instant::now() >= next_line {
            next_line = Instant::now() + LINE;
            let of = if total > 0 {
                format!(" of {total}")
            } else {
                String::new()
            };
            // Where stderr is gone, nobody looks.
            let _ = writeln!(io::stderr(), "{words}: {position}{of}");
        }
    }
    bar.finish_and_clear();
}

/// Counts the files of a folder of `z/x/y`, which alone does not know how many it has. Blocks; an estimate.
pub(super) fn count(folder: &Path, tally: &Tally) {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let mut total = 0;
    for zoom in entries(folder).iter().filter(|path| path.is_dir()) {
        for column in entries(zoom) {
            let files = std::fs::read_dir(column).into_iter().flatten();
            total += files.count() as u64;
        }
    }
    tally.total.store(total, Ordering::Relaxed);
}

fn state(tally: &Tally) -> (&'static str, u64, u64) {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    match tally.phase() {
        Phase::Listing => ("listing the bucket", of(&tally.listed), 0),
        Phase::Uploading => ("publishing", of(&tally.done), of(&tally.total)),
        Phase::Pruning => ("removing", of(&tally.removed), of(&tally.to_remove)),
    }
}
