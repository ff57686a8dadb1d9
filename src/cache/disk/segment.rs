//! A segment file: a header, records one after another, and once it is full a summary of them.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..32 | header: `TKsg`, version, three zeros, id, eight zeros, XXH3-64 of the 24 bytes before |
//! | .. | records, see `record` |
//! | .. | summary: an entry of 48 bytes for each record |
//! | last 32 | trailer: `TKsm`, version, three zeros, where the summary starts, number of entries, XXH3-64 of summary and trailer, seeded with the id |
//!
//! Invariant: files are only ever appended to, and only by the process that made them; an id is
//! never given twice. A segment without a good summary is read record by record and ends, for us,
//! at the first that disagrees.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use twox_hash::XxHash3_64;

use crate::clock::Timestamp;
use crate::tile::TileKey;

use super::io::DiskFile;
use super::record::{self, FORMAT_VERSION, HEADER_LEN, Head, Kind, UNIT, array_at, u32_at, u64_at};

pub(super) const SEGMENT_HEADER_LEN: usize = 32;
pub(super) const SUMMARY_ENTRY_LEN: usize = 48;
pub(super) const TRAILER_LEN: usize = 32;
const HEADER_MAGIC: [u8; 4] = *b"TKsg";
const TRAILER_MAGIC: [u8; 4] = *b"TKsm";
/// How much of a segment without summary is read at once.
const SCAN_WINDOW: usize = 1 << 20;
/// A hit in a segment's heat, so that halving it loses little.
const HIT: u32 = 16;

/// One segment, from its making to its retirement.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) slot: u16,
    pub(super) file: DiskFile,
    pub(super) path: PathBuf,
    /// Set before its bytes go: a reader that finds them gone was overtaken, not lied to.
    retired: AtomicBool,
    /// Hits of its entries, halved now and then.
    heat: AtomicU32,
}

impl Segment {
    pub(super) fn new(id: u64, slot: u16, file: DiskFile, path: PathBuf) -> Self {
        Self {
            id,
            slot,
            file,
            path,
            retired: AtomicBool::new(false),
            heat: AtomicU32::new(0),
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(super) fn hit(&self) {
        self.heat.fetch_add(HIT, Ordering::Relaxed);
    }

    /// An entry brings its hits along.
    pub(super) fn warm(&self, hits: u32) {
        self.heat.fetch_add(HIT * hits, Ordering::Relaxed);
    }

    pub(super) fn heat(&self) -> u32 {
        self.heat.load(Ordering::Relaxed)
    }

    pub(super) fn cool(&self) {
        self.heat.store(self.heat() / 2, Ordering::Relaxed);
    }
}

/// The first bytes of a segment's file.
pub(super) fn header(id: u64) -> [u8; SEGMENT_HEADER_LEN] {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    bytes[..4].copy_from_slice(&HEADER_MAGIC);
    bytes[4] = FORMAT_VERSION;
    bytes[8..16].copy_from_slice(&id.to_le_bytes());
    let checksum = XxHash3_64::oneshot_with_seed(id, &bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Whether a file's header is that of our format and of this id; or else why not.
pub(super) fn check_header(file: &DiskFile, id: u64) -> Result<(), Unusable> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Unusable::Empty),
        Err(error) => return Err(Unusable::Unreadable(error)),
    }
    if bytes == header(id) {
        Ok(())
    } else if bytes[..4] == HEADER_MAGIC && bytes[4] != FORMAT_VERSION {
        Err(Unusable::Format(bytes[4]))
    } else {
        Err(Unusable::Damaged)
    }
}

/// Why a file with a segment's name is none that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it has format {0}, and this server reads and writes format {FORMAT_VERSION}")]
    Format(u8),
    #[error("its header is damaged, or another segment's")]
    Damaged,
    #[error("nothing was ever written to it")]
    Empty,
    #[error("it was being retired")]
    Retired,
    #[error("{0}")]
    Unreadable(io::Error),
}

/// What a summary says of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SummaryEntry {
    pub(super) kind: Kind,
    pub(super) key: TileKey,
    pub(super) sequence: u64,
    pub(super) validated_at: Timestamp,
    /// The content's first half; in a touch, the id of the segment of the record that it touches.
    pub(super) content: u64,
    /// Where the record is; in a touch, where the record is that it touches. In units.
    pub(super) offset: u32,
    /// How long it is, padding included. In units.
    pub(super) len: u32,
}

