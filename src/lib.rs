//! Tilekeep: a caching map-tile server for private S3 buckets.
//!
//! # The life of a tile request
//!
//! `GET /world/5/16/10.png` arrives on a connection of [`http::server`], which bounds its head, its
//! time and its number of streams, and is handed to [`http::public::PublicSide`]:
//!
//! 1. **What?** [`http::route::Route::parse`] reads the path, once, without decoding anything. What
//!    is no path of ours is 400 here.
//! 2. **Who?** [`auth::Sessions::authorize`] finds the token of the cookie (or of `Authorization`)
//!    among those verified before, and asks anew whether it has expired or was ended. Else 401.
//! 3. **May they?** [`auth::Session::permits`] compares tileset, zoom, area and scope;
//!    [`tile::Tileset::admit`] says whether the tileset can have such a tile at all. Neither asks
//!    anybody else.
//! 4. **From where?** [`cache::TileCache::lookup`] answers from what is at hand: memory, or a disk
//!    read that the page cache serves. What is stale inside its window is answered too, and
//!    revalidated behind.
//! 5. **As what?** `tile_answer::respond` makes 200, 304 or 'no such tile', with every header of the
//!    contract; most were prepared when the tile was stored.
//!
//! What is not at hand is a *fill*: a task of its own that every request for the tile joins. It looks
//! on disk, asks the [`origin`] (bounded, with a deadline, a retry budget and a circuit breaker),
//! hashes what came, puts it into memory, answers all, and queues the disk write. If the origin
//! fails, a stale copy stands in while `stale_if_error` lasts.
//!
//! [`app`] puts the parts together, and is the only module that knows them all. Arrows point one way:
//! `main → cli → app → http → {auth, cache} → origin → tile`; [`metrics`] and [`clock`] are leaves.
//! [`cluster`] carries what nodes share, and knows none of them. [`archive`] reads and writes tile archives for the
//! commands, and knows [`tile`] alone.

pub mod app;
pub mod archive;
pub mod auth;
pub mod aws;
pub mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
#[cfg(feature = "demo")]
pub mod embedded_s3;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod loadtest;
pub mod log;
pub mod metrics;
pub mod origin;
pub mod prefetch;
pub mod publish;
pub mod shutdown;
pub mod tile;
