//! Sessions that were ended before their time.
//!
//! Invariant: from the moment [`Revocations::end`] has begun, no new request passes with an ended
//! session, whatever becomes of the file. With a file, it stays so across restarts. An entry goes
//! when no token of its family can be valid any more. Nothing is forgotten for want of room: a full
//! table refuses, and says so.
//!
//! The hot path asks one atomic number: every ending moves the epoch on, and a session remembers
//! the epoch in which it was last found clear.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::revocation_file::RevocationFile;
use super::{RevocationId, Session};
use crate::clock::Timestamp;

/// Most entries kept: about 50 MB of memory, and as much of disk.
const MAX_ENTRIES: usize = 1_000_000;
/// What [`Revocations::end_many`] leaves free, one part in so many: whoever fills the table from elsewhere must
/// not keep people here from logging out.
const RESERVE: usize = 4;

const SECOND: Duration = Duration::from_secs(1);

/// Why a session could not be ended for good.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// It is refused from now on, but could come back after a restart.
    #[error("the ended session was not written to {}: {source}", path.display())]
    NotWritten {
        /// The revocations file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The server is stopping; it was perhaps not ended.
    #[error("the server is stopping; the session was perhaps not ended")]
    Stopping,
    /// It was not ended: there are too many already.
    #[error("{MAX_ENTRIES} sessions are ended and not yet expired; no more are kept")]
    Full,
}

/// Why the file of ended sessions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// Reading, creating or locking it failed.
    #[error("revocations file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another server has it.
    #[error(
        "revocations file {}: another server is using it: give each a copy of the users file in a folder of its own, \
         or stop the other one",
        .0.display()
    )]
    InUse(PathBuf),
    /// Some other file.
    #[error("revocations file {}: this is no revocations file; it is left as it is", .0.display())]
    NotOurs(PathBuf),
}

#[derive(Clone, Copy)]
struct Entry {
    until: Timestamp,
    written: bool,
}

/// What became of sessions that were ended elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndedMany {
    /// Not known here before, or not until as late; refused from now on.
    pub new: usize,
    /// Not ended here: the table has no room for more from elsewhere.
    pub full: usize,
}

/// What was ended, in memory and, with a path, in a file.
pub struct Revocations {
    /// Moved on by every ending, after the entry is in. Begins at 1; a session begins at 0.
    epoch: AtomicU64,
    entries: RwLock<HashMap<RevocationId, Entry>>,
    /// Held by whoever ends something; never by a request for a tile.
    file: Mutex<Option<RevocationFile>>,
    capacity: usize,
}

impl Revocations {
    /// In memory alone, or with the file at `path`, which is created where there is none.
    /// Reads and locks it: blocking.
    pub fn open(path: Option<&Path>, now: Timestamp) -> Result<Self, RevocationsError> {
        let (file, entries) = match path {
            Some(path) => {
                let (file, entries) = RevocationFile::open(path, now)?;
                (Some(file), entries)
            }
            None => (None, HashMap::new()),
        };
        let written = |(id, until)| {
            let written = true;
            (id, Entry { until, written })
        };
        Ok(Self {
            epoch: AtomicU64::new(1),
            entries: RwLock::new(entries.into_iter().map(written).collect()),
            file: Mutex::new(file),
            capacity: MAX_ENTRIES,
        })
    }

    /// Whether the session was ended. One atomic load unless something was ended since this session
    /// was last looked up.
    pub fn has_ended(&self, session: &Session) -> bool {
        // Acquire: whoever sees the epoch sees the entries that moved it.
        let epoch = self.epoch.load(Ordering::Acquire);
        if session.clear_in.load(Ordering::Relaxed) == epoch {
            return false;
        }
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let ended = entries.contains_key(&session.revocation_id());
        if !ended {
            // The epoch loaded before looking: an entry that came since moves it once more.
            session.clear_in.store(epoch, Ordering::Relaxed);
        }
        ended
    }

