//! `tilekeep demo`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, block_on};
use crate::{app, log};

/// Try it: everything on this machine, nothing to configure.
///
/// Starts an S3 server of its own with a private bucket of sample maps, and the real tile server in front of it,
/// with both caches. Prints the address of a map page and the log-in (demo / demo). Ctrl-C stops it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep demo
  tilekeep demo --listen 127.0.0.1:8000 --admin-listen 127.0.0.1:9000
  tilekeep demo --data-dir ./demo-cache      then again: tiles come from disk

The password is known to everyone, so the demo listens on this machine alone. To let others in,
see `tilekeep serve --help`.")]
pub(super) struct DemoArgs {
    /// Where browsers reach the map; a loopback address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = loopback)]
    listen: SocketAddr,

    /// Where metrics and health are; a loopback address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = loopback)]
    admin_listen: SocketAddr,

    /// Keep the cache here between runs. Without it a temporary folder is used, and removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(super) fn run(args: DemoArgs) -> Result<(), Failure> {
    if args.listen == args.admin_listen && args.listen.port() != 0 {
        return Err(Failure::Usage(
            "--listen and --admin-listen are one address: give one of them another port".to_owned(),
        ));
    }
    log::init()?;
    let options = app::DemoOptions {
        listen: args.listen,
        admin_listen: args.admin_listen,
        data_dir: args.data_dir,
    };
    block_on(app::demo(options))?.map_err(|error| failed(&error))
}

/// The demo has no configuration whose keys an error could name: it has flags.
fn failed(error: &app::AppError) -> Failure {
    if let app::AppError::Listen {
        key,
        address,
        source,
    } = error
    {
        let flag = key.replace('_', "-");
        return Failure::Failed(format!(
            "{address}: {source}; is another process listening there? --{flag} chooses another address"
        ));
    }
    Failure::failed(error)
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        "write an IP address and a port, like 127.0.0.1:8080 or [::1]:8080".to_owned()
    })?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(
        "that is not a loopback address: everyone knows the demo's password, so it listens on this machine \
         alone (127.0.0.1 or [::1]); `tilekeep serve` is for letting others in"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_with_the_flag_for_another() {
        let error = app::AppError::Listen {
            key: "admin_listen",
            address: "127.0.0.1:9090".parse().unwrap(),
            source: std::io::Error::other("taken"),
        };
        let Failure::Failed(said) = failed(&error) else {
            panic!("wrong usage");
        };
        assert_eq!(
            said,
            "127.0.0.1:9090: taken; is another process listening there? --admin-listen chooses another address"
        );
    }

    #[test]
    fn only_this_machine_is_listened_to() {
        assert!(loopback("127.0.0.1:8080").is_ok());
        assert!(loopback("[::1]:0").is_ok());
        for refused in [
            "0.0.0.0:8080",
            "192.168.1.5:8080",
            "[::]:8080",
            "localhost:8080",
            "8080",
        ] {
            assert!(loopback(refused).is_err(), "{refused}");
        }
    }
}
