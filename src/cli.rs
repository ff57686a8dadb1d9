//! The command line: one file a command; a command reads its arguments, calls what does the work, and prints.
//!
//! Invariant: exit code 0 is done, 1 finished with failures, 2 wrong usage or config. Results go to stdout,
//! everything else to stderr, in colour on a terminal alone, and never with a secret.

mod admin;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod iam_policy;
mod loadtest;
mod prefetch;
mod prompt;
mod publish;
mod purge;
mod serve;
mod tile_list;
mod token;
mod urls;
mod user;

use std::error::Error;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::ServerUrl;
use crate::config::ConfigProblems;
use crate::log::{LogError, colour_on_stderr};
use crate::tile::Bounds;

/// A caching map-tile server for private S3 buckets.
///
/// One URL per tile for ever, a session cookie instead of signed links, and answers from memory or disk.
#[derive(Debug, Parser)]
#[command(
    name = "tilekeep",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[cfg(feature = "demo")]
const AFTER_HELP: &str = "\
Start here:
  tilekeep demo                              a map in the browser, with nothing to configure
  tilekeep doctor --config tilekeep.toml     is everything right with bucket, role and keys?
  tilekeep serve --config tilekeep.toml      your own bucket

Exit codes: 0 done, 1 finished with failures, 2 wrong usage or config.
TILEKEEP_LOG sets what is logged: warn, info (default), debug, or tilekeep::cache=debug.";
#[cfg(not(feature = "demo"))]
const AFTER_HELP: &str = "\
Start here:
  tilekeep doctor --config tilekeep.toml     is everything right with bucket, role and keys?
  tilekeep serve --config tilekeep.toml      your own bucket

Exit codes: 0 done, 1 finished with failures, 2 wrong usage or config.
TILEKEEP_LOG sets what is logged: warn, info (default), debug, or tilekeep::cache=debug.";

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    Serve(serve::ServeArgs),
    Doctor(doctor::DoctorArgs),
    IamPolicy(iam_policy::IamPolicyArgs),
    #[command(subcommand)]
    Token(token::TokenCommand),
    #[command(subcommand)]
    User(user::UserCommand),
    Prefetch(Box<prefetch::PrefetchArgs>),
    Loadtest(Box<loadtest::LoadtestArgs>),
    Urls(Box<urls::UrlsArgs>),
    Publish(publish::PublishArgs),
    Purge(purge::PurgeArgs),
}

/// The one argument that most commands share.
#[derive(Debug, Args)]
struct ConfigArg {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        env = "TILEKEEP_CONFIG",
        default_value = "tilekeep.toml"
    )]
    config: PathBuf,
}

/// What a person or a token may be allowed to do.
const SCOPES: [&str; 4] = ["tiles", "sign", "credentials", "explain"];

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// It was asked in a way that makes no sense.
    Usage(String),
    /// The configuration is wrong.
    Config(ConfigProblems),
    /// It was tried, and did not work out.
    Failed(String),
}

impl Failure {
    /// An error with all of its causes, in one line.
    fn failed(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // Many errors repeat their cause already.
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        Self::Failed(text)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Failed(_) => 1,
        }
    }

    fn print(&self) {
        let (bold_red, plain) = if colour_on_stderr() {
            ("\u{1b}[1;31m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        let mut err = io::stderr().lock();
        // Where stderr is gone, the exit code still tells.
        let _ = match self {
            Self::Usage(text) | Self::Failed(text) => {
                writeln!(err, "{bold_red}error:{plain} {text}")
            }
            Self::Config(problems) => {
                let count = problems.problems().len();
                let what = if count == 1 { "problem" } else { "problems" };
                let file = problems.file();
                writeln!(
                    err,
                    "{problems}\n{bold_red}error:{plain} {count} {what} in {file}"
                )
            }
        };
    }
}

impl From<ConfigProblems> for Failure {
    fn from(problems: ConfigProblems) -> Self {
        Self::Config(problems)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Reads the process's arguments, does what they say, and tells how it went.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args),
        Command::Doctor(args) => doctor::run(&args),
        Command::IamPolicy(args) => iam_policy::run(args),
        Command::Publish(args) => publish::run(&args),
        Command::Prefetch(args) => prefetch::run(*args),
        Command::Loadtest(args) => loadtest::run(*args),
        Command::Purge(args) => purge::run(args),
        Command::Serve(args) => serve::run(&args),
        Command::Token(command) => token::run(&command),
        Command::Urls(args) => urls::run(*args),
        Command::User(command) => user::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

/// Prints a result. A reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Tells whom a secret would be shown to, before it goes there.
fn warn_of(url: &ServerUrl) {
    if let Some(warning) = url.warning() {
        eprintln!("warning: {warning}");
    }
}

/// Reads `west,south,east,north`.
fn bounds(text: &str) -> Result<Bounds, String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    let four: [f64; 4] = numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or("write four numbers: west,south,east,north, like 5.8,45.8,10.6,47.9")?;
    Bounds::new(four).map_err(|error| error.to_string())
}

/// Runs a command's work on a runtime of its own. A disk read that hangs does not hold up the end.
fn block_on<F: Future>(work: F) -> Result<F::Output, Failure> {
    block_on_with(work, || {})
}

/// The same, on threads that begin with this.
fn block_on_with<F: Future>(
    work: F,
    first: impl Fn() + Send + Sync + 'static,
) -> Result<F::Output, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(first)
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime did not start: {error}")))?;
    let output = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(output)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_is_explained() {
        fn explained(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(
                    arg.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(explained);
        }
        explained(&Cli::command());
    }

    #[test]
    fn a_failure_tells_its_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the disk tier did not open")]
        struct Outer(#[source] io::Error);
        let Failure::Failed(text) = Failure::failed(&Outer(io::Error::other("no room"))) else {
            panic!("a failure");
        };
        assert_eq!(text, "the disk tier did not open: no room");
    }
}
