//! Tilekeep: a caching map-tile server for private S3 buckets.

pub mod auth;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod log;
pub mod origin;
pub mod tile;
