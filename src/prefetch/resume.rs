//! The resume file: which of a plan's tiles are done, so that a killed run goes on where it was.
//!
//! Invariant: what it calls done was done, at whatever instant the process dies. Lines are only appended, after the
//! work, each with a checksum; the first that is not whole ends the file, and what follows it is cut off. At worst the last
//! half second is done twice.
//!
//! ```text
//! tilekeep-prefetch 1 2f9e1c0a77b1d3e4 357913941 5c01a2b3   plan's digest, its tiles, checksum
//! d 0 4095 8a11c9d0                                          done, from number to number
//! f 4096 server_error 77b2e0c1                               failed: tried again by the next run
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::outcome::Reason;
use super::ranges::Ranges;

/// Appended lines after which the file is written anew.
const MAX_LINES: usize = 20_000;
/// More than a file that is kept short has; a larger one is something else.
const MAX_BYTES: u64 = 64 << 20;
const MAGIC: &str = "tilekeep-prefetch 1";

/// Why a resume file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The file system refused.
    #[error("--resume {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something else is there.
    #[error("--resume {}: this is not a resume file of tilekeep prefetch: name another file", .0.display())]
    Foreign(PathBuf),
    /// It is of another plan.
    #[error("--resume {}: it belongs to another plan: another server, area, zoom range, output or set of tilesets, or a tileset has another version or bounds since. Name another file, or remove this one to begin anew", .0.display())]
    OtherPlan(PathBuf),
    /// Another run has it.
    #[error("--resume {}: another prefetch is using it", .0.display())]
    InUse(PathBuf),
}

/// What is done and what failed, and the file that remembers it.
#[derive(Debug)]
pub struct ResumeFile {
    path: PathBuf,
    file: File,
    header: String,
    done: Ranges,
    failed: BTreeMap<u64, Reason>,
    /// Since the last flush.
    new_done: Ranges,
    new_failed: Vec<(u64, Reason)>,
    lines: usize,
}