    /// Ends what `id` names until `until`, when the last token of its family has expired. Writes to
    /// the file and waits for the disk: blocking. On [`EndError::NotWritten`] it has been ended
    /// here all the same, and may be tried again.
    pub fn end(&self, id: RevocationId, until: Timestamp, now: Timestamp) -> Result<(), EndError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            match entries.get(&id) {
                Some(known) if known.written && known.until >= until => return Ok(()),
                None if entries.len() >= self.capacity => {
                    entries.retain(|_, entry| entry.until > now);
                    if entries.len() >= self.capacity {
                        return Err(EndError::Full);
                    }
                }
                Some(_) | None => {}
            }
            let entry = entries.entry(id).or_insert(Entry {
                until,
                written: file.is_none(),
            });
            if until > entry.until {
                (entry.until, entry.written) = (until, file.is_none());
            }
        }
        self.epoch.fetch_add(1, Ordering::Release);
        let Some(file) = file.as_mut() else {
            return Ok(());
        };
        self.write(file, &[(id, until)], now)
            .map_err(|source| EndError::NotWritten {
                path: file.path().to_owned(),
                source,
            })
    }

    /// Ends what was ended elsewhere: one wait for the disk for all of them. Blocking. Where the file cannot be
    /// written they are ended here all the same, and whoever told them tells them again after a restart.
    pub fn end_many(&self, endings: &[(RevocationId, Timestamp)], now: Timestamp) -> EndedMany {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = EndedMany::default();
        let mut unwritten = Vec::new();
        {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            let room = self.capacity - self.capacity / RESERVE;
            if entries.len() + endings.len() > room {
                entries.retain(|_, entry| entry.until > now);
            }
            for &(id, until) in endings {
                let known = entries.get(&id).copied();
                // Others count whole seconds: what is later by less is the same.
                let later = known.is_none_or(|known| until.since(known.until) >= SECOND);
                match known {
                    None if entries.len() >= room => {
                        ended.full += 1;
                        continue;
                    }
                    Some(known) if !later && known.written => continue,
                    _ => {}
                }
                ended.new += usize::from(later);
                let until = known.map_or(until, |known| known.until.max(until));
                let written = file.is_none();
                entries.insert(id, Entry { until, written });
                unwritten.push((id, until));
            }
        }
        if unwritten.is_empty() {
            return ended;
        }
        self.epoch.fetch_add(1, Ordering::Release);
        if let Some(file) = file.as_mut()
            && let Err(error) = self.write(file, &unwritten, now)
        {
            tracing::error!(%error, path = %file.path().display(), "sessions ended on other nodes were not written");
        }
        ended
    }

    /// Everything that is ended and not yet past.
    pub fn all(&self, now: Timestamp) -> Vec<(RevocationId, Timestamp)> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let live = entries.iter().filter(|(_, entry)| entry.until > now);
        live.map(|(id, entry)| (*id, entry.until)).collect()
    }

    /// How many entries are kept.
    pub fn len(&self) -> usize {
        let entries = self.entries.read();
        entries.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends, or, when most of the file is past, writes it anew; and remembers that these are written.
    fn write(
        &self,
        file: &mut RevocationFile,
        new: &[(RevocationId, Timestamp)],
        now: Timestamp,
    ) -> std::io::Result<()> {
        self.put_down(file, new, now)?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (id, _) in new {
            if let Some(entry) = entries.get_mut(id) {
                entry.written = true;
            }
        }
        Ok(())
    }

    fn put_down(
        &self,
        file: &mut RevocationFile,
        new: &[(RevocationId, Timestamp)],
        now: Timestamp,
    ) -> std::io::Result<()> {
        if !file.is_due_for_compaction(self.len()) {
            return file.append(new);
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.until > now);
        let live: Vec<_> = entries
            .iter()
            .map(|(id, entry)| (*id, entry.until))
            .collect();
        drop(entries);
        if file.is_due_for_compaction(live.len()) {
            file.compact(&live)
        } else {
            file.append(new)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const LATER: Timestamp = Timestamp::from_secs(2_000);

    fn session(sid: &str) -> Session {
        let mut claims = super::super::testing::claims(2_000);
        claims.sid = Some(sid.to_owned());
        Session::new(claims, "x").unwrap()
    }

    #[test]
    fn an_ended_session_is_refused_at_once_and_others_are_not() {
        let revocations = Revocations::open(None, NOW).unwrap();
        let (ada, bob) = (session("1"), session("2"));
        assert!(!revocations.has_ended(&ada) && !revocations.has_ended(&bob));
        revocations.end(ada.revocation_id(), LATER, NOW).unwrap();
        assert!(revocations.has_ended(&ada) && revocations.has_ended(&session("1")));
        assert!(!revocations.has_ended(&bob));
    }

    #[test]
    fn a_revocation_survives_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let revocations = Revocations::open(Some(&path), NOW).unwrap();
        for sid in ["1", "2"] {
            let id = session(sid).revocation_id();
            revocations.end(id, LATER, NOW).unwrap();
        }
        assert!(matches!(
            Revocations::open(Some(&path), NOW),
            Err(RevocationsError::InUse(_))
        ));
        drop(revocations);
        let reopened = Revocations::open(Some(&path), NOW).unwrap();
        assert!(reopened.has_ended(&session("1")) && reopened.has_ended(&session("2")));
        assert!(!reopened.has_ended(&session("3")));
        drop(reopened);
        let much_later = LATER + Duration::from_secs(1);
        let emptied = Revocations::open(Some(&path), much_later).unwrap();
        assert!(emptied.is_empty(), "no token of theirs can be valid");
    }

    #[test]
    fn a_failed_write_is_told_and_the_session_is_ended_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let revocations = Revocations::open(Some(&path), NOW).unwrap();
        let ada = session("1");
        revocations.file.lock().unwrap().as_mut().unwrap().fail = 1;
        assert!(matches!(
            revocations.end(ada.revocation_id(), LATER, NOW),
            Err(EndError::NotWritten { .. })
        ));
        assert!(revocations.has_ended(&ada));
        revocations.end(ada.revocation_id(), LATER, NOW).unwrap();
        drop(revocations);
        let reopened = Revocations::open(Some(&path), NOW).unwrap();
        assert!(reopened.has_ended(&ada), "the second try was written");
    }

    #[test]
    fn once_ending_has_returned_no_thread_sees_the_session() {
        let revocations = Revocations::open(None, NOW).unwrap();
        let sessions: Vec<_> = (0..200).map(|n| session(&n.to_string())).collect();
        let ended = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let before = ended.load(Ordering::Acquire);
                        for (n, session) in (0..).zip(&sessions) {
                            assert!(revocations.has_ended(session) || n >= before);
                        }
                        if before == 200 {
                            break;
                        }
                    }
                });
            }
            for session in &sessions {
                let id = session.revocation_id();
                revocations.end(id, LATER, NOW).unwrap();
                ended.fetch_add(1, Ordering::Release);
            }
        });
    }

    #[test]
    fn what_was_ended_elsewhere_is_ended_here_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let revocations = Revocations::open(Some(&path), NOW).unwrap();
        let (ada, bob) = (session("1"), session("2"));
        assert!(!revocations.has_ended(&ada) && !revocations.has_ended(&bob));
        let both = [(ada.revocation_id(), LATER), (bob.revocation_id(), LATER)];
        let ended = revocations.end_many(&both, NOW);
        assert_eq!(ended, EndedMany { new: 2, full: 0 });
        assert!(revocations.has_ended(&ada) && revocations.has_ended(&bob));
        let again = revocations.end_many(&both, NOW);
        assert_eq!(again, EndedMany::default(), "known");
        drop(revocations);
        let reopened = Revocations::open(Some(&path), NOW).unwrap();
        assert!(reopened.has_ended(&session("1")) && reopened.has_ended(&session("2")));
        assert_eq!(reopened.all(NOW).len(), 2);
        assert_eq!(reopened.all(LATER), [], "past");
    }

    #[test]
    fn an_end_that_others_know_by_whole_seconds_is_no_later_end() {
        let revocations = Revocations::open(None, NOW).unwrap();
        let id = session("1").revocation_id();
        let until = Timestamp::from_millis(1_999_001);
        revocations.end(id, until, NOW).unwrap();
        let rounded = revocations.end_many(&[(id, LATER)], NOW);
        assert_eq!((rounded.new, revocations.all(NOW)), (0, vec![(id, until)]));
        let earlier = revocations.end_many(&[(id, NOW + SECOND)], NOW);
        assert_eq!((earlier.new, revocations.all(NOW)), (0, vec![(id, until)]));
        let later = LATER + SECOND;
        assert_eq!(revocations.end_many(&[(id, later)], NOW).new, 1);
        assert_eq!(revocations.all(NOW), [(id, later)]);
    }

    #[test]
    fn a_batch_that_could_not_be_written_holds_and_is_written_when_it_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ended");
        let revocations = Revocations::open(Some(&path), NOW).unwrap();
        let ada = session("1");
        let told = [(ada.revocation_id(), LATER)];
        revocations.file.lock().unwrap().as_mut().unwrap().fail = 1;
        revocations.end_many(&told, NOW);
        assert!(revocations.has_ended(&ada));
        revocations.end_many(&told, NOW);
        drop(revocations);
        let reopened = Revocations::open(Some(&path), NOW).unwrap();
        assert!(reopened.has_ended(&ada));
    }

    #[test]
    fn others_cannot_take_the_room_for_endings_of_this_node() {
        let mut revocations = Revocations::open(None, NOW).unwrap();
        revocations.capacity = 8;
        let flood: Vec<_> = (0..20)
            .map(|n| (RevocationId::from_bits(n), LATER))
            .collect();
        let ended = revocations.end_many(&flood, NOW);
        assert_eq!(ended, EndedMany { new: 6, full: 14 });
        let ada = session("1");
        revocations.end(ada.revocation_id(), LATER, NOW).unwrap();
        assert!(revocations.has_ended(&ada));
        let more = [(RevocationId::from_bits(99), LATER + SECOND)];
        assert_eq!(
            revocations.end_many(&more, LATER).full,
            0,
            "the expired made room"
        );
    }

    #[test]
    fn a_full_table_refuses_rather_than_forgets() {
        let mut revocations = Revocations::open(None, NOW).unwrap();
        revocations.capacity = 2;
        let end = |sid, now| revocations.end(session(sid).revocation_id(), LATER, now);
        end("1", NOW).unwrap();
        end("2", NOW).unwrap();
        assert!(matches!(end("3", NOW), Err(EndError::Full)));
        assert!(revocations.has_ended(&session("1")));
        end("3", LATER).unwrap();
        assert_eq!(revocations.len(), 1, "the expired made room");
    }
}
