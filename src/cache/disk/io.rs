//! The few things that the tier asks of a file, and a twin that fails on purpose.
//!
//! Invariant: all reading and writing of segments and ledger goes through [`DiskFile`], so that a
//! test can make any of it fail. Left out on purpose: any idea of what is in the files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// The tiles are private: nobody else on the machine may read them.
const OWNER_ONLY: u32 = 0o600;

/// Where file operations go.
#[derive(Debug, Clone, Default)]
pub enum DiskIo {
    /// To the operating system.
    #[default]
    System,
    /// There too, unless the test says otherwise.
    Failing(Arc<DiskFaults>),
}

/// What a test can make a disk do. All of it takes effect at the next operation.
#[derive(Debug)]
pub struct DiskFaults {
    read_errno: AtomicI32,
    write_errno: AtomicI32,
    write_room: AtomicI64,
    cold: AtomicBool,
    stalled: Mutex<bool>,
    released: Condvar,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            read_errno: AtomicI32::new(0),
            write_errno: AtomicI32::new(0),
            write_room: AtomicI64::new(i64::MAX),
            cold: AtomicBool::new(false),
            stalled: Mutex::new(false),
            released: Condvar::new(),
        }
    }
}

impl DiskFaults {
    /// Reads fail with this error number; 0: they work again.
    pub fn fail_reads(&self, errno: i32) {
        self.read_errno.store(errno, Ordering::Release);
    }

    /// Writes, and making files, fail with this error number; 0: they work again.
    pub fn fail_writes(&self, errno: i32) {
        self.write_errno.store(errno, Ordering::Release);
    }

    /// After this many more bytes the disk is full: a write stops short there, as a real one does.
    pub fn leave_room(&self, bytes: i64) {
        self.write_room.store(bytes, Ordering::Release);
    }

    /// Nothing is in the page cache: reads that must not wait find nothing.
    pub fn cold(&self, cold: bool) {
        self.cold.store(cold, Ordering::Release);
    }

    /// Reads that may wait do wait, until this is called with `false`.
    pub fn stall_reads(&self, stalled: bool) {
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = stalled;
        self.released.notify_all();
    }

    fn wait(&self) {
        let stalled = self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.released.wait_while(stalled, |stalled| *stalled));
    }

    fn check(errno: &AtomicI32) -> io::Result<()> {
        match errno.load(Ordering::Acquire) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Why a read that must not wait brought nothing.
pub(super) enum NotNow {
    /// The page cache has not all of it.
    Cold,
    /// Neither this kernel nor this file system can say, now or later.
    Unsupported,
    /// It failed.
    Failed(io::Error),
}

/// An open file.
#[derive(Debug)]
pub(super) struct DiskFile {
    file: File,
    io: DiskIo,
}

impl DiskIo {
    /// Makes a file that must not be there yet.
    pub(super) fn create(&self, path: &Path) -> io::Result<DiskFile> {
        if let Self::Failing(faults) = self {
            DiskFaults::check(&faults.write_errno)?;
            if faults.write_room.load(Ordering::Acquire) <= 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.with(
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(OWNER_ONLY),
            path,
        )
    }

    /// Opens a file that is there.
    pub(super) fn open(&self, path: &Path) -> io::Result<DiskFile> {
        if let Self::Failing(faults) = self {
            DiskFaults::check(&faults.read_errno)?;
        }
        self.with(OpenOptions::new().read(true).write(true), path)
    }

    fn with(&self, options: &OpenOptions, path: &Path) -> io::Result<DiskFile> {
        Ok(DiskFile {
            file: options.open(path)?,
            io: self.clone(),
        })
    }
}

impl DiskFile {
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills the buffer from there, waiting for the disk as long as it takes.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if let DiskIo::Failing(faults) = &self.io {
            faults.wait();
            DiskFaults::check(&faults.read_errno)?;
        }
        self.file.read_exact_at(buffer, offset)
    }

    /// Fills the buffer from the page cache, or not at all.
    #[cfg(target_os = "linux")]
    pub(super) fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), NotNow> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        if let DiskIo::Failing(faults) = &self.io {
            if faults.cold.load(Ordering::Acquire) {
                return Err(NotNow::Cold);
            }
            DiskFaults::check(&faults.read_errno).map_err(NotNow::Failed)?;
        }
        let len = buffer.len();
        let mut buffers = [io::IoSliceMut::new(buffer)];
        match preadv2(&self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == len => Ok(()),
            // The rest is on the disk, or nowhere: a read that waits can tell.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(NotNow::Cold),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Err(NotNow::Unsupported),
            Err(errno) => Err(NotNow::Failed(errno.into())),
        }
    }

    /// Elsewhere there is no way to ask the page cache alone.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read_cached_at(&self, _: &mut [u8], _: u64) -> Result<(), NotNow> {
        Err(NotNow::Unsupported)
    }

    /// Writes all of it there. After an error any part of it may be there.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if let DiskIo::Failing(faults) = &self.io {
            DiskFaults::check(&faults.write_errno)?;
            let wanted = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            let room = faults.write_room.load(Ordering::Acquire);
            if room < wanted {
                let part = usize::try_from(room).unwrap_or(0);
                self.file.write_all_at(&bytes[..part], offset)?;
                faults.write_room.store(0, Ordering::Release);
                return Err(io::ErrorKind::StorageFull.into());
            }
            if room != i64::MAX {
                faults.write_room.fetch_sub(wanted, Ordering::AcqRel);
            }
        }
        self.file.write_all_at(bytes, offset)
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    /// A second handle, to sync without holding a lock.
    pub(super) fn sync_handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}
