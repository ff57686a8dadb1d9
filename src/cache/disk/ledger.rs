//! The ledger: what the segments must not be believed about any more.
//!
//! A segment cannot be changed, so an invalidation is a line here: 'records of this key from before
//! this moment are dead', or count as confirmed at such a time and no later. It is a file of its own rather than a record among the tiles
//! because a segment goes when space is needed, and a tombstone that went before what it buries
//! would let it rise again. A line is kept as long as any segment has a record that it speaks of.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..40 | header: `TKlg`, version, zeros, XXH3-64 of the 32 bytes before |
//! | each 40 | key; sequence number with the verdict in its lowest byte; time in milliseconds since the epoch, or 0; XXH3-64 of the 32 bytes before |
//!
//! Segments that are being retired are here too. The ledger's version is its own: version 1 had lines of
//! 32 bytes, without the time, and is rewritten when it is met. One of a later version is as good as lost.
//!
//! Invariant: a verdict is in the file before the caller hears of it. A ledger that is missing or
//! damaged is a loss of truth, not of entries: then everything that it might have spoken of is
//! stale, and the origin is asked again.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use twox_hash::XxHash3_64;

use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::io::{DiskFile, DiskIo};
use super::record::{array_at, u64_at};

pub(super) const LINE_LEN: usize = 40;
/// The ledger's format. Segments have their own, [`super::record::FORMAT_VERSION`].
const VERSION: u8 = 2;
/// The lines' length in version 1.
const LINE_LEN_1: usize = 32;
const MAGIC: [u8; 4] = *b"TKlg";
/// Lines and header differ in their seeds too.
const LINE_SEED: u64 = 0x6c69_6e65;

/// What a line says of a key's records from before its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There are none.
    Dead,
    /// They count as confirmed then. A key has one record that counts, so this is that one's time
    /// after a soft purge, and the newest line says it all. The epoch: as if never confirmed.
    Stale(Timestamp),
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
        let (verdict, at) = match self.verdict {
            Verdict::Dead => (1, 0),
            Verdict::Stale(at) => (2, at.millis()),
            Verdict::AllStale => (3, 0),
            Verdict::Retired => (4, 0),
        };
        bytes[..16].copy_from_slice(&self.key.to_bytes());
        bytes[16..24].copy_from_slice(&(self.before << 8 | verdict).to_le_bytes());
        bytes[24..32].copy_from_slice(&at.to_le_bytes());
        seal(&mut bytes, LINE_SEED);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        is_sealed(bytes, LINE_SEED).then(|| Self::read(bytes, u64_at(bytes, 24)))?
    }

    /// A line of version 1, whose soft purges had no time.
    fn decode_1(bytes: &[u8]) -> Option<Self> {
        is_sealed(bytes, LINE_SEED).then(|| Self::read(bytes, 0))?
    }

    fn read(bytes: &[u8], at: u64) -> Option<Self> {
        let word = u64_at(bytes, 16);
        Some(Self {
            key: TileKey::from_bytes(array_at(bytes, 0)),
            before: word >> 8,
            verdict: match word & 0xff {
                1 => Verdict::Dead,
                2 => Verdict::Stale(Timestamp::from_millis(at)),
                3 => Verdict::AllStale,
                4 => Verdict::Retired,
                _ => return None,
            },
        })
    }
}

/// Writes a checksum of what is before it into the last eight bytes.
fn seal(bytes: &mut [u8], seed: u64) {
    let end = bytes.len() - 8;
    let checksum = XxHash3_64::oneshot_with_seed(seed, &bytes[..end]);
    bytes[end..].copy_from_slice(&checksum.to_le_bytes());
}

fn is_sealed(bytes: &[u8], seed: u64) -> bool {
    let end = bytes.len().saturating_sub(8);
    XxHash3_64::oneshot_with_seed(seed, &bytes[..end]) == u64_at(bytes, end)
}

/// A line of any bytes, sealed: it reads as what it is written as again, and one that is damaged is none.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_line(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<LINE_LEN>() else {
        return;
    };
    let mut bytes = *bytes;
    seal(&mut bytes, LINE_SEED);
    if let Some(line) = Line::decode(&bytes) {
        assert_eq!(Line::decode(&line.encode()), Some(line));
    }
    bytes[usize::from(data[0]) % LINE_LEN] ^= 1 << (data[1] % 8);
    assert_eq!(Line::decode(&bytes), None);
}

