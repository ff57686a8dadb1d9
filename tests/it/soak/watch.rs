//! What a process holds, from outside: resident memory, threads, descriptors, bytes on disk.
//!
//! The rule for 'flat': warming up takes ten minutes, or a third of a shorter run. After it, the median of the second
//! half is at most 5 % and a constant above the median of the first half.

use std::fmt;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::Load;
use super::{DISK, program};

pub(super) const MIB: u64 = 1 << 20;
const WARM_UP: Duration = Duration::from_mins(10);

/// What is looked at: its name, the unit that it is told in, and what it may differ by besides 5 %. A password's hash
/// takes 19 MiB, and the allocator holds one more at one time than at another.
const FIGURES: [(&str, &str, u64, u64); 4] = [
    ("resident memory", "MiB", MIB, 20 * MIB),
    ("threads", "", 1, 2),
    ("descriptors", "", 1, 32),
    ("disk", "MiB", MIB, MIB),
];

/// One look at the process.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    figures: [u64; FIGURES.len()],
}

/// Looks at a process until it is told to judge.
pub(super) struct Watch {
    pid: u32,
    folder: PathBuf,
    out: PathBuf,
    csv: File,
    warm_up: Duration,
    samples: Vec<Sample>,
    faults: Vec<(Duration, &'static str)>,
}

impl Watch {
    pub(super) fn new(pid: u32, folder: &Path, out: &Path, whole: Duration) -> Self {
        let mut csv = File::create(out.join("samples.csv")).unwrap();
        let columns = "seconds,resident_bytes,threads,descriptors,disk_bytes,anonymous_bytes,memory_tier_bytes,disk_tier_bytes,quota_bytes,connections,answers,fault";
        writeln!(csv, "{columns}").unwrap();
        Self {
            pid,
            folder: folder.to_owned(),
            out: out.to_owned(),
            csv,
            warm_up: WARM_UP.min(whole / 3),
            samples: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn fault(&mut self, now: Duration, name: &'static str) {
        self.faults.push((now, name));
    }

    pub(super) async fn sample(&mut self, now: Duration, load: &Load) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name));
            line.unwrap()
                .split_ascii_whitespace()
                .nth(1)
                .unwrap()
                .parse()
                .unwrap()
        };
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid));
        let sample = Sample {
            at: now,
            figures: [
                field("VmRSS:") * 1024,
                field("Threads:"),
                descriptors.unwrap().count() as u64,
                blocks(&self.folder),
            ],
        };
        self.samples.push(sample);
        let metrics = load.metrics().await;
        let metric = |name: &str| metrics.get(name).copied().unwrap_or(-1.0);
        let [resident, threads, descriptors, disk] = sample.figures;
        let fault = self.faults.last().map_or("", |(_, name)| name);
        writeln!(
            self.csv,
            "{:.1},{resident},{threads},{descriptors},{disk},{},{},{},{},{},{},{fault}",
            now.as_secs_f64(),
            field("RssAnon:") * 1024,
            metric("tilekeep_memory_bytes"),
            metric("tilekeep_disk_bytes"),
            metric("tilekeep_quota_bytes"),
            metric("tilekeep_connections"),
            load.answers().values().sum::<u64>(),
        )
        .unwrap();
    }

    pub(super) fn verdict(&self, load: &Load) -> Verdict {
        let warm: Vec<Sample> = self
            .samples
            .iter()
            .filter(|s| s.at >= self.warm_up)
            .copied()
            .collect();
        let (first, second) = warm.split_at(warm.len() / 2);
        let rows = std::array::from_fn(|which| Row {
            which,
            first: median(first, which),
            second: median(second, which),
            highest: self
                .samples
                .iter()
                .map(|s| s.figures[which])
                .max()
                .unwrap_or(0),
        });
        // Ten spans of the whole, for whoever wants to see the way.
        let size = self.samples.len().div_ceil(10).max(1);
        let spans = self.samples.chunks(size).map(|span| {
            let medians = std::array::from_fn(|which| median(span, which));
            (span[0].at, medians)
        });
        let answers = load.answers();
        let sum = |word: &str| -> u64 {
            answers
                .iter()
                .filter(|(name, _)| name.contains(word))
                .map(|(_, count)| count)
                .sum()
        };
        let verdict = Verdict {
            rows,
            spans: spans.collect(),
            faults: self.faults.len(),
            few_failures_without_trouble: sum("without trouble") * 200 <= sum("") + 1000,
            answers: answers.into_iter().collect(),
        };
        std::fs::write(self.out.join("samples.svg"), self.picture()).unwrap();
        verdict
    }

    /// The four figures over time, each from zero to its own highest.
    fn picture(&self) -> String {
        let (width, height) = (800.0, 110.0);
        let end = self.samples.last().map_or(1.0, |s| s.at.as_secs_f64());
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            height * 4.0
        );
        for (which, (name, unit, divisor, _)) in FIGURES.iter().enumerate() {
            let top = height * which as f64;
            let highest = self
                .samples
                .iter()
                .map(|s| s.figures[which])
                .max()
                .unwrap_or(1)
                .max(1);
            let points: Vec<String> = self
                .samples
                .iter()
                .map(|s| {
                    let x = s.at.as_secs_f64() / end * width;
                    let y = top + height
                        - 4.0
                        - s.figures[which] as f64 / highest as f64 * (height - 26.0);
                    format!("{x:.1},{y:.1}")
                })
                .collect();
            let _ = writeln!(
                svg,
                "<text x=\"4\" y=\"{:.0}\">{name}: at most {:.1} {unit}</text><polyline fill=\"none\" stroke=\"#1a5fb4\" points=\"{}\"/>",
                top + 14.0,
                highest as f64 / *divisor as f64,
                points.join(" ")
            );
        }
        svg + "</svg>\n"
    }
}

