//! `tilekeep prefetch`: seeding a running server's caches, or writing an archive, over the URLs that maps use.
//!
//! ```text
//! coverage (tile/) -> plan -> feed -> workers -> outcome -> tally, resume file, archive
//!                                        ^ pace
//! ```
//!
//! Invariant: memory is bounded by concurrency and failures, not by tiles; the server is asked no faster than it says it
//! can take; what the resume file calls done was done, at whatever instant the process is killed.
//! Left out: tiles at double density, and following a tileset's redirects to signed URLs.

mod estimate;
mod export;
mod facts;
mod outcome;
mod pace;
mod plan;
mod pool;
mod ranges;
mod report;
mod resume;
mod run;
mod work;

pub use estimate::{Estimate, estimate};
pub use facts::{FactsError, TilesetFacts, learn, may_explain};
pub use outcome::Reason;
pub use plan::{Leg, Plan};
pub use pool::{LogIn, Pool};
pub use report::{ArchiveReport, FailedTile, Report, Tally};
pub use resume::{ResumeError, ResumeFile};
pub use run::{Mode, Runner, Settings, Stop};
