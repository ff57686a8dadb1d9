//! The file of ended sessions: a first line that names the format, then a line an entry,
//! `id until checksum`, appended and synced.
//!
//! A `kill -9` or a full disk can tear the last line; its checksum then fails, it is skipped, and
//! the next entry begins on a new line. Rewriting goes by a second file and a rename. The lock is on
//! a file of its own, because a rename would take the lock away with the old file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use super::RevocationId;
use super::revocation::RevocationsError;
use crate::clock::Timestamp;

/// The first line.
const FORMAT: &str = "tilekeep-revocations 1\n";
/// Fewer lines than this are never worth a rewrite.
const SMALL: usize = 1_024;
/// A bigger file is refused: four times what the fullest table can leave behind.
const MAX_BYTES: u64 = 512 << 20;

/// The file, open for appending and locked.
pub(super) struct RevocationFile {
    path: PathBuf,
    file: File,
    lines: usize,
    /// The last append failed: it may have left half a line.
    torn: bool,
    _lock: File,
    /// How many of the next writes fail half-way.
    #[cfg(test)]
    pub(super) fail: usize,
}

impl RevocationFile {
    /// Opens, locks and reads it; the entries are those that are not past.
    pub(super) fn open(
        path: &Path,
        now: Timestamp,
    ) -> Result<(Self, HashMap<RevocationId, Timestamp>), RevocationsError> {
        let io = |source| RevocationsError::Io {
            path: path.to_owned(),
            source,
        };
        let lock = private(OpenOptions::new().create(true).append(true))
            .open(beside(path, "lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RevocationsError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut file = private(OpenOptions::new().create(true).append(true).read(true))
            .open(path)
            .map_err(io)?;
        let read = read(&file).map_err(io)?;
        let Some(read) = read else {
            return Err(RevocationsError::NotOurs(path.to_owned()));
        };
        if read.empty {
            file.write_all(FORMAT.as_bytes()).map_err(io)?;
        }
        let mut entries = read.entries;
        entries.retain(|_, until| *until > now);
        let mut opened = Self {
            path: path.to_owned(),
            file,
            lines: read.lines,
            torn: read.torn,
            _lock: lock,
            #[cfg(test)]
            fail: 0,
        };
        if read.damaged > 0 {
            // The last line is torn by any kill; more than that is worth a word.
            tracing::warn!(lines = read.damaged, path = %path.display(), "revocations file: damaged lines skipped");
        }
        if read.damaged > 0 || read.torn || opened.is_due_for_compaction(entries.len()) {
            let live: Vec<_> = entries.iter().map(|(id, until)| (*id, *until)).collect();
            opened.compact(&live).map_err(io)?;
        }
        Ok((opened, entries))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether most of its lines are about what is past.
    pub(super) fn is_due_for_compaction(&self, live: usize) -> bool {
        self.lines > SMALL && self.lines > live.saturating_mul(2)
    }

    /// Adds entries and waits for the disk, once.
    pub(super) fn append(&mut self, entries: &[(RevocationId, Timestamp)]) -> io::Result<()> {
        let mut text = String::new();
        if self.torn {
            text.push('\n');
        }
        for (id, until) in entries {
            text.push_str(&line(*id, *until));
        }
        self.torn = true;
        #[cfg(test)]
        if self.fail > 0 {
            self.fail -= 1;
            self.file.write_all(&text.as_bytes()[..text.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.torn = false;
        self.lines += entries.len();
        Ok(())
    }

    /// Writes it anew, with these entries alone.
    pub(super) fn compact(&mut self, live: &[(RevocationId, Timestamp)]) -> io::Result<()> {
        let new = beside(&self.path, "new");
        let mut text = String::from(FORMAT);
        for (id, until) in live {
            text.push_str(&line(*id, *until));
        }
        let mut file =
            private(OpenOptions::new().create(true).write(true).truncate(true)).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let file = OpenOptions::new().append(true).open(&new)?;
        std::fs::rename(&new, &self.path)?;
        self.file = file;
        self.lines = live.len();
        self.torn = false;
        // Without this the old file could be there again after a power cut. Not every file system
        // lets a folder be synced; the entries are in both files then.
        if let Some(folder) = self.path.parent() {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

struct Contents {
    empty: bool,
    /// Lines after the first, good and bad.
    lines: usize,
    /// Lines that end but say nothing, other than the last.
    damaged: usize,
    /// The last line has no end.
    torn: bool,
    entries: HashMap<RevocationId, Timestamp>,
}

/// `None` for a file of another kind.
fn read(file: &File) -> io::Result<Option<Contents>> {
    let mut contents = Contents {
        empty: false,
        lines: 0,
        damaged: 0,
        torn: false,
        entries: HashMap::new(),
    };
    if file.metadata()?.len() > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut first = Vec::new();
    let mut reader = BufReader::new(file);
    reader
        .by_ref()
        .take(FORMAT.len() as u64)
        .read_to_end(&mut first)?;
    if first.is_empty() {
        contents.empty = true;
        return Ok(Some(contents));
    }
    if first != FORMAT.as_bytes() {
        return Ok(None);
    }
    let mut text = Vec::new();
    loop {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 {
            return Ok(Some(contents));
        }
        contents.torn = text.last() != Some(&b'\n');
        let entry = std::str::from_utf8(&text).ok().and_then(parse);
        match entry {
            Some((id, until)) => {
                let known = contents.entries.entry(id).or_insert(until);
                *known = until.max(*known);
            }
            // Half a line that a later entry was written after; or no line yet.
            None if contents.torn || text == b"\n" => {}
            None => contents.damaged += 1,
        }
        contents.lines += 1;
    }
}

fn line(id: RevocationId, until: Timestamp) -> String {
    let said = format!("{id} {}", until.millis());
    format!("{said} {:016x}\n", XxHash3_64::oneshot(said.as_bytes()))
}

fn parse(line: &str) -> Option<(RevocationId, Timestamp)> {
    let (said, checksum) = line.strip_suffix('\n')?.rsplit_once(' ')?;
    if checksum != format!("{:016x}", XxHash3_64::oneshot(said.as_bytes())) {
        return None;
    }
    let (id, until) = said.split_once(' ')?;
    let until = Timestamp::from_millis(until.parse().ok()?);
    Some((RevocationId::parse(id)?, until))
}

/// `path` with another ending added.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// For the owner's eyes alone, where the system knows owners.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LATER: Timestamp = Timestamp::from_secs(2_000);

    fn id(n: usize) -> RevocationId {
        RevocationId::parse(&format!("{n:032x}")).unwrap()
    }

    fn open(path: &Path) -> (RevocationFile, HashMap<RevocationId, Timestamp>) {
        RevocationFile::open(path, NOW).unwrap()
    }

    #[test]
    fn the_format_stays_what_it_is() {
        assert_eq!(
            line(id(0xabc), LATER),
            "00000000000000000000000000000abc 2000000 d0810a6aeccb980f\n"
        );
    }

    #[test]
    fn a_torn_last_line_loses_itself_alone_wherever_it_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let whole = [FORMAT, &line(id(1), LATER), &line(id(2), LATER)].concat();
        let last = whole.len() - line(id(2), LATER).len();
        for end in last..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let (mut file, entries) = open(&path);
            assert_eq!(
                entries.keys().collect::<Vec<_>>(),
                [&id(1)],
                "torn at {end}"
            );
            file.append(&[(id(3), LATER)]).unwrap();
            drop(file);
            let (_file, entries) = open(&path);
            assert!(entries.contains_key(&id(1)) && entries.contains_key(&id(3)));
        }
    }

    #[test]
    fn a_flipped_bit_is_never_an_entry() {
        let good = line(id(1), LATER);
        for at in 0..good.len() - 1 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1;
            assert_eq!(std::str::from_utf8(&bytes).ok().and_then(parse), None);
        }
    }

    #[test]
    fn a_half_written_entry_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let (mut file, _) = open(&path);
        file.append(&[(id(1), LATER)]).unwrap();
        file.fail = 1;
        file.append(&[(id(2), LATER)]).unwrap_err();
        file.append(&[(id(3), LATER)]).unwrap();
        drop(file);
        let read = read(&File::open(&path).unwrap()).unwrap().unwrap();
        assert!(read.entries.contains_key(&id(1)) && read.entries.contains_key(&id(3)));
        assert_eq!(read.entries.len(), 2);
    }

    #[test]
    fn some_other_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "remember the milk\n").unwrap();
        assert!(matches!(
            RevocationFile::open(&path, NOW),
            Err(RevocationsError::NotOurs(_))
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"remember the milk\n");
    }

    #[test]
    fn the_file_shrinks_when_most_of_it_is_past() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let mut text = String::from(FORMAT);
        for n in 0..2 * SMALL {
            let until = if n < 10 { LATER } else { NOW };
            text.push_str(&line(id(n), until));
        }
        std::fs::write(&path, text).unwrap();
        let (file, entries) = open(&path);
        assert_eq!((file.lines, entries.len()), (10, 10));
        let length = std::fs::metadata(&path).unwrap().len();
        assert!(length < 1_000, "{length}");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let (mut file, _) = open(&path);
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        file.compact(&[]).unwrap();
        assert_eq!(mode(), 0o600);
    }
}
