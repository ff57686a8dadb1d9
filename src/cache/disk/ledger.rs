//! The ledger: what the segments must not be believed about any more.
//!
//! A segment cannot be changed, so an invalidation is a line here: 'records of this key from before
//! this moment are dead', or stale. It is a file of its own rather than a record among the tiles
//! because a segment goes when space is needed, and a tombstone that went before what it buries
//! would let it rise again. A line is kept as long as any segment has a record that it speaks of.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..32 | header: `TKlg`, version, zeros, XXH3-64 of the 24 bytes before |
//! | each 32 | key, sequence number with the verdict in its lowest byte, XXH3-64 of the 24 bytes before |
//!
//! Segments that are being retired are here too.
//!
//! Invariant: a verdict is in the file before the caller hears of it. A ledger that is missing or
//! damaged is a loss of truth, not of entries: then everything that it might have spoken of is
//! stale, and the origin is asked again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::tile::TileKey;

use super::io::{DiskFile, DiskIo};
use super::record::{FORMAT_VERSION, array_at, u64_at};

pub(super) const LINE_LEN: usize = 32;
const MAGIC: [u8; 4] = *b"TKlg";
/// Lines and header differ in their seeds too.
const LINE_SEED: u64 = 0x6c69_6e65;

/// What a line says of a key's records from before its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There are none.
    Dead,
    /// They are stale.
    Stale,
    /// Those of every key are stale.
    AllStale,
    /// Not of a key, nor of a moment: the segment with this id is gone, even if it is there. What
    /// was hot in it has begun to move, so that its records can be there twice.
    Retired,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: TileKey,
    /// Speaks of records with lower numbers than this. Below 2^56.
    pub(super) before: u64,
    pub(super) verdict: Verdict,
}

impl Line {
    /// The key's records from before this are dead.
    pub(super) fn dead(key: TileKey, before: u64) -> Self {
        let verdict = Verdict::Dead;
        Self {
            key,
            before,
            verdict,
        }
    }

    /// That speaks of no key.
    pub(super) fn keyless(verdict: Verdict, before: u64) -> Self {
        Self {
            key: TileKey::from_bytes([0; 16]),
            before,
            verdict,
        }
    }

    fn encode(self) -> [u8; LINE_LEN] {
        let mut bytes = [0; LINE_LEN];
        let verdict = match self.verdict {
            Verdict::Dead => 1,
            Verdict::Stale => 2,
            Verdict::AllStale => 3,
            Verdict::Retired => 4,
        };
        bytes[..16].copy_from_slice(&self.key.to_bytes());
        bytes[16..24].copy_from_slice(&(self.before << 8 | verdict).to_le_bytes());
        let checksum = xxh3_64_with_seed(&bytes[..24], LINE_SEED);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if xxh3_64_with_seed(bytes.get(..24)?, LINE_SEED) != u64_at(bytes, 24) {
            return None;
        }
        let word = u64_at(bytes, 16);
        Some(Self {
            key: TileKey::from_bytes(array_at(bytes, 0)),
            before: word >> 8,
            verdict: match word & 0xff {
                1 => Verdict::Dead,
                2 => Verdict::Stale,
                3 => Verdict::AllStale,
                4 => Verdict::Retired,
                _ => return None,
            },
        })
    }
}

/// What the lines come to, by key. Held during recovery and compaction only.
#[derive(Debug, Default, Clone)]
pub(super) struct Verdicts {
    keys: HashMap<TileKey, (u64, u64)>,
    all_stale: u64,
    retired: HashSet<u64>,
    /// The highest number that a line has.
    pub(super) newest: u64,
}

impl Verdicts {
    pub(super) fn add(&mut self, line: Line) {
        self.newest = self.newest.max(line.before);
        let (dead, stale) = match line.verdict {
            Verdict::Dead => (line.before, 0),
            Verdict::Stale => (0, line.before),
            Verdict::AllStale => {
                self.all_stale = self.all_stale.max(line.before);
                return;
            }
            Verdict::Retired => {
                self.retired.insert(line.before);
                return;
            }
        };
        let known = self.keys.entry(line.key).or_default();
        *known = (known.0.max(dead), known.1.max(stale));
    }

