//! The integration tests: one binary, a module a theme.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, and in what helps it, a panic is the report"
)]

mod caches;
mod cli;
mod config;
mod disk;
#[cfg(feature = "demo")]
mod embedded_s3;
#[cfg(feature = "demo")]
mod embedded_sts;
mod house;
#[cfg(feature = "demo")]
mod origin_contract;
#[cfg(feature = "demo")]
mod origin_s3;
mod script;
mod sessions;
mod support;
mod tile_answers;
mod wire;
