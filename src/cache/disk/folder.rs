//! The folder: whose it is, and which of its files are ours.
//!
//! Invariant: no file is touched whose name is not one that this module makes, and nothing but the
//! lock file before the lock is held.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::layout::{Layout, MIN_CAPACITY};

const LOCK: &str = "tilekeep.lock";
const LEDGER: &str = "ledger.tilekeep";
const LEDGER_DRAFT: &str = "ledger-draft.tilekeep";
const SEGMENT_PREFIX: &str = "segment-";
const SEGMENT_SUFFIX: &str = ".tilekeep";

/// Why the disk tier cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DiskOpenError {
    /// The configured capacity holds too few segments to work with.
    #[error(
        "the disk cache's capacity of {capacity} bytes is too small: give it at least {} bytes, \
         or 0 to switch it off",
        MIN_CAPACITY
    )]
    CapacityTooSmall {
        /// What was configured.
        capacity: u64,
    },
    /// Another process has the folder.
    #[error(
        "the disk cache folder {} is in use by another process: give each server a folder of its own, \
         or stop the other one", .path.display()
    )]
    Held {
        /// The folder.
        path: PathBuf,
    },
    /// We may not write there.
    #[error(
        "the disk cache folder {} is not writable: give it to the user that the server runs as, \
         or choose another `disk_path`", .path.display()
    )]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody may write there.
    #[error(
        "the disk cache folder {} is on a read-only file system: choose a `disk_path` that can be written",
        .path.display()
    )]
    ReadOnly {
        /// The folder.
        path: PathBuf,
    },
    /// There is something else under that name.
    #[error(
        "the disk cache's `disk_path` {} is not a folder: name a folder, which is made if it is not there",
        .path.display()
    )]
    NotAFolder {
        /// What was configured.
        path: PathBuf,
    },
    /// Anything else.
    #[error("the disk cache folder {} cannot be used: {source}", .path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A folder that is ours alone until this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing it does that too, but not while a child that is just being started has a copy.
        flock(&self.lock, FlockOperation::Unlock).ok();
    }
}

/// A segment file as the folder lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) len: u64,
}

impl Folder {
    /// Makes the folder if need be, and takes it.
    pub(super) fn take(
        path: &Path,
        layout: Result<Layout, u64>,
    ) -> Result<(Self, Layout), DiskOpenError> {
        let layout = layout.map_err(|capacity| DiskOpenError::CapacityTooSmall { capacity })?;
        let refused = |source: io::Error| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::ReadOnlyFilesystem => DiskOpenError::ReadOnly { path },
                io::ErrorKind::PermissionDenied => DiskOpenError::NotWritable { path, source },
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    DiskOpenError::NotAFolder { path }
                }
                _ => DiskOpenError::Unusable { path, source },
            }
        };
        // The tiles are private: a folder made here is its owner's alone.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(refused)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(refused)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(DiskOpenError::Held {
                    path: path.to_owned(),
                });
            }
            Err(errno) => return Err(refused(errno.into())),
        }
        let folder = Self {
            path: path.to_owned(),
            lock,
        };
        // The lock file may have been writable for longer than the folder is.
        folder.try_out().map_err(refused)?;
        Ok((folder, layout))
    }

    fn try_out(&self) -> io::Result<()> {
        let draft = self.ledger_draft();
        File::create(&draft)?;
        fs::remove_file(draft)
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.path.join(LEDGER)
    }

    pub(super) fn ledger_draft(&self) -> PathBuf {
        self.path.join(LEDGER_DRAFT)
    }

    pub(super) fn segment(&self, id: u64) -> PathBuf {
        self.path.join(segment_name(id))
    }

    /// Our segment files, newest first.
    pub(super) fn segments(&self) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(segment_id) else {
                continue;
            };
            if let Ok(metadata) = entry.metadata()
                && metadata.is_file()
            {
                let len = metadata.len();
                found.push(Listed { id, len });
            }
        }
        found.sort_unstable_by_key(|listed| std::cmp::Reverse(listed.id));
        Ok(found)
    }
}

fn segment_name(id: u64) -> String {
    format!("{SEGMENT_PREFIX}{id:016x}{SEGMENT_SUFFIX}")
}

fn segment_id(name: &str) -> Option<u64> {
    let hex = name
        .strip_prefix(SEGMENT_PREFIX)?
        .strip_suffix(SEGMENT_SUFFIX)?;
    let id = u64::from_str_radix(hex, 16).ok()?;
    (segment_name(id) == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_ours() {
        assert_eq!(segment_id(&segment_name(0x12_3456)), Some(0x12_3456));
        for name in [
            "segment-1.tilekeep",
            "segment-00000000000000AB.tilekeep",
            "segment-+000000000000001.tilekeep",
            "segment-0000000000000001.tilekeep.bak",
            "world.mbtiles",
        ] {
            assert_eq!(segment_id(name), None, "{name}");
        }
    }
}
