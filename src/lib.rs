//! Tilekeep: a caching map-tile server for private S3 buckets.

pub mod app;
pub mod auth;
pub mod aws;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod log;
pub mod metrics;
pub mod origin;
pub mod shutdown;
pub mod tile;
