//! The targets over mutations of their corpus: seeded, so that what fails once fails always, and bounded by a count.
//! `TILEKEEP_FUZZ_RUNS` is another one.

use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, Target};

/// Inputs a target, beside its corpus: about a second of them in a debug build.
const RUNS: u64 = 4_000;
/// Longer inputs find nothing that shorter ones do not, more slowly.
const LONGEST: usize = 4_096;
/// A corpus is read by people, and kept in the repository.
const MOST_FILES: usize = 64;
const MOST_BYTES: usize = 64 * 1024;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What is checked in for a target, in the order of its names; and its dictionary's words.
fn corpus(name: &str) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let folder = root().join("corpus").join(name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let inputs = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let words = fs::read_to_string(root().join("dict").join(name)).unwrap();
    let words = words.lines().filter_map(|line| {
        let word = line.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(word))
    });
    (inputs, words.collect())
}

/// A word of a libFuzzer dictionary: `\\`, `\"` and `\xAB`.
fn unescape(word: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), word.as_bytes());
    while let [first, behind @ ..] = rest {
        (bytes, rest) = match (first, behind) {
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                (bytes, behind)
            }
            (b'\\', [escaped, behind @ ..]) => {
                bytes.push(*escaped);
                (bytes, behind)
            }
            _ => {
                bytes.push(*first);
                (bytes, behind)
            }
        };
    }
    bytes
}

/// Chance that is always the same (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.next() % end).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn pick<'a>(&mut self, of: &'a [Vec<u8>]) -> &'a [u8] {
        let at = self.below(of.len());
        of.get(at).map_or(&[], Vec::as_slice)
    }
}

/// One to eight changes to one of the inputs.
fn mutated(chance: &mut Chance, inputs: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
    let mut input = chance.pick(inputs).to_vec();
    for _ in 0..=chance.below(8) {
        let at = chance.below(input.len() + 1);
        let until = (at + 1 + chance.below(16)).min(input.len());
        match chance.below(8) {
            0 if at < input.len() => input[at] ^= 1 << chance.below(8),
            1 if at < input.len() => input[at] = chance.byte(),
            2 => input.insert(at, chance.byte()),
            3 => drop(input.drain(at..until)),
            4 => {
                let copied = input[at..until].to_vec();
                let to = chance.below(input.len() + 1);
                input.splice(to..to, copied);
            }
            5 => {
                let other = chance.pick(inputs);
                let from = chance.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let word = chance.pick(words).to_vec();
                let replaced = if chance.below(2) == 0 { at } else { until };
                input.splice(at..replaced, word);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// Shows the input that a target panics over.
struct Shown<'a>(&'a str, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {}, input: \"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn holds((name, run): Target, runs: u64) {
    let (inputs, words) = corpus(name);
    let run = |input: &[u8]| {
        let shown = Shown(name, input);
        run(input);
        drop(shown);
    };
    run(b"");
    for input in &inputs {
        run(input);
    }
    let mut chance = Chance(u64::from(name.as_bytes()[0]));
    for _ in 0..runs {
        run(&mutated(&mut chance, &inputs, &words));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// Whatever the bytes are, what a target says of them holds.
        mod whatever_the_bytes_are {
            $(
                #[test]
                fn $name() {
                    let runs = std::env::var("TILEKEEP_FUZZ_RUNS").ok();
                    let runs = runs.map_or(super::RUNS, |runs| runs.parse().unwrap());
                    let named = |target: &&super::Target| target.0 == stringify!($name);
                    super::holds(*super::TARGETS.iter().find(named).unwrap(), runs);
                }
            )*
        }

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(archive area cache_control conditional config forwarded record route session);

#[test]
fn every_target_has_a_program_a_small_corpus_and_a_test() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TESTED);
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
    for name in names {
        let program = fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", ")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let (inputs, words) = corpus(name);
        let bytes: usize = inputs.iter().map(Vec::len).sum();
        assert!((3..=MOST_FILES).contains(&inputs.len()), "{name}");
        assert!(bytes <= MOST_BYTES, "{name}: {bytes} bytes");
        assert!(!words.is_empty(), "{name}: a dictionary");
    }
}

/// Else `fuzz/run` compiles dependencies that the tests have compiled, and asks another program.
#[test]
fn the_fuzzers_have_the_dependencies_that_the_program_has() {
    let packages = |file: PathBuf| -> Vec<String> {
        let text = fs::read_to_string(file).unwrap();
        let packages = text.split("[[package]]\n").skip(1);
        let named = packages.map(|package| package.lines().take(2).collect::<Vec<_>>().join(" "));
        named.collect()
    };
    let own = packages(root().join("../Cargo.lock"));
    let apart = ["arbitrary", "libfuzzer-sys", "tilekeep-fuzz"];
    for package in packages(root().join("Cargo.lock")) {
        let known = own.contains(&package);
        let expected = apart
            .iter()
            .any(|name| package.starts_with(&format!("name = \"{name}\"")));
        assert!(
            known || expected,
            "{package} is not in Cargo.lock: cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml >/dev/null"
        );
    }
}

#[test]
#[should_panic(expected = "found")]
fn a_target_that_cannot_bear_what_its_corpus_is_near_to_is_found() {
    // Four bytes in a row that the corpus has nowhere as such.
    fn fragile(data: &[u8]) {
        assert!(!data.windows(3).any(|three| three == b"@2@"), "found");
    }
    holds(("route", fragile), 100_000);
}
