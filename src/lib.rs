//! Tilekeep: a caching map-tile server for private S3 buckets.

pub mod app;
pub mod auth;
pub mod aws;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "demo")]
pub mod embedded_s3;
pub mod http;
pub mod log;
pub mod metrics;
pub mod origin;
pub mod shutdown;
pub mod tile;