impl ResumeFile {
    /// Opens or begins the file of a plan.
    pub fn open(path: &Path, digest: u64, total: u64) -> Result<Self, ResumeError> {
        let io = |error| ResumeError::Io {
            path: path.to_owned(),
            error,
        };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(io)?;
        lock(&file, path)?;
        if file.metadata().map_err(io)?.len() > MAX_BYTES {
            return Err(ResumeError::Foreign(path.to_owned()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let header = sealed(&format!("{MAGIC} {digest:016x} {total}"));
        let mut resume = Self {
            path: path.to_owned(),
            file,
            header,
            done: Ranges::default(),
            failed: BTreeMap::new(),
            new_done: Ranges::default(),
            new_failed: Vec::new(),
            lines: 0,
        };
        let whole = resume.read(&bytes, total)?;
        resume.file.set_len(whole).map_err(io)?;
        resume.file.seek(io::SeekFrom::End(0)).map_err(io)?;
        if whole == 0 {
            resume.append(&resume.header.clone()).map_err(io)?;
        }
        Ok(resume)
    }

    /// Reads what is there. How many bytes of it are whole.
    fn read(&mut self, bytes: &[u8], total: u64) -> Result<u64, ResumeError> {
        let mut whole = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = std::str::from_utf8(line).ok();
            let Some(words) = text.and_then(unsealed) else {
                break;
            };
            if whole == 0 {
                if !words.starts_with(MAGIC) {
                    break;
                }
                if line != self.header.as_bytes() {
                    return Err(ResumeError::OtherPlan(self.path.clone()));
                }
            } else if self.take(words, total).is_none() {
                break;
            }
            self.lines += 1;
            whole += line.len() as u64;
        }
        // A begun header is a run that was killed at once; anything else is somebody's file.
        let header = self.header.as_bytes();
        if whole == 0 && !header.starts_with(bytes) {
            return Err(ResumeError::Foreign(self.path.clone()));
        }
        Ok(whole)
    }

    fn take(&mut self, words: &str, total: u64) -> Option<()> {
        let mut words = words.split(' ');
        let kind = words.next()?;
        let first: u64 = words.next()?.parse().ok()?;
        let second = words.next()?;
        match kind {
            "d" => {
                let last: u64 = second.parse().ok()?;
                if first > last || last >= total {
                    return None;
                }
                self.done.add(first, last);
                // A later success makes up for a failure.
                while let Some((&number, _)) = self.failed.range(first..=last).next() {
                    self.failed.remove(&number);
                }
            }
            "f" => {
                self.failed.insert(first, Reason::parse(second)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// How many tiles were done when it was opened, and since.
    pub fn done(&self) -> u64 {
        self.done.count()
    }

    /// Whether a tile is done, and then the last of those done after it.
    pub(super) fn done_from(&self, number: u64) -> Option<u64> {
        self.done.run_of(number)
    }

    /// What failed in earlier runs and has not been made up for.
    pub(super) fn failed(&self) -> Vec<u64> {
        self.failed.keys().copied().collect()
    }

    /// Notes a tile that ended well.
    pub(super) fn note_done(&mut self, number: u64) {
        self.done.add(number, number);
        self.failed.remove(&number);
        self.new_done.add(number, number);
    }

    /// Notes a tile that failed.
    pub(super) fn note_failed(&mut self, number: u64, reason: Reason) {
        if self.failed.insert(number, reason).is_none() {
            self.new_failed.push((number, reason));
        }
    }

    /// Writes what has been noted.
    pub fn flush(&mut self) -> Result<(), ResumeError> {
        let mut text = String::new();
        for (first, last) in self.new_done.take().iter() {
            text.push_str(&sealed(&format!("d {first} {last}")));
            self.lines += 1;
        }
        for (number, reason) in std::mem::take(&mut self.new_failed) {
            text.push_str(&sealed(&format!("f {number} {}", reason.label())));
            self.lines += 1;
        }
        let short = self.done.runs() + self.failed.len() + 1;
        let written = if self.lines > MAX_LINES && self.lines > 2 * short {
            self.rewrite()
        } else if text.is_empty() {
            Ok(())
        } else {
            self.append(&text)
        };
        written.map_err(|error| self.error(error))
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())
    }

    /// The same in as few lines as it needs, put in the file's place when it is whole.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = self.header.clone();
        for (first, last) in self.done.iter() {
            text.push_str(&sealed(&format!("d {first} {last}")));
        }
        for (number, reason) in &self.failed {
            text.push_str(&sealed(&format!("f {number} {}", reason.label())));
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        let mut file = File::create(&beside)?;
        // Before anybody can find it under the name.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&beside, &self.path)?;
        self.file = file;
        self.lines = text.lines().count();
        Ok(())
    }

    /// Removes it: there is nothing left to go on with.
    pub fn remove(self) -> Result<(), ResumeError> {
        fs::remove_file(&self.path).map_err(|error| self.error(error))
    }

    fn error(&self, error: io::Error) -> ResumeError {
        ResumeError::Io {
            path: self.path.clone(),
            error,
        }
    }
}

fn lock(file: &File, path: &Path) -> Result<(), ResumeError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(ResumeError::InUse(path.to_owned())),
        // A file system without locks is no reason not to go on.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

fn checksum(text: &str) -> u64 {
    XxHash3_64::oneshot(text.as_bytes()) & 0xffff_ffff
}

/// A line with its checksum and its end.
fn sealed(words: &str) -> String {
    let mut line = words.to_owned();
    let _ = writeln!(line, " {:08x}", checksum(words));
    line
}

/// A line's words, if it is whole.
fn unsealed(line: &str) -> Option<&str> {
    let (words, sum) = line.strip_suffix('\n')?.rsplit_once(' ')?;
    (u64::from_str_radix(sum, 16).ok()? == checksum(words)).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume");
        (folder, path)
    }

    #[test]
    fn what_was_noted_is_there_after_a_kill_at_any_byte() {
        let (_folder, path) = file();
        let mut resume = ResumeFile::open(&path, 7, 1000).unwrap();
        for number in [0, 1, 2, 10, 11, 500] {
            resume.note_done(number);
            resume.flush().unwrap();
        }
        resume.note_failed(600, Reason::BrokeOff);
        resume.flush().unwrap();
        drop(resume);
        let bytes = fs::read(&path).unwrap();
        let mut before = 0;
        for end in 0..=bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            let mut resume = ResumeFile::open(&path, 7, 1000).unwrap();
            assert!(resume.done() >= before, "at {end}");
            before = resume.done();
            for number in [0, 1, 2, 10, 11, 500]
                .into_iter()
                .take(usize::try_from(before).unwrap())
            {
                assert!(resume.done_from(number).is_some());
            }
            // And goes on from there.
            resume.note_done(900);
            resume.flush().unwrap();
            drop(resume);
            let again = ResumeFile::open(&path, 7, 1000).unwrap();
            assert_eq!(again.done(), before + 1);
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(ResumeFile::open(&path, 7, 1000).unwrap().failed(), [600]);
    }

    #[test]
    fn a_flipped_byte_is_never_taken_for_work() {
        let (_folder, path) = file();
        let mut resume = ResumeFile::open(&path, 7, 1000).unwrap();
        resume.note_done(100);
        resume.flush().unwrap();
        drop(resume);
        let bytes = fs::read(&path).unwrap();
        let start = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for at in start..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            fs::write(&path, other).unwrap();
            assert_eq!(ResumeFile::open(&path, 7, 1000).unwrap().done(), 0, "{at}");
        }
    }

    #[test]
    fn another_plans_file_and_anything_else_are_refused_and_kept() {
        let (_folder, path) = file();
        drop(ResumeFile::open(&path, 7, 1000).unwrap());
        let other = ResumeFile::open(&path, 8, 1000).unwrap_err();
        assert!(matches!(other, ResumeError::OtherPlan(_)), "{other}");
        for text in ["my notes\n", "my notes", "{}"] {
            fs::write(&path, text).unwrap();
            let foreign = ResumeFile::open(&path, 7, 1000).unwrap_err();
            assert!(matches!(foreign, ResumeError::Foreign(_)), "{foreign}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_runs_do_not_share_a_file() {
        let (_folder, path) = file();
        let _first = ResumeFile::open(&path, 7, 1000).unwrap();
        let second = ResumeFile::open(&path, 7, 1000).unwrap_err();
        assert!(matches!(second, ResumeError::InUse(_)), "{second}");
    }

    #[test]
    fn a_long_run_leaves_a_short_file() {
        let (_folder, path) = file();
        let mut resume = ResumeFile::open(&path, 7, 1 << 40).unwrap();
        for number in 0..50_000 {
            resume.note_done(number);
            resume.flush().unwrap();
        }
        let most = MAX_LINES as u64 * 40;
        assert!(fs::metadata(&path).unwrap().len() < most);
        drop(resume);
        assert_eq!(ResumeFile::open(&path, 7, 1 << 40).unwrap().done(), 50_000);
    }
}