impl SummaryEntry {
    /// Of a record at this offset.
    pub(super) fn of(head: &Head, offset: u64, len: usize) -> Self {
        let units = |bytes: u64| u32::try_from(bytes / UNIT as u64).unwrap_or(u32::MAX);
        let content = head.content.to_bytes();
        let offset = match head.kind {
            Kind::Touch => u32_at(&content, 8),
            _ => units(offset),
        };
        Self {
            kind: head.kind,
            key: head.key,
            sequence: head.sequence,
            validated_at: head.validated_at,
            content: u64_at(&content, 0),
            offset,
            len: units(len as u64),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.validated_at.millis().to_le_bytes());
        out.extend_from_slice(&self.content.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        let kind = u32::from(self.kind.to_u8());
        out.extend_from_slice(&(self.len & 0x00ff_ffff | kind << 24).to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let len = u32_at(bytes, 44);
        Some(Self {
            kind: Kind::from_u8(len.to_le_bytes()[3])?,
            key: TileKey::from_bytes(array_at(bytes, 0)),
            sequence: u64_at(bytes, 16),
            validated_at: Timestamp::from_millis(u64_at(bytes, 24)),
            content: u64_at(bytes, 32),
            offset: u32_at(bytes, 40),
            len: len & 0x00ff_ffff,
        })
    }
}

/// Entries of any bytes: what is read is written as it was.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_summary(data: &[u8]) {
    for bytes in data.chunks_exact(SUMMARY_ENTRY_LEN) {
        if let Some(entry) = SummaryEntry::decode(bytes) {
            let mut again = Vec::new();
            entry.encode(&mut again);
            assert_eq!(again, bytes);
        }
    }
}

/// How long a segment's file becomes when it is sealed.
pub(super) fn sealed_len(records_end: u64, entries: usize) -> u64 {
    records_end + (entries * SUMMARY_ENTRY_LEN + TRAILER_LEN) as u64
}

/// Summary and trailer, to be written where the records end.
pub(super) fn summary(id: u64, records_end: u64, entries: &[SummaryEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * SUMMARY_ENTRY_LEN + TRAILER_LEN);
    for entry in entries {
        entry.encode(&mut out);
    }
    out.extend_from_slice(&TRAILER_MAGIC);
    out.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0]);
    out.extend_from_slice(&records_end.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    let checksum = XxHash3_64::oneshot_with_seed(id, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// What is in a segment, and where its records end.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) entries: Vec<SummaryEntry>,
    pub(super) records_end: u64,
    /// Whether a good summary said so.
    pub(super) sealed: bool,
}

/// Reads the summary, or else the records.
pub(super) fn contents(file: &DiskFile, id: u64) -> io::Result<Contents> {
    let len = file.len()?;
    if let Some(contents) = read_summary(file, id, len)? {
        return Ok(contents);
    }
    scan(file, id, len)
}

fn read_summary(file: &DiskFile, id: u64, len: u64) -> io::Result<Option<Contents>> {
    if len < (SEGMENT_HEADER_LEN + TRAILER_LEN) as u64 {
        return Ok(None);
    }
    let mut trailer = [0; TRAILER_LEN];
    file.read_exact_at(&mut trailer, len - TRAILER_LEN as u64)?;
    let (records_end, count) = (u64_at(&trailer, 8), u64_at(&trailer, 16));
    let fits = count
        .checked_mul(SUMMARY_ENTRY_LEN as u64)
        .and_then(|summary| {
            summary
                .checked_add(records_end)?
                .checked_add(TRAILER_LEN as u64)
        });
    if trailer[..4] != TRAILER_MAGIC || fits != Some(len) {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len - records_end).unwrap_or(0)];
    file.read_exact_at(&mut bytes, records_end)?;
    let (sealed, checksum) = bytes.split_at(bytes.len() - 8);
    if XxHash3_64::oneshot_with_seed(id, sealed) != u64_at(checksum, 0) {
        return Ok(None);
    }
    let entries = sealed
        .chunks_exact(SUMMARY_ENTRY_LEN)
        .take(usize::try_from(count).unwrap_or(0))
        .map(SummaryEntry::decode)
        .collect::<Option<Vec<_>>>();
    Ok(entries.map(|entries| Contents {
        entries,
        records_end,
        sealed: true,
    }))
}

