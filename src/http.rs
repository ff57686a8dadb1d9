//! HTTP: the accept loop, the public side, the admin side. Status codes appear here and nowhere else.
//!
//! Invariant: every answer goes through one of two doors, [`public::PublicSide`] or the admin router, and every
//! refusal is made by [`problem::HttpError`].

pub mod admin;
pub mod assets;
pub mod background;
pub mod body;
pub(crate) mod cache_control;
mod cache_status;
mod cached;
pub mod cloudfront;
pub(crate) mod conditional;
pub mod cores;
pub mod cors;
mod credentials;
mod dashboard;
mod dozing;
pub(crate) mod encoding;
mod exchange;
mod explain;
pub(crate) mod forwarded;
pub mod front;
pub mod handling;
mod header_text;
mod helper_error;
pub mod oidc;
pub mod outbound;
pub mod pages;
pub mod places;
pub mod plain;
pub mod problem;
pub mod public;
pub mod purge;
mod quota;
pub mod reply;
pub mod request_head;
pub mod route;
pub mod server;
mod session;
mod shield;
mod sign;
pub mod site;
mod tile_answer;
mod tile_head;
mod tile_request;
mod timed_io;
mod unauthorized;
pub mod version;
