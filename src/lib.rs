//! Tilekeep: a caching map-tile server for private S3 buckets.

pub mod http;