/// Reads a segment record by record, up to the first disagreement.
fn scan(file: &DiskFile, id: u64, len: u64) -> io::Result<Contents> {
    let mut entries = Vec::new();
    let mut at = SEGMENT_HEADER_LEN as u64;
    // The window holds the file's bytes from `start`; the record that is looked at is within it.
    let mut window: Vec<u8> = Vec::new();
    let mut start = at;
    loop {
        let left = usize::try_from(len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut need = HEADER_LEN;
        let record = loop {
            if need > left {
                break None;
            }
            let from = usize::try_from(at - start).unwrap_or(usize::MAX);
            if window.len() < from + need {
                window.resize(need.max(SCAN_WINDOW).min(left), 0);
                start = at;
                file.read_exact_at(&mut window, start)?;
                continue;
            }
            match record::claimed_len(&window[from..]) {
                Some(claimed) if claimed > need => need = claimed,
                Some(claimed) => break Some(&window[from..from + claimed]),
                None => break None,
            }
        };
        let Some((bytes, (head, _))) =
            record.and_then(|bytes| Some((bytes, record::decode(bytes, id).ok()?)))
        else {
            break;
        };
        entries.push(SummaryEntry::of(&head, at, bytes.len()));
        at += bytes.len() as u64;
    }
    Ok(Contents {
        entries,
        records_end: at,
        sealed: false,
    })
}

/// Cuts off what follows the records and writes the summary there, for the next time. The file's
/// length is then this.
pub(super) fn seal(file: &DiskFile, id: u64, contents: &Contents) -> io::Result<u64> {
    file.set_len(contents.records_end)?;
    let summary = summary(id, contents.records_end, &contents.entries);
    file.write_all_at(&summary, contents.records_end)?;
    Ok(contents.records_end + summary.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::super::io::DiskIo;
    use super::*;

    fn segment_of(dir: &std::path::Path, id: u64, records: u64) -> (DiskFile, Contents) {
        let file = DiskIo::System.create(&dir.join(id.to_string())).unwrap();
        let mut bytes = header(id).to_vec();
        let mut entries = Vec::new();
        for n in 0..records {
            let key = TileKey::from_bytes(u128::from(n).to_le_bytes());
            let head = Head::bare(Kind::Tile, n, key, Timestamp::from_secs(n));
            let at = bytes.len();
            let body = vec![7; usize::try_from(n * 1000).unwrap()];
            head.encode(&body, id, &mut bytes);
            entries.push(SummaryEntry::of(&head, at as u64, bytes.len() - at));
        }
        file.write_all_at(&bytes, 0).unwrap();
        let records_end = bytes.len() as u64;
        (
            file,
            Contents {
                entries,
                records_end,
                sealed: false,
            },
        )
    }

    #[test]
    fn scanning_the_records_finds_what_the_summary_says() {
        let dir = tempfile::tempdir().unwrap();
        let (file, written) = segment_of(dir.path(), 3, 60);
        let scanned = contents(&file, 3).unwrap();
        assert!(!scanned.sealed);
        assert_eq!(scanned.entries, written.entries);
        assert_eq!(scanned.records_end, written.records_end);
        let len = seal(&file, 3, &scanned).unwrap();
        assert_eq!(file.len().unwrap(), len);
        assert_eq!(sealed_len(scanned.records_end, 60), len);
        let summarised = contents(&file, 3).unwrap();
        assert!(summarised.sealed);
        assert_eq!(summarised.entries, written.entries);
    }

    #[test]
    fn a_segment_ends_at_the_first_record_that_disagrees() {
        let dir = tempfile::tempdir().unwrap();
        let (file, written) = segment_of(dir.path(), 3, 20);
        for nth in [19, 7, 0] {
            let at = u64::from(written.entries[nth].offset) * UNIT as u64;
            file.write_all_at(&[0xff], at + 40).unwrap();
            let cut = contents(&file, 3).unwrap();
            assert_eq!(cut.entries, written.entries[..nth]);
            assert_eq!(cut.records_end, at);
        }
    }

    #[test]
    fn a_summary_with_any_byte_changed_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, written) = segment_of(dir.path(), 3, 4);
        seal(&file, 3, &written).unwrap();
        for at in written.records_end..file.len().unwrap() {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            let scanned = contents(&file, 3).unwrap();
            assert!(!scanned.sealed && scanned.entries == written.entries);
            file.write_all_at(&byte, at).unwrap();
        }
        assert!(contents(&file, 3).unwrap().sealed);
    }

    #[test]
    fn a_header_is_that_of_its_id_and_format_only() {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = segment_of(dir.path(), 3, 0);
        assert!(check_header(&file, 3).is_ok());
        assert!(matches!(check_header(&file, 4), Err(Unusable::Damaged)));
        file.write_all_at(&[FORMAT_VERSION + 1], 4).unwrap();
        assert!(matches!(check_header(&file, 3), Err(Unusable::Format(2))));
    }
}