    /// Records of the key with lower numbers are dead.
    pub(super) fn dead_before(&self, key: &TileKey) -> u64 {
        self.keys.get(key).map_or(0, |known| known.0)
    }

    /// Records of the key with lower numbers are stale.
    pub(super) fn stale_before(&self, key: &TileKey) -> u64 {
        self.keys
            .get(key)
            .map_or(0, |known| known.1)
            .max(self.all_stale)
    }

    /// Whether the segment with this id is gone, even if it is there.
    pub(super) fn is_retired(&self, id: u64) -> bool {
        self.retired.contains(&id)
    }

    /// Forgets segments that are not there.
    pub(super) fn retain_retired(&mut self, is_there: impl Fn(u64) -> bool) {
        self.retired.retain(|&id| is_there(id));
    }

    /// The lines that come to the same, for those keys that `oldest` knows the oldest record of.
    pub(super) fn lines(&self, oldest: &HashMap<TileKey, u64>) -> Vec<Line> {
        let mut lines = Vec::new();
        // It is one line, and speaks of keys that nobody counts.
        if self.all_stale > 0 {
            lines.push(Line::keyless(Verdict::AllStale, self.all_stale));
        }
        let retired = self.retired.iter();
        lines.extend(retired.map(|&id| Line::keyless(Verdict::Retired, id)));
        for (&key, &(dead, stale)) in &self.keys {
            let Some(&oldest) = oldest.get(&key) else {
                continue;
            };
            for (before, verdict) in [(dead, Verdict::Dead), (stale, Verdict::Stale)] {
                if before > oldest {
                    lines.push(Line {
                        key,
                        before,
                        verdict,
                    });
                }
            }
        }
        lines
    }

    /// The lines that come to the same.
    pub(super) fn all_lines(&self) -> Vec<Line> {
        let oldest = self.keys.keys().map(|&key| (key, 0)).collect();
        self.lines(&oldest)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &TileKey> {
        self.keys.keys()
    }
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Ledger {
    file: DiskFile,
    len: u64,
}

/// What was found at a restart.
pub(super) enum Found {
    /// A whole ledger, and what it says.
    Whole(Ledger, Verdicts),
    /// None, or one that cannot be trusted; and what can still be read of it.
    Lost(Verdicts),
}

impl Ledger {
    /// Reads what is there. A half-written last line was never promised to anybody.
    pub(super) fn open(io: &DiskIo, path: &Path) -> io::Result<Found> {
        let mut verdicts = Verdicts::default();
        let file = match io.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Found::Lost(verdicts));
            }
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        if bytes.first_chunk() != Some(&header()) {
            return Ok(Found::Lost(verdicts));
        }
        let mut good = LINE_LEN;
        let mut whole = true;
        for line in bytes[LINE_LEN..].chunks_exact(LINE_LEN) {
            if let Some(line) = Line::decode(line) {
                verdicts.add(line);
                good += LINE_LEN;
            } else {
                whole = false;
            }
        }
        // After a power failure the file's end can be zeros that were never replaced.
        if !whole && bytes[good..].iter().all(|&byte| byte == 0) {
            whole = true;
        }
        if !whole {
            return Ok(Found::Lost(verdicts));
        }
        let len = good as u64;
        file.set_len(len)?;
        Ok(Found::Whole(Self { file, len }, verdicts))
    }

