//! The public HTTP side.

pub mod assets;
pub mod pages;
