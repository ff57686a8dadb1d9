//! Stands in for `crate::app` until it is there.

use crate::config::Config;

/// Why the server did not run.
#[derive(Debug, thiserror::Error)]
#[error("this build has no server in it")]
pub struct AppError;

/// What `tilekeep demo` was asked for.
#[cfg(feature = "demo")]
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The public side; loopback.
    pub listen: std::net::SocketAddr,
    /// The admin side; loopback.
    pub admin_listen: std::net::SocketAddr,
    /// Where the cache stays between runs; none: a temporary folder.
    pub data_dir: Option<std::path::PathBuf>,
}

#[allow(clippy::unused_async, reason = "the real one waits")]
pub async fn serve(_config: Config) -> Result<(), AppError> {
    Err(AppError)
}

#[cfg(feature = "demo")]
#[allow(clippy::unused_async, reason = "the real one waits")]
pub async fn demo(options: DemoOptions) -> Result<(), AppError> {
    let _ = (options.listen, options.admin_listen, options.data_dir);
    Err(AppError)
}
