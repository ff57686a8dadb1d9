//! Why an archive cannot be read or written: each names the file, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// A failure.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("{}: cannot {doing}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The ending is no archive's.
    #[error("{}: an archive's name ends in .pmtiles or .mbtiles; tiles as files lie in a folder of z/x/y.png", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// Built without SQLite.
    #[error("{}: this tilekeep was built without MBTiles: build it with the feature `mbtiles`, or convert the file with `pmtiles convert`", path.display())]
    NoMbtiles {
        /// The file.
        path: PathBuf,
    },
    /// What is there is no archive that can be read, or an entry of it is wrong.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is an unfinished export beside the output, and it is not to be gone on with.
    #[error("{}: an export was begun here and not finished: go on with it (--resume), or remove this file", path.display())]
    Begun {
        /// The unfinished export's file.
        path: PathBuf,
    },
    /// The unfinished export is of something else.
    #[error("{}: an unfinished export of {theirs}, and this is one of {ours}: remove the file, or choose another output", path.display())]
    OtherExport {
        /// The unfinished export's file.
        path: PathBuf,
        /// Of what it is.
        theirs: String,
        /// What is asked for.
        ours: String,
    },
    /// Another process writes to the same output.
    #[error("{}: another process is writing it", path.display())]
    Busy {
        /// The unfinished export's file.
        path: PathBuf,
    },
    /// Nothing to write.
    #[error("{}: not written: there was no tile to put into it", path.display())]
    Empty {
        /// The output.
        path: PathBuf,
    },
}

impl ArchiveError {
    /// For `map_err`: the file system's refusal of something.
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "errors and texts of many kinds, made for this"
    )]
    pub(super) fn content(path: &Path, what: impl ToString) -> Self {
        Self::Content {
            path: path.to_owned(),
            what: what.to_string(),
        }
    }

    pub(super) fn unknown_kind(path: &Path) -> Self {
        Self::UnknownKind {
            path: path.to_owned(),
        }
    }

    #[cfg(not(feature = "mbtiles"))]
    pub(super) fn no_mbtiles(path: &Path) -> Self {
        Self::NoMbtiles {
            path: path.to_owned(),
        }
    }

    /// Whether there is no room: freeing some and going on is worth trying.
    pub fn is_out_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

fn remedy(source: &io::Error) -> &'static str {
    use io::ErrorKind::{
        NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match source.kind() {
        StorageFull | QuotaExceeded => {
            ": free some room and go on with --resume; what was fetched is kept"
        }
        ReadOnlyFilesystem => ": the file system is read-only, choose another folder",
        PermissionDenied => ": check the owner and mode of the file and of its folder",
        NotFound => ": check the path",
        _ => "",
    }
}
