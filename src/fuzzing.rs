//! What fuzzers run: whatever a stranger can send, a disk can return or a file can say, each with what must hold of it
//! beyond not falling over.
//!
//! Invariant: a target is a function of its bytes alone, bounded in time, and panics exactly where something does not
//! hold. Two things run them: libFuzzer, guided by coverage (`fuzz/`), and the test below, on every toolchain: seeded
//! mutations of the corpus under `fuzz/corpus`. A find of the first belongs into that corpus, so that the second goes
//! on asking for it. Compiled for these two alone.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a panic is the report"
)]

mod archive;
mod area;
mod cache_control;
mod conditional;
mod config;
mod forwarded;
mod route;
mod session;

/// A name, which is also its corpus's, and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("archive", archive::run),
    ("area", area::run),
    ("cache_control", cache_control::run),
    ("conditional", conditional::run),
    ("config", config::run),
    ("forwarded", forwarded::run),
    ("record", crate::cache::fuzz_record),
    ("route", route::run),
    ("session", session::run),
];

/// Runs one target; for the programs in `fuzz/`.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, run) = target.unwrap_or_else(|| panic!("{name} is no target"));
    run(data);
}

/// A header's lines, as far as they can be header values.
fn header_values(lines: &[u8]) -> impl Iterator<Item = http::HeaderValue> {
    lines
        .split(|byte| *byte == b'\n')
        .filter_map(|line| http::HeaderValue::from_bytes(line).ok())
}

/// The first eight bytes as a number of any magnitude, and the rest.
fn number(data: &[u8]) -> (u64, &[u8]) {
    let (first, rest) = data.split_at(data.len().min(8));
    let mut bytes = [0; 8];
    bytes[..first.len()].copy_from_slice(first);
    // Evenly spread bits are nearly always huge numbers; the lowest ones say how many of them count.
    let value = u64::from_le_bytes(bytes);
    (value >> (value % 64), rest)
}

#[cfg(test)]
mod tests;