/// Blocks that a folder's files take, in bytes.
fn blocks(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        // A file may go while it is looked at.
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| {
            if found.is_dir() {
                blocks(&path)
            } else {
                found.blocks() * 512
            }
        })
        .sum()
}

fn median(samples: &[Sample], which: usize) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(|s| s.figures[which]).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

struct Row {
    which: usize,
    first: u64,
    second: u64,
    highest: u64,
}

impl Row {
    fn flat(&self) -> bool {
        self.second <= self.first + self.first / 20 + FIGURES[self.which].3
    }
}

/// What came of it.
pub(super) struct Verdict {
    rows: [Row; FIGURES.len()],
    spans: Vec<(Duration, [u64; FIGURES.len()])>,
    faults: usize,
    answers: Vec<(String, u64)>,
    /// Failures while S3 was well and had been for a while: of a busy machine, at most one in 200.
    pub(super) few_failures_without_trouble: bool,
}

impl Verdict {
    pub(super) fn flat(&self) -> bool {
        let within = self.rows[3].highest <= DISK + MIB;
        within && self.rows.iter().all(Row::flat)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} under {} faults of S3",
            program().display(),
            self.faults
        )?;
        for (word, count) in &self.answers {
            writeln!(f, "  {count:8} {word}")?;
        }
        writeln!(
            f,
            "medians of tenths of the time:\n   minute  memory MiB  threads  descriptors  disk MiB"
        )?;
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        for (at, [memory, threads, descriptors, disk]) in &self.spans {
            writeln!(
                f,
                "{:9.1} {:11.1} {threads:8} {descriptors:12} {:9.1}",
                at.as_secs_f64() / 60.0,
                mib(*memory),
                mib(*disk)
            )?;
        }
        writeln!(
            f,
            "after warming up: first half, second half, highest of all:"
        )?;
        for row in &self.rows {
            let (name, unit, divisor, _) = FIGURES[row.which];
            let [first, second, highest] =
                [row.first, row.second, row.highest].map(|n| n as f64 / divisor as f64);
            let word = if row.flat() { "flat" } else { "GREW" };
            writeln!(
                f,
                "  {name:16} {first:8.1} {second:8.1} {highest:8.1} {unit:4} {word}"
            )?;
        }
        Ok(())
    }
}
