//! The spool: what an export has so far, in a file beside the output that is only appended to.
//!
//! Invariant: a record is believed when its head's checksum and its body's are right; the first that is not
//! ends the file, and what follows it is cut off. So `kill -9`, a full disk and a lost write cost tiles that
//! are fetched again, and never put a wrong one into an archive.
//! Nothing is synced: the archive is, when it is finished.
//!
//! A file begins with magic and a line that says what the export is of. A record is, little-endian:
//!
//! | bytes | |
//! | --- | --- |
//! | 0 | kind: 1 a tile with its body, 2 a tile whose body stands in an earlier record, 3 no such tile |
//! | 1–8 | the tile's number (PMTiles) |
//! | 9–16 | kind 1: the body's XXH3; kind 2: where that record begins |
//! | 17–20 | the body's length |
//! | 21–28 | XXH3 of the bytes before, seeded with the record's place |
//! | 29– | kind 1: the body |

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::ArchiveError;
use super::ranges::Ranges;
use super::writer::Begin;

const MAGIC: &[u8; 8] = b"TKSPOOL1";
const HEAD: usize = 29;
/// No body is longer: a tile that is would have been refused by every origin.
const MAX_BODY: u32 = 256 << 20;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Body,
    Same,
    Absent,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    kind: Kind,
    id: u64,
    /// The body's hash, or where the record with the body begins.
    body: u64,
    length: u32,
}

impl Head {
    fn encode(self, at: u64) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[0] = match self.kind {
            Kind::Body => 1,
            Kind::Same => 2,
            Kind::Absent => 3,
        };
        bytes[1..9].copy_from_slice(&self.id.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.body.to_le_bytes());
        bytes[17..21].copy_from_slice(&self.length.to_le_bytes());
        let check = XxHash3_64::oneshot_with_seed(at, &bytes[..21]);
        bytes[21..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEAD], at: u64) -> Option<Self> {
        let eight = |from: usize| {
            let bytes = bytes[from..from + 8].try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        if XxHash3_64::oneshot_with_seed(at, &bytes[..21]) != eight(21)? {
            return None;
        }
        let kind = match bytes[0] {
            1 => Kind::Body,
            2 => Kind::Same,
            3 => Kind::Absent,
            _ => return None,
        };
        let length = u32::from_le_bytes(bytes[17..21].try_into().ok()?);
        (length <= MAX_BODY).then_some(Self {
            kind,
            id: eight(1)?,
            body: eight(9)?,
            length,
        })
    }

    /// How long the record is, head included.
    fn record(self) -> u64 {
        HEAD as u64
            + match self.kind {
                Kind::Body => u64::from(self.length),
                Kind::Same | Kind::Absent => 0,
            }
    }
}

/// Where a tile's body is: the place of the record that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) id: u64,
    pub(super) body: u64,
}

/// The open spool.
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    start: u64,
    end: u64,
    tiles: Ranges,
    /// By a body's hash, the first record with it. Two bodies of one hash are compared.
    bodies: HashMap<u64, u64, foldhash::fast::RandomState>,
}