/// What the ledger says of one key.
#[derive(Debug, Default, Clone, Copy)]
struct OfKey {
    dead_before: u64,
    stale_before: u64,
    confirmed_at: Timestamp,
}

/// What the lines come to, by key. Held during recovery and compaction only.
#[derive(Debug, Default, Clone)]
pub(super) struct Verdicts {
    keys: HashMap<TileKey, OfKey>,
    all_stale: u64,
    retired: HashSet<u64>,
    /// The highest number that a line has.
    pub(super) newest: u64,
}

impl Verdicts {
    pub(super) fn add(&mut self, line: Line) {
        self.newest = self.newest.max(line.before);
        match line.verdict {
            Verdict::Dead => {
                let known = self.keys.entry(line.key).or_default();
                known.dead_before = known.dead_before.max(line.before);
            }
            Verdict::Stale(at) => {
                let known = self.keys.entry(line.key).or_default();
                if known.stale_before <= line.before {
                    (known.stale_before, known.confirmed_at) = (line.before, at);
                }
            }
            Verdict::AllStale => self.all_stale = self.all_stale.max(line.before),
            Verdict::Retired => {
                self.retired.insert(line.before);
            }
        }
    }

    /// Records of the key with lower numbers are dead.
    pub(super) fn dead_before(&self, key: &TileKey) -> u64 {
        self.keys.get(key).map_or(0, |known| known.dead_before)
    }

