//! The `tilekeep` program: an allocator, and the command line.

use std::process::ExitCode;

/// Tiles of all sizes come and go on many threads: the system's allocators fragment under that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tilekeep::cli::run()
}
