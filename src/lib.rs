//! Tilekeep: a caching map-tile server for private S3 buckets.

pub mod aws;
pub mod cache;
pub mod clock;
#[cfg(feature = "demo")]
pub mod embedded_s3;
pub mod origin;
pub mod tile;
