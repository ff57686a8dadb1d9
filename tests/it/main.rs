//! The integration tests: one binary, a module a theme.

#![allow(
    clippy::large_futures,
    reason = "a test's stack has room for the SDK's"
)]
#![allow(
    clippy::unwrap_used,
    reason = "in a test, and in what helps it, a panic is the report"
)]

#[cfg(feature = "demo")]
mod archive_origin;
mod archives;
mod attacks;
mod caches;
mod certificate;
mod cli;
mod client;
mod cloudfront;
mod cluster;
mod config;
#[cfg(feature = "demo")]
mod credentials;
mod dashboard;
mod disk;
#[cfg(feature = "demo")]
mod doctor;
#[cfg(feature = "demo")]
mod embedded_s3;
#[cfg(feature = "demo")]
mod embedded_sts;
mod endings;
mod events;
mod hostile;
mod hot_path;
mod house;
#[cfg(feature = "demo")]
mod iam_policy;
mod issuer_keys;
mod issuers;
mod loadtest;
mod oidc;
#[cfg(feature = "demo")]
mod origin_contract;
#[cfg(feature = "demo")]
mod origin_s3;
mod peers;
mod plain;
mod prefetch;
#[cfg(feature = "demo")]
mod publish;
mod quota_simulation;
mod quotas;
#[cfg(feature = "demo")]
mod real_servers;
mod script;
#[cfg(feature = "demo")]
mod serving;
mod sessions;
#[cfg(feature = "demo")]
mod signed;
mod snippets;
#[cfg(feature = "demo")]
mod soak;
mod support;
mod tile_answers;
mod wire;