    /// Makes a ledger with these lines, in place of any that is there.
    pub(super) fn create(
        io: &DiskIo,
        draft: &Path,
        path: &Path,
        lines: &[Line],
    ) -> io::Result<Self> {
        match std::fs::remove_file(draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = io.create(draft)?;
        let mut bytes = header().to_vec();
        bytes.extend(lines.iter().flat_map(|line| line.encode()));
        file.write_all_at(&bytes, 0)?;
        // A rename can reach the disk before the bytes do.
        file.sync_handle()?.sync_data()?;
        std::fs::rename(draft, path)?;
        Ok(Self {
            file,
            len: bytes.len() as u64,
        })
    }

    /// Writes the lines down. After an error none of them is there.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<u64> {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| line.encode()).collect();
        if let Err(error) = self.file.write_all_at(&bytes, self.len) {
            // What cannot be cut off is overwritten by the next line.
            self.file.set_len(self.len).ok();
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(bytes.len() as u64)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// All lines from this offset on.
    pub(super) fn lines_from(&self, offset: u64) -> io::Result<Vec<Line>> {
        let mut bytes = vec![0; usize::try_from(self.len - offset).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, offset)?;
        bytes
            .chunks_exact(LINE_LEN)
            .map(|line| Line::decode(line).ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .collect()
    }

    /// To sync without holding up those who append.
    pub(super) fn sync_handle(&self) -> io::Result<std::fs::File> {
        self.file.sync_handle()
    }
}

fn header() -> [u8; LINE_LEN] {
    let mut bytes = [0; LINE_LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = FORMAT_VERSION;
    let checksum = xxh3_64_with_seed(&bytes[..24], 0);
    bytes[24..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64, verdict: Verdict) -> Line {
        let key = TileKey::from_bytes(u128::from(n % 3).to_le_bytes());
        Line {
            key,
            before: n,
            verdict,
        }
    }

    fn found(path: &Path) -> (bool, Verdicts) {
        match Ledger::open(&DiskIo::System, path).unwrap() {
            Found::Whole(_, verdicts) => (true, verdicts),
            Found::Lost(verdicts) => (false, verdicts),
        }
    }

    #[test]
    fn the_newest_verdict_on_a_key_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, path) = (dir.path().join("draft"), dir.path().join("ledger"));
        let mut ledger = Ledger::create(&DiskIo::System, &draft, &path, &[]).unwrap();
        ledger
            .append(&[line(3, Verdict::Dead), line(4, Verdict::Stale)])
            .unwrap();
        ledger
            .append(&[line(6, Verdict::Dead), line(9, Verdict::Stale)])
            .unwrap();
        let (whole, verdicts) = found(&path);
        let key = |n| line(n, Verdict::Dead).key;
        assert!(whole && verdicts.newest == 9);
        assert_eq!(
            (
                verdicts.dead_before(&key(0)),
                verdicts.stale_before(&key(0))
            ),
            (6, 9)
        );
        assert_eq!(
            (
                verdicts.dead_before(&key(1)),
                verdicts.stale_before(&key(1))
            ),
            (0, 4)
        );
        let oldest = HashMap::from([(key(0), 6), (key(1), 1)]);
        let mut kept = verdicts.lines(&oldest);
        kept.sort_unstable_by_key(|line| line.before);
        assert_eq!(kept, [line(4, Verdict::Stale), line(9, Verdict::Stale)]);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_any_other_damage_is_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, path) = (dir.path().join("draft"), dir.path().join("ledger"));
        let lines: Vec<Line> = (1..20).map(|n| line(n, Verdict::Dead)).collect();
        drop(Ledger::create(&DiskIo::System, &draft, &path, &lines).unwrap());
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&good[..], &good[32..50]].concat()).unwrap();
        assert!(found(&path).0);
        assert_eq!(std::fs::read(&path).unwrap(), good);
        std::fs::write(&path, [&good[..], &[0; 100]].concat()).unwrap();
        assert!(found(&path).0);
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&path, &bad).unwrap();
            let (whole, verdicts) = found(&path);
            assert!(!whole, "byte {at}");
            assert!(at < 32 || verdicts.newest >= 18);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!found(&path).0);
    }
}
