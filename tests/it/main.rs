//! The integration tests: one binary, a module a theme.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod disk;
