//! `tilekeep serve`.

use clap::Args;

use super::{ConfigArg, Failure, block_on_with};
use crate::config::Config;
use crate::{app, log};

/// Serve the tilesets of a configuration file.
///
/// The configuration is checked as a whole first: every problem is reported with its line and its remedy, and
/// nothing is served until there is none. Ctrl-C or SIGTERM ends the server after open requests are answered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep serve --config tilekeep.toml
  TILEKEEP_LOG=debug tilekeep serve --config /etc/tilekeep/tilekeep.toml

A configuration with every key explained is deploy/tilekeep.example.toml in the source.
AWS credentials come from where the AWS SDK looks: environment, profile, web identity, ECS, EC2 role.")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let config = Config::load(&args.config.config)?;
    log::init()?;
    block_on_with(app::serve(config), app::give_way)?.map_err(|error| Failure::failed(&error))
}
