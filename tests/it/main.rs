//! The one integration binary: a module a theme.
#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test, as the test itself does"
)]

#[cfg(feature = "demo")]
mod embedded_s3;
#[cfg(feature = "demo")]
mod embedded_sts;
#[cfg(feature = "demo")]
mod origin_contract;
#[cfg(feature = "demo")]
mod origin_s3;