impl Spool {
    /// Begins one for an export of `label`, or goes on with what is there.
    pub(super) fn open(path: &Path, label: &str, begin: Begin) -> Result<Self, ArchiveError> {
        let io = |doing| ArchiveError::io(path, doing);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(io("create it"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ArchiveError::Busy {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock it")(error)),
        }
        let length = file.metadata().map_err(io("read it"))?.len();
        let first = first_bytes(label);
        let start = first.len() as u64;
        let mut spool = Self {
            path: path.to_owned(),
            file,
            start,
            end: start,
            tiles: Ranges::default(),
            bodies: HashMap::default(),
        };
        match (length, begin) {
            (0, _) => spool.file.write_all_at(&first, 0).map_err(io("write it"))?,
            (_, Begin::Anew) => {
                return Err(ArchiveError::Begun {
                    path: path.to_owned(),
                });
            }
            (_, Begin::Resume) if length < start && spool.begins_like(&first, length)? => {
                spool.file.write_all_at(&first, 0).map_err(io("write it"))?;
            }
            (_, Begin::Resume) => spool.recover(label, &first, length)?,
        }
        Ok(spool)
    }

    /// Whether it is the torn beginning of this export: killed before its first line was written.
    fn begins_like(&self, first: &[u8], length: u64) -> Result<bool, ArchiveError> {
        let there = self.read(0, usize::try_from(length).unwrap_or(0))?;
        Ok(first.starts_with(&there))
    }

    fn recover(&mut self, label: &str, first: &[u8], length: u64) -> Result<(), ArchiveError> {
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        if self.read(0, first.len().min(whole))? != first {
            return Err(ArchiveError::OtherExport {
                path: self.path.clone(),
                theirs: self.label(length),
                ours: label.to_owned(),
            });
        }
        let io = |doing| ArchiveError::io(&self.path, doing);
        let mut reader = &self.file;
        reader
            .seek(SeekFrom::Start(self.start))
            .map_err(io("read it"))?;
        let mut reader = BufReader::with_capacity(1 << 20, reader);
        let (mut head, mut body) = ([0; HEAD], Vec::new());
        while length - self.end >= HEAD as u64 {
            reader.read_exact(&mut head).map_err(io("read it"))?;
            let Some(head) = Head::decode(&head, self.end) else {
                break;
            };
            if length - self.end < head.record() {
                break;
            }
            if head.kind == Kind::Body {
                body.resize(head.length as usize, 0);
                reader.read_exact(&mut body).map_err(io("read it"))?;
                if XxHash3_64::oneshot(&body) != head.body {
                    break;
                }
                self.bodies.entry(head.body).or_insert(self.end);
            }
            self.tiles.insert(head.id);
            self.end += head.record();
        }
        self.file
            .set_len(self.end)
            .map_err(io("cut off its torn end"))
    }

    /// What a file of somebody else's says that it is of; for an error.
    fn label(&self, length: u64) -> String {
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(1024);
        let first = self.read(0, most).unwrap_or_default();
        let Some(line) = first.strip_prefix(MAGIC.as_slice()) else {
            return "something that is not Tilekeep's".into();
        };
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        format!("{:?}", String::from_utf8_lossy(line))
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.tiles.contains(id)
    }

    /// Keeps a tile.
    pub(super) fn put(&mut self, id: u64, body: &[u8]) -> Result<(), ArchiveError> {
        let hash = XxHash3_64::oneshot(body);
        let length = u32::try_from(body.len()).ok().filter(|n| *n <= MAX_BODY);
        let Some(length) = length else {
            let said = format!("a tile of {} bytes is too large", body.len());
            return Err(ArchiveError::content(&self.path, said));
        };
        if let Some(&same) = self.bodies.get(&hash)
            && self.body(same)? == body
        {
            return self.append(
                Head {
                    kind: Kind::Same,
                    id,
                    body: same,
                    length,
                },
                &[],
            );
        }
        let at = self.end;
        self.append(
            Head {
                kind: Kind::Body,
                id,
                body: hash,
                length,
            },
            body,
        )?;
        self.bodies.entry(hash).or_insert(at);
        Ok(())
    }

    /// Keeps that there is no such tile.
    pub(super) fn put_absent(&mut self, id: u64) -> Result<(), ArchiveError> {
        self.append(
            Head {
                kind: Kind::Absent,
                id,
                body: 0,
                length: 0,
            },
            &[],
        )
    }

    /// A failure leaves the end where it was: the next record is written over what got there.
    fn append(&mut self, head: Head, body: &[u8]) -> Result<(), ArchiveError> {
        let mut record = Vec::with_capacity(HEAD + body.len());
        record.extend_from_slice(&head.encode(self.end));
        record.extend_from_slice(body);
        self.file
            .write_all_at(&record, self.end)
            .map_err(ArchiveError::io(&self.path, "write it"))?;
        self.end += record.len() as u64;
        self.tiles.insert(head.id);
        Ok(())
    }

    /// All tiles in the order of their numbers, the last word on each; and how many are absent.
    /// Sixteen bytes a tile: the one list of all that there is.
    pub(super) fn sorted(&self) -> Result<(Vec<Placed>, u64), ArchiveError> {
        const ABSENT: u64 = u64::MAX;
        let mut tiles: Vec<Placed> = Vec::new();
        let mut at = self.start;
        while at < self.end {
            let head = self.head(at)?;
            let body = match head.kind {
                Kind::Body => at,
                Kind::Same => head.body,
                Kind::Absent => ABSENT,
            };
            tiles.push(Placed { id: head.id, body });
            at += head.record();
        }
        // Stable: of two records of one tile, the later one stays the later one.
        tiles.sort_by_key(|tile| tile.id);
        tiles.dedup_by(|later, earlier| {
            let same = later.id == earlier.id;
            if same {
                *earlier = *later;
            }
            same
        });
        let all = tiles.len();
        tiles.retain(|tile| tile.body != ABSENT);
        let absent = (all - tiles.len()) as u64;
        Ok((tiles, absent))
    }

    /// A body, by the place of its record; compared with its hash once more.
    pub(super) fn body(&self, at: u64) -> Result<Bytes, ArchiveError> {
        let head = self.head(at)?;
        let body = self.read(at + HEAD as u64, head.length as usize)?;
        if head.kind != Kind::Body || XxHash3_64::oneshot(&body) != head.body {
            return Err(self.rotten());
        }
        Ok(body.into())
    }

    fn head(&self, at: u64) -> Result<Head, ArchiveError> {
        let bytes = self.read(at, HEAD)?;
        let head = <&[u8; HEAD]>::try_from(bytes.as_slice()).ok();
        head.and_then(|head| Head::decode(head, at))
            .ok_or_else(|| self.rotten())
    }

    fn rotten(&self) -> ArchiveError {
        let said =
            "it does not hold what was written to it: check the disk, and go on with --resume";
        ArchiveError::content(&self.path, said)
    }

    fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(ArchiveError::io(&self.path, "read it"))?;
        Ok(bytes)
    }
}

/// Magic, and the label as a line.
fn first_bytes(label: &str) -> Vec<u8> {
    let line = label.replace(['\n', '\r'], " ");
    [MAGIC.as_slice(), line.as_bytes(), b"\n"].concat()
}