    /// Records of the key with lower numbers count as confirmed at that time.
    pub(super) fn stale_before(&self, key: &TileKey) -> (u64, Timestamp) {
        let all = (self.all_stale, Timestamp::default());
        match self.keys.get(key) {
            Some(known) if known.stale_before > self.all_stale => {
                (known.stale_before, known.confirmed_at)
            }
            _ => all,
        }
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
        for (&key, known) in &self.keys {
            let Some(&oldest) = oldest.get(&key) else {
                continue;
            };
            let stale = Verdict::Stale(known.confirmed_at);
            let said = [
                (known.dead_before, Verdict::Dead),
                (known.stale_before, stale),
            ];
            for (before, verdict) in said {
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
    /// What a whole ledger of version 1 says: it has to be written anew.
    Old(Verdicts),
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
        if bytes.first_chunk() == Some(&header::<LINE_LEN_1>(1)) {
            let whole = read_lines(&bytes, LINE_LEN_1, Line::decode_1, &mut verdicts);
            return Ok(match whole {
                Some(_) => Found::Old(verdicts),
                None => Found::Lost(verdicts),
            });
        }
        if bytes.first_chunk() != Some(&header::<LINE_LEN>(VERSION)) {
            return Ok(Found::Lost(verdicts));
        }
        let Some(len) = read_lines(&bytes, LINE_LEN, Line::decode, &mut verdicts) else {
            return Ok(Found::Lost(verdicts));
        };
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
        let mut bytes = header::<LINE_LEN>(VERSION).to_vec();
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

/// Reads the lines behind the header, and says up to where they are; `None` if any is damaged.
fn read_lines(
    bytes: &[u8],
    len: usize,
    decode: impl Fn(&[u8]) -> Option<Line>,
    verdicts: &mut Verdicts,
) -> Option<u64> {
    let mut good = len;
    let mut whole = true;
    for line in bytes[len..].chunks_exact(len) {
        if let Some(line) = decode(line) {
            verdicts.add(line);
            good += len;
        } else {
            whole = false;
        }
    }
    // After a power failure the file's end can be zeros that were never replaced.
    (whole || bytes[good..].iter().all(|&byte| byte == 0)).then_some(good as u64)
}

fn header<const LEN: usize>(version: u8) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = version;
    seal(&mut bytes, 0);
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

    const AT: Timestamp = Timestamp::from_secs(1_790_000_000);
    const STALE: Verdict = Verdict::Stale(AT);

    fn found(path: &Path) -> (bool, Verdicts) {
        match Ledger::open(&DiskIo::System, path).unwrap() {
            Found::Whole(_, verdicts) | Found::Old(verdicts) => (true, verdicts),
            Found::Lost(verdicts) => (false, verdicts),
        }
    }

    #[test]
    fn the_newest_verdict_on_a_key_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, path) = (dir.path().join("draft"), dir.path().join("ledger"));
        let mut ledger = Ledger::create(&DiskIo::System, &draft, &path, &[]).unwrap();
        ledger
            .append(&[line(3, Verdict::Dead), line(4, STALE)])
            .unwrap();
        ledger
            .append(&[line(6, Verdict::Dead), line(9, STALE)])
            .unwrap();
        let (whole, verdicts) = found(&path);
        let key = |n| line(n, Verdict::Dead).key;
        assert!(whole && verdicts.newest == 9);
        assert_eq!(
            (
                verdicts.dead_before(&key(0)),
                verdicts.stale_before(&key(0))
            ),
            (6, (9, AT))
        );
        assert_eq!(
            (
                verdicts.dead_before(&key(1)),
                verdicts.stale_before(&key(1))
            ),
            (0, (4, AT))
        );
        let oldest = HashMap::from([(key(0), 6), (key(1), 1)]);
        let mut kept = verdicts.lines(&oldest);
        kept.sort_unstable_by_key(|line| line.before);
        assert_eq!(kept, [line(4, STALE), line(9, STALE)]);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_any_other_damage_is_a_loss() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, path) = (dir.path().join("draft"), dir.path().join("ledger"));
        let lines: Vec<Line> = (1..20).map(|n| line(n, Verdict::Dead)).collect();
        drop(Ledger::create(&DiskIo::System, &draft, &path, &lines).unwrap());
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&good[..], &good[40..60]].concat()).unwrap();
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
            assert!(at < LINE_LEN || verdicts.newest >= 18);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!found(&path).0);
    }

    #[test]
    fn the_format_on_disk_is_these_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (draft, path) = (dir.path().join("draft"), dir.path().join("ledger"));
        let lines = [line(3, Verdict::Dead), line(7, STALE)];
        drop(Ledger::create(&DiskIo::System, &draft, &path, &lines).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let hex = bytes.iter().fold(String::new(), |mut text, byte| {
            use std::fmt::Write;
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert_eq!(hex, GOLDEN);
    }

    // Change it only together with VERSION.
    const GOLDEN: &str = concat!(
        "544b6c6702000000000000000000000000000000000000000000000000000000644f60fa7a3e048d",
        "0000000000000000000000000000000001030000000000000000000000000000993dae1bd8e7bc6a",
        "010000000000000000000000000000000207000000000000006c50c4a0010000eddd07eaf4bbd463",
    );

    /// What version 1 wrote: header, key 1 dead before 3, key 1 stale before 7.
    const VERSION_1: &str = concat!(
        "544b6c6701000000000000000000000000000000000000005a500dee64e0081d",
        "010000000000000000000000000000000103000000000000cabd69274cb80058",
        "0100000000000000000000000000000002070000000000002ac8bcddfb33f3ee",
    );

    #[test]
    fn a_ledger_of_version_1_is_understood_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let digits = VERSION_1.as_bytes().chunks_exact(2);
        let bytes: Vec<u8> = digits
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        std::fs::write(&path, &bytes).unwrap();
        let Found::Old(verdicts) = Ledger::open(&DiskIo::System, &path).unwrap() else {
            panic!("not understood");
        };
        let key = TileKey::from_bytes(1_u128.to_le_bytes());
        assert_eq!(verdicts.dead_before(&key), 3);
        assert_eq!(verdicts.stale_before(&key), (7, Timestamp::default()));
        let draft = dir.path().join("draft");
        drop(Ledger::create(&DiskIo::System, &draft, &path, &verdicts.all_lines()).unwrap());
        let Found::Whole(_, again) = Ledger::open(&DiskIo::System, &path).unwrap() else {
            panic!("not written anew");
        };
        assert_eq!(again.stale_before(&key), (7, Timestamp::default()));
        assert_eq!(again.dead_before(&key), 3);
        std::fs::write(&path, [&bytes[..40], &[9], &bytes[41..]].concat()).unwrap();
        assert!(!found(&path).0, "damaged");
    }
}
