//! The program under test.

use std::env;
use std::path::PathBuf;

/// The binary that Cargo built for this bench, or the one that `TILEKEEP_BIN` names: another build, to compare it.
pub fn tilekeep() -> PathBuf {
    env::var_os("TILEKEEP_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tilekeep").into(), PathBuf::from)
}
