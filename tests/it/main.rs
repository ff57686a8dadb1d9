//! The one integration binary: a module a theme.

mod embedded_s3;
mod origin_contract;
mod origin_s3;
