//! The disk tier's folder: writable, and with room. The lock in it is a running server's and is left
//! alone, so that the doctor runs beside it.

use std::io::{self, Write as _};
use std::path::Path;

use super::{Check, Finding};

/// What the probe file is called at first; the rest of its name is random.
const PROBE: &str = "tilekeep-doctor-probe-";
/// Less room than this is none.
const LEAST: u64 = 64 << 20;

/// Tries the folder out; `None`: the disk tier is off.
pub(super) fn finding(disk: Option<(&Path, u64)>) -> Finding {
    const CHECK: Check = Check::CacheFolder;
    let Some((path, capacity)) = disk else {
        return Finding::skipped(CHECK, "the disk tier is off: `disk` in [cache] is \"0\"");
    };
    let shown = path.display();
    // The server makes it; the doctor leaves no folder behind.
    let here = |folder: &'_ Path| folder.as_os_str().is_empty();
    let mut folders = path.ancestors();
    let there = folders.find(|folder| here(folder) || folder.exists());
    // The folder that a relative path starts at is written as nothing.
    let there = there.map(|folder| if here(folder) { Path::new(".") } else { folder });
    let Some(there) = there else {
        let remedy = "in [cache], name a `disk_path` on a disk of this machine";
        return Finding::failed(CHECK, format!("{shown}: no part of it is there"), remedy);
    };
    if !there.is_dir() {
        let reason = format!("{}: is not a folder", there.display());
        let remedy = "in [cache], name a folder in `disk_path`, which is made if it is not there";
        return Finding::failed(CHECK, reason, remedy);
    }
    if let Err(error) = probe(there) {
        return unwritable(there, &error);
    }
    let held = held(path);
    let made = if there == path {
        ""
    } else {
        " (it is made at the start)"
    };
    let free = match rustix::fs::statvfs(there) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            let reason = format!("{shown}: writable; how much room it has cannot be told: {error}");
            return Finding::ok(CHECK, reason);
        }
    };
    let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
    let (room, wanted) = (free.saturating_add(held), capacity);
    let reason = format!(
        "{shown}: writable{made}, room for {} of the {} in `disk`{}",
        size(room.min(wanted)),
        size(wanted),
        if held > 0 {
            format!(", {} of it taken by the cache already", size(held))
        } else {
            String::new()
        }
    );
    if room >= wanted {
        return Finding::ok(CHECK, reason);
    }
    let remedy = format!(
        "free some space, choose another disk in `disk_path`, or set `disk` in [cache] to {} or less",
        size(room / 10 * 9)
    );
    if room < LEAST {
        Finding::failed(CHECK, reason, remedy)
    } else {
        Finding::warning(CHECK, reason, remedy)
    }
}

/// Writes a file, reads its length back, and removes it.
fn probe(folder: &Path) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(PROBE).tempfile_in(folder)?;
    file.write_all(&[0; 4096])?;
    file.as_file().sync_data()?;
    file.close()
}

/// Bytes that the cache's own files take now.
fn held(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.ends_with(".tilekeep"))
    });
    ours.filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn unwritable(folder: &Path, error: &io::Error) -> Finding {
    const CHECK: Check = Check::CacheFolder;
    let shown = folder.display();
    let reason = format!("{shown}: no file can be written there: {error}");
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "give it to the user that the server runs as (chown USER {shown}), or name another `disk_path` in [cache]; \
             and run the doctor as that user"
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            "it is mounted read-only: in [cache], name a `disk_path` on a volume that can be written".to_owned()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, or name a `disk_path` on another one in [cache]".to_owned()
        }
        _ => "in [cache], name another `disk_path`".to_owned(),
    };
    Finding::failed(CHECK, reason, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::doctor::Status;

    #[test]
    fn a_folder_that_can_be_written_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache/tiles");
        let found = finding(Some((&path, 1 << 20)));
        assert_eq!(found.status, Status::Ok, "{found:?}");
        assert!(!path.exists() && folder.path().read_dir().unwrap().next().is_none());
    }

    #[test]
    fn what_the_cache_holds_is_room_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ledger.tilekeep"), [0; 1000]).unwrap();
        assert_eq!(held(folder.path()), 1000);
    }

    #[test]
    fn more_than_there_is_room_for_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let found = finding(Some((folder.path(), u64::MAX)));
        assert_eq!(found.status, Status::Warning, "{found:?}");
        assert!(found.remedy.unwrap().contains("`disk`"));
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let found = finding(Some((file.path(), 1 << 20)));
        assert_eq!(found.status, Status::Failed);
        assert!(found.reason.contains("not a folder"));
        let found = finding(Some((&file.path().join("below"), 1 << 20)));
        assert_eq!(found.status, Status::Failed);
    }

    #[test]
    fn nobody_writes_to_a_read_only_folder() {
        let found = unwritable(Path::new("/c"), &io::ErrorKind::PermissionDenied.into());
        assert!(found.remedy.unwrap().contains("chown USER /c"));
        let found = unwritable(Path::new("/c"), &io::ErrorKind::ReadOnlyFilesystem.into());
        assert!(found.remedy.unwrap().contains("read-only"));
    }
}
