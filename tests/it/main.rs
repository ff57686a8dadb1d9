//! The one integration binary: a module a theme.

mod origin_contract;
mod origin_s3;
